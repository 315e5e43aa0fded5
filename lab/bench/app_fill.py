"""
A poll with as many voters as one likes: what each of them costs Redis, in memory and in time
(``python -m lab.bench.app voters``).
"""

# ruff: noqa: S311 - nothing drawn here is a secret

import asyncio
import random
from array import array
from collections import Counter
from dataclasses import dataclass
from itertools import product
from typing import Any

from f1vote.polls import Choice, Poll
from f1vote.receipts import ALPHABET, LENGTH
from f1vote.store import Store

# As lua/common.lua parts a receipt.
PREFIX = 4
BUCKETS = ["".join(letters) for letters in product(ALPHABET, repeat=PREFIX)]
REST = LENGTH - PREFIX
# A byte becomes a character of a receipt: 256 is a multiple of 32.
LETTERS = bytes(ord(ALPHABET[byte % len(ALPHABET)]) for byte in range(256))
SIZES = [10**power for power in range(3, 8)]
# Votes whose cost is measured, and how many are under way at once.
VOTES, VOTERS = 20_000, 512

CODES = ("NOR", "PIA", "VER", "HAM", "LEC", "RUS", "ALO", "GAS")
POLL = Poll(
    id="bench",
    title={"en": "Bench"},
    question={"en": "Bench"},
    opens=0,
    closes=0,
    choices=tuple(Choice(code, {"en": code}, None, None, "#000000", None) for code in CODES),
    points=(1,),
    results="always",
    voters="cookie",
    listed=True,
)


@dataclass(frozen=True)
class Cost:
    """
    Of ``voters``: ``sampled`` bytes a voter by MEMORY USAGE over some buckets, ``used`` by the
    growth of all memory in use; ``new`` and ``change`` are µs of Redis's time a vote, in groups.
    """

    voters: int
    sampled: float
    used: float
    new: float
    change: float


def fill(redis: Any, poll: Poll, n: int) -> None:
    """
    Add ``n`` voters of random receipts to ``poll``, which has none. ``redis`` is a client that is
    not asynchronous. Some 200,000 a second.
    """
    drawn = array("I")
    drawn.frombytes(random.randbytes(4 * n))
    fullness = Counter(number % len(BUCKETS) for number in drawn)
    votes = [">".join(random.sample(poll.codes, len(poll.points))) for _ in range(997)]
    held: Counter[str] = Counter()
    with redis.pipeline(transaction=False) as pipe:
        for number, size in fullness.items():
            letters = random.randbytes(REST * size).translate(LETTERS).decode()
            chosen = random.choices(votes, k=size)
            held.update(chosen)
            words: list[str] = []
            for at, vote in enumerate(chosen):
                words += (letters[REST * at : REST * (at + 1)], vote)
            pipe.execute_command("HSET", f"poll:{poll.id}:votes:{BUCKETS[number]}", *words)
            if len(pipe) >= 100:
                pipe.execute()
        points: Counter[str] = Counter()
        for vote, times in held.items():
            for place, code in enumerate(vote.split(">")):
                points[code] += times * poll.points[place]
        meta = {"voters": n, "version": n, "points": ">".join(map(str, poll.points))}
        marks = bytearray(len(BUCKETS) // 8)
        for number in fullness:
            marks[number // 8] |= 128 >> number % 8
        pipe.set(f"poll:{poll.id}:buckets", bytes(marks))
        pipe.hset(f"poll:{poll.id}:tally", mapping=dict(points))
        pipe.hset(f"poll:{poll.id}:meta", mapping=meta)
        pipe.execute()


def measure(redis: Any, url: str, n: int) -> Cost:
    """Fill an empty Redis with ``n`` voters; return what they cost. Leaves it empty."""
    empty = redis.info("memory")["used_memory"]
    fill(redis, POLL, n)
    used = redis.info("memory")["used_memory"] - empty
    with redis.pipeline(transaction=False) as pipe:
        for _ in range(2000):
            pipe.randomkey()
        keys = {key for key in pipe.execute() if ":votes:" in key}
        for key in keys:
            pipe.memory_usage(key)
            pipe.hlen(key)
        told = pipe.execute()
    # MEMORY USAGE leaves out what the table of keys takes: two words and a share of its slots.
    held = sum(told[1::2])
    sampled = sum(size + 32 for size in told[::2] if size) / held if held else 0.0
    new, change = asyncio.run(_costs(redis, url))
    redis.flushall()
    return Cost(n, sampled, used / n, new, change)


async def _costs(redis: Any, url: str) -> tuple[float, float]:
    store = Store(url, [POLL])
    fresh = random.randbytes(LENGTH * VOTES).translate(LETTERS).decode()
    receipts = [fresh[LENGTH * at : LENGTH * (at + 1)] for at in range(VOTES)]

    async def cost(code: str) -> float:
        before, rest = _busy(redis), iter(receipts)

        async def voter() -> None:
            for receipt in rest:
                await store.cast(POLL, receipt, (code,))

        await asyncio.gather(*(voter() for _ in range(VOTERS)))
        return (_busy(redis) - before) / VOTES

    try:
        await store.cast(POLL, receipts[0], ("NOR",))  # the script is loaded
        return await cost("PIA"), await cost("VER")
    finally:
        await store.close()


def _busy(redis: Any) -> float:
    """Return how long Redis has worked at scripts (µs)."""
    return float(redis.info("commandstats")["cmdstat_evalsha"]["usec"])
