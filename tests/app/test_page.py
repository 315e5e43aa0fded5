"""A voter without JavaScript: the page, its forms, its languages, its errors."""

import html
import re

import httpx
import pytest

from tests.app.servers import App


def tally(app: App) -> dict[str, int]:
    answer = httpx.get(f"{app.url}/api/results").json()
    assert sum(answer["tally"].values()) == answer["voters"]
    return {code: n for code, n in answer["tally"].items() if n}


def pressed(page: str) -> list[str]:
    return re.findall(r'value="(\w+)" aria-pressed="true"', page)


def test_vote_change_and_withdraw_by_forms_alone(app):
    with app.browser() as voter:
        page = voter.get("/").text
        assert page.count('name="choice"') == 22
        assert "/withdraw" not in page

        answer = voter.post("/vote", data={"choice": "VER"})
        assert (answer.status_code, answer.headers["location"]) == (303, "/")
        page = voter.get("/").text
        assert pressed(page) == ["VER"]
        assert tally(app) == {"VER": 1}

        voter.post("/vote", data={"choice": "HAM"})
        voter.post("/vote", data={"choice": "HAM"})
        assert pressed(voter.get("/").text) == ["HAM"]
        assert tally(app) == {"HAM": 1}

        assert voter.post("/withdraw").status_code == 303
        assert pressed(voter.get("/").text) == []
        assert tally(app) == {}


def test_the_same_in_json(app):
    with app.browser() as voter:
        voter.get("/")
        answer = voter.post("/vote", json={"choice": "LEC"})
        assert answer.status_code == 200
        assert answer.json() == {"outcome": "counted", "choice": "LEC", "previous": None}
        assert voter.post("/vote", json={"choice": "LEC"}).json()["outcome"] == "same"
        assert voter.post("/withdraw", json={}).json() == {
            "outcome": "withdrawn", "choice": None, "previous": "LEC",
        }  # fmt: skip


def test_the_share_is_of_all_votes(app):
    for choice in ("VER", "VER", "NOR"):
        with app.browser() as voter:
            voter.get("/")
            voter.post("/vote", data={"choice": choice})
    page = app.browser().get("/").text
    shares = dict(re.findall(r'value="(\w+)".*?<b>(\d+)%</b>', html.unescape(page), re.DOTALL))
    assert (shares["VER"], shares["NOR"], shares["HAM"]) == ("67", "33", "0")


@pytest.mark.parametrize(
    ("asked", "accept", "language"),
    [
        ("", "fr-FR,fr;q=0.9,en;q=0.8", "fr"),
        ("", "de;q=0.9, en;q=0.2, fr;q=0.7", "fr"),
        ("", "en-GB, fr;q=0.9", "en"),
        ("", "de, *;q=0.1", "en"),
        ("", "", "en"),
        ("", "fr;q=0", "en"),
        ("", "fr;q=banana, ;;;,", "en"),
        ("?lang=fr", "en", "fr"),
        ("?lang=en", "fr", "en"),
        ("?lang=../../etc", "fr", "fr"),
    ],
)
def test_language(app, asked, accept, language):
    with app.browser(**{"accept-language": accept}) as voter:
        page = voter.get("/" + asked).text
    assert f'<html lang="{language}">' in page


def test_a_chosen_language_stays_while_voting(app):
    with app.browser(**{"accept-language": "en"}) as voter:
        page = voter.get("/?lang=fr").text
        assert 'action="/vote?lang=fr"' in page
        answer = voter.post("/vote?lang=fr", data={"choice": "GAS"})
        assert answer.headers["location"] == "/?lang=fr"
        assert "Votre vote" in voter.get("/?lang=fr").text


def test_the_cookie_is_kept_from_scripts_and_other_sites(app):
    with app.browser() as voter:
        plain = voter.get("/").headers["set-cookie"]
        assert "set-cookie" not in voter.get("/").headers
    with app.browser(**{"x-forwarded-proto": "https"}) as voter:
        secure = voter.get("/").headers["set-cookie"]
    assert "HttpOnly" in plain
    assert "SameSite=Lax" in plain
    assert "Secure" not in plain
    assert "Secure" in secure


def test_a_vote_needs_a_ballot_of_ours(app):
    forged = ["", "x", "." * 60, "A" * 22 + "." + "A" * 43, "é" * 30, "A" * 5000]
    with app.browser() as voter:
        voter.get("/")
        ours = voter.cookies["f1vote"]
        forged += [ours[:-1], ours[1:], "B" + ours[1:], ours.swapcase(), ours + "."]
    for value in forged:
        answer = httpx.post(
            f"{app.url}/vote", data={"choice": "VER"},
            headers=[(b"cookie", b"f1vote=" + value.encode())],
        )  # fmt: skip
        assert answer.status_code == 403, value
        assert "cookie" in answer.text
    assert tally(app) == {}


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 303),
        ({"origin": "http://{host}"}, 303),
        ({"origin": "https://{host}"}, 303),  # TLS ends before us
        ({"sec-fetch-site": "same-origin"}, 303),
        ({"origin": "https://evil.example"}, 403),
        ({"origin": "https://{host}.evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"sec-fetch-site": "cross-site"}, 403),
        ({"sec-fetch-site": "same-site"}, 403),
    ],
)
def test_only_our_own_page_may_vote(app, headers, status):
    host = f"127.0.0.1:{app.port}"
    with app.browser() as voter:
        voter.get("/")
        sent = {name: value.format(host=host) for name, value in headers.items()}
        assert voter.post("/vote", data={"choice": "VER"}, headers=sent).status_code == status
    assert tally(app) == ({"VER": 1} if status == 303 else {})


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"data": {"choice": "XXX"}}, 400),
        ({"data": {"choice": ""}}, 400),
        ({"data": {}}, 400),
        ({"data": {"choice": "ver"}}, 400),
        ({"json": {"choice": ["VER"]}}, 400),
        ({"json": ["VER"]}, 400),
        ({"content": b"{", "headers": {"content-type": "application/json"}}, 400),
        ({"content": b"\xff\xfe", "headers": {"content-type": "application/json"}}, 400),
        ({"data": {"choice": "V" * 20000}}, 413),
    ],
)
def test_a_bad_vote_is_refused_and_not_counted(app, body, status):
    with app.browser() as voter:
        voter.get("/")
        assert voter.post("/vote", **body).status_code == status
    assert tally(app) == {}


def test_errors_speak_the_language_of_the_voter(app):
    with app.browser(**{"accept-language": "fr"}) as voter:
        missing = voter.get("/nope")
        method = voter.get("/vote")
    assert missing.status_code == 404
    assert "Cette page n’existe pas" in missing.text
    assert method.status_code == 405
    assert "POST" in method.headers["allow"]
    assert app.browser().get("/api/nope").json()["error"] == "404"


def test_the_page_needs_nothing_from_elsewhere_and_no_script(app):
    with app.browser() as voter:
        answer = voter.get("/")
        css = voter.get(re.search(r'href="(/style\.\w+\.css)"', answer.text)[1])
    assert "<script" not in answer.text
    assert "style=" not in answer.text
    assert not re.search(r'(?:src|href|action)="(?:https?:)?//', answer.text)
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert answer.headers["cache-control"] == "no-store"
    assert "immutable" in css.headers["cache-control"]
    assert css.headers["content-type"].startswith("text/css")


def test_what_programs_ask(app):
    with app.browser() as client:
        assert client.get("/healthz").text == "ok\n"
        assert client.get("/readyz").status_code == 200
        assert client.get("/version").json()["version"] == "c-test"
        assert client.head("/").status_code == 200
        results = client.get("/api/results").json()
    assert results["state"] == "open"
    assert len(results["tally"]) == 22
