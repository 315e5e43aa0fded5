"""
A vote whose answer is lost is sent again, by us or by redis-py, and counted once.

Between the store and Redis stands a wire that loses answers after Redis applied what was asked.
"""

import asyncio
from contextlib import asynccontextmanager

import pytest
from redis import asyncio as aioredis

from f1vote import batch, store
from f1vote.store import Cast, Outcome, Unreachable
from tests.app.counting import count, opened, poll, receipt
from tests.app.servers import DEADLINE, Redis

POLL = poll()
ANN = receipt("ann")


class Wire:
    """
    ``lose`` answers to scripts are lost, and the connection with them if ``cut``; while ``held``
    is set, nothing that is asked reaches Redis before ``release``.
    """

    def __init__(self, redis: Redis, url: str) -> None:
        self.redis, self.url = redis, url
        self.lose, self.cut, self.held = 0, True, False
        self.lost = 0
        self.asked = asyncio.Event()
        self.release = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        up, down = await asyncio.open_unix_connection(f"{self.redis.folder}/redis.sock")
        scripts = [False]

        async def forth() -> None:
            while data := await reader.read(1 << 16):
                scripts[0] = b"EVAL" in data
                if self.held and scripts[0]:
                    self.asked.set()
                    await self.release.wait()
                down.write(data)
            down.write_eof()

        async def back() -> None:
            while data := await up.read(1 << 16):
                if scripts[0] and self.lost < self.lose and not data.startswith(b"-NOSCRIPT"):
                    self.lost += 1
                    if self.cut:
                        break
                    continue
                if not writer.is_closing():
                    writer.write(data)
            writer.close()

        for way in (forth, back):
            task = asyncio.create_task(way())
            self._tasks.add(task)
            task.add_done_callback(lambda done: done.cancelled() or done.exception())

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.wait(self._tasks)


@asynccontextmanager
async def wired(redis: Redis):
    """Yield a wire, a store behind it, and one with a sound connection."""
    redis.client.flushall()
    path = redis.folder / "wire.sock"
    wire = Wire(redis, f"unix://{path}")
    server = await asyncio.start_unix_server(wire.serve, path)
    try:
        async with (
            opened(redis, POLL, url=wire.url) as behind,
            opened(redis, POLL) as sound,
        ):
            await behind.standing(POLL)
            yield wire, behind, sound
    finally:
        server.close()
        await wire.close()


@pytest.fixture(autouse=True)
def hasty(monkeypatch):
    """Nobody waits here for as long as a voter would."""
    for module in (batch, store):
        monkeypatch.setattr(module, "ATTEMPT", 0.25)


@pytest.mark.parametrize("cut", [True, False])
@pytest.mark.parametrize("lose", [1, 3])
def test_a_vote_whose_answer_is_lost_is_counted_once(redis_server, cut, lose):
    async def work() -> Cast:
        async with wired(redis_server) as (wire, behind, _):
            wire.lose, wire.cut = lose, cut
            answers = await asyncio.gather(
                behind.cast(POLL, ANN, ["NOR"]),
                *(behind.cast(POLL, receipt(str(n)), ["VER"]) for n in range(20)),
            )
            assert wire.lost == lose
            return answers[0]

    # The first call counted it; the answer that arrived says that it is counted.
    assert asyncio.run(work()) == Cast(Outcome.SAME, ("NOR",))
    held = count(redis_server.client, POLL)
    assert held.pop(ANN) == "NOR"
    assert list(held.values()) == ["VER"] * 20
    assert redis_server.client.hget("poll:test:meta", "version") == "21"


def test_a_vote_that_is_never_answered_may_be_made_again(redis_server, monkeypatch):
    monkeypatch.setattr(store, "DEADLINE", 1.0)

    async def work() -> Cast:
        async with wired(redis_server) as (wire, behind, sound):
            wire.lose = 1000
            with pytest.raises(Unreachable):
                await behind.cast(POLL, ANN, ["NOR"])
            assert wire.lost > 1
            return await sound.cast(POLL, ANN, ["NOR"])

    assert asyncio.run(work()) == Cast(Outcome.SAME, ("NOR",))
    assert count(redis_server.client, POLL) == {ANN: "NOR"}


def test_a_vote_that_was_given_up_does_not_come_true_later(redis_server, monkeypatch):
    """It lay in a buffer while its voter was told of another one."""
    monkeypatch.setattr(store, "DEADLINE", 0.6)

    async def work() -> None:
        async with wired(redis_server) as (wire, behind, sound):
            wire.held = True
            with pytest.raises(Unreachable):
                await behind.cast(POLL, ANN, ["NOR"])
            assert wire.asked.is_set()
            assert await sound.cast(POLL, ANN, ["VER"]) == Cast(Outcome.COUNTED, ())
            before = scripts(redis_server)
            wire.release.set()
            async with asyncio.timeout(DEADLINE):
                while scripts(redis_server) == before:
                    await asyncio.sleep(0.01)
            assert await sound.held(POLL, ANN) == ("VER",)

    asyncio.run(work())
    assert count(redis_server.client, POLL) == {ANN: "VER"}


def test_a_clock_that_is_behind_delays_a_vote_and_loses_none(redis_server):
    async def work() -> Cast:
        async with opened(redis_server, POLL) as room:
            redis_server.client.flushall()
            await room.cast(POLL, receipt("bob"), ["NOR"])
            # As after a move of Redis to a machine whose clock is ahead.
            room._clock -= 3600
            return await room.cast(POLL, ANN, ["NOR"])

    assert asyncio.run(work()) == Cast(Outcome.COUNTED, ())


def test_redis_py_left_to_itself_counts_once_where_incr_counts_often(redis_server, monkeypatch):
    """Its default repeats a command that was lost, one that was applied, too."""

    async def work() -> Cast:
        async with wired(redis_server) as (wire, behind, _):
            trap = aioredis.Redis(
                unix_socket_path=wire.url.removeprefix("unix://"), decode_responses=True
            )
            wire.lose = 3
            async with asyncio.timeout(DEADLINE):
                await trap.eval("return redis.call('INCR', 'naive')", 0)
            assert wire.lost == 3
            wire.lost = 0
            # The store waits for as long as redis-py tries.
            monkeypatch.setattr(store, "ATTEMPT", DEADLINE)
            monkeypatch.setattr(behind, "_redis", trap)
            answer = await behind.cast(POLL, ANN, ["NOR"])
            assert wire.lost == 3
            await trap.aclose()
            return answer

    assert asyncio.run(work()) == Cast(Outcome.SAME, ("NOR",))
    assert redis_server.client.get("naive") == "4"
    assert count(redis_server.client, POLL) == {ANN: "NOR"}


def scripts(redis: Redis) -> int:
    return int(redis.client.info("commandstats")["cmdstat_evalsha"]["calls"])
