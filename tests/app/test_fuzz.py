"""Garbage on every route of both listeners, over raw sockets: an answer each time, never a 5xx."""

import re
import socket
from collections import Counter
from collections.abc import Iterator

import pytest

from f1vote import ballot
from tests.app.servers import COOKIE, DEADLINE, App, ask

PATHS = [
    *(b"/", b"/canary", b"/nope", b"/privacy", b"/api", b"/version", b"/static/x"),
    *(b"/canary/vote", b"/canary/withdraw", b"/canary/code", b"/canary/receipt?code=%00"),
    *(b"/canary/receipt?code=7K2M9QXT4WPDR", b"/canary/qr.svg", b"/canary/card.fr.png"),
    *(b"/api/openapi.json", b"/api/polls", b"/api/polls/canary", b"/api/polls/canary/results"),
    *(b"/api/polls/canary/vote", b"/api/polls/canary/withdraw", b"/api/polls/canary/receipts/x"),
    *(b"/api/polls/nope/events", b"/healthz", b"/readyz", b"/metrics"),
    *(b"/admin", b"/admin/", b"/admin/log", b"/admin/canary", b"/admin/canary/votes.csv"),
]
URLS = [
    *(b"*", b"", b"//", b"///x", b"http://", b"http://x/canary", b"x:80", b"?x", b"/canary#x"),
    *(b"/%00", b"/%ff%fe", b"/%", b"/%zz", b"/\xff", b"/..%2f..%2fetc/passwd", b"/static/%00"),
    *(b"/canary?lang=%ff", b"/canary?lang=fr&lang=en", b"/canary?code=%00%ff", b"/canary/vote;x"),
    *(b"/canary/receipt?code=%c4%b0", b"/canary/receipt?code=\xc3\xa9", b"/api/polls/%00"),
    *(b"/api/polls//vote", b"/api/polls/canary/receipts/" + b"%F0%9F%98%80" * 3),
    *(b"/?" + b"a&" * 3000, b"/" + b"a" * 7000, b"/" + b"a" * 9000),
]
METHODS = [
    *(b"GET", b"POST", b"HEAD", b"PUT", b"DELETE", b"OPTIONS", b"TRACE", b"CONNECT", b"PATCH"),
    *(b"get", b"NONE", b"FOO", b"G\xff", b""),
]
HEADERS = [
    *(b"", b"Host: \xff\xfe", b"Host: a\x00b", b"Host: [::", b"Host: x:99999999", b"nonsense"),
    *(b": x", b"Host: x\r\nHost: y", b"Host: x\r\n folded: x", b"X: " + b"y" * 9000),
    b"Cookie: __Host-f1vote=\xff\xfe; =; a=b; ;;;",
    b'Cookie: "\\"',
    b'Cookie: __Host-f1code-canary=%00"; __Host-f1vote="x"; f1admin=\xff',
    *(b"Accept-Language: \xff;q=zz,,;", b"Accept: \xff,;q=9;;,*/*;q=nan", b"Last-Event-ID: \xff"),
    *(b"X-Forwarded-For: ,,,\xff", b"X-Forwarded-Proto: \xff", b'X-Request-Id: \xff"}{'),
    *(b"Origin: \xff", b"Sec-Fetch-Site: \xff", b"If-None-Match: \xff"),
    *(b"Expect: 100-continue", b"Expect: x\r\nContent-Length: 0"),
    b"Upgrade: websocket\r\nConnection: Upgrade",
    *(b"Authorization: Basic \xff", b"Authorization: Bearer \xc3\xa9"),
]
JSON = [
    *(b"", b"{", b"[]", b"null", b"1", b'"x"', b"\xff", b"[" * 4000, b'{"a":' * 1500),
    *(b'{"choices":["A1\x00"]}', b'{"choices":["A1","A1"]}', b'{"choices":["\\ud800"]}'),
    *(b'{"choices":["A>B"]}', b'{"choices":["A=B;"]}', b'{"choices":["\xc3\xa9"]}'),
    *(b'{"choices":"A1"}', b'{"choices":[1]}', b'{"choices":[["A1"]]}', b'{"choices":[1e999]}'),
    *(b'{"choices":["A1"],"work":1}', b'{"choices":["A1"],"work":"\xc3\xa9"}'),
    *(b'{"choices":["A1"],"work":"9.9.x.0-0"}', b'{"choices":["A1"],"choices":["B2"]}'),
    b'{"choices":' + b"1" * 4000 + b"}",
    b'{"choices":[' + b'"A1",' * 800 + b'"A1"]}',
    b'{"choices":["A1"]}' + b" " * 9000,
]
FORMS = [
    *(b"", b"choice", b"choice=%ff", b"choice=\xff", b"choice=%00", b"choice=%ed%a0%80"),
    *(b"&" * 4000, b"choice=A1&choice=B2", b"work=%ff&choice=A1", b"code=%ff%00"),
    *(b"token=\xff", b"token=%c3%a9", b"choice=%C4%B0", b"first=A1&second=A1&third=A1"),
]
PART = b'--x\r\nContent-Disposition: form-data; name="choice"'
MULTIPART = [
    *(b"", b"--x\r\n\r\n--x--", b"--x\r\n:\r\n\r\n", b"\xff" * 100),
    PART + b"\r\n\r\nA1\r\n--x--\r\n",
    PART + b'; filename="a"\r\n\r\nA1\r\n--x--\r\n',
    PART + b"\r\nContent-Type: text/plain; charset=nope\r\n\r\n\xff\r\n--x--\r\n",
    b"--x\r\nContent-Disposition: form-data; name*=utf-8''%ff\r\n\r\n\xff\r\n--x--\r\n",
    b"--x\r\nContent-Disposition\r\n\r\nA\r\n--x--",
]
KINDS = [
    *(b"", b"\xff", b"application/json; charset=nope", b"text/plain", b"multipart/form-data"),
    *(b"multipart/form-data; boundary=", b"application/x-www-form-urlencoded; charset=utf-16"),
]
BODIES = [
    *((b"application/json", body) for body in JSON),
    *((b"application/x-www-form-urlencoded", body) for body in FORMS),
    *((b"multipart/form-data; boundary=x", body) for body in MULTIPART),
    *((kind, b"choice=A1") for kind in KINDS),
]
POST = b"POST /canary/vote HTTP/1.1\r\nHost: x\r\n"
WHOLE = [
    *(b"\r\n\r\n", b"\x00" * 9000, b"GET / HTTP/2\r\n\r\n", b"GET / HTTP/1.0\r\n\r\n"),
    *(b"GET /  HTTP/1.1\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 2000 + b"\r\n",
    POST + b"Content-Length: -1\r\n\r\n",
    POST + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nabcdef",
    POST + b"Content-Length: 999999999999999999999\r\n\r\n",
    POST + b"Transfer-Encoding: gzip\r\n\r\n",
    POST + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
    POST + b"Transfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n0\r\n\r\n",
    POST + b"Transfer-Encoding: chunked\r\n\r\nffffffffffff\r\nabc",
]


@pytest.fixture(scope="module")
def target(redis_server, tmp_path_factory):
    folder = tmp_path_factory.mktemp("fuzz")
    (folder / "token").write_text("a token of the tests, 32 bytes or more")
    app = App(
        folder, redis_server.url, F1_PROXIES="1", F1_CHALLENGE="never",
        F1_ADMIN_TOKEN_FILE=str(folder / "token"),
    )  # fmt: skip
    yield app
    app.stop()


def request(method: bytes, url: bytes, headers: bytes = b"Host: x", body: bytes = b"") -> bytes:
    return b"%b %b HTTP/1.1\r\n%b\r\n\r\n%b" % (method, url, headers, body)


def garbage(app: App) -> Iterator[bytes]:
    _, value = ballot.issue((app.key,))
    yield from WHOLE
    for url in (*PATHS, *URLS):
        yield from (request(method, url) for method in METHODS)
    for path in PATHS:
        for headers in HEADERS:
            yield request(b"GET", path, headers)
            yield request(b"POST", path, headers)
        for kind, body in BODIES:
            headers = b"Host: x\r\nCookie: %b=%b\r\nContent-Type: %b\r\nContent-Length: %d" % (
                COOKIE.encode(), value.encode(), kind, len(body),
            )  # fmt: skip
            yield request(b"POST", path, headers, body)


def status(port: int, sent: bytes) -> int:
    """Return the final status of the answer."""
    said = b""
    with socket.create_connection(("127.0.0.1", port), DEADLINE) as connection:
        connection.sendall(sent)
        while not (found := re.findall(rb"^HTTP/1\.1 ([2-5]\d\d) [^\r]*\r\n", said, re.MULTILINE)):
            more = connection.recv(65536)
            assert more, f"no answer to {sent[:200]!r}"
            said += more
    return int(found[0])


@pytest.mark.parametrize("listener", ["voters", "operators"])
def test_every_garbage_gets_an_answer_and_none_is_our_fault(target, listener):
    port = target.port if listener == "voters" else target.ops_port
    seen: Counter[int] = Counter()
    for sent in garbage(target):
        answer = status(port, sent)
        assert answer < 500, sent[:300]
        seen[answer] += 1
    assert {200, 400, 404, 405, 413} <= seen.keys()
    assert sum(seen.values()) > 2500
    said = target.log.read_text()
    assert '"level":"error"' not in said
    assert "Traceback" not in said


def test_half_a_request_does_not_hold_the_others(target):
    halves = [b"GET / HTTP/1.1", POST + b"Content-Length: 10\r\n\r\nabc", b"\x16\x03\x01\x02\x00"]
    open_ = [socket.create_connection(("127.0.0.1", target.port), DEADLINE) for _ in halves]
    for connection, half in zip(open_, halves, strict=True):
        connection.sendall(half)
    assert ask("GET", f"{target.url}/canary").status_code == 200
    for connection in open_:
        connection.close()
    assert ask("GET", f"{target.url}/canary").status_code == 200
