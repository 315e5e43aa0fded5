"""The vote app without grouping: every vote is a call of Redis alone. Arguments as the app's."""

import asyncio
import sys
from typing import Any

from f1vote import __main__, batch, store

# The loop itself keeps no task alive.
TASKS: set[asyncio.Task[None]] = set()


class Alone(batch.Batch[Any, Any]):
    """A batch that sends every item when it comes, by itself."""

    def put(self, item: Any, answer: asyncio.Future[Any]) -> None:
        """Send ``item``."""
        task = asyncio.create_task(self._one(item, answer))
        TASKS.add(task)
        task.add_done_callback(TASKS.discard)

    async def _one(self, item: Any, answer: asyncio.Future[Any]) -> None:
        (given,) = await self._send([item])
        answer.set_result(given)


if __name__ == "__main__":
    store.Batch = Alone  # type: ignore[misc]
    sys.exit(__main__.main())
