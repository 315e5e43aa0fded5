"""Redis dies under load, and the app is stopped: nothing acknowledged is lost or doubled."""

import asyncio
import time
from collections import Counter

import httpx
import pytest

from tests.app.servers import DEADLINE, App, Redis

CODES = ("NOR", "VER", "HAM", "LEC")


@pytest.fixture
def pair(tmp_path):
    redis = Redis(tmp_path)
    app = App(tmp_path, redis.url)
    yield redis, app
    if app.process.poll() is None:
        app.stop()
    if redis.process.poll() is None:
        redis.kill()


async def stubborn_voter(app: App, n: int, acknowledged: dict[str, str]) -> int:
    """Vote four times; repeat each vote until it is acknowledged. Return how many 503 came."""
    refused = 0
    async with httpx.AsyncClient(base_url=app.url, timeout=DEADLINE) as browser:
        while (await browser.get("/")).status_code == 503:
            refused += 1
            await asyncio.sleep(0.05)
        voter = browser.cookies["f1vote"].partition(".")[0]
        for turn in range(4):
            code = CODES[(n + turn) % len(CODES)]
            for _ in range(200):
                answer = await browser.post("/vote", data={"choice": code})
                if answer.status_code == 303:
                    acknowledged[voter] = code
                    break
                assert answer.status_code == 503, answer.text
                refused += 1
                await asyncio.sleep(0.05)
            else:
                raise AssertionError(f"vote {turn} of voter {n} was never acknowledged")
    return refused


def test_redis_killed_in_the_middle(pair):
    redis, app = pair
    acknowledged: dict[str, str] = {}

    async def storm() -> list[int]:
        voters = [asyncio.create_task(stubborn_voter(app, n, acknowledged)) for n in range(20)]
        while not acknowledged:
            await asyncio.sleep(0.01)
        for _ in range(2):
            await asyncio.to_thread(redis.kill)
            # Until somebody was really told so, or all are done.
            async with httpx.AsyncClient(base_url=app.url, timeout=DEADLINE) as client:
                assert (await client.get("/readyz")).status_code == 503
                assert (await client.get("/healthz")).status_code == 200
            await asyncio.to_thread(redis.start)
        return await asyncio.gather(*voters)

    refused = asyncio.run(storm())
    assert sum(refused) > 0
    held = redis.client.hgetall("poll:f1-2026:votes")
    tally = redis.client.hgetall("poll:f1-2026:tally")
    assert held == acknowledged
    assert {code: int(n) for code, n in tally.items() if n != "0"} == Counter(held.values())
    assert len(held) == 20


def test_without_redis_the_page_says_so_in_the_voters_language(pair):
    redis, app = pair
    with app.browser(**{"accept-language": "fr"}) as voter:
        voter.get("/")
        redis.kill()
        began = time.monotonic()
        answer = voter.post("/vote", data={"choice": "VER"})
        assert time.monotonic() - began < 6
        assert answer.status_code == 503
        assert "Le bureau de vote ne répond pas" in answer.text
        assert answer.headers["retry-after"]
        assert voter.get("/readyz").status_code == 503
        assert voter.get("/healthz").status_code == 200


def test_sigterm_lets_requests_finish_and_ends_with_zero(pair):
    redis, app = pair
    with app.browser() as voter:
        voter.get("/")
        redis.client.execute_command("CLIENT", "PAUSE", "1000", "ALL")

        async def vote_while_stopping() -> int:
            async with httpx.AsyncClient(
                base_url=app.url, cookies=dict(voter.cookies), timeout=DEADLINE
            ) as client:
                task = asyncio.create_task(client.post("/vote", data={"choice": "VER"}))
                await asyncio.sleep(0.3)
                app.process.terminate()
                return (await task).status_code

        assert asyncio.run(vote_while_stopping()) == 303
    assert app.process.wait(DEADLINE) == 0
    assert list(redis.client.hgetall("poll:f1-2026:votes").values()) == ["VER"]
