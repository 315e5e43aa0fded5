"""
Redis and the vote app are killed under load, again and again: no vote that was acknowledged may be
lost, none counted twice.

    python -m lab.bench.app_crash [--rounds 100] [--seed N]

Voters vote, change and withdraw over HTTP while, at a random moment, Redis, the app or both get a
SIGKILL and are started again. Then every vote in Redis is held against what each voter was told,
and the tally against the votes. A killed process loses nothing that the kernel holds, so this tells
nothing about a loss of power: for that there is `appendfsync always`.
"""

import argparse
import asyncio
import json
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import redis

from f1vote import ballot, receipts
from f1vote.polls import Poll, load
from lab.__main__ import ROOT
from lab.bench.app_servers import DEADLINE, KEY, MEASURED, OTHERS, Running, running
from lab.ports import free_port

ROUNDS = 100
# At once; a process of the app groups what they send.
CLIENTS = 24
VOTERS = 400
# How long votes come before something is killed (s).
LOAD = (0.1, 0.8)
POLL = "canary"
COOKIE = "__Host-f1vote"
POLLS = ROOT / "app" / "polls"


@dataclass
class Voter:
    """
    ``told`` is the vote last acknowledged, '' for none; ``perhaps`` are those sent since without an
    answer: each may count or not.
    """

    cookie: str
    receipt: str
    told: str = ""
    perhaps: list[str] = field(default_factory=list)
    busy: bool = False


@dataclass
class Result:
    """What the rounds brought: acknowledged and unanswered votes, kills by what was killed."""

    acknowledged: int = 0
    unanswered: int = 0
    refused: int = 0
    killed: Counter[str] = field(default_factory=Counter)
    recovery: list[float] = field(default_factory=list)  # s, from the start to the next votes
    wrong: list[str] = field(default_factory=list)


class Restartable:
    """A process that is killed and started again."""

    def __init__(self, start: Callable[[], AbstractContextManager[Running]]) -> None:
        self._start = start
        self._context: AbstractContextManager[Running] | None = None

    def start(self) -> None:
        """Start it; return when it listens."""
        self._context = self._start()
        self._running = self._context.__enter__()

    def kill(self) -> None:
        """End it as a loss of its memory does."""
        if self._context:
            with suppress(Exception):
                self._running.process.kill()
            self._context.__exit__(None, None, None)
            self._context = None


class Crash:
    """One folder, one Redis, one app, many rounds."""

    def __init__(self, folder: Path, seed: int, log: bool) -> None:
        self.random = random.Random(seed)  # noqa: S311 not a secret
        self.result = Result()
        self.poll: Poll = next(poll for poll in load(POLLS) if poll.id == POLL)
        store_port, port, operators = free_port(), free_port(), free_port()
        self.url = f"http://127.0.0.1:{port}"
        self.client: Any = redis.Redis(port=store_port, decode_responses=True)
        key = folder / "cookie-key"
        key.write_bytes(KEY)
        self.voters = [self._voter() for _ in range(VOTERS)]
        store = ["redis-server", "--port", str(store_port), "--bind", "127.0.0.1"]
        store += ["--dir", str(folder), "--save", "", "--appendonly", "yes" if log else "no"]
        store += ["--appendfsync", "always"]
        environ = {
            "PYTHONPATH": f"{ROOT / 'app'}:{ROOT}",
            "F1_REDIS_URL": f"redis://127.0.0.1:{store_port}/0",
            "F1_COOKIE_KEY_FILE": str(key),
            "F1_POLLS_DIR": str(POLLS),
            "F1_VERSION": "crash",
            "F1_PORT": str(port),
            "F1_OPS_PORT": str(operators),
            "F1_PROXIES": "1",
            "F1_CHALLENGE": "never",
        }
        serve = [sys.executable, "-m", "f1vote", "serve"]
        self.redis = Restartable(
            lambda: running("redis", store, OTHERS, folder / "redis.log", ports=[store_port])
        )
        self.app = Restartable(
            lambda: running("app", serve, MEASURED, folder / "app.log", environ, [port, operators])
        )

    def _voter(self) -> Voter:
        name, value = ballot.issue((KEY,))
        return Voter(f"{COOKIE}={value}", receipts.of(POLL, name))

    async def run(self, rounds: int) -> Result:
        """Return what ``rounds`` rounds brought; stop at the first that went wrong."""
        try:
            await asyncio.to_thread(self.redis.start)
            await asyncio.to_thread(self.app.start)
            for number in range(1, rounds + 1):
                await self._round(self.random.choice(["redis", "app", "both"]))
                if self.result.wrong:
                    break
                print(f"\rround {number}: {self.result.acknowledged} acknowledged", end="")
        finally:
            self.app.kill()
            self.redis.kill()
        print()
        return self.result

    async def _round(self, victim: str) -> None:
        end = asyncio.Event()
        load = [asyncio.create_task(self._client(end)) for _ in range(CLIENTS)]
        await asyncio.sleep(self.random.uniform(*LOAD))
        victims = [self.redis] if victim == "redis" else [self.app]
        if victim == "both":
            victims = self.random.sample([self.redis, self.app], 2)
        self.result.killed[victim] += 1
        for one in victims:
            await asyncio.to_thread(one.kill)
        for one in victims:
            await asyncio.to_thread(one.start)
        began, before = time.monotonic(), self.result.acknowledged
        while self.result.acknowledged < before + CLIENTS:
            if time.monotonic() - began > DEADLINE:
                self.result.wrong.append(f"no votes within {DEADLINE:.0f} s after {victim}")
                break
            await asyncio.sleep(0.01)
        self.result.recovery.append(time.monotonic() - began)
        end.set()
        await asyncio.gather(*load)
        await asyncio.to_thread(self._verify)

    async def _client(self, end: asyncio.Event) -> None:
        """Send votes of one voter after the other until ``end``."""
        async with httpx.AsyncClient(base_url=self.url, timeout=DEADLINE, verify=False) as http:  # noqa: S501 loopback
            while not end.is_set():
                voter = self.random.choice([one for one in self.voters if not one.busy])
                voter.busy = True
                try:
                    await self._vote(http, voter)
                finally:
                    voter.busy = False

    async def _vote(self, http: httpx.AsyncClient, voter: Voter) -> None:
        code = self.random.choice([*self.poll.codes, ""])
        what, body = ("vote", {"choices": [code]}) if code else ("withdraw", {})
        # Of an address of its own: this is no attack.
        address = f"198.18.{self.random.randrange(256)}.{self.random.randrange(256)}"
        headers = {
            "content-type": "application/json",
            "cookie": voter.cookie,
            "x-forwarded-for": address,
        }
        voter.perhaps.append(code)
        try:
            answer = await http.post(
                f"/api/polls/{POLL}/{what}", content=json.dumps(body), headers=headers
            )
        except httpx.HTTPError:
            self.result.unanswered += 1
            await asyncio.sleep(0.02)
            return
        if answer.status_code == 200:
            voter.told, voter.perhaps = code, []
            self.result.acknowledged += 1
        elif answer.status_code == 429:
            # It was not sent to Redis.
            voter.perhaps.pop()
            self.result.refused += 1
        elif answer.status_code == 503:
            self.result.unanswered += 1
        else:
            self.result.wrong.append(f"answer {answer.status_code}: {answer.text[:200]}")

    def _verify(self) -> None:
        held: dict[str, str] = {}
        base = f"poll:{POLL}:"
        for key in self.client.scan_iter(f"{base}votes:*", count=1000):
            for name, value in self.client.hgetall(key).items():
                held[key.removeprefix(f"{base}votes:") + name] = value
        tally = {code: int(n) for code, n in self.client.hgetall(f"{base}tally").items() if int(n)}
        if tally != Counter(held.values()):
            self.result.wrong.append(f"tally {tally}, votes {Counter(held.values())}")
        if int(self.client.hget(f"{base}meta", "voters") or 0) != len(held):
            self.result.wrong.append(f"not {len(held)} voters")
        if (difference := self.client.hget(f"{base}recount", "difference")) not in (None, "0"):
            self.result.wrong.append(f"the app's own recount differs by {difference}")
        for voter in self.voters:
            found = held.pop(voter.receipt, "")
            if found not in (voter.told, *voter.perhaps):
                self.result.wrong.append(
                    f"{voter.receipt} was told {voter.told!r}, sent {voter.perhaps} since, "
                    f"holds {found!r}"
                )
        if held:
            self.result.wrong.append(f"votes of nobody: {held}")


def crash(rounds: int, seed: int, log: bool = True) -> Result:
    """
    Run ``rounds`` rounds in a folder of their own; return what they brought. Without a ``log``
    Redis forgets, and this shall find out.
    """
    with tempfile.TemporaryDirectory() as folder:
        return asyncio.run(Crash(Path(folder), seed, log).run(rounds))


def main() -> int:
    """Print what came of it; return 1 if a vote was lost, doubled or wrong."""
    parser = argparse.ArgumentParser(prog="python -m lab.bench.app_crash")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))  # noqa: S311
    arguments = parser.parse_args()
    result = crash(arguments.rounds, arguments.seed)
    print(
        f"seed {arguments.seed}: {sum(result.killed.values())} rounds of kill -9 "
        f"({', '.join(f'{name} {n}' for name, n in sorted(result.killed.items()))}); "
        f"{result.acknowledged:,} votes acknowledged, {result.unanswered:,} without an answer, "
        f"{result.refused:,} asked to wait; {len(result.wrong)} lost, doubled or wrong; "
        f"votes again at most {max(result.recovery):.1f} s after all had been started"
    )
    print(*result.wrong[:20], sep="\n")
    return bool(result.wrong)


if __name__ == "__main__":
    sys.exit(main())
