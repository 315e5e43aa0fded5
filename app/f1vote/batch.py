"""
Group commit: what waits while a call is under way goes together into the next one.

A call to a Redis that syncs its log before each answer costs a sync, however much it carries.
Calls follow each other, so requests take effect in the order in which they were made.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, NamedTuple, TypeVar

# A call to Redis takes no longer (s), or its fate is unknown.
ATTEMPT = 1.2
# Pauses between calls that failed (s): doubled each time, up to the last.
PAUSES = (0.05, 0.4)
# Some 2 ms of Redis: nobody else waits longer for it.
MOST_TOGETHER = 256
# More would not be answered in time.
MOST_WAITING = 8192

Item = TypeVar("Item")
Answer = TypeVar("Answer")


class Unreachable(Exception):
    """Redis did not answer. A vote that was on its way may be counted; repeating it is safe."""


class _Waiting(NamedTuple, Generic[Item, Answer]):
    """``until`` is the moment (of the loop's clock) at which the asker gets an answer at last."""

    item: Item
    future: "asyncio.Future[Answer]"
    until: float


class Batch(Generic[Item, Answer]):
    """
    Gathers items, sends them through ``send`` and gives each asker his own answer.

    ``send`` returns the answers in the order of its items. It raises Unreachable if nobody knows
    whether the items took effect; they are sent again until ``deadline`` (s), so repeating them
    must be safe.
    """

    def __init__(
        self, send: Callable[[Sequence[Item]], Awaitable[Sequence[Answer]]], deadline: float
    ) -> None:
        self._send, self._deadline = send, deadline
        self._waiting: deque[_Waiting[Item, Answer]] = deque()
        self._task: asyncio.Task[None] | None = None

    async def ask(self, item: Item) -> Answer:
        """Return the answer to ``item``; raise Unreachable within the deadline."""
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self.put(item, answer)
        return await answer

    def put(self, item: Item, answer: "asyncio.Future[Answer]") -> None:
        """
        Let ``answer`` be the one to ``item``, or Unreachable, within the deadline.

        Raises:
            Unreachable: too many wait.
        """
        if len(self._waiting) >= MOST_WAITING:
            raise Unreachable(f"{MOST_WAITING} others wait for Redis")
        loop = asyncio.get_running_loop()
        self._waiting.append(_Waiting(item, answer, loop.time() + self._deadline))
        if self._task is None:
            self._task = loop.create_task(self._run())

    async def close(self) -> None:
        """Give up what still waits."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _run(self) -> None:
        pause, why = PAUSES[0], Unreachable("Redis was not asked in time")
        group: list[_Waiting[Item, Answer]] = []
        try:
            while group := self._take(why):
                try:
                    answers = await self._send([waiting.item for waiting in group])
                except Unreachable as error:
                    why = error
                    self._waiting.extendleft(reversed(group))
                    group = []
                    await asyncio.sleep(pause)
                    pause = min(2 * pause, PAUSES[1])
                    continue
                pause = PAUSES[0]
                for waiting, answer in zip(group, answers, strict=True):
                    if not waiting.future.done():
                        waiting.future.set_result(answer)
        except BaseException as error:
            # A defect, or the end of this process: nobody is left waiting.
            for waiting in (*group, *self._waiting):
                if not waiting.future.done():
                    waiting.future.set_exception(Unreachable(f"{type(error).__name__}: {error}"))
            self._waiting.clear()
            raise
        finally:
            self._task = None

    def _take(self, why: Unreachable) -> list[_Waiting[Item, Answer]]:
        """Take the next group; who could not get an answer in time any more gets ``why``."""
        group: list[_Waiting[Item, Answer]] = []
        latest = asyncio.get_running_loop().time() + ATTEMPT
        while self._waiting and len(group) < MOST_TOGETHER:
            waiting = self._waiting.popleft()
            if waiting.future.done():  # who asked has left
                continue
            if waiting.until < latest:
                waiting.future.set_exception(Unreachable(str(why)))
            else:
                group.append(waiting)
        return group
