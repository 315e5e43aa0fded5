"""A vote with one-time codes: the browser keeps the voter's, and no other site changes that."""

import re

import pytest

from f1vote import codes, receipts
from tests.app.servers import App, Redis

COOKIE = "__Host-f1code-invited"
FOREIGN = {"sec-fetch-site": "cross-site", "origin": "https://evil.example"}


@pytest.fixture
def pair(site: App, redis_server: Redis) -> tuple[str, str]:
    """Two codes that may vote."""
    redis_server.client.flushall()
    first, second = codes.make(2)
    admitted = [receipts.of("invited", code) for code in (first, second)]
    redis_server.client.sadd("poll:invited:codes", *admitted)
    return first, second


def test_a_form_of_another_site_gives_no_code(site, pair):
    with site.browser() as voter:
        answer = voter.post("/invited/code", data={"code": pair[0]}, headers=FOREIGN)
        assert answer.status_code == 403
        assert "set-cookie" not in answer.headers
        answer = voter.post("/invited/code", data={"code": pair[0]})
        assert (answer.status_code, COOKIE in voter.cookies) == (303, True)


def test_a_link_does_not_change_the_code_that_is_kept(site, pair):
    mine, other = pair
    with site.browser() as voter:
        # The first comes by a link: the card's.
        assert voter.get("/invited", params={"code": mine}).status_code == 303
        kept = voter.cookies[COOKIE]
        voter.post("/api/polls/invited/vote", json={"choices": ["NOR"]})
        page = voter.get("/invited", params={"code": other}, headers=FOREIGN)
        assert page.status_code == 200
        assert voter.cookies[COOKIE] == kept
        assert re.search(rf'<input id="code"[^>]* value="{other}"', page.text)
        assert "Your vote" in page.text
        assert "brings another code" in page.text
        assert voter.get("/invited", params={"code": other[:-1]}).status_code == 400
        # The same link again leads to the page, as ever; the voter's own word counts.
        assert voter.get("/invited", params={"code": mine}).status_code == 303
        assert voter.post("/invited/code", data={"code": other}).status_code == 303
        assert voter.cookies[COOKIE].startswith(other)
