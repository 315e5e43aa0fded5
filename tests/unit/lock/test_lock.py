"""One operation at a time, and no lock outlives its process."""

import fcntl
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from salt.exceptions import SaltException

from tests.conftest import ROOT, load_ext

HOLD = """
import os, sys; sys.path.insert(0, {utils!r})
import lock
lock.hold({path!r}, {what!r}, who="ada@laptop")
child = os.fork() if {fork} else None
if child == 0:
    os.close(1); sys.stdin.read(); os._exit(0)
print(child or "held", flush=True)
sys.stdin.read()
"""

Holder = Callable[..., Any]


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "state" / "lock")


@pytest.fixture
def holder(path: str) -> Iterator[Holder]:
    """Start a process that holds the lock; ``said`` is what it said when it did."""
    started: list[subprocess.Popen[str]] = []

    def start(what: str = "orch.up", fork: bool = False) -> Any:
        code = HOLD.format(utils=str(ROOT / "salt/ext/utils"), path=path, what=what, fork=fork)
        pipe = subprocess.PIPE
        process = subprocess.Popen([sys.executable, "-c", code], stdin=pipe, stdout=pipe, text=True)
        started.append(process)
        assert process.stdout is not None
        process.said = process.stdout.readline().strip()  # type: ignore[attr-defined]
        assert process.said  # type: ignore[attr-defined]
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_a_second_one_is_told_who_holds_it_and_a_dead_one_holds_nothing(path, holder):
    lock = load_ext("utils/lock.py")
    other = holder()
    wanted = rf"orch.up runs since \d.* as process {other.pid}, by ada@laptop; wait for it"
    with pytest.raises(SaltException, match=wanted) as refused:
        lock.hold(path, "orch.down")
    assert refused.value.holder["what"] == "orch.up"
    other.kill()
    other.wait()
    lock.hold(path, "orch.down")
    lock.hold(path, "orch.down")  # the same process may ask again
    record = lock.read(path)
    assert (record["what"], record["pid"]) == ("orch.down", os.getpid())
    assert record["who"].endswith(f"@{os.uname().nodename}")


def test_another_copy_of_the_module_in_the_same_process_holds_it_too(path):
    load_ext("utils/lock.py").hold(path, "heal")
    load_ext("utils/lock.py").hold(path, "cluster")
    assert json.loads(Path(path).read_text())["what"] == "heal"


def test_it_stays_held_when_the_module_that_took_it_is_gone(path):
    code = f"""
import gc, importlib.util, subprocess, sys
spec = importlib.util.spec_from_file_location("once", {str(ROOT / "salt/ext/utils/lock.py")!r})
module = importlib.util.module_from_spec(spec); spec.loader.exec_module(module)
module.hold({path!r}, "orch.up")
del module, spec; gc.collect()
try:
    import fcntl
    fcntl.flock(open({path!r}), fcntl.LOCK_SH | fcntl.LOCK_NB)
except OSError:
    sys.exit(42)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 42, done.stderr


def test_only_the_one_that_is_named_is_waited_for(path, holder, monkeypatch):
    lock = load_ext("utils/lock.py")
    monkeypatch.setattr(lock, "PAUSE", 0.02)
    other = holder("heal")
    began = time.monotonic()
    with pytest.raises(SaltException, match=r"waited 0.2 s: heal runs since"):
        lock.hold(path, "cluster", wait_for=("heal", "cluster.backup"), seconds=0.2)
    assert 0.2 <= time.monotonic() - began < 5
    ended = threading.Timer(0.3, other.kill)
    ended.start()
    lock.hold(path, "cluster", wait_for=("heal", "cluster.backup"), seconds=30)
    ended.join()
    assert lock.read(path)["what"] == "cluster"


def test_another_operation_is_not_waited_for(path, holder):
    lock = load_ext("utils/lock.py")
    holder("orch.up")
    began = time.monotonic()
    with pytest.raises(SaltException, match=r"^orch.up runs"):
        lock.hold(path, "cluster", wait_for=("heal", "cluster.backup"), seconds=30)
    assert time.monotonic() - began < 5


def test_what_the_same_one_began_is_waited_for_where_that_is_asked(path, holder, monkeypatch):
    lock = load_ext("utils/lock.py")
    monkeypatch.setattr(lock, "PAUSE", 0.02)
    other = holder("orch.cluster")
    with pytest.raises(SaltException, match=r"^orch.cluster runs"):
        lock.hold(path, "orch.cluster", who="eve@laptop", seconds=30, wait_for_own=True)
    with pytest.raises(SaltException, match=r"^waited 0.1 s: orch.cluster runs"):
        lock.hold(path, "orch.cluster", who="ada@laptop", seconds=0.1, wait_for_own=True)
    ended = threading.Timer(0.3, other.kill)
    ended.start()
    lock.hold(path, "orch.cluster", who="ada@laptop", seconds=30, wait_for_own=True)
    ended.join()
    assert lock.read(path)["who"] == "ada@laptop"


def test_whoever_looks_does_not_refuse_anybody(path):
    lock = load_ext("utils/lock.py")
    Path(path).parent.mkdir()
    Path(path).touch()
    looker = os.open(path, os.O_RDONLY)
    fcntl.flock(looker, fcntl.LOCK_SH)
    threading.Timer(0.06, os.close, [looker]).start()
    lock.hold(path, "orch.up")


def test_it_shows_what_is_held_and_by_whom(path, holder):
    lock = load_ext("utils/lock.py")
    assert lock.show(path) is None
    other = holder()
    seen = lock.show(path)
    assert (seen["what"], seen["pid"]) == ("orch.up", other.pid)
    assert (seen["held"], seen["alive"]) == (True, True)
    other.kill()
    other.wait()
    seen = lock.show(path)
    assert (seen["held"], seen["alive"]) == (False, False)


def test_a_living_ones_lock_is_not_broken(path, holder):
    lock = load_ext("utils/lock.py")
    holder()
    with pytest.raises(SaltException, match=r"that process lives"):
        lock.broken(path, "orch.up")
    with pytest.raises(SaltException, match=r"orch.down holds nothing: orch.up runs since"):
        lock.broken(path, "orch.down")
    assert lock.show(path)["held"]


def test_what_a_child_of_a_dead_one_holds_is_broken_by_name(path, holder):
    lock = load_ext("utils/lock.py")
    other = holder(fork=True)
    child = int(other.said)
    try:
        os.kill(other.pid, 9)
        os.waitpid(other.pid, 0)
        with pytest.raises(SaltException, match=r"orch.up runs"):
            lock.hold(path, "orch.down")
        assert "its children held the lock" in lock.broken(path, "orch.up")
        lock.hold(path, "orch.down")
        assert lock.show(path)["what"] == "orch.down"
    finally:
        os.kill(child, 9)


def test_a_later_process_of_the_same_number_is_another(path):
    lock = load_ext("utils/lock.py")
    record = {"what": "orch.up", "who": "a@b", "since": 1.0, "pid": os.getpid(), "started": 1}
    Path(path).parent.mkdir()
    Path(path).write_text(json.dumps(record) + "\n")
    assert lock.show(path)["alive"] is False
    assert "its record was removed" in lock.broken(path, "orch.up")
    assert not Path(path).exists()
    with pytest.raises(SaltException, match=r"nothing is locked as orch.up"):
        lock.broken(path, "orch.up")


@pytest.mark.parametrize("text", ["", "orch.up runs since 12:00:00\n", "{}\n", "[1]\n"])
def test_a_record_that_cannot_be_read_is_none(path, text, holder):
    lock = load_ext("utils/lock.py")
    holder()
    Path(path).write_text(text)
    assert lock.read(path) is None
    with pytest.raises(SaltException, match="has not said what it is"):
        lock.hold(path, "orch.down")
