"""
Live results: one reader a process, as many viewers as it has seats.

An event carries the whole standing, so nobody has to be told what he missed: a viewer who comes
back is sent the present standing, or nothing if that is what he saw last. Events are `server-sent
events <https://html.spec.whatwg.org/multipage/server-sent-events.html>`_.

A view of a standing is encoded once. Nobody waits for a viewer: who has not taken what was sent
before is dropped, and comes back by himself if he lives.
"""

import asyncio
import functools
import json
import math
import random
import resource
import sys
import zlib
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from sanic.log import logger
from sanic.response import BaseHTTPResponse

from f1vote.metrics import Metrics
from f1vote.polls import Poll
from f1vote.store import Standing, Store, Unreachable

# Votes that come within this time of the first are in the same event (s). Longer than the pause
# between two messages of Redis (lua/vote.lua), so that the last one tells of all votes.
GATHER = 0.25
# A message of Redis may be lost; the standing is read at least so often while somebody looks (s).
RECHECK = 5.0
# After a failure of Redis (s).
AGAIN = 1.0
HEARTBEAT = 15.0
# A moment is reached by Redis's clock when we read it, not just before (s).
MARGIN = 0.02
# Between these a viewer waits before he comes back (ms): not all at once when a process ends.
RETRY = (2000, 4000)
VIEWERS = 4000
# Descriptors that streams leave to votes, pages and Redis.
SPARED = 512
# More than this was not sent yet: the viewer does not follow (bytes; some 20 events).
UNSENT = 16384
# So many are written to before others get the loop (some 2 ms).
BATCH = 100
# How long the end of all streams may take (s).
FAREWELL = 1.0


class Full(Exception):
    """Every seat of this process is taken, or it is about to end."""


@dataclass(frozen=True)
class Event:
    """``id`` names what is shown, ``text`` is the event as it is sent."""

    id: str
    text: bytes


@dataclass(eq=False)
class Viewer:
    """
    One stream: a response that has begun, and its connection. ``seen`` is the id of the event sent
    last; ``voted``: he holds a vote.
    """

    poll: str
    response: BaseHTTPResponse
    transport: asyncio.Transport
    voted: bool
    seen: str
    ended: asyncio.Future[None] = field(default_factory=asyncio.Future)


@dataclass(eq=False)
class _Room:
    """The viewers of a poll. ``events`` are the views of ``standing``, by whether one voted."""

    poll: Poll
    viewers: set[Viewer] = field(default_factory=set)
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    occupied: asyncio.Event = field(default_factory=asyncio.Event)
    standing: Standing | None = None
    events: dict[bool, Event] = field(default_factory=dict)
    read: float = -math.inf  # when, by the loop's clock


class Hub:
    """Every live viewer of this process."""

    def __init__(self, store: Store, polls: Iterable[Poll], metrics: Metrics) -> None:
        self._store, self._metrics = store, metrics
        self._rooms = {poll.id: _Room(poll) for poll in polls}
        self._tasks: list[asyncio.Task[None]] = []
        self._most = self._seats = min(VIEWERS, max(0, _descriptors() - SPARED))
        self._empty = asyncio.Event()
        self._empty.set()
        self._ending = False

    async def start(self) -> None:
        """Begin to follow the changes."""
        logger.info("live results: %d viewers at most", self._most)
        work: list[Callable[[], Awaitable[None]]] = [self._listen, self._beat]
        work += [functools.partial(self._follow, room) for room in self._rooms.values()]
        self._tasks = [asyncio.create_task(_forever(one)) for one in work]

    async def close(self) -> None:
        """End every stream with the event ``bye``, within FAREWELL."""
        self._ending = True
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        for viewer in self._viewers():
            await self._dismiss(viewer)
        with suppress(TimeoutError):
            async with asyncio.timeout(FAREWELL):
                await self._empty.wait()
        for viewer in self._viewers():
            viewer.transport.abort()

    @contextmanager
    def seat(self, poll: Poll) -> Iterator[None]:
        """Hold one of the seats of this process; raise Full if there is none."""
        if self._ending or self._seats == 0:
            raise Full
        self._seats -= 1
        self._empty.clear()
        self._metrics.viewers(poll.id, 1)
        try:
            yield
        finally:
            self._seats += 1
            self._metrics.viewers(poll.id, -1)
            if self._seats == self._most:
                self._empty.set()

    def present(self, poll: Poll, standing: Standing, voted: bool) -> Event:
        """Return the newest event that is known, given that ``standing`` was just read."""
        room = self._rooms[poll.id]
        self._see(room, standing)
        return room.events[voted]

    async def watch(self, viewer: Viewer) -> None:
        """Keep ``viewer`` informed; return when his stream shall end."""
        room = self._rooms[viewer.poll]
        room.viewers.add(viewer)
        room.occupied.set()
        try:
            await self._show(room, viewer)  # what came while the stream began
            if self._ending:
                await self._dismiss(viewer)
            await viewer.ended
        finally:
            room.viewers.discard(viewer)

    def _viewers(self) -> list[Viewer]:
        return [viewer for room in self._rooms.values() for viewer in room.viewers]

    # What the tasks do

    async def _listen(self) -> None:
        async for poll in self._store.changes():
            if poll in self._rooms:
                self._rooms[poll].changed.set()

    async def _beat(self) -> None:
        await asyncio.sleep(HEARTBEAT)
        await self._to_each(self._viewers(), lambda viewer: self._send(viewer, b":\n\n"))

    async def _follow(self, room: _Room) -> None:
        """Wait until something may have changed, then tell the viewers."""
        if not room.viewers:
            room.occupied.clear()
            await room.occupied.wait()
        with suppress(TimeoutError):
            async with asyncio.timeout(self._patience(room)):
                await room.changed.wait()
            # Before the pause: a message that comes in it tells of votes that may come after.
            room.changed.clear()
            await asyncio.sleep(GATHER)
        try:
            self._see(room, await self._store.standing(room.poll))
        except Unreachable:
            room.changed.set()
            await asyncio.sleep(AGAIN)
        else:
            await self._to_each(list(room.viewers), lambda viewer: self._show(room, viewer))

    def _patience(self, room: _Room) -> float:
        """Return how long (s) the standing holds if nobody votes: the poll opens or closes."""
        if room.standing is None:
            return 0.0
        moments = (room.standing.opens, room.standing.closes)
        ahead = [moment - room.standing.now for moment in moments if moment > room.standing.now]
        passed = asyncio.get_running_loop().time() - room.read
        return max(0.0, min([RECHECK, *(wait + MARGIN for wait in ahead)]) - passed)

    def _see(self, room: _Room, standing: Standing) -> None:
        """Remember ``standing``, unless a newer reading has overtaken it."""
        if room.standing and 0 < room.standing.now - standing.now < RECHECK:
            return
        room.standing, room.read = standing, asyncio.get_running_loop().time()
        room.events = {voted: _event(room.poll, standing, voted) for voted in (False, True)}

    async def _to_each(
        self, viewers: list[Viewer], do: Callable[[Viewer], Awaitable[None]]
    ) -> None:
        for number, viewer in enumerate(viewers, 1):
            await do(viewer)
            if number % BATCH == 0:
                await asyncio.sleep(0)

    # One viewer

    async def _show(self, room: _Room, viewer: Viewer) -> None:
        event = room.events.get(viewer.voted)
        if event and event.id != viewer.seen:
            viewer.seen = event.id
            await self._send(viewer, event.text)

    async def _send(self, viewer: Viewer, text: bytes) -> None:
        if viewer.transport.is_closing():
            return
        if viewer.transport.get_write_buffer_size() > UNSENT:
            self._metrics.dropped(viewer.poll)
            viewer.transport.abort()
            return
        # Does not wait: Sanic makes a writer wait from 64 KiB on.
        await viewer.response.send(text)

    async def _dismiss(self, viewer: Viewer) -> None:
        await self._send(viewer, b"event: bye\ndata:\n\n")
        if not viewer.ended.done():
            viewer.ended.set_result(None)


def opening(event: Event, seen: str | None) -> bytes:
    """Return how a stream begins for who last saw the event ``seen``."""
    begin = b"retry: %d\n\n" % random.randint(*RETRY)  # noqa: S311 not a secret
    return begin if event.id == seen else begin + event.text


def view(poll: Poll, standing: Standing, voted: bool) -> dict[str, Any]:
    """Return what a viewer may see of ``standing``: points only if the poll shows them to him."""
    points = {"points": standing.points} if standing.visible(poll, voted) else {}
    return {
        "poll": poll.id,
        "state": standing.state,
        **points,
        "voters": standing.voters,
        "version": standing.version,
        "opens": standing.opens,
        "closes": standing.closes,
        "now": standing.now,
    }


def _descriptors() -> int:
    """Return how many files and connections this process may have open."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return sys.maxsize if soft == resource.RLIM_INFINITY else soft


def _event(poll: Poll, standing: Standing, voted: bool) -> Event:
    shown = view(poll, standing, voted)
    # The version alone does not tell a poll from the same one closed, or points from none.
    timeless = {key: value for key, value in shown.items() if key != "now"}
    name = f"{standing.version}-{zlib.crc32(_json(timeless)):08x}"
    text = b"event: standing\nid: %b\ndata: %b\n\n" % (name.encode(), _json(shown))
    return Event(name, text)


def _json(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


async def _forever(work: Callable[[], Awaitable[None]]) -> None:
    while True:
        try:
            await work()
        except Exception:
            # The viewers stay; a defect must not end their news for good.
            logger.exception("live results")
            await asyncio.sleep(AGAIN)
