"""Children: watched, quoted when they die, ended with k3s."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lab.k3s import supervisor
from lab.k3s.supervisor import ChildDied, CommandFailed, Stopped, Supervisor, TimedOut

SLEEP = ["sleep", "60"]


@pytest.fixture
def boss(tmp_path):
    made = Supervisor(tmp_path / "logs")
    yield made
    made.end()


def test_dead_child_is_named_with_its_last_words(boss):
    boss.spawn("kubelet", ["sh", "-c", "echo one; echo the reason >&2; exit 3"])
    with pytest.raises(ChildDied) as caught:
        boss.wait("nothing", lambda: "not yet", 10)
    assert "kubelet ended with status 3" in str(caught.value)
    assert "the reason" in str(caught.value)


def test_deadline_names_what_and_last_seen(boss):
    with pytest.raises(TimedOut, match="waited 0 s for the moon; last seen: clouds"):
        boss.wait("the moon", lambda: "clouds", 0)


def test_stop_ends_every_wait(boss):
    boss.stop.set()
    with pytest.raises(Stopped):
        boss.wait("anything", lambda: None, 10)


def test_children_end_in_order(boss, tmp_path):
    note = tmp_path / "note"
    for name in ("kine", "kubelet"):
        trap = f"trap 'echo {name} >> {note}; exit' TERM; touch {tmp_path}/{name}"
        script = f"{trap}; while :; do sleep 0.05; done"
        boss.spawn(name, ["sh", "-c", script])
    boss.wait(
        "both traps",
        lambda: None if all((tmp_path / n).exists() for n in ("kine", "kubelet")) else "no",
        10,
    )
    boss.end(last=("kine",))
    assert note.read_text().split() == ["kubelet", "kine"]


def test_children_die_even_if_k3s_is_killed(tmp_path):
    code = (
        "import sys, time; from pathlib import Path; from lab.k3s.supervisor import Supervisor\n"
        f"s = Supervisor(Path({str(tmp_path)!r})); s.spawn('x', ['sleep', '60'])\n"
        "print(s._children['x'].pid, flush=True); time.sleep(60)"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = Path("/proc", parent.stdout.readline().strip())
    while not (child / "cmdline").read_bytes().startswith(b"sleep"):  # until setpriv gave way
        time.sleep(0.01)
    parent.kill()
    parent.wait()
    end = time.monotonic() + 10
    while time.monotonic() < end:
        try:
            state = (child / "stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return
        if state == "Z":
            return
        time.sleep(0.02)
    pytest.fail(f"{child} outlived its killed parent")


def test_strays_of_a_killed_k3s_are_ended_and_nobody_else(tmp_path, capsys):
    record = tmp_path / "run/children.json"
    killed = Supervisor(tmp_path / "logs", record)
    killed.spawn("kine", SLEEP)
    killed.spawn("kubelet", SLEEP)
    other = subprocess.Popen(SLEEP)
    kine, kubelet = killed._children.values()
    kubelet.kill()
    kubelet.wait()
    children = json.loads(record.read_text())
    children[str(other.pid)] = 1  # a number that was given to another process since
    record.write_text(json.dumps(children))
    heir = Supervisor(tmp_path / "logs", record)
    heir.end_strays()
    assert kine.wait(10) == -9
    assert other.poll() is None
    other.kill()
    other.wait()
    assert capsys.readouterr().err.count("a child of a k3s that was killed") == 1


def test_no_strays_without_a_record(tmp_path):
    Supervisor(tmp_path, tmp_path / "none").end_strays()


def test_arguments_are_logged_in_k3s_words(boss, capsys):
    boss.spawn("kube-apiserver", ["sh", "-c", "sleep 60", "--profiling=false"])
    assert "Running kube-apiserver -c sleep 60 --profiling=false" in capsys.readouterr().err


def test_children_see_no_secret(monkeypatch):
    monkeypatch.setenv("K3S_TOKEN", "hidden")
    monkeypatch.setenv("NOTIFY_SOCKET", "/x")
    seen = supervisor.child_environment(os.environ)
    assert "PATH" in seen
    assert not {"K3S_TOKEN", "NOTIFY_SOCKET"} & set(seen)


def test_former_log_is_kept(boss):
    boss.spawn("a", ["echo", "first"])
    with pytest.raises(ChildDied):
        boss.wait("x", lambda: "no", 10)
    boss.spawn("a", ["sleep", "60"])
    assert boss.log("a").with_suffix(".log.1").read_text() == "first\n"
    assert boss.log("a").stat().st_mode & 0o777 == 0o640


def test_failed_helper_is_quoted():
    with pytest.raises(CommandFailed, match=r"sh failed \(4\): why"):
        supervisor.run(["sh", "-c", "echo why; exit 4"])
    with pytest.raises(CommandFailed, match="took longer than 0 s"):
        supervisor.run(SLEEP, deadline=0.2)
    assert supervisor.run(["cat"], stdin="in") == "in"
