"""The hub of live results, with a counting room and viewers of the test's own."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest

from f1vote import live
from f1vote.live import Full, Hub, Viewer
from f1vote.metrics import Metrics
from f1vote.polls import Poll, load
from f1vote.store import Standing, Unreachable
from tests.conftest import ROOT

DEADLINE = 10.0
# It is open for ever, and has the choices A1 and B2.
POLL = next(poll for poll in load(ROOT / "app" / "polls") if poll.id == "canary")


class Room:
    """A counting room: the test sets what it knows, and when it is silent."""

    def __init__(self) -> None:
        self.know = Standing(
            points={"A1": 0, "B2": 0}, voters=0, version=1, now=0.0, opens=0, closes=0,
            frozen=False, hidden=False,
        )  # fmt: skip
        self.reads = 0
        self.behind = 0.0  # its clock (s)
        self.silent = False
        self.broken = False
        self.said: asyncio.Queue[str] = asyncio.Queue()

    async def standing(self, poll: Poll) -> Standing:
        self.reads += 1
        if self.silent:
            raise Unreachable("the test says so")
        return replace(self.know, now=time.time() - self.behind)

    async def changes(self) -> AsyncIterator[str]:
        while True:
            poll = await self.said.get()
            if self.broken:
                self.broken = False
                raise RuntimeError("the test says so")
            yield poll

    def vote(self, poll: str = "canary") -> None:
        n = self.know.voters + 1
        self.know = replace(self.know, points={"A1": n, "B2": 0}, voters=n, version=n + 1)
        self.said.put_nowait(poll)


class Stream:
    """Response and transport of a viewer in one: keeps what is sent."""

    def __init__(self) -> None:
        self.texts: list[bytes] = []
        self.unsent = 0
        self.aborted = False

    async def send(self, text: bytes) -> None:
        self.texts.append(text)

    def is_closing(self) -> bool:
        return self.aborted

    def get_write_buffer_size(self) -> int:
        return self.unsent

    def abort(self) -> None:
        self.aborted = True

    @property
    def standings(self) -> list[dict[str, Any]]:
        return [
            json.loads(text.partition(b"\ndata: ")[2])
            for text in self.texts
            if text.startswith(b"event: standing\n")
        ]


class Site:
    """A hub and those who watch it."""

    def __init__(self, poll: Poll) -> None:
        self.poll, self.room = poll, Room()
        self.metrics = Metrics([poll], "v", "")
        self.hub = Hub(self.room, [poll], self.metrics)  # type: ignore[arg-type]
        self.watching: list[asyncio.Task[None]] = []

    async def view(self, voted: bool = False) -> Stream:
        """Return the stream of one who now begins to watch."""
        stream, begun = Stream(), asyncio.Event()

        async def watch() -> None:
            with self.hub.seat(self.poll):
                standing = await self.room.standing(self.poll)
                event = self.hub.present(self.poll, standing, voted)
                await stream.send(event.text)
                begun.set()
                await self.hub.watch(
                    Viewer(self.poll.id, stream, stream, voted, event.id)  # type: ignore[arg-type]
                )

        self.watching.append(asyncio.create_task(watch()))
        await begun.wait()
        return stream


@asynccontextmanager
async def site(poll: Poll = POLL) -> AsyncIterator[Site]:
    made = Site(poll)
    await made.hub.start()
    try:
        yield made
    finally:
        await made.hub.close()
        await asyncio.gather(*made.watching, return_exceptions=True)


async def until(what: str, probe: Callable[[], object]) -> None:
    end = time.monotonic() + DEADLINE
    while not probe():
        assert time.monotonic() < end, f"waited {DEADLINE:.0f} s for {what}"
        await asyncio.sleep(0.01)


@pytest.mark.asyncio
async def test_many_votes_are_one_reading_and_one_event() -> None:
    async with site() as made:
        streams = [await made.view() for _ in range(50)]
        before = made.room.reads
        for _ in range(1000):
            made.room.vote()
        await until(
            "all to see all", lambda: all(s.standings[-1]["voters"] == 1000 for s in streams)
        )
        # The votes may fall in two readings, never in a thousand.
        assert made.room.reads - before <= 2
        assert all(len(stream.standings) <= 3 for stream in streams)
        assert streams[0].texts[-1] is streams[49].texts[-1]  # encoded once


@pytest.mark.asyncio
async def test_who_may_not_see_results_gets_voters_and_state_until_the_end() -> None:
    async with site(replace(POLL, results="voted")) as made:
        other, voter = await made.view(), await made.view(voted=True)
        made.room.vote()
        await until("the vote", lambda: other.standings[-1]["voters"] == 1)
        await until("the vote", lambda: voter.standings[-1]["voters"] == 1)
        assert "points" not in other.standings[-1]
        assert b"A1" not in b"".join(other.texts)
        assert voter.standings[-1]["points"] == {"A1": 1, "B2": 0}
        made.room.know = replace(made.room.know, closes=int(time.time()) - 1)
        made.room.said.put_nowait("canary")
        await until("the end", lambda: other.standings[-1]["state"] == "closed")
        assert other.standings[-1]["points"] == {"A1": 1, "B2": 0}


@pytest.mark.asyncio
async def test_hidden_results_leave_every_stream() -> None:
    async with site() as made:
        stream = await made.view(voted=True)
        made.room.know = replace(made.room.know, hidden=True)
        made.room.said.put_nowait("canary")
        await until("no points", lambda: "points" not in stream.standings[-1])


@pytest.mark.asyncio
@pytest.mark.parametrize(("edge", "after"), [("opens", "open"), ("closes", "closed")])
async def test_opening_and_closing_come_without_a_vote(
    edge: str, after: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "RECHECK", 3600)
    async with site() as made:
        moment = int(time.time()) + 2
        made.room.know = replace(made.room.know, **{edge: moment})  # type: ignore[arg-type]
        stream = await made.view()
        assert stream.standings[-1]["state"] != after
        await until("the moment", lambda: stream.standings[-1]["state"] == after)
        assert stream.standings[-1]["now"] >= moment


@pytest.mark.asyncio
async def test_nothing_new_is_not_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "RECHECK", 0.02)
    async with site() as made:
        stream = await made.view()
        before = made.room.reads
        await until("some looks", lambda: made.room.reads > before + 5)
        assert len(stream.texts) == 1


@pytest.mark.asyncio
async def test_a_lost_message_is_made_up_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "RECHECK", 0.1)
    async with site() as made:
        stream = await made.view()
        made.room.vote("another")
        await until("the vote", lambda: stream.standings[-1]["voters"] == 1)


@pytest.mark.asyncio
async def test_nobody_looks_nobody_asks_redis(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "RECHECK", 0.01)
    async with site() as made:
        made.room.vote()
        await until("the message to be heard", made.room.said.empty)
        assert made.room.reads == 0


@pytest.mark.asyncio
async def test_streams_outlive_a_silent_redis(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "AGAIN", 0.02)
    async with site() as made:
        stream = await made.view()
        made.room.silent = True
        made.room.vote()
        before = made.room.reads
        await until("some vain questions", lambda: made.room.reads > before + 2)
        assert len(stream.texts) == 1
        made.room.silent = False
        await until("the vote", lambda: stream.standings[-1]["voters"] == 1)


@pytest.mark.asyncio
async def test_a_defect_does_not_end_the_news(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "AGAIN", 0.02)
    async with site() as made:
        stream = await made.view()
        made.room.broken = True
        made.room.vote()
        await until("the defect", lambda: not made.room.broken)
        made.room.vote()
        await until("the votes", lambda: stream.standings[-1]["voters"] == 2)


@pytest.mark.asyncio
async def test_the_slow_are_dropped_and_the_others_are_not() -> None:
    async with site() as made:
        slow, quick = await made.view(), await made.view()
        slow.unsent = live.UNSENT + 1
        made.room.vote()
        await until("the vote", lambda: quick.standings[-1]["voters"] == 1)
        assert slow.aborted
        assert not quick.aborted
        body, _ = await made.metrics.render([])
        assert b'f1_viewers_dropped_total{poll="canary"} 1\n' in body


@pytest.mark.asyncio
async def test_heartbeat(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "HEARTBEAT", 0.02)
    async with site() as made:
        stream = await made.view()
        await until("comments", lambda: stream.texts.count(b":\n\n") > 2)


@pytest.mark.asyncio
async def test_seats_are_bounded_and_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "VIEWERS", 3)
    async with site() as made:
        tasks = len(asyncio.all_tasks())
        for _ in range(20):
            for _ in range(3):
                await made.view()
            with pytest.raises(Full), made.hub.seat(POLL):
                pass
            body, _ = await made.metrics.render([])
            assert b'f1_viewers{poll="canary"} 3\n' in body
            for task in made.watching:
                task.cancel()
            await asyncio.gather(*made.watching, return_exceptions=True)
            made.watching.clear()
        assert len(asyncio.all_tasks()) == tasks
        body, _ = await made.metrics.render([])
        assert b'f1_viewers{poll="canary"} 0\n' in body


@pytest.mark.asyncio
async def test_the_end_is_said_to_all() -> None:
    async with site() as made:
        streams = [await made.view() for _ in range(5)]
        await made.hub.close()
        assert all(stream.texts[-1] == b"event: bye\ndata:\n\n" for stream in streams)
        async with asyncio.timeout(DEADLINE):
            await asyncio.gather(*made.watching)
        with pytest.raises(Full), made.hub.seat(POLL):
            pass


@pytest.mark.asyncio
async def test_a_restored_redis_is_believed() -> None:
    """Its version is lower than before, and its clock went back."""
    async with site() as made:
        made.room.know = replace(made.room.know, voters=7, version=8)
        stream = await made.view()
        made.room.know = replace(made.room.know, voters=2, version=3)
        made.room.behind = 3600
        made.room.said.put_nowait("canary")
        await until("what Redis knows", lambda: stream.standings[-1]["voters"] == 2)


@pytest.mark.asyncio
async def test_a_message_while_votes_gather_is_another_reading() -> None:
    """Redis is silent for a moment after it, so the first reading may come before the last vote."""
    async with site() as made:
        await made.view()
        before = made.room.reads
        made.room.said.put_nowait("canary")
        for _ in range(10):
            await asyncio.sleep(0)
        made.room.said.put_nowait("canary")
        await until("the second reading", lambda: made.room.reads == before + 2)


def test_an_event_that_was_seen_is_not_sent_again() -> None:
    event = live.Event("7-0", b"event: standing\n\n")
    assert b"event" not in live.opening(event, "7-0")
    assert live.opening(event, "6-0").endswith(event.text)
    assert live.opening(event, None).startswith(b"retry: ")
