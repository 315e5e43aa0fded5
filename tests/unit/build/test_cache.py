"""An artifact is there as a whole or not at all."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from lab.build import cache

KILLED = """
import pathlib, time
from lab.build import cache

def make(folder):
    (folder / "half").write_text("half")
    print("half", flush=True)
    time.sleep(60)

cache.artifact("kind", "key", make)
"""

SLOW = """
import sys, time
from lab.build import cache

def make(folder):
    time.sleep(0.3)
    (folder / "made").write_text("")
    print("made", flush=True)

cache.artifact("kind", "key", make)
"""


def start(program: str) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)


def test_made_once():
    made = []
    for _ in range(2):
        folder = cache.artifact("kind", "key", lambda folder: made.append(folder))
    assert folder.is_dir()
    assert len(made) == 1


def test_failure_leaves_nothing(cache_root: Path):
    def make(folder: Path) -> None:
        (folder / "half").write_text("half")
        raise RuntimeError

    with pytest.raises(RuntimeError):
        cache.artifact("kind", "key", make)
    assert [path.name for path in (cache_root / "kind").iterdir()] == [".lock"]


def test_killed_build_leaves_nothing_half_made(cache_root: Path):
    process = start(KILLED)
    assert process.stdout
    assert process.stdout.readline() == "half\n"
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not (cache_root / "kind/key").exists()
    folder = cache.artifact("kind", "key", lambda folder: (folder / "whole").touch())
    assert [path.name for path in folder.iterdir()] == ["whole"]
    assert sorted(path.name for path in folder.parent.iterdir()) == [".lock", "key"]


def test_two_at_once_make_it_once(cache_root: Path):
    both = [start(SLOW) for _ in range(2)]
    said = [process.communicate()[0] for process in both]
    assert sorted(said) == ["", "made\n"]
    assert (cache_root / "kind/key/made").exists()


def test_sums(tmp_path: Path):
    (tmp_path / "a b").write_bytes(b"")
    cache.write_sums(tmp_path)
    empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert cache.read_sums(tmp_path) == {"a b": empty}


def test_key_keeps_parts_apart():
    assert cache.key("ab", "c") != cache.key("a", "bc")
    assert cache.key("ab", "c") == cache.key(b"ab", b"c")


def test_link_is_no_copy(tmp_path: Path):
    source = tmp_path / "source"
    source.write_text("x")
    cache.link(source, tmp_path / "target")
    assert source.stat().st_ino == (tmp_path / "target").stat().st_ino
