"""Votes on their way: who votes, vegeta that sends them, and what it saw."""

import json
import random
import time
from base64 import b64encode
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from f1vote import ballot
from lab import build
from lab.bench.app_servers import KEY, OTHERS, Running, Server, running
from lab.bench.common import shell

HOST = "vote.example"  # vegeta is told where that is
ORIGIN = f"http://{HOST}"
EDGE = 0.5  # of an attack, in which nobody's processor time is counted (s)
MOST = 60.0  # that an attack may last beyond its end (s)


@dataclass(frozen=True)
class Seen:
    """
    What became of an attack: ``rate`` acknowledged votes a second, latencies in ms, how many
    answers of each status, and how much of a core each process took (``others``: all that does
    not belong to the measurement).
    """

    rate: float
    p50: float
    p99: float
    worst: float
    answers: dict[str, int]
    cores: dict[str, float]

    @property
    def acknowledged(self) -> int:
        """How many votes were acknowledged."""
        return sum(n for status, n in self.answers.items() if status.startswith("2"))


def votes(count: int, path: str, codes: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Yield votes of the API as browsers send them, each of a voter and an address of its own."""
    for _ in range(count):
        _, cookie = ballot.issue([KEY])
        address = ".".join(str(random.randint(1, 254)) for _ in range(4))  # noqa: S311
        yield _target(
            path,
            json.dumps({"choices": [random.choice(codes)]}),  # noqa: S311
            {
                "Content-Type": ["application/json"],
                "Cookie": [f"__Host-f1vote={cookie}"],
                "Origin": [ORIGIN],
                "Sec-Fetch-Site": ["same-origin"],
                "X-Forwarded-For": [address],
            },
        )


def forms(count: int) -> Iterator[dict[str, Any]]:
    """Yield votes as example-voting-app's page sends them, each of a voter of its own."""
    for _ in range(count):
        headers = {
            "Content-Type": ["application/x-www-form-urlencoded"],
            "Cookie": [f"voter_id={random.getrandbits(60):x}"],
            "Origin": [ORIGIN],
        }
        yield _target("/", f"vote={random.choice('ab')}", headers)  # noqa: S311


def _target(path: str, body: str, headers: dict[str, list[str]]) -> dict[str, Any]:
    return {
        "method": "POST",
        "url": ORIGIN + path,
        "header": headers,
        "body": b64encode(body.encode()).decode(),
    }


def write(file: Path, targets: Iterable[dict[str, Any]]) -> Path:
    """Write ``targets`` for vegeta, one a line."""
    with file.open("w") as out:
        out.writelines(json.dumps(target) + "\n" for target in targets)
    return file


def attack(
    server: Server, targets: Path, seconds: float, connections: int = 0, rate: float = 0
) -> Seen:
    """
    Send ``targets`` for ``seconds``: as fast as ``connections`` bear, or ``rate`` a second.

    Raises:
        SystemExit: they ran out, or vegeta failed.
    """
    results = _results(targets)
    words = [str(build.tool("vegeta")), "attack", "-format=json", "-lazy", "-max-body=0"]
    words += [f"-targets={targets}", f"-output={results}", f"-duration={seconds}s"]
    words += [f"-rate={round(rate)}", "-redirects=-1", "-timeout=10s"]
    if connections:
        words += [f"-workers={connections}", f"-max-workers={connections}"]
    for port in server.ports:
        words += ["-connect-to", f"{HOST}:80:127.0.0.1:{port}"]
    with running("vegeta", words, OTHERS, targets.with_suffix(".log")) as vegeta:
        time.sleep(EDGE)
        before, began = _taken(server, vegeta), time.monotonic()
        time.sleep(seconds - 2 * EDGE)
        after, passed = _taken(server, vegeta), time.monotonic() - began
        try:
            vegeta.process.wait(MOST)
        except psutil.TimeoutExpired:
            raise SystemExit(f"bench: vegeta did not end in {MOST} s") from None
    report = json.loads(shell(words[0], "report", "-type=json", str(results)))
    latency = {name: report["latencies"][name] / 1e6 for name in ("50th", "99th", "max")}
    return Seen(
        rate=report["throughput"],
        p50=latency["50th"],
        p99=latency["99th"],
        worst=latency["max"],
        answers=report["status_codes"],
        cores={name: (after[name] - before[name]) / passed for name in after},
    )


def _taken(server: Server, vegeta: Running) -> dict[str, float]:
    """Processor time until now (s), by who took it."""
    taken: dict[str, float] = {}
    for member in (*server.running, vegeta):
        taken[member.name] = taken.get(member.name, 0) + member.cpu()
    machine = psutil.cpu_times()
    busy = machine.user + machine.nice + machine.system + machine.steal
    return {**taken, "others": busy - sum(taken.values())}


def _results(targets: Path) -> Path:
    return targets.with_suffix(".results")


def acknowledged(targets: Path) -> list[tuple[float, float]]:
    """
    Return when each acknowledged vote of the last attack with ``targets`` was sent and answered
    (Unix time, s), in the order of the answers.
    """
    lines = shell(
        str(build.tool("vegeta")), "encode", "-to=csv", str(_results(targets))
    ).splitlines()
    cells = [line.split(",", 3) for line in lines]
    spans = [
        (int(sent), int(sent) + int(took)) for sent, status, took, _ in cells if status[0] == "2"
    ]
    return sorted(((sent / 1e9, end / 1e9) for sent, end in spans), key=lambda span: span[1])
