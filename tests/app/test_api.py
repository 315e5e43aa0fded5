"""The JSON API, and what every answer of the app has."""

import json
import re

import pytest

from f1vote import ballot, receipts
from tests.app.servers import COOKIE, App, ask, wait

POLL = "/api/polls/canary"


def points(app: App) -> dict[str, int]:
    answer = ask("GET", f"{app.url}{POLL}/results").json()
    assert sum(answer["points"].values()) == answer["voters"]
    return {code: n for code, n in answer["points"].items() if n}


def test_vote_change_and_withdraw(app):
    with app.browser() as voter:
        before = voter.get(POLL).json()
        assert (before["mine"], before["receipt"], before["state"]) == ([], None, "open")

        first = voter.post(f"{POLL}/vote", json={"choices": ["A1"]}).json()
        assert (first["outcome"], first["choices"], first["previous"]) == ("counted", ["A1"], [])
        again = voter.post(f"{POLL}/vote", json={"choices": ["A1"]}).json()
        assert (again["outcome"], again["previous"]) == ("same", ["A1"])
        changed = voter.post(f"{POLL}/vote", json={"choices": ["B2"]}).json()
        assert (changed["outcome"], changed["previous"]) == ("changed", ["A1"])
        assert points(app) == {"B2": 1}
        # The receipt outlives the change, and shows whoever has it what counts.
        assert first["receipt"] == changed["receipt"] == voter.get(POLL).json()["receipt"]
        shown = ask("GET", f"{app.url}{POLL}/receipts/{first['receipt'].lower()}").json()
        assert shown == {"counted": True, "choices": ["B2"]}

        gone = voter.post(f"{POLL}/withdraw", json={}).json()
        assert (gone["outcome"], gone["choices"], gone["previous"]) == ("withdrawn", [], ["B2"])
        assert points(app) == {}
        shown = ask("GET", f"{app.url}{POLL}/receipts/{first['receipt']}").json()
        assert shown == {"counted": False, "choices": []}


def test_who_votes_is_not_kept(app, redis_server):
    with app.browser() as voter:
        voter.get(POLL)
        receipt = voter.post(f"{POLL}/vote", json={"choices": ["A1"]}).json()["receipt"]
        name = voter.cookies[COOKIE].partition(".")[0]
    assert receipt == receipts.show(receipts.of("canary", name))
    keys = list(redis_server.client.scan_iter())
    hashes = [key for key in keys if redis_server.client.type(key) == "hash"]
    assert name not in str([keys, *map(redis_server.client.hgetall, hashes)])


def test_a_ranked_vote(app):
    with app.browser() as voter:
        poll = voter.get("/api/polls/champion").json()
        assert poll["points_by_place"] == [3, 2, 1]
        podium = [choice["code"] for choice in poll["choices"][:3]]
        answer = voter.post("/api/polls/champion/vote", json={"choices": podium})
        assert answer.json()["outcome"] == "counted"
        assert voter.get("/api/polls/champion").json()["mine"] == podium
        for wrong in (podium[:1] * 2, [*podium, poll["choices"][3]["code"]]):
            refused = voter.post("/api/polls/champion/vote", json={"choices": wrong})
            assert (refused.status_code, refused.json()["error"]) == (400, "unknown")


def test_standings_are_covered_until_the_rule_of_the_poll_is_met(app):
    polls = ask("GET", f"{app.url}/api/polls").json()["polls"]
    after_voting = next(poll["poll"] for poll in polls if poll["results"] == "voted")
    path = f"/api/polls/{after_voting}"
    with app.browser() as voter:
        poll = voter.get(path).json()
        assert "points" not in poll
        assert voter.get(f"{path}/results").json()["error"] == "hidden"
        code = poll["choices"][0]["code"]
        voter.post(f"{path}/vote", json={"choices": [code]})
        assert voter.get(f"{path}/results").json()["points"][code] == 1
    assert ask("GET", f"{app.url}{path}/results").status_code == 403


@pytest.mark.parametrize(
    ("body", "status", "error"),
    [
        ({"json": {"choices": ["ZZ"]}}, 400, "unknown"),
        ({"json": {"choices": ["a1"]}}, 400, "unknown"),
        ({"json": {"choices": ["A1", "B2"]}}, 400, "unknown"),
        ({"json": {"choices": ["A1>B2"]}}, 400, "unknown"),
        ({"json": {"choices": ["é"]}}, 400, "unknown"),
        ({"json": {"choices": []}}, 400, "400"),
        ({"json": {"choices": "A1"}}, 400, "400"),
        ({"json": {"choices": [1]}}, 400, "400"),
        ({"json": {"choices": ["A1"], "more": 1}}, 400, "400"),
        ({"json": {"choices": ["A1"], "work": 1}}, 400, "400"),
        ({"json": ["A1"]}, 400, "400"),
        ({"content": b"{", "headers": {"content-type": "application/json"}}, 400, "400"),
        ({"content": b"\xff", "headers": {"content-type": "application/json"}}, 400, "400"),
        ({"content": b"[" * 8000, "headers": {"content-type": "application/json"}}, 400, "400"),
        ({"content": b'{"choices":["A1"]}', "headers": {"content-type": "text/plain"}}, 415, "415"),
        ({"data": {"choices": "A1"}}, 415, "415"),
        ({"json": {"choices": ["A" * 20000]}}, 413, "413"),
    ],
)
def test_a_bad_vote_is_refused_and_not_counted(app, body, status, error):
    with app.browser() as voter:
        voter.get(POLL)
        answer = voter.post(f"{POLL}/vote", **body)
    assert (answer.status_code, answer.json()["error"]) == (status, error)
    assert points(app) == {}


def test_a_vote_needs_a_ballot_of_ours(app):
    _, ours = ballot.issue((app.key,))
    forged = ["", "x", "." * 60, "A" * 22 + "." + "0" * 32, "é" * 30, "A" * 5000]
    forged += [ours[:-1], ours[1:], "B" + ours[1:], ours.swapcase(), ours + ".", ours + "0"]
    for value in forged:
        answer = ask("POST", f"{app.url}{POLL}/vote", json={"choices": ["A1"]},
            headers=[(b"cookie", f"{COOKIE}={value}".encode())],
        )  # fmt: skip
        assert (answer.status_code, answer.json()["error"]) == (403, "ballot"), value
    assert points(app) == {}
    # Among others, and after one of another host's making, which cannot bear our name.
    cookies = f"a=b; {COOKIE.removeprefix('__Host-')}=x; {COOKIE}={ours}; c=d"
    answer = ask(
        "POST", f"{app.url}{POLL}/vote", json={"choices": ["A1"]}, headers={"cookie": cookies}
    )
    assert answer.json()["outcome"] == "counted"


def test_the_ballot_is_kept_from_scripts_and_other_sites(app):
    with app.browser() as voter:
        cookie = voter.get(POLL).headers["set-cookie"]
        assert "set-cookie" not in voter.get(POLL).headers
    assert cookie.startswith("__Host-")
    assert {"Secure", "HttpOnly", "SameSite=Lax", "Path=/"} <= set(cookie.split("; "))
    assert "domain" not in cookie.lower()


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"origin": "http://{host}"}, 200),
        ({"origin": "https://{host}"}, 200),  # TLS ends before us
        ({"sec-fetch-site": "same-origin"}, 200),
        ({"sec-fetch-site": "none"}, 200),
        ({"sec-fetch-site": "same-origin", "origin": "https://{host}"}, 200),
        ({"origin": "https://evil.example"}, 403),
        ({"origin": "https://{host}.evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"origin": ""}, 403),
        ({"sec-fetch-site": "cross-site"}, 403),
        ({"sec-fetch-site": "same-site"}, 403),
        ({"sec-fetch-site": "cross-site", "origin": "https://{host}"}, 403),
    ],
)
def test_only_our_own_page_may_vote(app, headers, status):
    with app.browser() as voter:
        voter.get(POLL)
        sent = {name: value.format(host=f"127.0.0.1:{app.port}") for name, value in headers.items()}
        answer = voter.post(f"{POLL}/vote", json={"choices": ["A1"]}, headers=sent)
    assert answer.status_code == status
    assert points(app) == ({"A1": 1} if status == 200 else {})


def test_errors_speak_the_language_of_the_voter(app):
    for path, kind in (("/api/nope", "application/json"), ("/nope", "text/html")):
        answer = ask("GET", f"{app.url}{path}", headers={"accept-language": "fr"})
        assert answer.status_code == 404
        assert answer.headers["content-type"].startswith(kind)
        assert "Cette page n’existe pas" in answer.text
    method = ask("GET", f"{app.url}{POLL}/vote")
    assert (method.status_code, method.headers["allow"]) == (405, "POST")
    assert ask("PUT", f"{app.url}{POLL}").headers["allow"] == "GET, HEAD"


@pytest.mark.parametrize("path", ["/", "/canary", "/nope", "/api", "/privacy", "/static/nope.js"])
def test_pages_hold_nothing_foreign_and_nothing_inline(app, path):
    answer = ask("GET", f"{app.url}{path}")
    policy = dict(
        part.strip().split(" ", 1) for part in answer.headers["content-security-policy"].split(";")
    )
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
    assert policy["frame-ancestors"] == policy["base-uri"] == "'none'"
    assert "unsafe" not in str(policy)
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "same-origin"
    assert answer.headers["cross-origin-opener-policy"] == "same-origin"
    assert "camera=()" in answer.headers["permissions-policy"]
    assert answer.headers["cache-control"] == "no-store"
    assert not re.search(r"\sstyle=|\son\w+=|<style", answer.text)
    scripts = re.findall(r"<script([^>]*)>", answer.text)
    assert all("src=" in script or "application/json" in script for script in scripts)


def test_json_is_nothing_to_a_browser(app):
    for path in ("/api/polls", "/api/nope", "/version"):
        headers = ask("GET", f"{app.url}{path}").headers
        assert headers["content-security-policy"] == "default-src 'none'; frame-ancestors 'none'"
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cache-control"] == "no-store"
        assert "alt-svc" not in headers


def test_every_page_answers_head(app):
    paths = ["/", "/canary", "/privacy", "/api", "/api/openapi.json", "/api/polls", POLL]
    paths += [f"{POLL}/results", f"{POLL}/receipts/{receipts.encode(7)}", "/version"]
    for path in paths:
        got, head = ask("GET", f"{app.url}{path}"), ask("HEAD", f"{app.url}{path}")
        assert (head.status_code, head.content) == (got.status_code, b"") == (200, b""), path
        assert head.headers["content-type"] == got.headers["content-type"]


@pytest.fixture(scope="module")
def behind_proxy(redis_server, tmp_path_factory):
    app = App(
        tmp_path_factory.mktemp("proxy"), redis_server.url, F1_PROXIES="1",
        F1_CHALLENGE="attack",
    )  # fmt: skip
    yield app
    app.stop()


def test_each_answer_has_an_id_of_ours(app, behind_proxy):
    given = {"x-request-id": "given-by-a-stranger"}
    ids = {ask("GET", f"{url}{path}", headers=given).headers["x-request-id"]
           for url in (app.url, behind_proxy.url)
           for path in ("/api/polls", "/api/nope", "/", "/nope")}  # fmt: skip
    assert len(ids) == 8
    assert "given-by-a-stranger" not in ids


def test_behind_a_proxy_its_word_decides_who_asks(behind_proxy, redis_server):
    """A crowd from one address is asked for work, and cannot hide behind addresses it invents."""
    redis_server.client.flushall()

    def votes(forwarded: str) -> int:
        _, value = ballot.issue((behind_proxy.key,))
        headers = {"cookie": f"{COOKIE}={value}", "x-forwarded-for": forwarded}
        answer = ask(
            "POST", f"{behind_proxy.url}{POLL}/vote", json={"choices": ["A1"]}, headers=headers
        )
        return answer.status_code

    for n in range(100):
        if votes(f"10.1.{n}.1, 192.0.2.7") == 429:
            break
    else:
        raise AssertionError("100 new ballots from one address were all let through")
    assert votes("192.0.2.7") == 429
    assert votes("192.0.2.7, 198.51.100.9") == 200


def test_the_log_is_json_without_anything_of_the_voter(app):
    with app.browser() as voter:
        voter.get(POLL)
        receipt = voter.post(f"{POLL}/vote", json={"choices": ["A1"]}).json()["receipt"]
        name = voter.cookies[COOKIE].partition(".")[0]
        voter.get(f"{POLL}/receipts/{receipt}?lang=fr")
        last = voter.get("/version").headers["x-request-id"]

    def line() -> dict[str, object]:
        lines = [json.loads(text) for text in app.log.read_text().splitlines()]
        return next(line for line in lines if line.get("request") == last)

    wait("the log's line", line)
    answer = line()
    assert {key: answer[key] for key in ("level", "route", "method", "status")} == {
        "level": "info", "route": "/version", "method": "GET", "status": 200,
    }  # fmt: skip
    assert isinstance(answer["ms"], float)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", str(answer["time"]))
    said = app.log.read_text()
    assert not [text for text in (name, receipt, "A1", "127.0.0.1", "lang=fr") if text in said]
