"""SIGTERM, at any moment: it ends with 0, in time, and nobody under way is cut off."""

import asyncio
import signal
import socket
import subprocess
import sys
import time

import httpx
import pytest

from f1vote import ballot
from tests.app.servers import COOKIE, DEADLINE, App, Redis, ask, wait

POLL = "/api/polls/canary"
VOTE = {"choices": ["A1"]}


@pytest.fixture
def redis(tmp_path):
    server = Redis(tmp_path)
    yield server
    if server.process.poll() is None:
        server.kill()


def ended(app: App) -> int:
    """Wait for its end; fail with its log if that does not come."""
    try:
        return app.process.wait(DEADLINE)
    except subprocess.TimeoutExpired:
        app.process.kill()
        raise AssertionError(app.log.read_text()) from None


def test_a_vote_under_way_is_answered(redis, tmp_path):
    app = App(tmp_path, redis.url)
    _, value = ballot.issue((app.key,))
    ask("GET", f"{app.url}{POLL}")
    redis.client.execute_command("CLIENT", "PAUSE", "800", "WRITE")

    async def vote_while_stopping() -> int:
        async with httpx.AsyncClient(base_url=app.url, timeout=DEADLINE, verify=False) as client:
            headers = {"cookie": f"{COOKIE}={value}"}
            vote = client.post(f"{POLL}/vote", json=VOTE, headers=headers)
            task = asyncio.create_task(vote)
            await asyncio.to_thread(wait, "the vote at Redis", blocked)
            app.process.terminate()
            return (await task).status_code

    def blocked() -> None:
        assert int(redis.client.info("clients")["blocked_clients"]) > 0

    assert asyncio.run(vote_while_stopping()) == 200
    assert ended(app) == 0
    assert redis.client.hget("poll:canary:tally", "A1") == "1"


def test_while_it_drains_it_serves_and_says_that_it_leaves(redis, tmp_path):
    app = App(tmp_path, redis.url, F1_DRAIN_SECONDS="3")
    kept = app.browser()
    kept.get(POLL)
    stream = socket.create_connection(("127.0.0.1", app.port), DEADLINE)
    stream.sendall(b"GET /api/polls/canary/events HTTP/1.1\r\nHost: x\r\n\r\n")
    assert b"200 OK" in stream.recv(65536)
    app.process.terminate()

    def leaving() -> None:
        answer = ask("GET", f"{app.ops_url}/readyz")
        assert (answer.status_code, answer.text) == (503, "asked to end\n")

    wait("readiness to be gone", leaving, app.process)
    # Who was here, who comes now: both vote, and are asked to connect elsewhere next time.
    for voter in (kept, app.browser()):
        voter.get(POLL)
        answer = voter.post(f"{POLL}/vote", json=VOTE)
        assert answer.status_code == 200
        assert answer.headers["connection"] == "close"
    assert ask("GET", f"{app.ops_url}/healthz").status_code == 200
    said = b""
    while more := stream.recv(65536):
        said += more
    assert b"event: bye" in said
    # A second signal changes nothing.
    app.process.terminate()
    assert ended(app) == 0
    assert redis.client.hget("poll:canary:tally", "A1") == "2"


def test_with_redis_gone(redis, tmp_path):
    app = App(tmp_path, redis.url)
    redis.kill()
    assert app.stop() == 0


def test_with_redis_hanging_and_votes_waiting(redis, tmp_path):
    app = App(tmp_path, redis.url)
    _, value = ballot.issue((app.key,))
    redis.client.execute_command("CLIENT", "PAUSE", "60000", "ALL")

    async def vote_while_stopping() -> int:
        async with httpx.AsyncClient(base_url=app.url, timeout=DEADLINE, verify=False) as client:
            headers = {"cookie": f"{COOKIE}={value}"}
            task = asyncio.create_task(client.post(f"{POLL}/vote", json=VOTE, headers=headers))
            await asyncio.sleep(0.2)
            app.process.terminate()
            return (await task).status_code

    assert asyncio.run(vote_while_stopping()) == 503
    assert ended(app) == 0


def test_connections_that_say_nothing_do_not_hold_it(redis, tmp_path):
    app = App(tmp_path, redis.url)
    silent = [socket.create_connection(("127.0.0.1", app.port), DEADLINE) for _ in range(5)]
    silent[0].sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    silent[0].recv(10)
    began = time.monotonic()
    assert app.stop() == 0
    assert time.monotonic() - began < DEADLINE / 2


@pytest.mark.parametrize("redis_is", ["there", "gone"])
def test_at_many_moments_of_its_start(redis, tmp_path, redis_is):
    if redis_is == "gone":
        redis.kill()
    app = App(tmp_path, redis.url)
    assert app.stop() == 0

    def start() -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "-m", "f1vote", "serve"], env=app.environ,
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        )  # fmt: skip

    began = time.monotonic()
    process = start()
    wait("the app", lambda: ask("GET", f"{app.ops_url}/healthz"), process)
    took = time.monotonic() - began
    process.terminate()
    assert process.wait(DEADLINE) == 0
    codes = {}
    for step in range(10):
        delay = took * step / 8
        process = start()
        time.sleep(delay)
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=DEADLINE)
        codes[delay] = process.returncode
        assert b"Traceback" not in said, said.decode()
    # Before the first line of ours runs, the signal's default holds (in a pod it has none).
    early = [delay for delay, code in codes.items() if code == -signal.SIGTERM]
    assert all(delay < 0.3 * took for delay in early), codes
    assert {code for delay, code in codes.items() if delay not in early} == {0}, codes
