"""
The vote app measured: votes a second, latency, viewers, processes, what a voter costs.

    python -m lab.bench app                  all of it; writes docs/evidence/app.md
    python -m lab.bench.app votes viewers    these parts, printed only

Everything runs on loopback in one run, each figure beside the one it is to be compared with. Two
cores: one for who is measured, one for Redis and for who asks; other work on the machine shows in
the figures, and is told with them.
"""

import argparse
import json
import os
import platform
import shutil
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import sanic

from f1vote import polls
from lab.bench import app_fill, app_load
from lab.bench.app_load import Seen
from lab.bench.app_servers import (
    OTHERS,
    PEER,
    PEER_2024,
    Server,
    database,
    empty,
    ours,
    peer,
    running,
)
from lab.bench.common import EVIDENCE, shell, stamp, table
from lab.build import cache

PAGE = EVIDENCE / "app.md"
ROUNDS = 3
SECONDS, WARM_SECONDS = 5.0, 1.0
# Kept open by the load generator, the same for everybody: a proxy's connections.
CONNECTIONS = 128
# More than any of them takes in an attack.
VOTES = int(30_000 * (SECONDS + WARM_SECONDS))
SHARE, PROCESSES = 0.2, (1, 2, 4)
VIEWERS, VIEWING_SECONDS = 1000, 12.0
VIEWED_RATES = (1, 50)

PEER_NOW, PEER_THEN = "example-voting-app's front", "the same, libraries of 2024"

POLL = "bench"
YAML = f"""\
id: {POLL}
title: {{en: Bench, fr: Mesure}}
question: {{en: 'Who?', fr: 'Qui ?'}}
opens: 2026-01-01T00:00:00Z
closes: null
results: always
choices: drivers-2026
"""


@dataclass
class Bench:
    """What all parts need: a folder on the disk, the poll, votes to send."""

    folder: Path
    votes: Path = field(init=False)
    warm: Path = field(init=False)

    def __post_init__(self) -> None:
        own = Path(polls.__file__).parents[1] / "polls"
        self.polls = self.folder / "polls"
        shutil.copytree(own / "choices", self.polls / "choices")
        (self.polls / "bench.yaml").write_text(YAML)
        (self.poll,) = polls.load(self.polls)
        path = f"/api/polls/{POLL}/vote"
        made = app_load.votes(VOTES, path, self.poll.codes)
        self.votes = app_load.write(self.folder / "votes.json", made)
        made = app_load.votes(VOTES // 5, path, self.poll.codes)
        self.warm = app_load.write(self.folder / "warm.json", made)

    def place(self) -> Path:
        """Return a folder for one start of one server."""
        return Path(tempfile.mkdtemp(dir=self.folder))

    def ours(self, **how: Any) -> AbstractContextManager[Server]:
        """Start the vote app; see `app_servers.ours`."""
        return ours(self.place(), self.polls, POLL, **how)

    def attack(self, server: Server, **how: Any) -> Seen:
        """Send fresh votes to a warm server; see `app_load.attack`."""
        connections = how.get("connections", CONNECTIONS)
        warm = app_load.attack(server, self.warm, WARM_SECONDS, connections=connections)
        seen = app_load.attack(server, self.votes, SECONDS, **how)
        counted(server, warm.acknowledged + seen.acknowledged)
        return seen


def counted(server: Server, acknowledged: int) -> None:
    """
    Refuse figures of votes that were not kept.

    Raises:
        SystemExit: Redis does not hold exactly what was acknowledged.
    """
    held = server.votes()
    if held not in (acknowledged, -1):
        raise SystemExit(f"bench: {acknowledged} votes were acknowledged, Redis holds {held}")


# The parts. Each returns its section of the page.


def votes(bench: Bench) -> str:
    """Acknowledged votes a second, and latency at half of it."""
    forms = app_load.write(bench.folder / "forms.json", app_load.forms(VOTES // 10))
    kinds: dict[str, Callable[[], AbstractContextManager[Server]]] = {
        "empty handler": lambda: empty(bench.place()),
        "ours": bench.ours,
        "ours, not grouped": lambda: bench.ours(naive=True),
        PEER_NOW: lambda: peer(bench.place()),
        PEER_THEN: lambda: peer(bench.place(), PEER_2024),
    }
    seen: dict[str, list[Seen]] = {kind: [] for kind in kinds}
    half: list[Seen] = []
    syncs: list[float] = []
    for _ in range(ROUNDS):
        for kind, start in kinds.items():
            with start() as server:
                if kind in (PEER_NOW, PEER_THEN):
                    attack = app_load.attack(server, forms, SECONDS, connections=CONNECTIONS)
                    counted(server, attack.acknowledged)
                else:
                    attack = bench.attack(server, connections=CONNECTIONS)
            seen[kind].append(attack)
            told(kind, attack)
    rate = statistics.median(one.rate for one in seen["ours"]) / 2
    for _ in range(ROUNDS):
        with bench.ours() as server:
            half.append(bench.attack(server, rate=rate))
            syncs.append(server.slowest_sync())
            told("half load", half[-1])
    return votes_section(seen, half, rate, syncs)


def viewers(bench: Bench) -> str:
    """How soon all viewers see a vote, and what they cost."""
    rows = []
    aims = []
    for rate in VIEWED_RATES:
        with bench.ours() as server:
            late, core, facts = watched(bench, server, rate)
        told(f"viewers at {rate}/s", facts)
        rows.append(
            [
                *(f"{rate}", f"{len(late)}", spread([lag * 1000 for lag in late], 0)),
                *(percent(core), f"{facts['events']:,}", f"{facts['lost']}"),
            ]
        )
        aims.append((max(late) < 1 and not facts["lost"], core <= 0.3))
    head = ["votes a second", "votes", "seen by all after, ms (min / median / max)"]
    head += ["of the app's core", "events sent", "streams lost"]
    return (
        f"{VIEWERS:,} streams of one process, all connected to it. The time is from the moment at "
        "which a vote is sent to the moment at which the last viewer has it.\n\n"
        + table(head, rows)
        + "\n"
        + aim("A vote is seen by all in under 1 s", all(seen for seen, _ in aims))
        + aim("At 30 % of a core or less", all(cheap for _, cheap in aims))
    )


def watched(bench: Bench, server: Server, rate: float) -> tuple[list[float], float, dict[str, Any]]:
    """Vote at ``rate`` a second before viewers; return lags (s), the share of a core, facts."""
    path = f"/api/polls/{POLL}/events"
    words = [sys.executable, "-m", "lab.bench.app_viewers", str(server.ports[0]), path]
    log = bench.place() / "viewers"
    with running("viewers", [*words, str(VIEWERS)], OTHERS, log) as crowd:
        deadline = time.monotonic() + 60
        while '"voters"' not in log.read_text():
            if crowd.process.status() == psutil.STATUS_ZOMBIE or time.monotonic() > deadline:
                raise SystemExit(f"bench: the viewers saw nothing:\n{log.read_text()}")
            time.sleep(0.1)
        attack = app_load.attack(server, bench.votes, VIEWING_SECONDS, rate=rate)
        sent = app_load.acknowledged(bench.votes)
        time.sleep(2)  # the last event
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    seen = [(line["voters"], line["at"]) for line in lines if "voters" in line]
    return lags(sent, seen), attack.cores["server"], lines[-1]


def lags(sent: Sequence[tuple[float, float]], seen: Sequence[tuple[int, float]]) -> list[float]:
    """
    Return how long each vote took until everybody had seen it (s).

    Args:
        sent: when each vote was sent and answered, by the answers: the n-th makes n voters.
        seen: how many voters everybody had seen, and when.

    Raises:
        SystemExit: some were never seen.
    """
    found, events = [], iter(seen)
    voters, at = next(events)
    for number, (began, _) in enumerate(sent, 1):
        while voters < number:
            try:
                voters, at = next(events)
            except StopIteration:
                raise SystemExit(f"bench: vote {number} of {len(sent)} was never seen") from None
        found.append(at - began)
    return found


def processes(bench: Bench) -> str:
    """1 → 4 processes of the app."""
    rates: dict[int, list[float]] = {count: [] for count in PROCESSES}
    redis: dict[int, list[float]] = {count: [] for count in PROCESSES}
    for _ in range(ROUNDS):
        for count in PROCESSES:
            with bench.ours(processes=count, share=SHARE) as server:
                attack = bench.attack(server, connections=32 * count)
            told(f"{count} processes", attack)
            rates[count].append(attack.rate)
            redis[count].append(attack.cores["redis"] / attack.rate * 1e6)
    one = statistics.median(rates[1])
    linear = {count: statistics.median(rates[count]) / one / count for count in PROCESSES}
    rows = [
        [str(n), spread(rates[n], 0), f"{linear[n]:.2f}", f"{statistics.median(redis[n]):.1f}"]
        for n in PROCESSES
    ]
    head = ["processes", "votes/s (min / median / max)", "of linear", "Redis, µs a vote"]
    return (
        f"The cores of this machine ({os.cpu_count()}) end before four processes do, with Redis "
        f"and the load generator on one of them. So every process is held to {percent(SHARE)} of "
        "a core by the kernel, all on the same core: what they share is Redis, its log and its "
        "scripts, as on any number of machines.\n\n"
        + table(head, rows)
        + "\n"
        + aim("0.8 of linear or more", min(linear.values()) >= 0.8)
    )


def voters(bench: Bench) -> str:
    """What a voter costs, from a thousand to ten million."""
    costs = []
    for size in app_fill.SIZES:
        with database(bench.place() / "redis", durable=True) as (_, client):
            port = client.get_connection_kwargs()["port"]
            costs.append(app_fill.measure(client, f"redis://127.0.0.1:{port}/0", size))
        told(f"{size:,} voters", costs[-1])
    rows = [
        [f"{c.voters:,}", f"{c.sampled:.1f}", f"{c.used:.1f}", f"{c.new:.1f}", f"{c.change:.1f}"]
        for c in costs
    ]
    head = ["voters", "bytes a voter, MEMORY USAGE", "bytes a voter, all memory"]
    head += ["µs of Redis, new vote", "µs of Redis, change"]
    return (
        "Votes are made in Redis as the app writes them, then 20,000 are cast through the app's "
        "own store, new ones and changes, in groups.\n\n"
        + table(head, rows)
        + "\n"
        + aim("40 bytes a voter or less at ten million", costs[-1].sampled <= 40)
        + aim(
            "The cost of a vote does not grow with the voters (at most 1.5 times)",
            max(c.new for c in costs) <= 1.5 * costs[0].new,
        )
    )


# What is made of them.


def votes_section(
    seen: dict[str, list[Seen]], half: Sequence[Seen], rate: float, syncs: Sequence[float]
) -> str:
    """Return the section of `votes`."""
    base = statistics.median(one.rate for one in seen["empty handler"])
    median = {kind: statistics.median(one.rate for one in many) for kind, many in seen.items()}
    rows = [
        [
            kind,
            spread([one.rate for one in many], 0),
            f"{median[kind] / base:.1%}",
            f"{statistics.median(one.cores['server'] / one.rate for one in many) * 1e6:.0f}",
            spread([one.p99 for one in many], 1),
            f"{max(one.cores['server'] for one in many):.2f}",
            f"{max(one.cores.get('redis', 0) for one in many):.2f}",
            f"{max(one.cores['vegeta'] for one in many):.2f}",
            f"{max(one.cores['others'] for one in many):.2f}",
            answers(many),
        ]
        for kind, many in seen.items()
    ]
    head = ["who", "acknowledged/s (min / median / max)", "of empty", "µs of core a vote"]
    head += ["p99, ms", "core 0: it", "core 1: Redis", "core 1: vegeta", "other work", "answers"]
    times = median["ours"] / max(1.0, median[PEER_NOW])
    return (
        f"{CONNECTIONS} connections, as fast as they bear, {SECONDS:.0f} s, {ROUNDS} rounds in "
        "turn. The empty handler gets the very same requests as we do. A vote is of a voter and an "
        "address of its own; after each attack Redis held exactly the votes that were "
        "acknowledged.\n\n"
        + table(head, rows)
        + f"\nAt half load, {rate:,.0f} votes a second whether answers come or not: p50 "
        f"{spread([one.p50 for one in half], 1)} ms, p99 {spread([one.p99 for one in half], 1)} "
        f"ms, the slowest {max(one.worst for one in half):.0f} ms (answers: {answers(half)}). The "
        f"slowest step of Redis, a sync of its log: {spread(syncs, 0)} ms.\n\n"
        "example-voting-app's front is a stand-in that we wrote from its behaviour "
        "(lab/bench/app_peer.py), with four workers and the options of its Dockerfile, on the same "
        f"core: with the newest libraries ({', '.join(PEER)}), as in an image that is built now, "
        f"and with those of its last commit ({', '.join(PEER_2024)}). Its Redis has no append-only "
        "file, as in its compose file: what it accepts is neither durable nor counted. Its worker, "
        "which counts, takes one vote each 100 ms by construction (`Thread.Sleep(100)` in its "
        "loop): 10 a second.\n\n"
        + aim(
            f"60 % of the empty handler or more ({median['ours'] / base:.0%})",
            median["ours"] / base >= 0.6,
        )
        + aim(f"20 × the front of example-voting-app or more ({times:.0f} ×)", times >= 20)
        + aim(
            "p99 at half load 25 ms or less (median of the rounds)",
            statistics.median(one.p99 for one in half) <= 25,
        )
    )


PARTS: dict[str, tuple[str, Callable[[Bench], str]]] = {
    "votes": ("Votes a second, and latency", votes),
    "viewers": ("Live results", viewers),
    "processes": ("One process and more", processes),
    "voters": ("What a voter costs", voters),
}


def told(what: str, facts: object) -> None:
    """Print what was just measured."""
    print(f"  {time.strftime('%T')} {what}: {facts}", flush=True)


def aim(text: str, met: bool) -> str:
    """Return a line of the page that says whether an aim is met."""
    return f"- {'✓' if met else '✗ not met:'} {text}\n"


def spread(values: Sequence[float], digits: int) -> str:
    """Return ``min / median / max`` of ``values``."""
    some = (min(values), statistics.median(values), max(values))
    return " / ".join(f"{value:,.{digits}f}" for value in some)


def percent(share: float) -> str:
    """Return ``share`` in percent."""
    return f"{share:.0%}".replace("%", " %")


def answers(many: Sequence[Seen]) -> str:
    """Return how many answers of each status there were in all."""
    total: dict[str, int] = {}
    for one in many:
        for status, n in one.answers.items():
            total[status] = total.get(status, 0) + n
    return ", ".join(f"{n:,} × {status}" for status, n in sorted(total.items()))


def sync_ms(folder: Path) -> float:
    """Return how long the disk takes to sync a small write (ms, median of 200)."""
    took = []
    with (folder / "sync").open("wb", buffering=0) as file:
        for _ in range(200):
            began = time.perf_counter()
            file.write(bytes(512))
            os.fdatasync(file.fileno())
            took.append((time.perf_counter() - began) * 1000)
    return statistics.median(took)


def machine(folder: Path) -> str:
    """Return what the measurements ran on."""
    cpu = next(
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    )
    server = shell("redis-server", "--version").split()[2].removeprefix("v=")
    return (
        f"{os.cpu_count()} × {cpu}, {psutil.virtual_memory().total / 2**30:.0f} GiB; Linux "
        f"{platform.release()}, Python {platform.python_version()}, Sanic {sanic.__version__}, "
        f"Redis {server} with the cluster's configuration (`appendfsync always`; a sync of the "
        f"disk takes {sync_ms(folder):.2f} ms); vegeta as load generator."
    )


def measure(names: Sequence[str]) -> str:
    """Run these parts; return their sections."""
    # An end by `kill`, too, ends what was started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("bench: stopped"))
    place = cache.root() / "bench"
    place.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=place) as folder:
        bench = Bench(Path(folder))
        text = machine(bench.folder) + "\n"
        for name in names:
            title, part = PARTS[name]
            began = time.monotonic()
            text += f"\n## {title}\n\n{part(bench)}"
            told(name, f"{time.monotonic() - began:.0f} s")
    return text


def main() -> None:
    """Measure everything and write the page."""
    began = stamp()
    text = measure(tuple(PARTS))
    PAGE.write_text(f"# The vote app, measured\n\n{began}. Repeat: `make bench-app`.\n{text}")
    print(PAGE.read_text())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m lab.bench.app", description=__doc__)
    parser.add_argument("parts", nargs="+", choices=PARTS)
    print(measure(parser.parse_args().parts))
