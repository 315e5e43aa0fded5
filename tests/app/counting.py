"""Polls to count, and the count of somebody who does not trust the scripts."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from f1vote import receipts
from f1vote.polls import Choice, Poll
from f1vote.store import Store
from tests.app.servers import Redis

T = TypeVar("T")


def poll(name: str = "test", points: tuple[int, ...] = (1,), **facts: Any) -> Poll:
    """Return an open poll of four choices."""
    codes = ("NOR", "VER", "HAM", "LEC")
    choices = tuple(Choice(code, {"en": code}, None, None, "#000000", None) for code in codes)
    known: dict[str, Any] = {
        "title": {}, "question": {}, "opens": 0, "closes": 0, "results": "always",
        "voters": "cookie", "listed": True,
    }  # fmt: skip
    return Poll(**{**known, "id": name, "points": points, "choices": choices, **facts})


def receipt(name: str, poll_id: str = "test") -> str:
    return receipts.of(poll_id, name)


@asynccontextmanager
async def opened(redis: Redis, *polls: Poll, url: str | None = None):
    store = Store(url or redis.url, polls)
    try:
        yield store
    finally:
        await store.close()


def run(redis: Redis, polls: list[Poll], work: Callable[[Store], Awaitable[T]]) -> T:
    """Return what ``work`` returns, with a store over an empty Redis."""
    redis.client.flushall()

    async def whole() -> T:
        async with opened(redis, *polls) as store:
            return await work(store)

    return asyncio.run(whole())


def count(client: Any, poll: Poll) -> dict[str, str]:
    """
    Return the votes by receipt; fail if the tally, the number of voters or the map of buckets
    are not what they tell.
    """
    base = f"poll:{poll.id}:"
    held: dict[str, str] = {}
    points: Counter[str] = Counter()
    for key in client.scan_iter(f"{base}votes:*", count=1000):
        bucket = key.removeprefix(f"{base}votes:")
        number = int("".join(f"{receipts.ALPHABET.index(c):05b}" for c in bucket), 2)
        assert client.getbit(f"{base}buckets", number) == 1
        assert client.object("encoding", key) == "listpack"
        for field, value in client.hgetall(key).items():
            assert len(bucket + field) == 13
            held[bucket + field] = value
            for place, code in enumerate(value.split(">")):
                points[code] += poll.points[place]
    tally = client.hgetall(f"{base}tally")
    assert {code: int(n) for code, n in tally.items() if n != "0"} == points
    assert int(client.hget(f"{base}meta", "voters") or 0) == len(held)
    return held
