"""
Is every tally the sum of its votes? Asked again and again, while votes come in.

Every process tries; the one that begins a recount keeps it by a lease, and another goes on with it
if that process dies. A slice takes a few ms of Redis, and the pauses between them are longer.
"""

import asyncio
import secrets
from collections.abc import Iterable

from sanic.log import logger

from f1vote.polls import Poll
from f1vote.store import LEASE, Store, Unreachable

# A poll is recounted so often (s), by whichever process.
EVERY = 60.0
# Every process looks so often whether something is to be done (s).
LOOK = 5.0
# Redis is busy with a recount one part in so many of the time.
SHARE = 10


class Recounter:
    """Recounts every poll for ever."""

    def __init__(
        self, store: Store, polls: Iterable[Poll], every: float = EVERY, look: float = LOOK
    ) -> None:
        self._store, self._polls, self._every, self._look = store, tuple(polls), every, look
        self._driver = secrets.token_hex(8)
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin."""
        self._task = asyncio.create_task(self._forever())

    async def close(self) -> None:
        """Stop; another process goes on, or this one when it comes back."""
        if self._task:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _forever(self) -> None:
        while True:
            for poll in self._polls:
                try:
                    await self._one(poll)
                except Unreachable as error:
                    logger.warning("%s is not recounted now: %s", poll.id, error)
                except Exception:
                    logger.exception("recount of %s", poll.id)
            await asyncio.sleep(self._look)

    async def _one(self, poll: Poll) -> None:
        loop = asyncio.get_running_loop()
        while True:
            began = loop.time()
            state = await self._store.recount_slice(poll, self._driver, LEASE, self._every)
            if state != "more":
                break
            # No longer than the lease, or another one takes over.
            await asyncio.sleep(min((SHARE - 1) * (loop.time() - began), LEASE / 4))
        if state == "ended" and (result := await self._store.recounted(poll)) and result.difference:
            logger.error("%s: the tally differs by %d from its votes", poll.id, result.difference)
