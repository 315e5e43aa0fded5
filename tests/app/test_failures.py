"""Redis goes and comes back, under load and without: nothing acknowledged is lost or doubled."""

import asyncio
import time
from collections import Counter

import httpx
import pytest

from f1vote import ballot, receipts
from tests.app.servers import COOKIE, DEADLINE, App, Redis, ask, wait

CODES = ("A1", "B2")
CLIENTS, VOTERS = 20, 20
POLL = "/api/polls/canary"


@pytest.fixture
def pair(tmp_path):
    redis = Redis(tmp_path)
    app = App(tmp_path, redis.url, F1_CHALLENGE="never")
    yield redis, app
    if app.process.poll() is None:
        app.stop()
    if redis.process.poll() is None:
        redis.kill()


def held(redis: Redis) -> dict[str, str]:
    """Return what each receipt holds, and hold it against the tally."""
    votes = {
        key.rpartition(":")[2] + field: value
        for key in redis.client.scan_iter("poll:canary:votes:*")
        for field, value in redis.client.hgetall(key).items()
    }
    tally = redis.client.hgetall("poll:canary:tally")
    assert {code: int(n) for code, n in tally.items() if n != "0"} == Counter(votes.values())
    assert int(redis.client.hget("poll:canary:meta", "voters") or 0) == len(votes)
    return votes


async def stubborn_voters(app: App, acknowledged: dict[str, str]) -> None:
    """Vote and change the vote, one voter after the other; repeat each until it is acknowledged."""
    async with httpx.AsyncClient(base_url=app.url, timeout=DEADLINE, verify=False) as client:
        for _ in range(VOTERS):
            voter, value = ballot.issue((app.key,))
            for code in CODES:
                await vote(client, {"cookie": f"{COOKIE}={value}"}, code)
                acknowledged[receipts.of("canary", voter)] = code


async def vote(client: httpx.AsyncClient, headers: dict[str, str], code: str) -> None:
    for _ in range(400):
        answer = await client.post(f"{POLL}/vote", json={"choices": [code]}, headers=headers)
        if answer.status_code == 200:
            return
        assert (answer.status_code, answer.json()["error"]) == (503, "unreachable")
        assert int(answer.headers["retry-after"]) > 0
        await asyncio.sleep(0.05)
    raise AssertionError("a vote was never acknowledged")


def test_redis_killed_in_the_middle(pair):
    redis, app = pair
    acknowledged: dict[str, str] = {}

    async def storm() -> None:
        voters = [asyncio.create_task(stubborn_voters(app, acknowledged)) for _ in range(CLIENTS)]
        while not acknowledged:
            await asyncio.sleep(0.01)
        for _ in range(2):
            assert not any(voter.done() for voter in voters)
            await asyncio.to_thread(redis.kill)
            ready = await asyncio.to_thread(ask, "GET", f"{app.ops_url}/readyz")
            assert ready.status_code == 503
            health = await asyncio.to_thread(ask, "GET", f"{app.ops_url}/healthz")
            assert health.status_code == 200
            await asyncio.to_thread(redis.start)
        await asyncio.gather(*voters)

    asyncio.run(storm())
    assert held(redis) == acknowledged
    assert len(acknowledged) == CLIENTS * VOTERS
    wait("readiness again", lambda: ask("GET", f"{app.ops_url}/readyz").raise_for_status())


def test_without_redis_the_page_stays_and_a_vote_is_refused_in_time(pair):
    redis, app = pair
    with app.browser(**{"accept-language": "fr"}) as voter:
        voter.get(POLL)
        redis.kill()
        began = time.monotonic()
        form = voter.post("/canary/vote", data={"choice": "A1"})
        vote = voter.post(f"{POLL}/vote", json={"choices": ["A1"]})
        assert time.monotonic() - began < DEADLINE / 2
        for answer in (form, vote):
            assert answer.status_code == 503
            assert "ne répond pas" in answer.text
            assert int(answer.headers["retry-after"]) > 0
        page = voter.get("/canary")
        assert (page.status_code, int(page.headers["retry-after"]) > 0) == (503, True)
        assert "ne répond pas" in page.text
        assert "<main" in page.text
        assert voter.get("/").status_code == 200
        assert ask("GET", f"{app.ops_url}/readyz").status_code == 503
        assert ask("GET", f"{app.ops_url}/metrics").status_code == 200

        # It comes back by itself, and the same browser votes.
        redis.start()
        wait(
            "a vote after Redis came back",
            lambda: voter.post(f"{POLL}/vote", json={"choices": ["A1"]}).raise_for_status(),
        )
    assert list(held(redis).values()) == ["A1"]


def test_it_starts_without_redis_and_is_ready_when_that_comes(tmp_path):
    redis = Redis(tmp_path)
    redis.kill()
    app = App(tmp_path, redis.url)
    try:
        assert ask("GET", f"{app.ops_url}/readyz").status_code == 503
        assert "<main" in ask("GET", f"{app.url}/canary").text
        redis.start()
        wait("readiness", lambda: ask("GET", f"{app.ops_url}/readyz").raise_for_status())
    finally:
        app.stop()
        redis.kill()


def test_a_redis_that_hangs_is_given_up(pair):
    redis, app = pair
    with app.browser() as voter:
        voter.get(POLL)
        redis.client.execute_command("CLIENT", "PAUSE", "60000", "ALL")
        answer = voter.post(f"{POLL}/vote", json={"choices": ["A1"]})
        assert (answer.status_code, answer.json()["error"]) == (503, "unreachable")
        assert ask("GET", f"{app.ops_url}/healthz").status_code == 200
