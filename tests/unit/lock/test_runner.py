"""`salt-run lock.show` and `lock.break`, on the operator's machine and on the master."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from salt.exceptions import SaltException

from tests.conftest import load_ext


class Answer(SaltException):
    """As utils/ssh.py raises it: a command that failed, with what it said."""

    def __init__(self, stdout: str) -> None:
        super().__init__("f1-master: salt-run ended with 1")
        self.stdout = stdout


@pytest.fixture
def runner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The runner of an operator; ``master`` is what the other one answers, or raises."""
    monkeypatch.setenv("F1_STATE", str(tmp_path))
    module = load_ext("runners/lock.py")
    module.asked = []
    module.master = "{}"

    def run(words: list[str], seconds: float) -> str:
        module.asked.append(words[-2:] if words[-2] == "lock.break" else words[-1:])
        if isinstance(module.master, Exception):
            raise module.master
        return str(module.master)

    module.__dict__["__salt__"] = {"master.run": run}
    monkeypatch.setattr(module.lock, "MASTER", tmp_path / "f1" / "lock")
    (tmp_path / "ssh").mkdir()
    (tmp_path / "ssh/config").touch()
    return module


def record(path: Path, what: str, pid: int = 2**22 + 1) -> None:
    path.parent.mkdir(exist_ok=True)
    line = {"what": what, "who": "ada@laptop", "since": 1.0, "pid": pid, "started": 1}
    path.write_text(json.dumps(line) + "\n")


def test_it_shows_both(runner, tmp_path):
    record(tmp_path / "lock", "orch.up")
    runner.master = json.dumps({"/var/lib/f1/lock": {"what": "heal", "held": True}})
    shown = runner.show()
    assert shown["/var/lib/f1/lock"]["what"] == "heal"
    assert shown[str(tmp_path / "lock")]["held"] is False
    runner.master = Answer("")
    assert runner.show()["master"] == "does not tell: f1-master: salt-run ended with 1"


def test_a_master_asks_nobody(runner, tmp_path):
    (tmp_path / "ssh/config").unlink()
    record(runner.lock.MASTER, "orch.cluster")
    assert list(runner.show()) == [str(runner.lock.MASTER)]
    assert runner.break_("orch.cluster")["retcode"] == 0
    assert runner.break_("orch.cluster") == {
        "comment": "nothing is locked as orch.cluster; `salt-run lock.show` tells what is",
        "retcode": 1,
    }
    assert runner.asked == []


def test_it_breaks_where_the_name_is(runner, tmp_path):
    record(tmp_path / "lock", "orch.up")
    said = runner.break_("orch.up")
    assert (said["retcode"], runner.asked) == (0, [])
    assert str(tmp_path / "lock") in said["comment"]
    runner.master = json.dumps({"comment": "broken there", "retcode": 0})
    assert runner.break_("orch.cluster")["comment"] == "broken there"
    assert runner.asked == [["lock.break", "orch.cluster"]]


def test_the_masters_refusal_is_told_as_it_is(runner):
    runner.master = Answer(json.dumps({"comment": "that process lives", "retcode": 1}))
    assert runner.break_("heal") == {"comment": "that process lives", "retcode": 1}
    runner.master = Answer("")
    assert runner.break_("heal")["retcode"] == 1


def test_a_lock_that_is_held_here_is_not_broken(runner, tmp_path):
    runner.lock.hold(tmp_path / "lock", "orch.up")
    said = runner.break_("orch.up")
    assert said["retcode"] == 1
    assert f"as process {os.getpid()}" in said["comment"]
