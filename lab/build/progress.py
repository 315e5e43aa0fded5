"""Says how far a build is: lines for a log, and a live last line on a terminal."""

import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TextIO

REDRAW = 0.2  # seconds
FASTEST = 0.2  # of the usual time: one step that was compiled already promises nothing for the next


class Progress:
    """
    Draws steps that were announced with their usual seconds.

    Args:
        steps: ``{name: seconds}`` of all that will be done.
        out: where to draw; standard error unless given, so that ``--json`` stays JSON.
    """

    def __init__(self, steps: Mapping[str, float], out: TextIO | None = None) -> None:
        self._out = out or sys.stderr
        self._live = self._out.isatty()
        self._steps = steps
        self._done: dict[str, float] = {}  # the share of each step, 0 … 1
        self._began = time.monotonic()
        self._drawn = 0.0
        self._drawn_live = False  # the cursor stands behind a line that will be overwritten
        self._lock = threading.Lock()

    @contextmanager
    def step(self, name: str, text: str) -> Iterator[None]:
        """Announce a step, and how it ended."""
        self._line(f"    ▸ {name:<11} {text}{self._overall()}")
        began = time.monotonic()
        try:
            yield
        except BaseException:
            self._live = False
            self._line(f"    ✗ {name:<11} {time.monotonic() - began:6.1f} s")
            raise
        self._done[name] = 1.0
        self._line(f"    ✓ {name:<11} {time.monotonic() - began:6.1f} s")

    def advance(self, name: str, share: float) -> None:
        """Say that a step is done to this share (0 … 1)."""
        self._done[name] = share
        if self._live and time.monotonic() - self._drawn > REDRAW:
            self._line("")

    def _line(self, text: str) -> None:
        with self._lock:
            self._drawn = time.monotonic()
            if self._drawn_live:
                self._out.write("\r\033[K")
                self._drawn_live = False
            if text:
                self._out.write(text + "\n")
            if self._live and not self._finished():
                self._drawn_live = True
                self._out.write(f"      {self._overall().strip(' ()')}")
            self._out.flush()

    def _finished(self) -> bool:
        return all(self._done.get(name) == 1.0 for name in self._steps)

    def _overall(self) -> str:
        """Return percent, elapsed and estimated time of the whole, ``  (12 %, …)``."""
        total = sum(self._steps.values())
        done = sum(self._steps[name] * share for name, share in self._done.items())
        elapsed = time.monotonic() - self._began
        # Early on the usual times are the better guess, later what this machine shows.
        pace = max(elapsed / done, FASTEST) if done > total / 20 else 1.0
        left = (total - done) * pace
        return f"  ({done / total:.0%}, {_clock(elapsed)} so far, about {_clock(left)} left)"


def _clock(seconds: float) -> str:
    return f"{seconds / 60:.0f} min" if seconds >= 90 else f"{seconds:.0f} s"
