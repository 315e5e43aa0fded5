"""The recount that never ends: one process at a time counts every poll, over and over."""

import asyncio
import secrets
from collections.abc import Iterable

from sanic.log import logger

from f1vote.polls import Poll
from f1vote.store import Store, Unreachable

LEASE = "recount"
# Who drives it says so at least so often, or another one takes it up where it stands (s).
LEASE_SECONDS = 20
# Between two slices, so that votes pass (s), and between two recounts (s).
PAUSE = 0.01
REST = 30.0
AGAIN = 5.0


class Recounter:
    """One object a process; of several one works, and the others wait for its end."""

    def __init__(self, store: Store, polls: Iterable[Poll]) -> None:
        self._store, self._polls = store, tuple(polls)
        self._holder = secrets.token_urlsafe(12)
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin to recount, or to wait for one's turn."""
        self._task = asyncio.create_task(self._forever())

    async def close(self) -> None:
        """Stop; a recount under way is taken up by the next."""
        if self._task:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _forever(self) -> None:
        while True:
            try:
                done = await self._round()
            except Unreachable as error:
                logger.warning("recount: %s", error)
                done = False
            await asyncio.sleep(REST if done else AGAIN)

    async def _round(self) -> bool:
        for poll in self._polls:
            while True:
                if not await self._store.lease(LEASE, self._holder, LEASE_SECONDS):
                    return False
                if await self._store.slice(poll):
                    break
                await asyncio.sleep(PAUSE)
            recount = await self._store.recounted(poll)
            if recount and recount.difference:
                logger.error("%s: the tally is off by %d", poll.id, recount.difference)
        # Between two rounds the lease is kept: the same process goes on.
        await self._store.lease(LEASE, self._holder, LEASE_SECONDS + int(REST))
        return True
