"""
Viewers of live results, all in one process: ``python -m lab.bench.app_viewers PORT PATH COUNT``.

Prints a JSON object a line: ``{"viewers": n}`` when all have a first event, then for every number
of voters that all have seen ``{"voters": n, "at": when the last one did}`` (Unix time, s), and at
SIGTERM ``{"lost": connections that ended, "events": events of all viewers}``.
"""

import asyncio
import json
import re
import signal
import sys
import time
from collections import Counter

HOST = "127.0.0.1"
VOTERS = re.compile(rb'"voters": ?(\d+)')
# Opened together; more would overflow the backlog.
TOGETHER = 50


class Crowd:
    """What all viewers have seen."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.at = Counter[int]()  # voters → how many viewers' newest event has them
        self.lost = self.events = 0
        self.told = -1

    def saw(self, before: int | None, now: int) -> None:
        """Note that a viewer who knew ``before`` voters now knows of ``now``."""
        self.events += 1
        self.at[now] += 1
        if before is not None:
            self.at[before] -= 1
            if not self.at[before]:
                del self.at[before]
        if self.at.total() == self.count and (least := min(self.at)) > self.told:
            if self.told < 0:
                say(viewers=self.count)
            self.told = least
            say(voters=least, at=time.time())


class Viewer(asyncio.Protocol):
    """One connection."""

    def __init__(self, crowd: Crowd, request: bytes) -> None:
        self.crowd, self.request = crowd, request
        self.voters: int | None = None
        self.rest = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask for the stream."""
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 - of create_connection
        transport.write(self.request)

    def data_received(self, data: bytes) -> None:
        """Read the events that are whole."""
        *events, self.rest = (self.rest + data).split(b"\n\n")
        for event in events:
            if found := VOTERS.search(event):
                before, self.voters = self.voters, int(found[1])
                self.crowd.saw(before, self.voters)

    def connection_lost(self, error: Exception | None) -> None:
        """Count it: streams do not end while they are measured."""
        self.crowd.lost += 1


def say(**facts: object) -> None:
    """Print one line."""
    print(json.dumps(facts), flush=True)


async def main(port: int, path: str, count: int) -> None:
    """Watch until SIGTERM."""
    crowd = Crowd(count)
    request = f"GET {path} HTTP/1.1\r\nHost: {HOST}:{port}\r\nAccept: text/event-stream\r\n\r\n"
    loop = asyncio.get_running_loop()
    for first in range(0, count, TOGETHER):
        await asyncio.gather(
            *(
                loop.create_connection(lambda: Viewer(crowd, request.encode()), HOST, port)
                for _ in range(min(TOGETHER, count - first))
            )
        )
    asked = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, asked.set)
    await asked.wait()
    say(lost=crowd.lost, events=crowd.events)


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), sys.argv[2], int(sys.argv[3])))
