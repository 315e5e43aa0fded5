"""
Against ballot stuffing: who votes too often is asked to wait, and an address that brings very many
new ballots is asked for work and marked. docs/stuffing.md says why the figures are what they are.

All of it is in the memory of one process, in tables that forget the least recently used, and
nothing of it waits. An address is never kept, not even here: it is hashed first, with a key that
changes every day.
"""

import asyncio
import hashlib
import math
import secrets
import socket
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Generic, NamedTuple, TypeVar

from sanic.log import logger

from f1vote import work
from f1vote.i18n import _
from f1vote.polls import Poll
from f1vote.store import Burst, Store, Unreachable

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

SECOND = 1_000_000_000  # all times of this module are in ns, so that sums are exact


class Limit(NamedTuple):
    """``capacity`` at once, then ``rate`` a second."""

    capacity: int
    rate: float


# A vote and nineteen changes of mind at once; more than anybody taps, and nothing to a machine.
VOTER = Limit(20, 1 / 3)
# A full stadium behind one address: 2,000 in the same instant, 12,000 a minute.
ADDRESS = Limit(2000, 200.0)
# New ballots a minute from one address until it is asked for work: a pub, two classes, a large
# family may vote in the same minute without noticing.
CROWD = 60
# The same of an IPv6 /48: who has rented one has 65,536 times a /64.
NETWORK = 10 * CROWD

# Zero bits of each piece of the work: 2 ** 18 tries in all, some 0.2 s of a laptop, 0.3 to 1 s of
# a phone. One bit more where eight times as many ballots come, two for 64 times as many.
BITS = 15
MORE_BITS = 2

# What a process remembers at most.
MOST_VOTERS = 1 << 16
MOST_STRANGERS = 1 << 14
MOST_ADDRESSES = 1 << 15
MOST_BURSTS = 256

MINUTE = 60 * SECOND
KEY_CHANGES = 24 * 3600 * SECOND
REPORT_SECONDS = 5.0
# An IPv4 address as IPv6 writes it (RFC 4291, 2.5.5.2).
MAPPED = bytes(10) + b"\xff\xff"


@dataclass(frozen=True)
class Verdict:
    """
    ``retry_after`` (s): when the same vote will be let through, if nobody else comes; 0 if waiting
    does not help. ``challenge``: with its answer it is let through now. ``title`` and ``text`` tell
    the voter, once translated. ``crowds`` wait to be told what became of a ballot that was let
    through: see Guard.settle.
    """

    allowed: bool
    retry_after: int = 0
    challenge: str | None = None
    title: str = ""
    text: str = ""
    crowds: Sequence["_Crowd"] = ()

    @property
    def reason(self) -> str:
        """Return why the vote is refused, as the metrics name it."""
        return "challenge" if self.challenge else "rate"


PASS = Verdict(allowed=True)
# Title and text of a refusal: by the voter's own limit, by the address's, for want of work, and
# for want of work where everybody must bring it.
TOO_MANY_CHANGES = (
    _("Slowly, please"),
    _(
        "You changed your mind many times in a short while. What you chose before still counts; "
        "wait a few seconds, then choose again."
    ),
)
TOO_MANY_HERE = (
    _("Too many votes at once from your network"),
    _("This one is not counted yet. You did nothing wrong: try again in a few seconds."),
)
WORK = (
    _("Very many votes arrive from your network"),
    _(
        "So that no machine votes a thousand times, your browser has to work out a short puzzle; "
        "it does so by itself, with JavaScript. Without it, try again in a few minutes, or from "
        "another network. Your vote is not counted yet."
    ),
)
WORK_ALWAYS = (
    _("This vote takes JavaScript for the moment"),
    _(
        "So that no machine votes a thousand times, every browser has to work out a short puzzle; "
        "it does so by itself, with JavaScript. Switch it on for this site, or vote with another "
        "browser. Your vote is not counted yet."
    ),
)


class Recent(Generic[K, V]):
    """A table of at most ``most`` keys; a new one takes the place of the least recently set."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._items: OrderedDict[K, V] = OrderedDict()
        # Returns what is kept under a key, or None.
        self.get: Callable[[K], V | None] = self._items.get

    def __len__(self) -> int:
        return len(self._items)

    def set(self, key: K, value: V) -> None:
        """Keep ``value``."""
        self._items[key] = value
        self._items.move_to_end(key)
        if len(self._items) > self._most:
            self._items.popitem(last=False)


class Buckets(Generic[K]):
    """
    A token bucket for each key, by the virtual scheduling of the generic cell rate algorithm
    (ITU-T I.371, annex A): one integer a key, the time at which its bucket is full again. A
    forgotten bucket is a full one.
    """

    def __init__(self, limit: Limit, most: int) -> None:
        self._interval = round(SECOND / limit.rate)
        self._depth = limit.capacity * self._interval
        self._full_at: Recent[K, int] = Recent(most)

    def __contains__(self, key: K) -> bool:
        return self._full_at.get(key) is not None

    def take(self, key: K, now: int) -> int:
        """Take a token and return 0; if there is none, return in how many ns there will be one."""
        full_at = self._full_at.get(key)
        full_at = now + self._interval if full_at is None else max(full_at, now) + self._interval
        if (wait := full_at - now - self._depth) > 0:
            return wait
        self._full_at.set(key, full_at)
        return 0


class Guard:
    """One object a process."""

    def __init__(
        self,
        keys: Sequence[bytes],
        challenge: str,
        clock: Callable[[], int] = time.monotonic_ns,
        wall: Callable[[], float] = time.time,
    ) -> None:
        """
        ``keys`` sign challenges, the first new ones. ``challenge``: ``never``, ``attack`` or
        ``always``. ``clock`` (ns) never runs backwards, ``wall`` is Unix time (s).
        """
        self._keys, self._challenge, self._clock, self._wall = keys, challenge, clock, wall
        # Who is known to hold a vote, and who tried to.
        self._voters: Buckets[tuple[str, str]] = Buckets(VOTER, MOST_VOTERS)
        self._strangers: Buckets[tuple[str, str]] = Buckets(VOTER, MOST_STRANGERS)
        self._addresses: Buckets[bytes] = Buckets(ADDRESS, MOST_ADDRESSES)
        self._crowds: Recent[tuple[str, bytes], _Crowd] = Recent(MOST_ADDRESSES)
        self._bursts: dict[tuple[str, bytes], _Burst] = {}
        self._keyed, self._key_ends = _keyed(), clock() + KEY_CHANGES
        self._task: asyncio.Task[None] | None = None

    async def start(self, store: Store, polls: Mapping[str, Poll]) -> None:
        """Begin to report bursts to ``store``."""
        self._task = asyncio.create_task(self._report_forever(store, polls))

    async def close(self, store: Store, polls: Mapping[str, Poll]) -> None:
        """Stop, and report what was not yet."""
        if self._task:
            self._task.cancel()
            await asyncio.wait([self._task])
        await self.report(store, polls, last=True)

    # On the way of a vote

    def check(
        self, poll: str, address: str, voter: str, answer: str | None, shut: bool = False
    ) -> Verdict:
        """
        Return whether ``voter`` may vote or withdraw now; ``answer`` is the work that came along.
        ``shut``: the poll takes no vote, as far as is known, so that nobody is to work for one.

        A voter whose vote was counted before is held to a limit of its own; a new one counts for
        the address, as soon as it is let through and for as long as ``settle`` does not say that
        nothing came of it. Who is refused takes nothing from the others behind that address.
        """
        now = self._clock()
        packed = pack(address)
        key = (poll, voter)
        if key in self._voters:
            crowds: Sequence[_Crowd] = ()
            source, limit = self._hash(packed, now), self._voters
        else:
            crowds = self._crowds_of(poll, packed, now)
            source, limit = crowds[0].source, self._strangers
            pressure = max([crowd.pressure(now) for crowd in crowds])
            asked = pressure >= 1 if self._challenge == "attack" else self._challenge == "always"
            if asked and not shut:
                worked = work.verify(self._keys, poll, voter, answer, self._wall())
                for crowd in crowds:
                    if crowd.burst:
                        crowd.burst.asked(worked)
                if not worked:
                    return self._ask_for_work(poll, voter, pressure)
        if wait := limit.take(key, now):
            return Verdict(False, _seconds(wait), None, *TOO_MANY_CHANGES)
        if wait := self._addresses.take(source, now):
            return Verdict(False, _seconds(wait), None, *TOO_MANY_HERE)
        if not crowds:
            return PASS
        for crowd in crowds:
            crowd.coming += 1
        return Verdict(True, crowds=crowds)

    def settle(
        self, verdict: Verdict, poll: str, voter: str, fresh: bool, known: bool = True
    ) -> None:
        """
        Note what became of the ballot that ``verdict`` let through: is it a ``fresh`` one that
        counts, or may count, and is ``voter`` ``known`` to hold a vote, or to have held one?
        """
        if not verdict.crowds:
            return
        now = self._clock()
        if known:
            self._voters.take((poll, voter), now)
        for crowd in verdict.crowds:
            crowd.coming -= 1
            if fresh and crowd.add(now) > 1:
                self._mark(poll, crowd)

    def _ask_for_work(self, poll: str, voter: str, pressure: float) -> Verdict:
        challenge = work.issue(self._keys[0], poll, voter, bits(pressure), self._wall())
        if self._challenge == "always":
            return Verdict(False, 0, challenge, *WORK_ALWAYS)
        return Verdict(False, _seconds(_calm_in(pressure)), challenge, *WORK)

    def counted(self, poll: str, address: str, before: Sequence[str], after: Sequence[str]) -> None:
        """
        Note that a vote from ``address`` was counted: it held the choices ``before`` and holds
        those of ``after``, so that a burst knows for whom it was.
        """
        if not self._bursts:
            return
        for source, _most in self._sources(pack(address), self._clock()):
            crowd = self._crowds.get((poll, source))
            if crowd and crowd.burst:
                crowd.burst.moved(before, after)

    def _crowds_of(self, poll: str, packed: bytes, now: int) -> list["_Crowd"]:
        crowds = []
        for source, most in self._sources(packed, now):
            key = (poll, source)
            crowd = self._crowds.get(key) or _Crowd(source, most, now)
            self._crowds.set(key, crowd)
            crowds.append(crowd)
        return crowds

    def _sources(self, packed: bytes, now: int) -> list[tuple[bytes, int]]:
        sources = [(self._hash(packed, now), CROWD)]
        if len(packed) == 8:
            sources.append((self._hash(packed[:6], now), NETWORK))
        return sources

    def _hash(self, packed: bytes, now: int) -> bytes:
        if now >= self._key_ends:
            self._keyed, self._key_ends = _keyed(), now + KEY_CHANGES
        hashed = self._keyed.copy()
        hashed.update(packed)
        return hashed.digest()

    # Bursts

    def _mark(self, poll: str, crowd: "_Crowd") -> None:
        """Count the ballot that just came for the burst of ``crowd``."""
        at = self._wall()
        if crowd.burst is None:
            name = crowd.source
            if (poll, name) not in self._bursts and len(self._bursts) >= MOST_BURSTS:
                name = b""  # the rest of them together: nothing is dropped
            burst = self._bursts.setdefault((poll, name), _Burst(at))
            if not burst.crowds:
                logger.warning("very many new ballots from one address in %s", poll)
            burst.crowds.append(crowd)
            crowd.burst = burst
        crowd.burst.fresh += 1
        crowd.burst.last = at

    async def _report_forever(self, store: Store, polls: Mapping[str, Poll]) -> None:
        while True:
            await asyncio.sleep(REPORT_SECONDS)
            await self.report(store, polls)

    async def report(self, store: Store, polls: Mapping[str, Poll], last: bool = False) -> None:
        """
        Write to ``store`` the bursts that are new, that grew since a while, that are over, or all
        of them if this is the ``last`` time. A record holds the whole burst, so that the newest
        replaces the others, and what Redis does not take now is in the next one.
        """
        now = self._clock()
        for (poll, source), burst in list(self._bursts.items()):
            burst.release(now)
            record = burst.record(source)
            if record == burst.written:
                if not burst.crowds:
                    del self._bursts[poll, source]
            elif last or not burst.crowds or now >= burst.next_record:
                try:
                    await store.mark(polls[poll], record)
                except Unreachable as error:
                    logger.warning("bursts are not written: %s", error)
                    return
                burst.written, burst.next_record = record, now + MINUTE


class _Crowd:
    """
    The new ballots of a poll from one address: how many a minute, now. ``coming`` are those that
    were let through and are not counted yet.
    """

    __slots__ = ("at", "burst", "coming", "level", "most", "source")

    def __init__(self, source: bytes, most: int, now: int) -> None:
        self.source, self.most, self.at, self.level = source, most, now, 0.0
        self.coming = 0
        self.burst: _Burst | None = None

    def pressure(self, now: int) -> float:
        """
        Return the ballots of the last minute as a part of those that are nothing strange: a moving
        average, to which a ballot counts less the longer ago it was. n a minute for long give n.
        """
        if not self.level:
            return self.coming / self.most
        return (self.level * math.exp((self.at - now) / MINUTE) + self.coming) / self.most

    def add(self, now: int) -> float:
        """Count one ballot; return the pressure of those that are counted."""
        self.level = self.level * math.exp((self.at - now) / MINUTE) + 1
        self.at = now
        return self.level / self.most


@dataclass
class _Burst:
    """A burst under way; see store.Burst. ``next_record`` is by the guard's clock."""

    first: float
    last: float = 0.0
    fresh: int = 0
    challenged: int = 0
    choices: dict[str, int] = field(default_factory=dict)
    crowds: list[_Crowd] = field(default_factory=list)
    written: Burst | None = None
    next_record: int = 0

    def asked(self, worked: bool) -> None:
        """Count one more who was asked for work, or one of those less who has done it."""
        self.challenged = max(0, self.challenged - 1) if worked else self.challenged + 1

    def moved(self, before: Sequence[str], after: Sequence[str]) -> None:
        """Count a vote, a change or a withdrawal, by its first choice."""
        for choices, change in ((before, -1), (after, 1)):
            if choices:
                self.choices[choices[0]] = self.choices.get(choices[0], 0) + change

    def release(self, now: int) -> None:
        """Let go of crowds that calmed down: well below where it began, so that it ends once."""
        for crowd in [crowd for crowd in self.crowds if crowd.pressure(now) < 0.5]:
            crowd.burst = None
            self.crowds.remove(crowd)

    def record(self, source: bytes) -> Burst:
        """Return it as it stands."""
        return Burst(
            address=source.hex(),
            first=int(self.first),
            last=int(self.last),
            fresh=self.fresh,
            challenged=self.challenged,
            choices={code: n for code, n in self.choices.items() if n},
        )


def _keyed() -> hashlib.blake2b:
    """Return a hash of nothing yet, with a key that nobody knows."""
    return hashlib.blake2b(digest_size=8, key=secrets.token_bytes(32))


def pack(address: str) -> bytes:
    """
    Return the 4 bytes of an IPv4 address, the first 8 of an IPv6 address: a /64 is one line. What
    is no address (a Unix socket, a proxy that says "unknown") is b"", all of it one.
    """
    try:
        if ":" not in address:
            return socket.inet_pton(socket.AF_INET, address)
        packed = socket.inet_pton(socket.AF_INET6, address.partition("%")[0])
    except (OSError, ValueError):
        return b""
    return packed[12:] if packed.startswith(MAPPED) else packed[:8]


def bits(pressure: float) -> int:
    """Return the zero bits of a piece of the work under ``pressure`` (1: where it begins)."""
    return BITS + min(MORE_BITS, int(math.log(max(1.0, pressure), 8)))


def _calm_in(pressure: float) -> int:
    """Return in how many ns ``pressure``, at least 1, falls below it if no ballot comes."""
    return int(math.log(pressure) * MINUTE) + 1


def _seconds(ns: int) -> int:
    return -(-ns // SECOND)
