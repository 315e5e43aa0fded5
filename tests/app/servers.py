"""A real Redis and a real app, each in its own process, for the tests."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import httpx
import redis

from lab.ports import free_port
from tests.conftest import ROOT

DEADLINE = 30.0
COOKIE = "__Host-f1vote"
# One question, without a cookie jar. To read the certificates of this machine takes 50 ms.
ask = partial(httpx.request, verify=False, timeout=DEADLINE)


def wait(
    what: str,
    probe: Callable[[], object],
    process: subprocess.Popen[bytes] | None = None,
    log: Path | None = None,
) -> None:
    """Return when ``probe`` returns without an error; fail with the last one otherwise."""
    end, last = time.monotonic() + DEADLINE, "nothing yet"
    while time.monotonic() < end:
        ended = process.poll() if process else None
        said = log.read_text() if log and ended is not None else last
        assert ended is None, f"{what}: ended with {ended}; {said}"
        try:
            probe()
        except Exception as error:
            last = str(error)
            time.sleep(0.02)
        else:
            return
    raise AssertionError(f"waited {DEADLINE:.0f} s for {what}; last seen: {last}")


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
    """
    ``python -m f1vote serve`` on free ports of loopback: ``url`` for voters, ``ops_url`` for
    operators. Its log is the file ``log``. ``older_key`` signed cookies before ``key``. ``environ``
    adds to its environment.
    """

    def __init__(
        self,
        folder: Path,
        redis_url: str,
        polls: Path = ROOT / "app" / "polls",
        ready: bool = True,
        older_key: bytes = b"",
        **environ: str,
    ) -> None:
        self.port, self.ops_port = free_port(), free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.ops_url = f"http://127.0.0.1:{self.ops_port}"
        self.key = b"a secret of the tests, 32 bytes or more"
        key = folder / "cookie-key"
        key.write_bytes(self.key + b"\n" + older_key)
        self.log = folder / f"app-{self.port}.log"
        self.environ = {
            **{name: value for name, value in os.environ.items() if not name.startswith("F1_")},
            "PYTHONPATH": str(ROOT / "app"),
            "F1_REDIS_URL": redis_url,
            "F1_COOKIE_KEY_FILE": str(key),
            "F1_POLLS_DIR": str(polls),
            "F1_VERSION": "c-test",
            "F1_PORT": str(self.port),
            "F1_OPS_PORT": str(self.ops_port),
            **environ,
        }
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "f1vote", "serve"], env=self.environ, stdout=log,
                stderr=subprocess.STDOUT,
            )  # fmt: skip
        if ready:
            wait("the app", lambda: ask("GET", f"{self.ops_url}/healthz"), self.process, self.log)

    def browser(self, **headers: str) -> httpx.Client:
        """
        Return a client of the voters' listener with a cookie jar of its own, which sends Secure
        cookies over plain http, as browsers do to loopback.
        """
        client = httpx.Client(base_url=self.url, headers=headers, timeout=DEADLINE, verify=False)

        def trust(_: httpx.Response) -> None:
            for cookie in client.cookies.jar:
                cookie.secure = False

        client.event_hooks = {"response": [trust]}
        return client

    def operator(self, **headers: str) -> httpx.Client:
        """Return a client of the operators' listener."""
        return httpx.Client(base_url=self.ops_url, headers=headers, timeout=DEADLINE, verify=False)

    def command(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        """Run ``python -m f1vote <arguments>`` in the app's environment."""
        return subprocess.run(
            [sys.executable, "-m", "f1vote", *arguments], env=self.environ, capture_output=True,
            text=True, timeout=DEADLINE,
        )  # fmt: skip

    def stop(self) -> int:
        """Stop it as Kubernetes does; return its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(DEADLINE)
