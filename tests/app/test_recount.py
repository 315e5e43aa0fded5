"""The recount is exact while votes come in, finds what is wrong, and outlives who drives it."""

import asyncio
import logging
import random
import signal
import subprocess
import sys

import pytest

from f1vote import store as store_module
from f1vote.recount import Recounter
from f1vote.store import Store
from tests.app.counting import count, opened, poll, receipt, run
from tests.app.servers import DEADLINE, Redis
from tests.conftest import ROOT

POLL = poll("test", (3, 2, 1))
CODES = POLL.codes


@pytest.fixture
def small_slices(monkeypatch):
    monkeypatch.setattr(store_module, "SLICE", 20)


async def vote(store: Store, voters: range, seed: int = 1) -> None:
    rng = random.Random(seed)
    await asyncio.gather(
        *(store.cast(POLL, receipt(str(n)), rng.sample(CODES, rng.randint(1, 3))) for n in voters)
    )


def slices(redis: Redis) -> dict[str, str]:
    found: dict[str, str] = redis.client.hgetall("poll:test:recount")
    return found


def test_exact_while_votes_come_in(redis_server, small_slices):
    async def work(store: Store) -> int:
        await vote(store, range(500))
        recounts = 0

        async def again_and_again() -> None:
            nonlocal recounts
            while True:
                assert (await store.recount(POLL)).difference == 0
                recounts += 1

        recounting = asyncio.create_task(again_and_again())
        rng = random.Random(2)

        async def voter(n: int) -> None:
            for _ in range(10):
                choices = rng.sample(CODES, rng.randint(0, 3))
                await store.cast(POLL, receipt(str(rng.randrange(1000))), choices)

        rounds = 0
        while recounts < 3 or rounds < 5:
            await asyncio.gather(*(voter(n) for n in range(40)))
            rounds += 1
            assert not recounting.done()
        recounting.cancel()
        return recounts

    assert run(redis_server, [POLL], work) >= 3
    count(redis_server.client, POLL)


@pytest.mark.parametrize(
    ("damage", "difference"),
    [
        (("HINCRBY", "poll:test:tally", "NOR", 3), 3),
        (("HSET", "poll:test:tally", "ALB", 7), 7),
        (("HINCRBY", "poll:test:meta", "voters", -1), 1),
        # A vote of a first place: its points, and its voter.
        (("HDEL", "poll:test:votes:{bucket}", "{field}"), 4),
        (("HSET", "poll:test:votes:{bucket}", "000000000", "VER"), 4),
        (("DEL", "poll:test:buckets"), 4),
    ],
)
def test_what_is_wrong_is_found(redis_server, damage, difference):
    ann = receipt("ann")

    async def work(store: Store) -> int:
        await store.cast(POLL, ann, ["NOR"])
        words = [str(word).format(bucket=ann[:4], field=ann[4:]) for word in damage]
        redis_server.client.execute_command(*words)
        return (await store.recount(POLL)).difference

    assert run(redis_server, [POLL], work) == difference


def test_one_drives_and_another_goes_on_where_he_died(redis_server, small_slices):
    async def work(store: Store) -> None:
        await vote(store, range(500))
        for _ in range(3):
            assert await store.recount_slice(POLL, "first", 60.0, 0.0) == "more"
        before = slices(redis_server)
        assert await store.recount_slice(POLL, "second", 60.0, 0.0) == "idle"
        assert slices(redis_server) == before
        # The first is heard of no more.
        redis_server.client.hset("poll:test:recount", "until", "1.0")
        assert await store.recount_slice(POLL, "second", 60.0, 0.0) == "more"
        after = slices(redis_server)
        assert int(after["cursor"]) > int(before["cursor"])
        assert after["began"] == before["began"]
        assert await store.recount_slice(POLL, "first", 60.0, 0.0) == "idle"
        while await store.recount_slice(POLL, "second", 60.0, 0.0) == "more":
            await vote(store, range(600), seed=3)
        assert (await store.recounted(POLL)).difference == 0
        # It is fresh: nothing to do until it is old enough.
        assert await store.recount_slice(POLL, "first", 60.0, 1000.0) == "idle"

    run(redis_server, [POLL], work)


def test_a_recount_outlives_the_crash_of_redis(tmp_path, small_slices):
    redis = Redis(tmp_path)
    try:

        async def work() -> None:
            async with opened(redis, POLL) as store:
                await vote(store, range(500))
                for _ in range(3):
                    await store.recount_slice(POLL, "first", 60.0, 0.0)
                before = slices(redis)
                await asyncio.to_thread(redis.kill)
                await asyncio.to_thread(redis.start)
                # No time is in the file: it would tell when the votes beside it were cast.
                assert slices(redis) == {
                    key: value for key, value in before.items() if key not in ("began", "until")
                }
                await vote(store, range(400, 700), seed=4)
                while await store.recount_slice(POLL, "first", 60.0, 0.0) == "more":
                    pass
                assert (await store.recounted(POLL)).difference == 0

        asyncio.run(work())
    finally:
        redis.kill()


DRIVER = """
import asyncio, sys
from f1vote import store as module
from f1vote.recount import Recounter
from f1vote.store import Store
from tests.app.test_recount import POLL

async def drive():
    module.SLICE = 20
    store = Store(sys.argv[1], [POLL])
    await Recounter(store, [POLL], every=0.0, look=0.01).start()
    await asyncio.sleep(3600)

asyncio.run(drive())
"""


def test_a_driver_killed_in_the_middle_is_replaced(redis_server, small_slices):
    async def until(probe) -> None:
        async with asyncio.timeout(DEADLINE):
            while not probe():
                await asyncio.sleep(0.005)

    async def work(store: Store) -> None:
        await vote(store, range(2000))
        driver = subprocess.Popen(
            [sys.executable, "-c", DRIVER, redis_server.url],
            cwd=ROOT,
            env={"PYTHONPATH": f"{ROOT}/app:{ROOT}"},
        )
        try:
            await until(lambda: int(slices(redis_server).get("cursor", 0)) > 0)
        finally:
            driver.send_signal(signal.SIGKILL)
            driver.wait(DEADLINE)
        left = slices(redis_server)
        # It may have ended just before it was killed; else its lease is not waited for here.
        if "cursor" in left:
            redis_server.client.hset("poll:test:recount", "until", "1.0")
        recounter = Recounter(store, [POLL], every=0.0, look=0.01)
        await recounter.start()
        await vote(store, range(2500), seed=5)
        await until(lambda: float(slices(redis_server).get("at", 0)) > float(left.get("at", 0)))
        await recounter.close()
        assert slices(redis_server)["difference"] == "0"

    run(redis_server, [POLL], work)
    count(redis_server.client, POLL)


def test_a_difference_is_logged_and_redis_may_be_away(tmp_path, caplog, monkeypatch):
    redis = Redis(tmp_path)
    try:

        async def work() -> None:
            async with opened(redis, POLL) as store:
                await vote(store, range(10))
                recounter = Recounter(store, [POLL], every=0.0, look=0.01)
                await recounter.start()

                async def said(text: str) -> None:
                    async with asyncio.timeout(DEADLINE):
                        while text not in caplog.text:
                            await asyncio.sleep(0.01)

                await asyncio.to_thread(redis.kill)
                await said("is not recounted now")
                await asyncio.to_thread(redis.start)
                redis.client.hincrby("poll:test:tally", "NOR", 5)
                await said("differs by 5")
                await recounter.close()

        logger = logging.Logger("recount")
        logger.addHandler(caplog.handler)
        monkeypatch.setattr("f1vote.recount.logger", logger)
        asyncio.run(work())
    finally:
        redis.kill()
