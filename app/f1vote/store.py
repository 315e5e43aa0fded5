"""
Everything that Redis keeps, and the promise: an acknowledged vote is durable and counted once.

=====================  ========================================================================
``poll:<id>:votes:p``  hash; p the first four characters of a receipt, a field the other nine, its
                       value the codes: ``NOR`` or ``NOR>PIA>VER``. A million of them, each a
                       listpack of a few
``poll:<id>:buckets``  bitmap: which of them ever held a vote
``poll:<id>:tally``    hash: code → points
``poll:<id>:meta``     hash: ``voters``, ``version``, ``points`` (by place, since the first vote),
                       ``told`` (when a change was published); the organiser's ``opens``,
                       ``closes``, ``frozen``, ``hidden``
``poll:<id>:recount``  hash: the last result, and a recount under way (lua/recount.lua)
``poll:<id>:codes``    set: the receipts that may vote, in a poll with one-time codes
``poll:<id>:bursts``   stream: votes that look stuffed
``admin:log``          stream: what organisers did
=====================  ========================================================================

Channel ``f1:changed``: the id of a poll, at most five times a second each.

Invariant: for every code, its tally is the sum of the points of the places at which votes hold it;
``voters`` is the number of votes. Scripts name keys that they compute, so this is for one Redis and
not for a cluster of them.

A user of Redis needs, on ``poll:*``, ``admin:log`` and ``f1:changed``: EVALSHA EVAL INFO TIME
MULTI EXEC HGET HMGET HGETALL HKEYS HVALS HSET HDEL HINCRBY SADD SISMEMBER XADD XREVRANGE UNLINK
SETBIT GETRANGE PUBLISH SUBSCRIBE PING.
"""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from functools import lru_cache, partial
from hashlib import sha1
from itertools import islice
from pathlib import Path
from secrets import token_hex
from typing import Any, Generic, TypeVar, cast

from redis import asyncio as aioredis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError, RedisError

from f1vote.batch import ATTEMPT, Answer, Batch, Item, Unreachable
from f1vote.polls import Poll
from f1vote.receipts import LENGTH

__all__ = ["Burst", "Cast", "Entry", "Outcome", "Recount", "Standing", "Store", "Unreachable"]

CHANNEL = "f1:changed"
LOG = "admin:log"
# A vote is answered, or given up, within this time (s); repetitions included.
DEADLINE = 4.0
# A page need not wait that long: it is shown without its standing.
READ_DEADLINE = 2.0
CONNECTIONS = 16
# A subscription that is silent for so long is asked whether it lives (s).
SILENCE = 5.0
# After a failure of the subscription (s).
AGAIN = 0.5
TOGETHER = 512  # receipts that are admitted in one call
LONGEST_LOG = 10_000
MOST_BURSTS = 10_000
# What a walk through all votes takes at once: a few ms of Redis.
SLICE = 2048
# Who drives a recount and says nothing for so long is dead (s).
LEASE = 10.0

T = TypeVar("T")


class Outcome(StrEnum):
    """What became of a vote or a withdrawal."""

    COUNTED = "counted"
    CHANGED = "changed"
    WITHDRAWN = "withdrawn"
    SAME = "same"  # nothing to change; so is a repetition
    UNKNOWN = "unknown"  # no such choice, one twice, or too many
    EARLY = "early"
    CLOSED = "closed"
    FROZEN = "frozen"
    CODE = "code"  # the one-time code is not admitted


@dataclass(frozen=True)
class Cast:
    """What happened; ``held`` are the choices that counted before."""

    outcome: Outcome
    held: tuple[str, ...]


@dataclass(frozen=True)
class Standing:
    """
    A poll at one moment: ``now`` is Redis's clock, ``opens`` and ``closes`` are in effect (Unix
    seconds; ``closes`` 0 = never), ``version`` grows with every change.
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
        """Return early, open, frozen or closed, as lua/vote.lua judges."""
        if self.closes and self.now >= self.closes:
            return "closed"
        if self.now < self.opens:
            return "early"
        return "frozen" if self.frozen else "open"

    def visible(self, poll: Poll, voted: bool) -> bool:
        """Return if the points may be shown to who ``voted``, or did not."""
        if self.hidden:
            return False
        if poll.results == "always" or self.state == "closed":
            return True
        return poll.results == "voted" and voted


@dataclass(frozen=True)
class Recount:
    """A recount that ended ``at`` (Unix time) after ``seconds``; ``difference`` must be 0."""

    at: float
    seconds: float
    difference: int


@dataclass(frozen=True)
class Burst:
    """
    Very many new ballots from one address: ``address`` is its keyed daily hash (hex), ``first``
    and ``last`` Unix seconds, ``fresh`` new ballots, ``challenged`` those asked for work,
    ``choices`` first choices that they hold.
    """

    address: str
    first: int
    last: int
    fresh: int
    challenged: int
    choices: dict[str, int]


@dataclass(frozen=True)
class Entry:
    """What an organiser did, ``at`` (Unix time)."""

    at: float
    who: str
    action: str
    facts: dict[str, str]


class _Script:
    """A script of lua/: sent by its hash, and whole only where Redis does not know it."""

    def __init__(self, name: str) -> None:
        files = [Path(__file__).parent / "lua" / f"{part}.lua" for part in ("common", name)]
        self.text = "".join(file.read_text(encoding="utf-8") for file in files)
        self.hash = sha1(self.text.encode(), usedforsecurity=False).hexdigest()

    async def __call__(self, redis: Any, *words: str | int | float) -> str:
        try:
            return cast(str, await redis.evalsha(self.hash, 0, *words))
        except NoScriptError:
            return cast(str, await redis.eval(self.text, 0, *words))


class _ByPoll(Generic[Item, Answer]):
    """A batch for each poll; ``send`` and ``deadline`` (s) are as `Batch` takes them."""

    def __init__(
        self, send: Callable[[Poll, Sequence[Item]], Awaitable[Sequence[Answer]]], deadline: float
    ) -> None:
        self._send, self._deadline = send, deadline
        self._batches: dict[str, tuple[Poll, Batch[Item, Answer]]] = {}

    def of(self, poll: Poll) -> Batch[Item, Answer]:
        """Return the batch of ``poll``, as its file is now."""
        known = self._batches.get(poll.id)
        if known is None or known[0] is not poll:
            batch = Batch(partial(self._send, poll), self._deadline)
            known = self._batches[poll.id] = poll, batch
        return known[1]

    async def close(self) -> None:
        """Give up what waits."""
        for _, batch in self._batches.values():
            await batch.close()


class Store:
    """The counting room. One object a process."""

    def __init__(
        self,
        url: str,
        polls: Iterable[Poll],
        password: str | None = None,
        observe: Callable[[str, float, bool], None] = lambda command, seconds, ok: None,
    ) -> None:
        """``observe`` is told of each call to Redis: its name, seconds, and if it was answered."""
        self._polls, self._observe = tuple(polls), observe
        more = {} if password is None else {"password": password}
        connection: dict[str, Any] = {
            "decode_responses": True,
            "socket_timeout": ATTEMPT,
            "socket_connect_timeout": ATTEMPT,
            "socket_keepalive": True,
            # Left to itself, redis-py repeats a command ten times, one that was applied, too.
            "retry": Retry(NoBackoff(), 0),
            **more,
        }
        if url.startswith("unix:"):
            del connection["socket_keepalive"]
        # The pool makes a caller wait for a connection instead of opening more of them.
        self._pool: Any = aioredis.BlockingConnectionPool.from_url(
            url, max_connections=CONNECTIONS, timeout=ATTEMPT, **connection
        )
        self._redis: Any = aioredis.Redis(connection_pool=self._pool)
        self._news: Any = aioredis.Redis.from_url(url, **connection)
        self._vote, self._page = _Script("vote"), _Script("page")
        self._recount, self._reset, self._votes = map(_Script, ("recount", "reset", "votes"))
        self._casts = _ByPoll(self._send_votes, DEADLINE)
        self._pages = _ByPoll(self._read_pages, READ_DEADLINE)
        # Redis's clock less the loop's (s), never ahead of it: an answer has travelled.
        self._clock: float | None = None

    async def close(self) -> None:
        """Give up what waits and close every connection."""
        await self._casts.close()
        await self._pages.close()
        await self._pool.aclose()
        await self._news.aclose()

    # Voters

    async def cast(self, poll: Poll, receipt: str, choices: Sequence[str]) -> Cast:
        """
        Make ``choices`` the vote of ``receipt``; () withdraws it.

        Raises:
            Unreachable: nobody knows if it was counted. The same call can be made again.
            ValueError: ``receipt`` is none.
        """
        answer: asyncio.Future[Cast] = asyncio.get_running_loop().create_future()
        self.put(poll, receipt, choices, answer)
        return await answer

    def put(
        self, poll: Poll, receipt: str, choices: Sequence[str], answer: "asyncio.Future[Cast]"
    ) -> None:
        """
        Do as `cast` does; what it returns or raises is for ``answer``.

        Raises:
            Unreachable: too many wait.
            ValueError: ``receipt`` is none.
        """
        if len(receipt) != LENGTH or not receipt.isalnum():
            raise ValueError(f"{receipt!r} is not a receipt")
        self._casts.of(poll).put((receipt, _written(poll, choices)), answer)

    async def standing(self, poll: Poll) -> Standing:
        """Return how ``poll`` stands; raise Unreachable."""
        return (await self.page(poll, None))[0]

    async def held(self, poll: Poll, receipt: str) -> tuple[str, ...]:
        """Return the choices that are counted for ``receipt``, () if none; raise Unreachable."""
        return (await self.page(poll, receipt))[1]

    async def page(self, poll: Poll, receipt: str | None) -> tuple[Standing, tuple[str, ...]]:
        """Return the standing of ``poll`` and what ``receipt`` holds; raise Unreachable."""
        return await self._pages.of(poll).ask(receipt or "-")

    async def _send_votes(self, poll: Poll, votes: Sequence[tuple[str, str]]) -> list[Cast]:
        loop = asyncio.get_running_loop()
        if self._clock is None:
            seconds, micros = await self._ask("time", self._redis.time())
            self._clock = seconds + micros / 1e6 - loop.time()
        # When this call is given up, Redis must not apply it later: by then the voter may have
        # been told of another vote.
        until = loop.time() + self._clock + ATTEMPT
        answer: str = await self._ask(
            "vote",
            self._vote(
                self._redis,
                poll.id,
                poll.opens,
                poll.closes,
                int(poll.voters == "codes"),
                _points(poll),
                ">".join(poll.codes),
                f"{until:.6f}",
                ";".join(f"{receipt}={codes}" for receipt, codes in votes),
            ),
        )
        now, *lines = answer.split("\n")
        self._clock = float(now) - loop.time()
        if votes and not lines:
            raise Unreachable("the call reached Redis too late")
        return [_cast(line) for line in lines]

    async def _read_pages(
        self, poll: Poll, receipts: Sequence[str]
    ) -> list[tuple[Standing, tuple[str, ...]]]:
        answer: str = await self._ask("page", self._page(self._redis, poll.id, ";".join(receipts)))
        now, meta, tally, *votes = answer.split("\n")
        kept, points = _fields(meta), _fields(tally)
        standing = Standing(
            points={code: int(points.get(code, 0)) for code in poll.codes},
            voters=int(kept.get("voters", 0)),
            version=int(kept.get("version", 0)),
            now=float(now),
            opens=int(kept.get("opens", poll.opens)),
            closes=int(kept.get("closes", poll.closes)),
            frozen=kept.get("frozen") == "1",
            hidden=kept.get("hidden") == "1",
        )
        return [(standing, _codes(vote)) for vote in votes]

    async def changes(self) -> AsyncIterator[str]:
        """
        Yield the id of each poll that changed, and of every poll when the subscription begins, and
        begins again: something may have changed unheard. It does not end by itself.
        """
        while True:
            try:
                async with self._news.pubsub() as subscription:
                    await subscription.subscribe(CHANNEL)
                    for poll in self._polls:
                        yield poll.id
                    silent = False
                    while True:
                        message = await subscription.get_message(timeout=SILENCE)
                        if message is None:
                            if silent:
                                raise TimeoutError("the subscription does not answer")
                            await subscription.ping()
                        elif message["type"] == "message":
                            yield message["data"]
                        silent = message is None
            except (RedisError, OSError, TimeoutError):
                await asyncio.sleep(AGAIN)

    async def problems(self) -> list[str]:
        """Return why no vote can be taken; [] if all is well."""
        try:
            info = await self._ask("info", self._redis.info("persistence"))
            wrong = []
            if str(info.get("aof_enabled")) != "1":
                wrong.append("Redis keeps no append-only file; set appendonly yes")
            elif info.get("aof_last_write_status") != "ok":
                wrong.append("Redis could not write its append-only file; look at its disk")
            for poll in self._polls:
                # No vote is in it, so this shows that the script is there and judges.
                await self._send_votes(poll, ())
                points = await self._ask("points", self._redis.hget(_key(poll, "meta"), "points"))
                if points not in (None, _points(poll)):
                    wrong.append(
                        f"{poll.id}: was voted on for points {points}, its file says "
                        f"{_points(poll)}; put that back, or reset the poll"
                    )
                tally = await self._ask("tally", self._redis.hgetall(_key(poll, "tally")))
                held = {code for code, points in tally.items() if points != "0"}
                if gone := sorted(held - set(poll.codes)):
                    wrong.append(
                        f"{poll.id}: votes hold {', '.join(gone)}, which its file does not name; "
                        f"put that back, or reset the poll"
                    )
        except Unreachable as error:
            return [f"Redis does not answer: {error}"]
        return wrong

    # Organisers

    async def control(self, poll: Poll, **overrides: int | bool | None) -> Standing:
        """
        Set ``opens``, ``closes`` (Unix seconds; 0 = never), ``frozen``, ``hidden``; None gives
        back to the poll's file. Return the standing; raise Unreachable.
        """
        if unknown := overrides.keys() - {"opens", "closes", "frozen", "hidden"}:
            raise TypeError(f"no such override: {', '.join(sorted(unknown))}")
        meta = _key(poll, "meta")
        async with self._redis.pipeline(transaction=True) as pipe:
            for name, value in overrides.items():
                if value is None:
                    pipe.hdel(meta, name)
                else:
                    pipe.hset(meta, name, int(value))
            pipe.hincrby(meta, "version", 1)
            pipe.publish(CHANNEL, poll.id)
            await self._ask("control", pipe.execute())
        return await self.standing(poll)

    async def admit(self, poll: Poll, receipts: Iterable[str]) -> int:
        """Let ``receipts`` vote in ``poll``; return how many are new. Raises Unreachable."""
        added, rest = 0, iter(receipts)
        while some := list(islice(rest, TOGETHER)):
            added += await self._ask("admit", self._redis.sadd(_key(poll, "codes"), *some))
        return added

    async def reset(self, poll: Poll) -> int:
        """
        Remove every vote of ``poll``; return how many. One that comes meanwhile may stay: freeze
        the poll before. Raises Unreachable: then some are left, and it can be called again.
        """
        removed, at = 0, "0"
        while at:
            at, some = (await self._walk("reset", self._reset, poll, at)).split("\n")
            removed += int(some)
        return removed

    async def votes(self, poll: Poll) -> AsyncIterator[tuple[str, tuple[str, ...]]]:
        """Yield receipt and choices of every vote, by receipt; raise Unreachable."""
        at = "0"
        while at:
            at, *votes = (await self._walk("votes", self._votes, poll, at)).split("\n")
            for vote in votes:
                receipt, _, codes = vote.partition("=")
                yield receipt, _codes(codes)

    async def _walk(self, name: str, script: _Script, poll: Poll, at: str) -> str:
        slice_ = script(self._redis, poll.id, at, SLICE)
        return cast(str, await self._ask(name, slice_))

    async def recount_slice(self, poll: Poll, driver: str, lease: float, age: float) -> str:
        """
        Count some more of ``poll``: see lua/recount.lua. ``driver`` names who asks and keeps the
        others away for ``lease`` (s); a recount begins if the last is ``age`` (s) old, or at once
        if that is -1. Return idle, more or ended; raise Unreachable.
        """
        slice_ = self._recount(self._redis, poll.id, driver, lease, age, SLICE)
        return await self._ask("recount", slice_)

    async def recount(self, poll: Poll) -> Recount:
        """Recount ``poll`` from its beginning, now and without pauses; raise Unreachable."""
        driver, age = token_hex(8), -1.0
        while (state := await self.recount_slice(poll, driver, LEASE, age)) != "ended":
            age = 0.0
            if state == "idle":  # somebody else began one after us
                await asyncio.sleep(AGAIN)
        result = await self.recounted(poll)
        return result or await self.recount(poll)  # None: the poll was reset meanwhile

    async def recounted(self, poll: Poll) -> Recount | None:
        """Return the last recount of ``poll``; raise Unreachable."""
        fields = ("at", "seconds", "difference")
        kept = await self._ask("recounted", self._redis.hmget(_key(poll, "recount"), fields))
        return Recount(float(kept[0]), float(kept[1]), int(kept[2])) if kept[0] else None

    async def note(self, who: str, action: str, **facts: object) -> None:
        """Write into the organisers' log; raise Unreachable."""
        kept = {"who": who, "action": action, "facts": json.dumps(facts, default=str)}
        await self._ask("note", self._redis.xadd(LOG, kept, maxlen=LONGEST_LOG))

    async def log(self, count: int) -> list[Entry]:
        """Return the last ``count`` entries of the organisers' log, newest first."""
        found = await self._ask("log", self._redis.xrevrange(LOG, count=count))
        return [
            Entry(_moment(name), kept["who"], kept["action"], json.loads(kept["facts"]))
            for name, kept in found
        ]

    async def mark(self, poll: Poll, burst: Burst) -> None:
        """Write down ``burst`` as it stands; raise Unreachable."""
        kept = {"burst": json.dumps(asdict(burst))}
        await self._ask("mark", self._redis.xadd(_key(poll, "bursts"), kept, maxlen=MOST_BURSTS))

    async def bursts(self, poll: Poll) -> list[Burst]:
        """Return the bursts of ``poll`` as they stood last, newest first; raise Unreachable."""
        found = await self._ask("bursts", self._redis.xrevrange(_key(poll, "bursts")))
        last: dict[tuple[str, int], Burst] = {}
        for _, kept in found:
            burst = Burst(**json.loads(kept["burst"]))
            last.setdefault((burst.address, burst.first), burst)
        return list(last.values())

    async def _ask(self, name: str, answer: Awaitable[T] | Any) -> T:
        began, ok = time.perf_counter(), False
        try:
            async with asyncio.timeout(ATTEMPT):
                told = cast(T, await answer)
            ok = True
            return told
        except (RedisError, OSError, TimeoutError) as error:
            raise Unreachable(f"{type(error).__name__}: {error}") from error
        finally:
            self._observe(name, time.perf_counter() - began, ok)


def _key(poll: Poll, what: str) -> str:
    return f"poll:{poll.id}:{what}"


def _points(poll: Poll) -> str:
    return ">".join(map(str, poll.points))


def _written(poll: Poll, choices: Sequence[str]) -> str:
    """Return ``choices`` as a vote is written; what is no choice becomes one that never is."""
    known = poll.codes
    return ">".join([code if code in known else "?" for code in choices[: len(known) + 1]])


@lru_cache(maxsize=1024)
def _cast(line: str) -> Cast:
    """Return what a line of the script's answer says; they are few, and come again and again."""
    outcome, _, held = line.partition(" ")
    return Cast(Outcome(outcome), _codes(held))


def _codes(vote: str) -> tuple[str, ...]:
    return tuple(vote.split(">")) if vote else ()


def _fields(line: str) -> dict[str, str]:
    return dict(pair.split("=", 1) for pair in line.split(";")) if line else {}


def _moment(name: str) -> float:
    """Return the Unix time of an entry of a stream."""
    return int(name.partition("-")[0]) / 1000
