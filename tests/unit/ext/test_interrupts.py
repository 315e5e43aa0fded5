"""Ctrl-C interrupts the parent; the workers of a pool are the parent's to end."""

import os
import signal
import threading

import interrupts
import pytest


def test_the_parent_is_interrupted_and_hears_as_before_afterwards():
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt), interrupts.parent_only():
        signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


def test_a_forked_worker_outlives_it():
    with interrupts.parent_only():
        child = os.fork()
        if child == 0:
            try:
                os.kill(os.getpid(), signal.SIGINT)
                os._exit(7)
            finally:
                os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7


def test_a_thread_changes_nothing():
    before, seen = signal.getsignal(signal.SIGINT), []

    def run() -> None:
        with interrupts.parent_only():
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(10)
    assert seen == [before]
