"""
The counting room: votes in Redis. docs/architecture.md says which keys hold what.

A vote is one step of Redis (``lua/vote.lua``): who holds what, both tallies, opening and closing by
Redis's clock. Made twice it counts once, so it may be repeated when its answer was lost. For every
code the tally is the sum of the points of the votes that hold it; ``recount`` proves it.
"""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, TypeVar

from redis import asyncio as aioredis
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialBackoff
from redis.exceptions import NoScriptError, RedisError

from f1vote import receipts
from f1vote.batch import Batch
from f1vote.polls import Poll

LUA = Path(__file__).parent / "lua"
CHANNEL = "f1:changed"
LOG = "admin:log"
# A voter waits no longer than this for an answer, retries included (s).
DEADLINE = 4.0
CONNECTIONS = 32
# Of the first characters of a receipt; each bucket stays small enough for Redis to pack it
# (hash-max-listpack-entries in k8s/redis) up to ten million votes.
BUCKET_LENGTH = 3
BUCKETS = tuple(a + b + c for a in receipts.ALPHABET for b in receipts.ALPHABET
                for c in receipts.ALPHABET)  # fmt: skip
# Commands that go together when all votes are read.
TOGETHER = 256
# What a slice of a recount looks at: a few ms, in which nobody votes.
SLICE_BUCKETS, SLICE_VOTES = 512, 2000
MOST_BURSTS = 1000
MOST_LOG = 10_000
# A subscription that heard nothing for so long is asked whether it lives (s).
SILENCE = 15.0
AGAIN = 1.0

T = TypeVar("T")
Observe = Callable[[str, float, bool], None]


class Unreachable(Exception):
    """Redis did not answer. A vote that was on its way may be counted; repeating it is safe."""


class Outcome(StrEnum):
    """What became of a vote or a withdrawal."""

    COUNTED = "counted"
    CHANGED = "changed"
    WITHDRAWN = "withdrawn"
    SAME = "same"  # nothing to change
    UNKNOWN = "unknown"  # no such choice, one twice, or too many
    EARLY = "early"
    CLOSED = "closed"
    FROZEN = "frozen"
    CODE = "code"  # not admitted


@dataclass(frozen=True)
class Cast:
    """``held`` are the choices that counted before."""

    outcome: Outcome
    held: tuple[str, ...]


@dataclass(frozen=True)
class Standing:
    """
    A poll at one moment: ``points`` by code, ``now`` by Redis's clock, ``opens`` and ``closes`` as
    they are in force (Unix seconds; 0 = never).
    """

    points: dict[str, int]
    voters: int
    version: int
    now: float
    opens: int
    closes: int
    frozen: bool
    hidden: bool

    @property
    def state(self) -> str:
        """Return ``early``, ``open``, ``frozen`` or ``closed``."""
        if self.closes and self.now >= self.closes:
            return "closed"
        if self.now < self.opens:
            return "early"
        return "frozen" if self.frozen else "open"

    def visible(self, poll: Poll, voted: bool) -> bool:
        """Return whether the points may be shown to who voted or did not."""
        if self.hidden:
            return False
        closed = self.state == "closed"
        return closed or poll.results == "always" or (poll.results == "voted" and voted)


@dataclass(frozen=True)
class Recount:
    """
    When a recount ended (Unix time by Redis's clock, s), how long it took (s), and by how many
    points and votes the tally differed from it: must be 0.
    """

    at: float
    seconds: float
    difference: int


@dataclass(frozen=True)
class Burst:
    """
    Very many new ballots from one address: its keyed daily hash, first and last ballot (Unix
    seconds), how many, how many more were asked for work and brought none, for whom they voted.
    """

    address: str
    first: int
    last: int
    fresh: int
    challenged: int
    choices: dict[str, int]


class _Script:
    """A script, sent by its hash, and whole only when Redis does not know it (after a restart)."""

    def __init__(self, redis: Any, name: str) -> None:
        self._redis, self._text = redis, (LUA / f"{name}.lua").read_text(encoding="utf-8")
        self._sha = ""

    async def load(self) -> None:
        self._sha = await self._redis.script_load(self._text)

    async def __call__(self, *arguments: str | int) -> Any:
        if not self._sha:
            await self.load()
        try:
            return await self._redis.evalsha(self._sha, 0, *arguments)
        except NoScriptError:
            await self.load()
            return await self._redis.evalsha(self._sha, 0, *arguments)


class Store:
    """One object a process. Every method raises Unreachable when Redis does not answer in time."""

    def __init__(
        self, url: str, password: str | None = None, observe: Observe = lambda *_: None
    ) -> None:
        """``observe`` hears of every call: its name, its seconds, whether Redis answered."""
        options: dict[str, Any] = {"password": password} if password else {}
        self._pool: Any = aioredis.BlockingConnectionPool.from_url(
            url,
            max_connections=CONNECTIONS,
            timeout=2,
            decode_responses=True,
            socket_timeout=2,
            socket_connect_timeout=1,
            # Few, and safe because what is repeated changes nothing: see vote.lua.
            retry=Retry(ExponentialBackoff(cap=0.2, base=0.05), 2),
            health_check_interval=15,
            **options,
        )
        self._redis: Any = aioredis.Redis(connection_pool=self._pool)
        self._vote, self._recount, self._reset = (
            _Script(self._redis, name) for name in ("vote", "recount", "reset")
        )
        self._polls: dict[str, Poll] = {}
        self._batch: Batch[str, str, Cast] = Batch(self._send)
        self._observe = observe

    async def close(self) -> None:
        """Close every connection."""
        await self._pool.aclose()

    async def problems(self) -> list[str]:
        """Return why votes cannot be counted safely now; nothing if they can."""
        try:
            info = await self._ask("INFO", self._redis.info("persistence"))
        except Unreachable as error:
            return [str(error)]
        wrong = []
        if int(info.get("loading", 0)):
            wrong.append("redis is loading its data")
        if not int(info.get("aof_enabled", 0)):
            wrong.append("redis keeps no append-only file: set appendonly yes")
        if info.get("aof_last_write_status", "ok") != "ok":
            wrong.append("redis could not write its append-only file: is its disk full?")
        return wrong

    # Voters

    async def cast(self, poll: Poll, receipt: str, choices: Sequence[str]) -> Cast:
        """Make ``choices``, best first, the vote under ``receipt``; none withdraws it."""
        value = ">".join(choices)
        if not value.replace(">", "").isalnum() and value:
            # Nothing that could be taken for a separator reaches the script.
            value = "?"
        self._polls[poll.id] = poll
        return await self._batch.ask(poll.id, f"{receipt}={value}")

    async def _send(self, name: str, votes: Sequence[str]) -> list[Cast]:
        poll = self._polls[name]
        text: str = await self._ask(
            "vote",
            self._vote(
                poll.id,
                poll.opens,
                poll.closes,
                int(poll.voters == "codes"),
                _points(poll),
                ">".join(poll.codes),
                ";".join(votes),
            ),
        )
        answers = (line.split(" ") for line in text.split("\n"))
        return [Cast(_OUTCOMES[outcome], split(held)) for outcome, held in answers]

    async def standing(self, poll: Poll) -> Standing:
        """Return ``poll`` at this moment."""
        return (await self.page(poll, None))[0]

    async def page(self, poll: Poll, receipt: str | None) -> tuple[Standing, tuple[str, ...]]:
        """Return the standing, and what counts under ``receipt``, of the same moment."""
        async with self._redis.pipeline(transaction=True) as pipe:
            pipe.hgetall(_key(poll, "tally"))
            pipe.hmget(_key(poll, "meta"), FIELDS)
            pipe.time()
            if receipt:
                pipe.hget(*_place(poll, receipt))
            tally, meta, (seconds, micros), *held = await self._ask("page", pipe.execute())
        voters, version, opens, closes, frozen, hidden = meta
        standing = Standing(
            points={code: int(tally.get(code, 0)) for code in poll.codes},
            voters=int(voters or 0),
            version=int(version or 0),
            now=seconds + micros / 1e6,
            opens=poll.opens if opens is None else int(opens),
            closes=poll.closes if closes is None else int(closes),
            frozen=frozen == "1",
            hidden=hidden == "1",
        )
        return standing, split(held[0] if held else None)

    async def held(self, poll: Poll, receipt: str) -> tuple[str, ...]:
        """Return the choices that count under ``receipt``; none if nothing does."""
        return split(await self._ask("held", self._redis.hget(*_place(poll, receipt))))

    async def admitted(self, poll: Poll, receipt: str) -> bool:
        """Return whether ``receipt`` is of a one-time code of ``poll``."""
        answer = self._redis.sismember(_key(poll, "codes"), receipt)
        return bool(await self._ask("admitted", answer))

    async def changes(self) -> AsyncIterator[str]:
        """
        Yield the id of each poll that changed, soon after; at most five a second of a poll.

        Comes back by itself when Redis does; what it missed meanwhile it does not tell.
        """
        while True:
            try:
                async with self._redis.pubsub() as listener:
                    await listener.subscribe(CHANNEL)
                    while True:
                        message = await listener.get_message(
                            ignore_subscribe_messages=True, timeout=SILENCE
                        )
                        if message is None:
                            await listener.ping()
                        else:
                            yield message["data"]
            except (RedisError, OSError, TimeoutError):
                await asyncio.sleep(AGAIN)

    # The recount

    async def slice(self, poll: Poll) -> bool:
        """Count on for a few ms; return whether the recount of ``poll`` has ended with it."""
        answer = self._recount(poll.id, _points(poll), SLICE_BUCKETS, SLICE_VOTES)
        return bool(await self._ask("recount", answer))

    async def recount(self, poll: Poll) -> Recount:
        """Recount the whole poll, or end the recount that is under way; votes go on meanwhile."""
        while not await self.slice(poll):
            await asyncio.sleep(0)
        recount = await self.recounted(poll)
        assert recount is not None  # noqa: S101 - the script has just written it
        return recount

    async def recounted(self, poll: Poll) -> Recount | None:
        """Return the last recount that has ended, if there was one."""
        fields = self._redis.hmget(_key(poll, "recount"), "at", "seconds", "difference")
        at, seconds, difference = await self._ask("recounted", fields)
        return None if at is None else Recount(float(at), float(seconds), int(difference))

    async def lease(self, name: str, holder: str, seconds: int) -> bool:
        """Return whether ``holder`` has the lease ``name``, for ``seconds`` from now."""
        key = f"lease:{name}"
        taken = self._redis.set(key, holder, nx=True, ex=seconds)
        if await self._ask("lease", taken):
            return True
        if await self._ask("lease", self._redis.get(key)) != holder:
            return False
        return bool(await self._ask("lease", self._redis.expire(key, seconds)))

    # Bursts

    async def mark(self, poll: Poll, burst: Burst) -> None:
        """Write ``burst`` as it stands; a later record of the same one replaces it."""
        record = {"burst": json.dumps(asdict(burst))}
        key = _key(poll, "bursts")
        await self._ask("mark", self._redis.xadd(key, record, maxlen=MOST_BURSTS, approximate=True))

    async def bursts(self, poll: Poll, count: int = 100) -> list[Burst]:
        """Return the last ``count`` bursts, newest first."""
        entries = await self._ask("bursts", self._redis.xrevrange(_key(poll, "bursts")))
        found: dict[tuple[str, int], Burst] = {}
        for _, record in entries:
            burst = Burst(**json.loads(record["burst"]))
            found.setdefault((burst.address, burst.first), burst)
        return list(found.values())[:count]

    # The organiser

    async def control(self, poll: Poll, **overrides: int | bool | None) -> Standing:
        """
        Put ``opens``, ``closes`` (Unix seconds), ``frozen`` or ``hidden`` in force; None gives the
        word back to the poll's file.
        """
        key = _key(poll, "meta")
        async with self._redis.pipeline(transaction=True) as pipe:
            for field, value in overrides.items():
                if value is None:
                    pipe.hdel(key, field)
                else:
                    pipe.hset(key, field, int(value))
            pipe.hincrby(key, "version", 1)
            pipe.publish(CHANNEL, poll.id)
            await self._ask("control", pipe.execute())
        return await self.standing(poll)

    async def admit(self, poll: Poll, admitted: Iterable[str]) -> int:
        """Let the receipts ``admitted`` vote; return how many are new."""
        return int(await self._ask("admit", self._redis.sadd(_key(poll, "codes"), *admitted)))

    async def reset(self, poll: Poll) -> int:
        """Remove every vote of ``poll``; return how many there were."""
        return int(await self._ask("reset", self._reset(poll.id)))

    async def votes(self, poll: Poll) -> AsyncIterator[tuple[str, tuple[str, ...]]]:
        """Yield each receipt and its choices, in the order of the receipts, bucket by bucket."""
        for first in range(0, len(BUCKETS), TOGETHER):
            buckets = BUCKETS[first : first + TOGETHER]
            async with self._redis.pipeline(transaction=False) as pipe:
                for bucket in buckets:
                    pipe.hgetall(_key(poll, f"votes:{bucket}"))
                answers = await self._ask("votes", pipe.execute())
            for bucket, fields in zip(buckets, answers, strict=True):
                for field in sorted(fields):
                    yield bucket + field, split(fields[field])

    async def note(self, who: str, action: str, **facts: Any) -> None:
        """Write what ``who`` did to the log of the organisers."""
        record = {"who": who, "action": action, "facts": json.dumps(facts)}
        added = self._redis.xadd(LOG, record, maxlen=MOST_LOG, approximate=True)
        await self._ask("note", added)

    async def log(self, count: int = 100) -> list[dict[str, Any]]:
        """Return the last ``count`` notes, newest first: ``at`` (Unix s), who, action, facts."""
        entries = await self._ask("log", self._redis.xrevrange(LOG, count=count))
        return [
            {
                "at": int(name.partition("-")[0]) / 1000,
                "who": record["who"],
                "action": record["action"],
                "facts": json.loads(record["facts"]),
            }
            for name, record in entries
        ]

    async def _ask(self, name: str, answer: Awaitable[T] | Any) -> Any:
        began = time.perf_counter()
        try:
            async with asyncio.timeout(DEADLINE):
                given = await answer
        except (RedisError, OSError, TimeoutError) as error:
            self._observe(name, time.perf_counter() - began, False)
            raise Unreachable(f"redis: {type(error).__name__}: {error}") from error
        self._observe(name, time.perf_counter() - began, True)
        return given


def split(value: str | None) -> tuple[str, ...]:
    """Return the choices that a stored vote names, best first."""
    return tuple(value.split(">")) if value else ()


FIELDS = ("voters", "version", "opens", "closes", "frozen", "hidden")
_OUTCOMES = {str(outcome): outcome for outcome in Outcome}


def _key(poll: Poll, what: str) -> str:
    return f"poll:{poll.id}:{what}"


def _place(poll: Poll, receipt: str) -> tuple[str, str]:
    """The hash and the field that hold the vote under ``receipt``."""
    return _key(poll, f"votes:{receipt[:BUCKET_LENGTH]}"), receipt[BUCKET_LENGTH:]


def _points(poll: Poll) -> str:
    return ">".join(str(value) for value in poll.points)
