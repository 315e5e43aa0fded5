"""The vote app without grouping: every vote is a call of Redis alone. Arguments as the app's."""

import sys
from typing import Any

from f1vote import __main__, batch, store


class Alone(batch.Batch[Any, Any]):
    """A batch that sends every item when it comes, by itself."""

    async def ask(self, item: Any) -> Any:
        """Return the answer to ``item``."""
        (answer,) = await self._send([item])
        return answer


if __name__ == "__main__":
    store.Batch = Alone  # type: ignore[misc]
    sys.exit(__main__.main())
