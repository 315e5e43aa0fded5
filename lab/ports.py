"""Ports of loopback for servers of a moment: of measurements and of tests."""

import contextlib
import random
import socket


def free_port() -> int:
    """Return a port that nobody listens on, below those that the kernel gives to connections."""
    while True:
        port = random.randrange(15000, 32000)  # noqa: S311 - not a secret
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("0.0.0.0", port))  # noqa: S104 - taken on any address is taken
            return port
