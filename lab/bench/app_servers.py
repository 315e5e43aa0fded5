"""
What is measured, each as processes that end with the measurement, whatever ends it.

All listen on loopback. Core 0 is for who is measured, core 1 for Redis and for who asks.
"""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import redis
import yaml

from lab.__main__ import ROOT
from lab.build import cache
from lab.ports import free_port

MEASURED, OTHERS = "0", "1"
DEADLINE = 30.0  # to start or to end (s)
KEY = b"a key of the measurements: 32 bytes or more"
# example-voting-app's front names three libraries without a version: an image has the newest when
# it is built; the second line was that at its last commit.
PEER = ("flask==3.1.3", "gunicorn==27.0.1", "redis==8.1.0")
PEER_2024 = ("flask==3.0.3", "gunicorn==23.0.0", "redis==5.1.1")
CGROUPS = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class Running:
    """A process and its children."""

    name: str
    process: psutil.Process

    def cpu(self) -> float:
        """Return the processor time that they took so far (s)."""
        family = [self.process, *self.process.children(recursive=True)]
        return sum(sum(member.cpu_times()[:2]) for member in family)


@dataclass(frozen=True)
class Server:
    """Somebody who takes votes at ``ports``, and the Redis behind."""

    ports: tuple[int, ...]
    running: tuple[Running, ...]
    votes: Callable[[], int]  # how many Redis holds; -1: there is none
    slowest_sync: Callable[[], float] = lambda: 0.0  # of the log that Redis waited for (ms)


@contextmanager
def running(
    name: str,
    words: Sequence[str],
    core: str,
    log: Path,
    env: Mapping[str, str] | None = None,
    ports: Sequence[int] = (),
) -> Iterator[Running]:
    """
    Run a command on ``core`` until the end of the block; begin when its ``ports`` are open.

    Raises:
        SystemExit: it ended, or did not open them in time; with the end of its log.
    """
    # The kernel ends it if we cannot.
    tied = ["setpriv", "--pdeathsig", "KILL", "taskset", "-c", core, *words]
    with log.open("wb") as out:
        process = subprocess.Popen(
            tied,
            env={**os.environ, **(env or {})},
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        for port in ports:
            _wait_for(name, process, port, log)
        yield Running(name, psutil.Process(process.pid))
    finally:
        _end(process)


def _wait_for(name: str, process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    end = time.monotonic() + DEADLINE
    while process.poll() is None and time.monotonic() < end:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    state = f"ended with {process.returncode}" if process.returncode is not None else "is silent"
    raise SystemExit(f"bench: {name} on port {port} {state}:\n{log.read_text()[-2000:]}")


def _end(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(DEADLINE)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@contextmanager
def database(folder: Path, durable: bool) -> Iterator[tuple[Running, redis.Redis]]:
    """An empty Redis: with the cluster's own configuration if ``durable``, else as it comes."""
    folder.mkdir()
    port = free_port()
    words = ["redis-server"]
    if durable:
        settings = yaml.safe_load((ROOT / "k8s" / "redis" / "config.yaml").read_text())["data"]
        lines = settings["redis.conf"].splitlines()
        kept = [line for line in lines if not line.startswith("dir ")]
        (folder / "redis.conf").write_text("\n".join(kept))
        words += [str(folder / "redis.conf")]
    words += ["--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder)]
    with running("redis", words, OTHERS, folder / "log", ports=[port]) as process:
        yield process, redis.Redis(port=port, decode_responses=True)


@contextmanager
def empty(folder: Path) -> Iterator[Server]:
    """A Sanic handler that does nothing."""
    port = free_port()
    words = [sys.executable, "-m", "lab.bench.app_empty", str(port)]
    with running("server", words, MEASURED, folder / "empty.log", ports=[port]) as process:
        yield Server((port,), (process,), lambda: -1)


@contextmanager
def ours(
    folder: Path, polls: Path, poll: str, processes: int = 1, share: float = 1, naive: bool = False
) -> Iterator[Server]:
    """
    The vote app: ``processes`` of it, each held to ``share`` of a core.

    ``naive``: without grouping.
    """
    key = folder / "cookie-key"
    key.write_bytes(KEY)
    module = "lab.bench.app_naive" if naive else "f1vote"
    with ExitStack() as stack:
        store, client = stack.enter_context(database(folder / "redis", durable=True))
        client.config_set("latency-monitor-threshold", 1)
        ports, members = [], []
        for number in range(processes):
            port, operators = free_port(), free_port()
            env = {
                "PYTHONPATH": f"{ROOT / 'app'}:{ROOT}",
                "F1_REDIS_URL": f"redis://127.0.0.1:{client.get_connection_kwargs()['port']}/0",
                "F1_COOKIE_KEY_FILE": str(key),
                "F1_POLLS_DIR": str(polls),
                "F1_VERSION": "bench",
                "F1_PORT": str(port),
                "F1_OPS_PORT": str(operators),
                "F1_PROXIES": "1",
            }
            words = [sys.executable, "-m", module, "serve"]
            log = folder / f"app-{number}.log"
            process = stack.enter_context(
                running("server", words, MEASURED, log, env, [port, operators])
            )
            if share < 1:
                stack.enter_context(_held(process, share))
            ports.append(port)
            members.append(process)
        yield Server(
            tuple(ports),
            (*members, store),
            lambda: int(client.hget(f"poll:{poll}:meta", "voters") or 0),
            lambda: max((float(slowest) for *_, slowest in client.latency_latest()), default=0.0),
        )


@contextmanager
def peer(folder: Path, libraries: Sequence[str] = PEER) -> Iterator[Server]:
    """The stand-in for example-voting-app's web front, with the options of its Dockerfile."""
    port = free_port()
    with database(folder / "redis", durable=False) as (store, client):
        words = [
            *(
                str(peer_python(libraries)),
                "-m",
                "gunicorn",
                "app_peer:app",
                "-b",
                f"127.0.0.1:{port}",
            ),
            *("--chdir", str(Path(__file__).parent), "--log-file", "-", "--access-logfile", "-"),
            *("--workers", "4", "--keep-alive", "0"),
        ]
        env = {"PEER_REDIS_PORT": str(client.get_connection_kwargs()["port"])}
        with running("server", words, MEASURED, folder / "peer.log", env, [port]) as process:
            yield Server((port,), (process, store), lambda: int(client.llen("votes")))


def peer_python(libraries: Sequence[str]) -> Path:
    """Return the Python that has the peer's ``libraries``, installed unless it is there."""

    def make(folder: Path) -> None:
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([folder / "bin" / "python", *pip, *libraries], check=True)

    return cache.artifact("bench-peer", cache.key(*libraries), make) / "bin" / "python"


@contextmanager
def _held(running: Running, share: float) -> Iterator[None]:
    """Hold a process to ``share`` of a core, by the kernel's control groups of either version."""
    period = 10_000  # µs
    quota = str(int(period * share))
    first = CGROUPS / "cpu" / "cpu.cfs_quota_us"
    parent = first.parent if first.exists() else CGROUPS
    group = parent / f"f1-bench-{running.process.pid}"
    group.mkdir()
    try:
        if first.exists():
            (group / "cpu.cfs_period_us").write_text(str(period))
            (group / "cpu.cfs_quota_us").write_text(quota)
        else:
            (group / "cpu.max").write_text(f"{quota} {period}")
        (group / "cgroup.procs").write_text(str(running.process.pid))
        yield
        (parent / "cgroup.procs").write_text(str(running.process.pid))
    finally:
        group.rmdir()
