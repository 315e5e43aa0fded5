"""Ctrl-C and SIGTERM while a ``multiprocessing.Pool`` of Salt's works for us."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

HEARD = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def parent_only() -> Iterator[None]:
    """
    Let signals interrupt this process in its way, and its forked workers in one that a pool bears.

    Ctrl-C is heard by the whole group: a worker that dies of it may hold the lock of the pool's
    queue, for which ``Pool.terminate`` then waits for ever. So workers do not hear SIGINT, and end
    at once by the SIGTERM of ``terminate``: Salt's own handler raises SystemExit, which its pool's
    functions catch (``salt.cloud.enter_mainloop``), and the worker would ask for more work.
    Outside of the main thread, where Python hears no signal, nothing is changed.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    parent, before = os.getpid(), {number: signal.getsignal(number) for number in HEARD}

    def hear(number: int, frame: FrameType | None) -> None:
        if os.getpid() == parent:
            _as_before(before[signal.Signals(number)], number, frame)
        elif number == signal.SIGTERM:
            os._exit(128 + number)

    for number in HEARD:
        signal.signal(number, hear)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _as_before(handler: Any, number: int, frame: FrameType | None) -> None:
    if callable(handler):
        handler(number, frame)
    elif handler is not signal.SIG_IGN:
        signal.signal(number, signal.SIG_DFL)
        signal.raise_signal(number)
