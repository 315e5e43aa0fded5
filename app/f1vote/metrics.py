"""
What Prometheus scrapes (text format 0.0.4).

While requests are served only integers grow, in dicts of closed label sets. aioprometheus renders
them when Prometheus asks; it neither escapes labels nor knows the process, so that is done here.
"""

import asyncio
import functools
import gc
import itertools
import resource
import time
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from typing import TypeVar

import psutil
from aioprometheus import Counter, Gauge, Histogram, Registry, render
from aioprometheus.collectors import Collector
from aioprometheus.histogram import Histogram as Distribution

from f1vote.polls import Poll
from f1vote.store import Outcome, Recount, Standing, Store, Unreachable

ACCEPTED = (Outcome.COUNTED, Outcome.CHANGED, Outcome.SAME, Outcome.WITHDRAWN)
# Why a vote was refused: by Redis, by the guard, by the HTTP side.
REASONS = (
    Outcome.UNKNOWN, Outcome.EARLY, Outcome.CLOSED, Outcome.FROZEN, Outcome.CODE,
    "rate", "challenge", "ballot", "origin", "unreachable",
)  # fmt: skip
# Upper bounds of the buckets (s). A vote at half load is answered within 25 ms.
HTTP_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
REDIS_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 4.0)
LAG_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)
# More series than that in one histogram are a defect of the caller, and would fill Prometheus.
MOST_SERIES = 400
# A scrape waits no longer than this for Redis (s), then shows what it saw last.
READ_SECONDS = 1.0
LAG_PERIOD = 0.25

# Of an HTTP status, by its hundreds.
CLASSES = tuple(f"{hundreds}xx" for hundreds in range(10))

Key = tuple[str, ...]
Sample = tuple[dict[str, str], int | float | Distribution]
Family = tuple[type[Collector], str, str, Iterable[Sample]]

K = TypeVar("K")


class Metrics:
    """The figures of one process."""

    def __init__(self, polls: Iterable[Poll], version: str, image: str) -> None:
        self._polls = tuple(polls)
        self._build = {"version": version, "image": image}
        votes = [
            (poll.id, code, str(outcome))
            for poll in self._polls
            for code in poll.codes
            for outcome in ACCEPTED
            if outcome is not Outcome.WITHDRAWN
        ]
        # A withdrawal is for no choice; to withdraw what is not there changes nothing.
        votes += [
            (poll.id, "", str(outcome))
            for poll in self._polls
            for outcome in (Outcome.WITHDRAWN, Outcome.SAME)
        ]
        self._votes = dict.fromkeys(votes, 0)
        self._refused = {(poll.id, str(reason)): 0 for poll in self._polls for reason in REASONS}
        self._viewers = {poll.id: 0 for poll in self._polls}
        self._dropped = {poll.id: 0 for poll in self._polls}
        self._requests = _Series(HTTP_SECONDS)
        self._redis = _Series(REDIS_SECONDS)
        self._redis_errors: dict[str, int] = {}
        self._lag = _Series(LAG_SECONDS)
        self._strays = 0
        self._unread = 0
        self._standings: dict[str, Standing] = {}
        self._recounts: dict[str, Recount] = {}
        self._process = psutil.Process()
        self._store: Store | None = None
        self._task: asyncio.Task[None] | None = None

    async def start(self, store: Store) -> None:
        """Begin to measure the event loop; scrapes read the standings from ``store``."""
        self._store = store
        self._task = asyncio.create_task(self._measure_lag())

    async def close(self) -> None:
        """Stop measuring."""
        if self._task:
            self._task.cancel()
            await asyncio.wait([self._task])

    # On the way of a request

    def vote(self, poll: str, choice: str, outcome: str) -> None:
        """
        Count a vote that Redis acknowledged. ``choice`` is its first place's code, '' if it was
        withdrawn; ``outcome`` is of ACCEPTED.
        """
        self._add(self._votes, (poll, choice, outcome))

    def refused(self, poll: str, reason: str) -> None:
        """Count a vote that was refused for ``reason`` (of REASONS)."""
        self._add(self._refused, (poll, reason))

    def request(self, route: str | None, method: str, status: int, seconds: float) -> None:
        """
        Count an answer and the ``seconds`` until it began. ``route`` is the template and never
        the path that was asked for; None if no route matched.
        """
        self._observe(self._requests, (route or "none", method, CLASSES[status // 100]), seconds)

    def redis(self, command: str, seconds: float, ok: bool) -> None:
        """Count an answer of Redis to ``command``, or that there was none (not ``ok``)."""
        self._observe(self._redis, (command,), seconds)
        if not ok:
            self._redis_errors[command] = self._redis_errors.get(command, 0) + 1

    def viewers(self, poll: str, change: int) -> None:
        """Add ``change`` to the number of those who watch ``poll`` live."""
        self._add(self._viewers, poll, change)

    def dropped(self, poll: str) -> None:
        """Count a viewer who was too slow to follow."""
        self._add(self._dropped, poll)

    def _add(self, counts: dict[K, int], key: K, change: int = 1) -> None:
        # A figure must not fail a vote; that one is missing is a figure, too.
        if key in counts:
            counts[key] += change
        else:
            self._strays += 1

    def _observe(self, series: "_Series", key: Key, seconds: float) -> None:
        if not series.observe(key, seconds):
            self._strays += 1

    # When Prometheus asks

    async def render(self, accept: Sequence[str]) -> tuple[bytes, dict[str, str]]:
        """Return body and headers of an answer to the ``Accept`` headers ``accept``."""
        await self._read()
        registry = Registry()
        for kind, name, doc, samples in (*self._counted(), *self._read_last(), *self._measured()):
            collector = kind(name, doc, registry=registry)
            for labels, value in samples:
                escaped = {label: _escape(text) for label, text in labels.items()}
                collector.set_value(escaped, value)
        return render(registry, accept)

    async def _read(self) -> None:
        """Read the standing and the last recount of every poll, those that Redis gives in time."""
        if self._store is None:
            return

        async def read(store: Store, poll: Poll) -> None:
            try:
                async with asyncio.timeout(READ_SECONDS):
                    self._standings[poll.id] = await store.standing(poll)
                    recount = await store.recounted(poll)
            except (Unreachable, TimeoutError):
                self._unread += 1
            else:
                if recount:
                    self._recounts[poll.id] = recount

        await asyncio.gather(*(read(self._store, poll) for poll in self._polls))

    def _counted(self) -> Iterator["Family"]:
        yield (
            Counter, "f1_votes_total", "Votes and withdrawals that Redis acknowledged.",
            [({"poll": poll, "choice": choice, "outcome": outcome}, n)
             for (poll, choice, outcome), n in self._votes.items()],
        )  # fmt: skip
        yield (
            Counter, "f1_votes_refused_total", "Votes and withdrawals that were refused.",
            [({"poll": poll, "reason": reason}, n) for (poll, reason), n in self._refused.items()],
        )  # fmt: skip
        yield (
            Histogram, "f1_http_request_seconds", "Time until an answer began.",
            [({"route": route, "method": method, "status": status}, distribution)
             for (route, method, status), distribution in self._requests.all()],
        )  # fmt: skip
        yield (
            Gauge, "f1_viewers", "Viewers of live results.",
            [({"poll": poll}, n) for poll, n in self._viewers.items()],
        )  # fmt: skip
        yield (
            Counter, "f1_viewers_dropped_total", "Viewers to whom too much was not sent yet.",
            [({"poll": poll}, n) for poll, n in self._dropped.items()],
        )  # fmt: skip
        yield (
            Histogram, "f1_redis_seconds", "Time until Redis answered, or until no more was hoped.",
            [({"command": name}, distribution) for (name,), distribution in self._redis.all()],
        )  # fmt: skip
        yield (
            Counter, "f1_redis_errors_total", "Commands that Redis did not answer.",
            [({"command": name}, self._redis_errors.get(name, 0))
             for (name,), _ in self._redis.all()],
        )  # fmt: skip
        yield (
            Histogram, "f1_event_loop_lag_seconds", "How much later than asked the loop wakes.",
            [({}, distribution) for _, distribution in self._lag.all()],
        )  # fmt: skip
        yield (
            Counter, "f1_metrics_strays_total",
            "Counts that fit no closed set of labels: a defect of the app.",
            [({}, self._strays)],
        )  # fmt: skip

    def _read_last(self) -> Iterator["Family"]:
        standings = self._standings.items()
        recounts = self._recounts.items()
        yield (
            Gauge, "f1_tally", "Points of a choice.",
            [({"poll": poll, "choice": choice}, n)
             for poll, standing in standings for choice, n in standing.points.items()],
        )  # fmt: skip
        yield (
            Gauge, "f1_voters", "Votes that count.",
            [({"poll": poll}, standing.voters) for poll, standing in standings],
        )  # fmt: skip
        yield (
            Gauge, "f1_recount_difference", "Tally less what the last recount found; must be 0.",
            [({"poll": poll}, recount.difference) for poll, recount in recounts],
        )  # fmt: skip
        yield (
            Gauge, "f1_recount_age_seconds", "Time since the last recount ended.",
            [({"poll": poll}, self._standings[poll].now - recount.at)
             for poll, recount in recounts],
        )  # fmt: skip
        yield (
            Counter, "f1_standing_errors_total",
            "Standings that Redis did not give to a scrape in time; the last one is shown.",
            [({}, self._unread)],
        )  # fmt: skip

    def _measured(self) -> Iterator["Family"]:
        yield Gauge, "f1_build_info", "What runs here.", [(self._build, 1)]
        process = self._process
        with process.oneshot():
            cpu, memory = process.cpu_times(), process.memory_info()
            figures: list[tuple[type[Collector], str, str, float]] = [
                (Counter, "process_cpu_seconds_total", "User and system CPU time.",
                 cpu.user + cpu.system),
                (Gauge, "process_resident_memory_bytes", "Resident memory.", memory.rss),
                (Gauge, "process_virtual_memory_bytes", "Virtual memory.", memory.vms),
                (Gauge, "process_open_fds", "Open file descriptors.", process.num_fds()),
                (Gauge, "process_max_fds", "Most file descriptors that may be open.",
                 resource.getrlimit(resource.RLIMIT_NOFILE)[0]),
                (Gauge, "process_threads", "Threads.", process.num_threads()),
                (Gauge, "process_start_time_seconds", "Start, Unix time.", process.create_time()),
            ]  # fmt: skip
        for kind, name, doc, value in figures:
            yield kind, name, doc, [({}, value)]
        generations = [({"generation": str(n)}, gen) for n, gen in enumerate(gc.get_stats())]
        yield (
            Counter, "python_gc_collections_total", "Runs of the garbage collector.",
            [(labels, stats["collections"]) for labels, stats in generations],
        )  # fmt: skip
        yield (
            Counter, "python_gc_objects_collected_total", "Objects in cycles that were freed.",
            [(labels, stats["collected"]) for labels, stats in generations],
        )  # fmt: skip

    async def _measure_lag(self) -> None:
        while True:
            asked = time.perf_counter()
            await asyncio.sleep(LAG_PERIOD)
            # A loop that rounds to milliseconds may wake a little early.
            self._lag.observe((), max(0.0, time.perf_counter() - asked - LAG_PERIOD))


class _Series:
    """A histogram by labels, as integers until it is asked for."""

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds = bounds
        self._counts: dict[Key, list[int]] = {}
        self._sums: dict[Key, float] = {}

    def observe(self, key: Key, seconds: float) -> bool:
        """Count ``seconds``; return False if ``key`` is one too many."""
        counts = self._counts.get(key)
        if counts is None:
            if len(self._counts) >= MOST_SERIES:
                return False
            counts = self._counts[key] = [0] * (len(self._bounds) + 1)
            self._sums[key] = 0.0
        counts[bisect_left(self._bounds, seconds)] += 1
        self._sums[key] += seconds
        return True

    def all(self) -> Iterator[tuple[Key, Distribution]]:
        """Yield what was observed, cumulated as the text format wants it."""
        for key, counts in self._counts.items():
            whole = Distribution(*self._bounds)
            cumulated = list(itertools.accumulate(counts))
            whole.buckets.update(zip(whole.buckets, cumulated, strict=True))
            whole.observations, whole.sum = cumulated[-1], self._sums[key]
            yield key, whole


@functools.lru_cache(maxsize=1024)
def _escape(text: str) -> str:
    """Return ``text`` as the value of a label, which aioprometheus writes between quotes as is."""
    whole = text.encode("utf-8", "replace").decode("utf-8")
    return whole.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
