"""The organiser's area: who gets in, and what each verb does to voters."""

import json
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest

from f1vote import codes, export, receipts
from f1vote.export import signing_key
from f1vote.web.session import ATTEMPTS, Sessions
from tests.app.organised import SECRET, TOKEN, organised
from tests.app.servers import App, Redis, wait

NAME = "Ann Organiser"


def signed_in(site: App, **headers: str) -> httpx.Client:
    """Return a client with a session that was not begun through the form."""
    client = site.operator(**headers)
    value = Sessions(TOKEN.encode(), [site.key]).begin(NAME)
    client.cookies.set("f1admin", value, path="/admin")
    return client


@pytest.fixture
def ann(clean: App) -> httpx.Client:
    return signed_in(clean)


@contextmanager
def voter(site: App, poll: str) -> Iterator[httpx.Client]:
    with site.browser() as client:
        assert client.get(f"/{poll}").status_code == 200
        yield client


def vote(client: httpx.Client, poll: str, *choices: str) -> tuple[int, str]:
    """Vote as a program; return the status and what is said."""
    answer = client.post(f"/api/polls/{poll}/vote", json={"choices": choices})
    told = answer.json()
    return answer.status_code, told.get("outcome") or told["error"]


def do(client: httpx.Client, poll: str, verb: str, **form: str) -> httpx.Response:
    """Press a button of the area; return the page that it leads to."""
    return client.post(f"/admin/polls/{poll}/{verb}", data=form, follow_redirects=True)


def log(client: httpx.Client) -> str:
    return client.get("/admin/log").text


# Getting in


def test_without_a_token_there_is_no_area(redis_server, tmp_path):
    app = App(tmp_path, redis_server.url)
    try:
        with app.operator() as client:
            for path in ("/admin", "/admin/", "/admin/login", "/admin/polls/champion"):
                assert client.get(path).status_code == 404
            assert client.post("/admin/login", data={"token": "x"}).status_code in (404, 405)
    finally:
        app.stop()


def test_voters_have_no_way_in(clean):
    with clean.browser() as client:
        for path in ("/admin", "/admin/login", "/admin/log", "/admin/polls/sprint"):
            assert client.get(path).status_code == 404


@pytest.mark.parametrize("path", ["/log", "/polls/sprint", "/polls/sprint/confirm", ""])
def test_a_stranger_is_led_to_the_form(clean, path):
    with clean.operator() as client:
        answer = client.get(f"/admin{path}")
        assert (answer.status_code, answer.headers["location"]) == (303, "/admin/login")


VERBS = (
    "open", "close", "extend", "revert", "freeze", "unfreeze", "hide", "show", "recount", "reset",
    "admit", "sheet", "export",
)  # fmt: skip


@pytest.mark.parametrize("verb", VERBS)
def test_a_stranger_can_do_nothing(clean, redis_server, verb):
    with clean.operator() as client:
        form = {"confirmation": "sprint", "kind": "csv", "step": "+1h"}
        answer = client.post(f"/admin/polls/sprint/{verb}", data=form)
    assert answer.status_code == 403
    assert redis_server.client.exists("poll:sprint:meta", "admin:log") == 0


def test_signing_in_and_out(site, redis_server):
    redis_server.client.flushall()
    with site.operator() as client:
        page = client.get("/admin/login")
        assert 'type="password"' in page.text
        answer = client.post("/admin/login", data={"name": f" {NAME} ", "token": TOKEN})
        assert answer.status_code == 303
        cookie = answer.headers["set-cookie"]
        assert {"HttpOnly", "SameSite=Strict", "Path=/admin"} <= set(cookie.split("; "))
        assert TOKEN not in cookie
        assert NAME in client.get("/admin").text
        assert "login" in log(client)
        client.post("/admin/logout")
        assert client.get("/admin").status_code == 303


def test_wrong_tokens_are_refused_counted_and_limited(redis_server, tmp_path):
    redis_server.client.flushall()
    app = organised(tmp_path, redis_server.url)
    try:
        with app.operator() as client:
            wrong = ("", "x", TOKEN[:-1], TOKEN + "x", "é" * 40)
            for token in wrong:
                answer = client.post("/admin/login", data={"name": TOKEN, "token": token})
                assert answer.status_code == 403
                assert "set-cookie" not in answer.headers
            # Now even the right one has to wait.
            answer = client.post("/admin/login", data={"name": NAME, "token": TOKEN})
            assert answer.status_code == 429
            assert 0 < int(answer.headers["retry-after"]) <= 1 / ATTEMPTS.rate
        with signed_in(app) as client:
            page = log(client)
        assert page.count("login refused") == len(wrong)
        assert TOKEN not in page + app.log.read_text()
    finally:
        app.stop()


def forged(site: App) -> list[str]:
    ended = Sessions(TOKEN.encode(), [site.key], clock=lambda: time.time() - 86400).begin(NAME)
    good = Sessions(TOKEN.encode(), [site.key]).begin(NAME)
    ends, name, signature = good.split(".")
    return [
        ended,
        Sessions(b"another token of this platform, as long", [site.key]).begin(NAME),
        Sessions(TOKEN.encode(), [b"another key, which never signed here"]).begin(NAME),
        f"{int(ends) + 1}.{name}.{signature}",
        f"{ends}.{name}x.{signature}",
        f"{ends}.{name}.{'0' * 64}",
        f"{ends}.{name}.",
        good.rpartition(".")[0],
        "..", "", "x", "é.é.é",
    ]  # fmt: skip


@pytest.mark.parametrize("which", range(12))
def test_a_session_that_is_over_or_forged_is_none(clean, which):
    with clean.operator() as client:
        cookie = f"f1admin={forged(clean)[which]}".encode()
        assert client.get("/admin", headers={b"cookie": cookie}).status_code == 303
        answer = client.post("/admin/polls/sprint/close", headers={b"cookie": cookie})
        assert answer.status_code == 403
        assert "session" in answer.text


def test_a_key_may_be_rotated_while_somebody_is_signed_in():
    old, new = b"the key before, of 32 bytes or so..", b"the key of today, of 32 bytes or so"
    cookie = Sessions(b"t" * 32, [old]).begin(NAME)
    assert Sessions(b"t" * 32, [new, old]).who(cookie) == NAME
    assert Sessions(b"t" * 32, [new]).who(cookie) is None


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
def test_another_site_can_do_nothing(ann, clean, headers):
    for path in ("/polls/sprint/close", "/logout", "/login"):
        answer = ann.post(f"/admin{path}", headers=headers, data={"token": TOKEN, "name": "x"})
        assert answer.status_code == 403
    with voter(clean, "sprint") as client:
        assert vote(client, "sprint", "NOR") == (200, "counted")


def test_the_area_is_closed_to_frames_scripts_and_caches(ann):
    for path in ("/admin", "/admin/polls/sprint", "/admin/login"):
        headers = ann.get(path).headers
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
        assert headers["cache-control"] == "no-store"


def test_pages_need_no_script_and_no_inline_style(ann):
    for path in ("", "/log", "/polls/sprint", "/polls/invited", "/polls/sprint/confirm"):
        page = ann.get(f"/admin{path}").text
        assert not re.search(r"<script|<style|\sstyle=|\son\w+=", page)
        for css in re.findall(r'href="(/admin/admin\.[0-9a-f]+\.css)"', page):
            assert ann.get(css).headers["content-type"].startswith("text/css")


def test_french(clean):
    with signed_in(clean, **{"Accept-Language": "fr"}) as client:
        page = client.get("/admin/polls/sprint").text
        assert 'lang="fr"' in page
        assert "Direction de course" in page
        assert "Le vote est clos." in do(client, "sprint", "close").text
        assert "Le vote est déjà clos." in do(client, "sprint", "close").text


# What the verbs do to voters


def test_close_refuses_votes_kindly_and_extend_reopens(ann, clean):
    with voter(clean, "sprint") as client:
        assert vote(client, "sprint", "NOR") == (200, "counted")
        assert "The vote is closed." in do(ann, "sprint", "close").text
        assert vote(client, "sprint", "VER") == (409, "closed")
        page = client.post("/sprint/vote", data={"choice": "VER"})
        assert (page.status_code, "The vote is closed" in page.text) == (409, True)
        assert "The vote has another closing time." in do(ann, "sprint", "extend", step="+15m").text
        assert vote(client, "sprint", "VER") == (200, "changed")
        standing = client.get("/api/polls/sprint/results").json()
    # From when it was closed, or from now: a minute apart at most.
    assert abs(standing["closes"] - (standing["now"] + 900)) < 60


def test_extend_counts_from_the_closing_time(ann, clean):
    for step in ("+1h", "+1h"):
        assert do(ann, "sprint", "extend", step=step).status_code == 200
    with clean.browser() as client:
        standing = client.get("/api/polls/sprint/results").json()
    assert abs(standing["closes"] - (standing["now"] + 7200)) < 60


def test_extend_to_a_moment_and_back_to_the_file(ann, clean):
    do(ann, "sprint", "extend", until="2088-07-09T13:05")
    with clean.browser() as client:
        closes = client.get("/api/polls/sprint/results").json()["closes"]
        assert datetime.fromtimestamp(closes, UTC).isoformat() == "2088-07-09T13:05:00+00:00"
        assert "as its file says" in do(ann, "sprint", "revert").text
        assert client.get("/api/polls/sprint/results").json()["closes"] == 0
    assert do(ann, "sprint", "revert").status_code == 409


def test_open_lets_an_early_vote_begin(ann, clean):
    with voter(clean, "early") as client:
        assert vote(client, "early", "NOR") == (409, "early")
        assert "The vote is open." in do(ann, "early", "open").text
        assert vote(client, "early", "NOR") == (200, "counted")


def test_open_undoes_close_but_not_the_end_that_the_file_says(ann, clean):
    do(ann, "sprint", "close")
    assert "The vote is open." in do(ann, "sprint", "open").text
    with voter(clean, "sprint") as client:
        assert vote(client, "sprint", "NOR") == (200, "counted")
    refused = do(ann, "over", "open")
    assert (refused.status_code, "give it another closing time" in refused.text) == (409, True)


def test_freeze_pauses(ann, clean):
    with voter(clean, "sprint") as client:
        do(ann, "sprint", "freeze")
        assert vote(client, "sprint", "NOR") == (409, "frozen")
        assert "End the pause" in ann.get("/admin/polls/sprint").text
        do(ann, "sprint", "unfreeze")
        assert vote(client, "sprint", "NOR") == (200, "counted")


def test_hide_hides_from_voters_and_not_from_the_organiser(ann, clean):
    with voter(clean, "sprint") as client:
        vote(client, "sprint", "NOR")
        assert client.get("/api/polls/sprint/results").status_code == 200
        do(ann, "sprint", "hide")
        assert client.get("/api/polls/sprint/results").status_code == 403
        page = ann.get("/admin/polls/sprint").text
        assert "Results hidden" in page
        assert "Lando Norris" in page
        do(ann, "sprint", "show")
        assert client.get("/api/polls/sprint/results").status_code == 200


def test_reset_asks_for_the_name_of_the_poll(ann, clean):
    with voter(clean, "podium") as client:
        vote(client, "podium", "NOR", "VER")
        assert "1</b> vote counted" in ann.get("/admin/polls/podium/confirm").text
        for confirmation in ("", "sprint", "PODIUM", "podiu"):
            answer = do(ann, "podium", "reset", confirmation=confirmation)
            assert answer.status_code == 409
        assert client.get("/api/polls/podium/results").json()["points"]["NOR"] == 3
        assert "Votes removed: 1" in do(ann, "podium", "reset", confirmation="podium").text
        assert set(client.get("/api/polls/podium/results").json()["points"].values()) == {0}
        # Who voted may vote again.
        assert vote(client, "podium", "LEC") == (200, "counted")


def test_recount_shows_a_difference(ann, clean, redis_server):
    with voter(clean, "sprint") as client:
        vote(client, "sprint", "NOR")
    assert "Difference: 0" in do(ann, "sprint", "recount").text
    redis_server.client.hincrby("poll:sprint:tally", "NOR", 5)
    assert "Difference: 5" in do(ann, "sprint", "recount").text
    assert 'class="big alarm">5<' in ann.get("/admin/polls/sprint").text


def test_admitted_codes_may_vote(ann, clean, redis_server):
    made = codes.make(3)
    typed = f"\n{receipts.show(made[0]).lower()}\r\n  {made[1]}\n\n"
    with clean.browser() as client:
        client.get("/invited", params={"code": made[0]})
        assert vote(client, "invited", "NOR") == (403, "code")
        assert "New codes admitted: 2" in do(ann, "invited", "admit", codes=typed).text
        client.get("/invited", params={"code": made[0]}, follow_redirects=True)
        assert vote(client, "invited", "NOR") == (200, "counted")
    kept = redis_server.client.smembers("poll:invited:codes")
    assert kept == {receipts.of("invited", code) for code in made[:2]}
    assert "New codes admitted: 0" in do(ann, "invited", "admit", codes=typed).text
    assert not [code for code in made if code in log(ann) + clean.log.read_text()]


def test_a_mistyped_code_admits_nobody_and_is_not_repeated(ann, redis_server):
    made = codes.make(2)
    wrong = made[1][:-1] + ("0" if made[1][-1] != "0" else "1")
    answer = do(ann, "invited", "admit", codes=f"{made[0]}\n{wrong}\nnonsense")
    assert answer.status_code == 409
    assert "in these lines: 2, 3" in answer.text
    assert wrong not in answer.text
    assert redis_server.client.scard("poll:invited:codes") == 0


def test_a_sheet_of_new_codes(ann, clean, redis_server):
    answer = do(ann, "invited", "sheet", count="3")
    assert answer.headers["content-disposition"] == 'attachment; filename="invited-codes.html"'
    shown = re.findall(r"(?:[0-9A-Z]{4}-){4}[0-9A-Z]{5}", answer.text)
    made = {codes.read(text) for text in shown}
    assert len(made) == 3
    assert {receipts.of("invited", code or "") for code in made} == (
        redis_server.client.smembers("poll:invited:codes")
    )
    for count in ("", "0", "-1", "241", "1e9", "x"):
        assert do(ann, "invited", "sheet", count=count).status_code == 409
    for verb in ("sheet", "admit"):
        answer = do(ann, "sprint", verb, count="1", codes=codes.make(1)[0])
        assert (answer.status_code, "Everybody may vote here" in answer.text) == (409, True)


def test_bursts_are_shown(ann, redis_server):
    redis_server.client.xadd(
        "poll:sprint:bursts",
        {"burst": '{"address":"0badcafe","first":1772978400,"last":1772978460,"fresh":77,'
                  '"challenged":5,"choices":{"VER":70}}'},
    )  # fmt: skip
    page = ann.get("/admin/polls/sprint").text
    assert "0badcafe" in page
    assert "VER 70" in page


@pytest.mark.parametrize("kind", export.KINDS)
def test_an_export_from_the_area_checks(ann, clean, tmp_path, kind):
    with voter(clean, "podium") as client:
        vote(client, "podium", "NOR", "VER")
        refused = do(ann, "podium", "export", kind=kind)
        assert (refused.status_code, "Pause or close" in refused.text) == (409, True)
        do(ann, "podium", "freeze")
        answer = do(ann, "podium", "export", kind=kind)
        pem = client.get("/export-key.pem").text
    assert re.fullmatch(
        rf'attachment; filename="podium-\d{{8}}T\d{{6}}Z-{kind}\.zip"',
        answer.headers["content-disposition"],
    )
    (tmp_path / "x.zip").write_bytes(answer.content)
    checked = export.verify(tmp_path / "x.zip", export.read_key(pem))
    assert (checked.voters, checked.standing, checked.signature) == (
        1, {"NOR": 3, "VER": 2, "LEC": 0}, "good",
    )  # fmt: skip
    assert export.fingerprint(signing_key(SECRET.encode())) in ann.get("/admin/polls/podium").text


def test_an_export_that_cannot_be_right_is_told(ann, clean, redis_server):
    do(ann, "sprint", "freeze")
    redis_server.client.hincrby("poll:sprint:tally", "NOR", 1)
    answer = do(ann, "sprint", "export", kind="csv")
    assert (answer.status_code, "not the sum of the votes" in answer.text) == (409, True)


# What is wrong is told


@pytest.mark.parametrize(
    ("poll", "verb", "form", "status", "said"),
    [
        ("nosuch", "close", {}, 404, "no such page"),
        ("sprint", "explode", {}, 404, "no such page"),
        ("sprint", "__init__", {}, 404, "no such page"),
        ("sprint", "open", {}, 409, "open already"),
        ("over", "close", {}, 409, "closed already"),
        ("over", "freeze", {}, 409, "closed already"),
        ("early", "close", {}, 409, "nothing to close"),
        ("sprint", "unfreeze", {}, 409, "not paused"),
        ("sprint", "show", {}, 409, "not hidden"),
        ("sprint", "revert", {}, 409, "already"),
        ("sprint", "extend", {}, 409, "is not a time"),
        ("sprint", "extend", {"until": "tomorrow"}, 409, "is not a time"),
        ("sprint", "extend", {"until": "2001-01-01T00:00"}, 409, "later than now"),
        ("early", "extend", {"until": "2089-01-01T00:00"}, 409, "than the opening"),
        ("sprint", "extend", {"step": "-1h"}, 409, "is not a time"),
        ("sprint", "extend", {"step": "+999999d"}, 409, "is not a time"),
        ("sprint", "extend", {"step": "<script>"}, 409, "&lt;script&gt; is not a time"),
        ("sprint", "export", {}, 409, "one of csv, json"),
        ("sprint", "export", {"kind": "xml"}, 409, "one of csv, json"),
        ("invited", "admit", {}, 409, "no code to admit"),
    ],
)
def test_nonsense_is_told(ann, clean, redis_server, poll, verb, form, status, said):
    answer = do(ann, poll, verb, **form)
    assert answer.status_code == status
    assert said in answer.text
    assert redis_server.client.exists("admin:log") == 0


@pytest.mark.parametrize("query", ["done=x", "done=reset&n=x", "done=reset&n=٣", "n=" + "9" * 99])
def test_what_is_said_cannot_be_forged_by_a_link(ann, query):
    page = ann.get(f"/admin/polls/sprint?{query}")
    assert page.status_code == 200
    assert query.rpartition("=")[2] not in re.sub(r"<[^>]*>", "", page.text) or "x" in query


def test_unknown_pages_and_methods(ann):
    assert ann.get("/admin/").headers["location"] == "/admin"
    assert ann.get("/admin/nosuch/page").status_code == 404
    assert ann.get("/admin/polls/nosuch").status_code == 404
    assert ann.get("/admin/polls/sprint/close").status_code in (404, 405)
    assert ann.delete("/admin/polls/sprint").status_code in (404, 405)


# The log


def test_the_log_knows_everything_and_no_secret(ann, clean, redis_server):
    made = codes.make(1)[0]
    for poll, verb, form in (
        ("sprint", "close", {}), ("sprint", "open", {}), ("sprint", "extend", {"step": "+1h"}),
        ("sprint", "revert", {}), ("sprint", "freeze", {}), ("sprint", "export", {"kind": "csv"}),
        ("sprint", "unfreeze", {}), ("sprint", "hide", {}), ("sprint", "show", {}),
        ("sprint", "recount", {}), ("sprint", "reset", {"confirmation": "sprint"}),
        ("invited", "admit", {"codes": made}), ("invited", "sheet", {"count": "2"}),
    ):  # fmt: skip
        assert do(ann, poll, verb, **form).status_code == 200, verb
    entries = [fields for _, fields in redis_server.client.xrange("admin:log")]
    assert [entry["action"] for entry in entries] == [
        "close", "open", "extend", "revert", "freeze", "export", "unfreeze", "hide", "show",
        "recount", "reset", "admit", "admit",
    ]  # fmt: skip
    assert {entry["who"] for entry in entries} == {NAME}
    facts = [json.loads(entry["facts"]) for entry in entries]
    close, reopen = facts[0], facts[1]
    assert close["before"] == {"closes": 0}
    assert close["after"]["closes"] > 0
    assert reopen == {"poll": "sprint", "before": close["after"], "after": {"closes": 0}}
    assert facts[4] == {"poll": "sprint", "before": {"frozen": False}, "after": {"frozen": True}}
    assert facts[10]["after"] == {"voters": 0}
    page = log(ann)
    assert page.count(NAME) >= len(entries)
    assert made not in page
    assert not [secret for secret in (TOKEN, SECRET, made) if secret in str(entries)]


def test_redis_that_is_gone_is_told(tmp_path_factory: pytest.TempPathFactory):
    folder: Path = tmp_path_factory.mktemp("gone")
    server = Redis(folder)
    app = organised(folder, server.url)
    try:
        with signed_in(app) as client:
            assert client.get("/admin/polls/sprint").status_code == 200
            server.kill()
            answer = do(client, "sprint", "close")
            assert (answer.status_code, "Redis does not answer" in answer.text) == (503, True)
            assert answer.headers["retry-after"]
            server.start()

            def closed() -> None:
                assert do(client, "sprint", "close").status_code == 200

            wait("the area, after Redis came back", closed)
    finally:
        app.stop()
        server.kill()
