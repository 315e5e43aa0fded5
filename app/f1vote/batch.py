"""
Group commit: the votes that wait while Redis is busy go to it together.

With ``appendfsync always`` Redis syncs its log once for each round of its event loop, and a call
costs this process more than a vote does; so one call is under way at a time, and the next takes
with it everything that has come meanwhile. Nobody waits for company: alone, a vote leaves at once.
"""

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Sequence
from typing import Generic, TypeVar

Place = TypeVar("Place", bound=Hashable)
Item = TypeVar("Item")
Answer = TypeVar("Answer")

# One call takes no more than that: some 2 ms of Redis, for which all others wait.
MOST = 512


class Batch(Generic[Place, Item, Answer]):
    """
    Collects items by place and gives each its answer. ``send(place, items)`` answers all items of
    a group, in their order, or raises; then every item of the group, and those that wait behind
    it, get that exception: what failed for the first is not tried for a queue of others.
    """

    def __init__(self, send: Callable[[Place, Sequence[Item]], Awaitable[Sequence[Answer]]]):
        self._send = send
        self._waiting: dict[Place, list[tuple[Item, asyncio.Future[Answer]]]] = {}
        self._task: asyncio.Task[None] | None = None

    def ask(self, place: Place, item: Item) -> asyncio.Future[Answer]:
        """Return the answer to ``item``, which will come."""
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(place, []).append((item, answer))
        if self._task is None:
            self._task = asyncio.create_task(self._work())
        return answer

    async def _work(self) -> None:
        try:
            while self._waiting:
                place = next(iter(self._waiting))
                queue = self._waiting.pop(place)
                group, rest = queue[:MOST], queue[MOST:]
                if rest:
                    # Behind the other places: a busy poll does not starve them.
                    self._waiting[place] = rest
                await self._settle(place, group)
        finally:
            self._task = None

    async def _settle(self, place: Place, group: list[tuple[Item, asyncio.Future[Answer]]]) -> None:
        try:
            answers = await self._send(place, [item for item, _ in group])
        except BaseException as error:
            behind = [waiting for queue in self._waiting.values() for waiting in queue]
            self._waiting.clear()
            for _, answer in (*group, *behind):
                if not answer.done():  # who asked may be gone
                    answer.set_exception(error)
            if not isinstance(error, Exception):
                raise
            return
        for (_, answer), given in zip(group, answers, strict=True):
            if not answer.done():
                answer.set_result(given)
