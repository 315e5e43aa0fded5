"""The child processes of k3s: started, watched, ended with it."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

GRACE = 3  # seconds that children have to end by themselves; K3s's end with it, at once
STRAYS_DEADLINE = 10  # seconds that a killed process has to be gone
SHOWN = 12  # last lines of a dead child's log
# The kernel ends a child when the thread that started it does.
DIE_WITH_PARENT = ("setpriv", "--pdeathsig", "KILL", "--")
# Seconds between two looks at what is waited for: soon at first, then seldom, since the looking
# takes time from what is looked at.
POLL_FIRST, POLL_GROWTH, POLL_LAST = 0.05, 1.3, 0.3


class Stopped(Exception):
    """The process was asked to end (SIGTERM, SIGINT)."""


class ChildDied(Exception):
    """A child ended; the message holds its name, status and last log lines."""


class TimedOut(Exception):
    """Something did not happen in time; the message says what, and what was seen last."""


class CommandFailed(Exception):
    """A helper program failed; the message holds its last words."""


def say(message: str) -> None:
    """Write one line to the journal."""
    print(f"k3s: {message}", file=sys.stderr, flush=True)


def notify(message: str) -> None:
    """Tell systemd, if it listens (sd_notify(3))."""
    address = os.environ.get("NOTIFY_SOCKET")
    if address:
        if address.startswith("@"):
            address = "\0" + address[1:]
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
            channel.sendto(message.encode(), address)


def child_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """What a child gets to see: no secret, and not systemd's socket."""
    return {
        key: value
        for key, value in environ.items()
        if key != "NOTIFY_SOCKET" and not key.startswith("K3S_")
    }


def run(argv: Sequence[str | Path], deadline: float = 60, stdin: str | None = None) -> str:
    """Run a helper program to its end and give what it wrote.

    Raises:
        CommandFailed: it failed or took longer than ``deadline`` seconds.
    """
    name = Path(argv[0]).name
    try:
        done = subprocess.run(
            [*DIE_WITH_PARENT, *(str(part) for part in argv)],
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=deadline,
            env=child_environment(os.environ),
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise CommandFailed(f"{name} took longer than {deadline:.0f} s") from error
    except OSError as error:
        raise CommandFailed(f"{name}: {error}") from error
    if done.returncode:
        tail = "\n".join(done.stdout.strip().splitlines()[-SHOWN:])
        raise CommandFailed(f"{name} failed ({done.returncode}): {tail}")
    return done.stdout


def _born(pid: int) -> int | None:
    """When a process started, in the kernel's ticks; None if there is none, or a dead one."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else int(fields[19])


class Supervisor:
    """Children by name. Only a thread that lives as long as k3s may spawn: the main one."""

    def __init__(self, logs: Path, record: Path | None = None) -> None:
        self.logs = logs
        self._record = record
        self.stop = threading.Event()
        self._children: dict[str, subprocess.Popen[bytes]] = {}

    def catch_signals(self) -> None:
        """Turn SIGTERM and SIGINT into ``stop``."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self.stop.set())

    def log(self, name: str) -> Path:
        """Where the output of this child goes; the former run's is kept beside it as ``.1``."""
        return self.logs / f"{name}.log"

    def spawn(self, name: str, argv: Sequence[str | Path], before: Sequence[str] = ()) -> None:
        """Start a child; ``before`` is a command that ends by becoming it."""
        # K3s's words, which the benchmarks of the CIS look for in the journal.
        say(f"Running {name} {' '.join(str(part) for part in argv[1:])}")
        log = self.log(name)
        log.parent.mkdir(parents=True, exist_ok=True, mode=0o750)
        with contextlib.suppress(FileNotFoundError):
            log.rename(log.with_suffix(".log.1"))
        private = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o640)
        with os.fdopen(private, "wb") as out:
            child = subprocess.Popen(
                [*DIE_WITH_PARENT, *before, *(str(part) for part in argv)],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                env=child_environment(os.environ),
            )
        self._children[name] = child
        self._remember()
        say(f"started {name} ({child.pid}), log {log}")

    def _remember(self) -> None:
        """Write down who the children are, for a k3s after one that was killed."""
        if self._record is not None:
            children = {child.pid: _born(child.pid) for child in self._children.values()}
            self._record.parent.mkdir(parents=True, exist_ok=True)
            self._record.write_text(json.dumps(children))

    def end_strays(self) -> None:
        """End children of a k3s that was killed: the kernel does, save in the moment of a fork.

        Raises:
            TimedOut: one is still there.
        """
        if self._record is None or not self._record.exists():
            return
        left = {int(pid): born for pid, born in json.loads(self._record.read_text()).items()}
        strays = [pid for pid, born in left.items() if born is not None and _born(pid) == born]
        for pid in strays:
            say(f"ending {pid}, a child of a k3s that was killed")
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

        def probe() -> str | None:
            alive = [str(pid) for pid in strays if _born(pid) == left[pid]]
            return f"{', '.join(alive)} not gone" if alive else None

        self.wait("children of a killed k3s to end", probe, STRAYS_DEADLINE)

    def check(self) -> None:
        """Look whether all is well.

        Raises:
            Stopped: the process is to end.
            ChildDied: a child did.
        """
        if self.stop.is_set():
            raise Stopped
        for name, child in list(self._children.items()):
            status = child.poll()
            if status is not None:
                lines = self.log(name).read_text(errors="replace").splitlines()[-SHOWN:]
                raise ChildDied(
                    f"{name} ended with status {status}; the end of {self.log(name)}:\n"
                    + "\n".join(f"  {line}" for line in lines)
                )

    def wait(self, what: str, probe: Callable[[], str | None], deadline: float) -> None:
        """Call ``probe`` until it gives None; otherwise it gives what it sees.

        Raises:
            Stopped, ChildDied: see `check`.
            TimedOut: ``deadline`` seconds have passed.
        """
        notify(f"STATUS=waiting for {what}")
        start = time.monotonic()
        told = start
        pause = POLL_FIRST
        while True:
            self.check()
            seen = probe()
            if seen is None:
                return
            now = time.monotonic()
            if now - start >= deadline:
                raise TimedOut(f"waited {deadline:.0f} s for {what}; last seen: {seen}")
            if now - told >= 10:
                say(f"waiting for {what}: {seen}")
                told = now
            self.stop.wait(pause)
            pause = min(pause * POLL_GROWTH, POLL_LAST)

    def watch(self) -> None:
        """Stay until something ends.

        Raises:
            Stopped, ChildDied: see `check`.
        """
        while True:
            self.check()
            self.stop.wait(1)

    def end(self, last: Sequence[str] = ()) -> None:
        """End every child, those in ``last`` one by one after the others. Pods are no children."""
        self.stop.set()
        first = [child for name, child in self._children.items() if name not in last]
        then = [[self._children[name]] for name in last if name in self._children]
        for group in (first, *then):
            for child in group:
                child.terminate()
            end = time.monotonic() + GRACE
            for child in group:
                try:
                    child.wait(max(0.0, end - time.monotonic()))
                except subprocess.TimeoutExpired:
                    child.kill()
                    child.wait()
