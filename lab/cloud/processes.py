"""Further services kept alive beside the cloud (a registry, a mail server, …)."""

import ctypes
import logging
import os
import signal
import subprocess
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

from lab.cloud.config import Process

log = logging.getLogger("processes")
READY_DEADLINE = 30  # seconds
STOP_DEADLINE = 10  # seconds
_PR_SET_PDEATHSIG = 1


class ProcessError(RuntimeError):
    """A service did not come up; the message names it and its log."""


def _die_with_parent() -> None:
    """In the child: be killed when the lab's process is, even by kill -9."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


class Supervisor:
    """Starts the services, restarts what dies, stops all.

    Args:
        processes: what to run.
        logs: folder of one log file each.
    """

    def __init__(self, processes: list[Process], logs: Path) -> None:
        self.processes = processes
        self.logs = logs
        self.running: dict[str, subprocess.Popen[bytes]] = {}
        self.restarts: dict[str, int] = {}
        self._end = threading.Event()
        self._started = threading.Event()
        # One thread starts them all and lives as long as they do: the kernel binds
        # "parent died" to the thread that forked.
        self._thread = threading.Thread(target=self._run, name="processes", daemon=True)

    def _spawn(self, process: Process) -> None:
        with (self.logs / f"{process.name}.log").open("ab") as out:
            self.running[process.name] = subprocess.Popen(
                process.argv,
                stdout=out,
                stderr=out,
                stdin=subprocess.DEVNULL,
                env=os.environ | process.env,
                preexec_fn=_die_with_parent,
                start_new_session=True,
            )

    def _run(self) -> None:
        while not self._end.is_set():
            for process in self.processes:
                child = self.running.get(process.name)
                if child is None or child.poll() is not None:
                    if child is not None:
                        count = self.restarts[process.name] = self.restarts.get(process.name, 0) + 1
                        log.warning("%s ended (%s), restart %d", process.name, child.poll(), count)
                    try:
                        self._spawn(process)
                    except OSError as error:
                        log.error("%s: %s", process.name, error)
            self._started.set()
            self._end.wait(1)

    def start(self) -> None:
        """Start all and wait for each ``ready_url``.

        Raises:
            ProcessError: one did not answer within the deadline.
        """
        if not self.processes:
            return
        self._thread.start()
        self._started.wait(READY_DEADLINE)
        deadline = time.monotonic() + READY_DEADLINE
        for process in self.processes:
            last = "no answer yet"
            while process.ready_url and last:
                try:
                    urllib.request.urlopen(process.ready_url, timeout=2).close()  # noqa: S310
                    last = ""
                except urllib.error.HTTPError as error:
                    last = f"HTTP {error.code}"
                except OSError as error:
                    last = str(error)
                if last and time.monotonic() > deadline:
                    raise ProcessError(
                        f"{process.name}: {process.ready_url} did not answer within "
                        f"{READY_DEADLINE} s (last: {last}); see {self.logs}/{process.name}.log"
                    )
                if last:
                    time.sleep(0.1)

    def stop(self) -> None:
        """End all: politely, then not."""
        self._end.set()
        if self._thread.is_alive():
            self._thread.join()
        for child in self.running.values():
            child.terminate()
        deadline = time.monotonic() + STOP_DEADLINE
        for child in self.running.values():
            try:
                child.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()

    def status(self) -> dict[str, str]:
        """``running`` or how it ended, by name."""
        return {
            name: "running" if child.poll() is None else f"ended ({child.returncode})"
            for name, child in self.running.items()
        }
