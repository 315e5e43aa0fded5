"""A real Redis and a real app, each in its own process, for the tests."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import redis

from tests.conftest import ROOT

DEADLINE = 30.0


def wait(what: str, probe: Callable[[], object], process: subprocess.Popen[bytes]) -> None:
    """Return when ``probe`` returns without an error; fail with the last one otherwise."""
    end, last = time.monotonic() + DEADLINE, "nothing yet"
    while time.monotonic() < end:
        assert process.poll() is None, f"{what}: ended with {process.returncode}; {last}"
        try:
            probe()
        except Exception as error:
            last = str(error)
            time.sleep(0.05)
        else:
            return
    raise AssertionError(f"waited {DEADLINE:.0f} s for {what}; last seen: {last}")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Redis:
    """redis-server as in the cluster: every acknowledged write is on the disk."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.url = f"unix://{folder}/redis.sock"
        self.client = redis.Redis.from_url(self.url, decode_responses=True)
        self.start()

    def start(self) -> None:
        self.process = subprocess.Popen(
            ["redis-server", "--port", "0", "--unixsocket", f"{self.folder}/redis.sock",
             "--dir", str(self.folder), "--save", "", "--appendonly", "yes",
             "--appendfsync", "always"],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        wait("redis-server", self.client.ping, self.process)

    def kill(self, number: int = signal.SIGKILL) -> None:
        self.process.send_signal(number)
        self.process.wait(DEADLINE)


class App:
    """``python -m f1vote`` on a free port of loopback."""

    def __init__(self, folder: Path, redis_url: str, polls: Path = ROOT / "app" / "polls") -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        key = folder / "cookie-key"
        key.write_bytes(b"a secret of the tests, 32 bytes or more")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "f1vote"],
            env={**os.environ, "PYTHONPATH": str(ROOT / "app"), "F1_REDIS_URL": redis_url,
                 "F1_COOKIE_KEY_FILE": str(key), "F1_POLLS_DIR": str(polls),
                 "F1_VERSION": "c-test", "F1_PORT": str(self.port)},
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        )  # fmt: skip
        wait("the app", lambda: httpx.get(f"{self.url}/healthz"), self.process)

    def browser(self, **headers: str) -> httpx.Client:
        """Return a client with a cookie jar of its own."""
        return httpx.Client(base_url=self.url, headers=headers, timeout=DEADLINE)

    def stop(self) -> int:
        """Stop it as Kubernetes does; return its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(DEADLINE)
