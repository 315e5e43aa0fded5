"""Signals interrupt the parent; the workers of a pool are the parent's to end."""

import os
import signal
import threading

import interrupts
import pytest


def end_of_child(*numbers: int) -> int:
    """Return the exit code of a child forked in the context that gets ``numbers``; 7: it lived."""
    with interrupts.parent_only():
        child = os.fork()
        if child == 0:
            try:
                for number in numbers:
                    signal.raise_signal(number)
            except BaseException:
                os._exit(1)
            os._exit(7)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_the_parent_is_interrupted_and_hears_as_before_afterwards():
    # Whatever handler an earlier test has left.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt), interrupts.parent_only():
            signal.raise_signal(signal.SIGINT)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_handler_of_before_is_asked():
    heard = []
    before = signal.signal(signal.SIGTERM, lambda number, _: heard.append(number))
    try:
        with interrupts.parent_only():
            signal.raise_signal(signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert heard == [signal.SIGTERM]


def test_a_worker_outlives_an_interrupt():
    assert end_of_child(signal.SIGINT) == 7


def test_a_worker_ends_at_once_when_the_pool_is_terminated():
    assert end_of_child(signal.SIGINT, signal.SIGTERM) == 128 + signal.SIGTERM


def test_a_thread_changes_nothing():
    before, seen = signal.getsignal(signal.SIGINT), []

    def run() -> None:
        with interrupts.parent_only():
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(10)
    assert seen == [before]
