"""
Votes in Redis: the hash ``poll:<id>:votes`` (voter → code) and ``poll:<id>:tally`` (code → n).

For every code, its tally is the number of voters who hold it: one script writes both.
"""

import asyncio
from collections.abc import Awaitable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, TypeVar, cast

from redis import asyncio as aioredis
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialBackoff
from redis.exceptions import RedisError

from f1vote.polls import Poll

SCRIPT = (Path(__file__).parent / "vote.lua").read_text(encoding="utf-8")
# A voter waits no longer than this for an answer, retries included (seconds).
DEADLINE = 4.0
CONNECTIONS = 64

T = TypeVar("T")


class Unreachable(Exception):
    """Redis did not answer. A vote that was on its way may be counted; repeating it is safe."""


class Outcome(StrEnum):
    """What became of a vote or a withdrawal."""

    COUNTED = "counted"
    WITHDRAWN = "withdrawn"
    SAME = "same"  # nothing to change
    UNKNOWN = "unknown"  # no such choice
    EARLY = "early"
    CLOSED = "closed"


@dataclass(frozen=True)
class Results:
    """``now`` is the Unix time by Redis's clock, ``mine`` the code that the asking voter holds."""

    tally: dict[str, int]
    voters: int
    now: int
    mine: str | None


class Votes:
    """The counting room. One object a process."""

    def __init__(self, url: str) -> None:
        # The pool makes a caller wait for a connection instead of opening more of them.
        self._pool: Any = aioredis.BlockingConnectionPool.from_url(
            url,
            max_connections=CONNECTIONS,
            timeout=2,
            decode_responses=True,
            socket_timeout=2,
            socket_connect_timeout=1,
            # Safe because the script may run twice: see vote.lua.
            retry=Retry(ExponentialBackoff(cap=0.2, base=0.05), 2),
            health_check_interval=15,
        )
        self._redis: Any = aioredis.Redis(connection_pool=self._pool)
        # Sent by its hash, and whole only when Redis does not know it (after a restart).
        self._script = self._redis.register_script(SCRIPT)

    async def close(self) -> None:
        """Close every connection."""
        await self._pool.aclose()

    async def ping(self) -> None:
        """Return if Redis answers; raise Unreachable otherwise."""
        await _ask(self._redis.ping())

    async def cast(self, poll: Poll, voter: str, code: str) -> tuple[Outcome, str | None]:
        """
        Make ``code`` the vote of ``voter`` ('' withdraws it); return what happened and the code
        held before. Raises Unreachable; then the same call can be made again.
        """
        answer: Any = await _ask(
            self._script(
                keys=[_votes(poll), _tally(poll)],
                args=[voter, code, poll.opens, poll.closes, *poll.codes],
            )
        )
        outcome, held = cast("list[str]", answer)
        return Outcome(outcome), held or None

    async def results(self, poll: Poll, voter: str | None = None) -> Results:
        """Return the tally of every choice at one moment; raise Unreachable."""
        async with self._redis.pipeline(transaction=True) as pipe:
            pipe.hgetall(_tally(poll))
            pipe.hlen(_votes(poll))
            pipe.time()
            pipe.hget(_votes(poll), voter or "")
            tally, voters, now, mine = await _ask(pipe.execute())
        return Results(
            tally={code: int(tally.get(code, 0)) for code in poll.codes},
            voters=voters,
            now=int(now[0]),
            mine=mine,
        )


def _votes(poll: Poll) -> str:
    return f"poll:{poll.id}:votes"


def _tally(poll: Poll) -> str:
    return f"poll:{poll.id}:tally"


async def _ask(answer: Awaitable[T] | Any) -> T:
    try:
        async with asyncio.timeout(DEADLINE):
            return cast("T", await answer)
    except (RedisError, OSError, TimeoutError) as error:
        raise Unreachable(f"{type(error).__name__}: {error}") from error
