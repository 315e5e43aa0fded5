"""Ctrl-C at a terminal, which every process of the foreground hears at once."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def parent_only() -> Iterator[None]:
    """
    Let SIGINT interrupt this process, and not the workers that it forks meanwhile.

    A worker of a ``multiprocessing.Pool`` that dies of SIGINT may hold the lock of the pool's
    queue; ``Pool.terminate``, which the parent calls for its own SIGINT, then waits for that lock
    for ever. A worker that lives on is ended by ``terminate``. Outside of the main thread, where
    Python hears no signal, nothing is changed.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    parent, before = os.getpid(), signal.getsignal(signal.SIGINT)

    def hear(number: int, frame: FrameType | None) -> None:
        if os.getpid() != parent:
            return
        if callable(before):
            before(number, frame)
        else:
            raise KeyboardInterrupt

    signal.signal(signal.SIGINT, hear)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
