"""The lock of the road as orchestrations take it, by Salt's own commands."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import ROOT, load_ext

SALT_RUN = Path(sys.executable).parent / "salt-run"
STATES = """\
one at a time:
  road.alone:
    - name: orch.cluster
    - path: {folder}/lock
    - who: ada@laptop
    - seconds: 1
held:
  cmd.run:
    - name: touch {folder}/held && cat {folder}/fifo
"""


class Operator:
    """``salt-run`` with our extension, masterless, and one orchestration that takes the lock."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("conf", "states", "pillar"):
            (folder / name).mkdir()
        os.mkfifo(folder / "fifo")
        (folder / "states/walk.sls").write_text(STATES.format(folder=folder))
        config = {
            "id": "operator",
            "root_dir": str(folder / "root"),
            "file_client": "local",
            "file_roots": {"base": [str(folder / "states")]},
            "pillar_roots": {"base": [str(folder / "pillar")]},
            "failhard": True,
            "log_level": "critical",
            # As in salt/config/master: Salt needs this folder and makes it for its log only.
            "log_file": "var/cache/salt/master/proc/log/salt",
            **{
                f"{kind}_dirs": [str(ROOT / "salt/ext" / where)]
                for kind, where in (("states", "states"), ("utils", "utils"))
            },
        }
        (folder / "conf/master").write_text(yaml.safe_dump(config))
        self.environment = {**os.environ, "PYTHONWARNINGS": "ignore"}

    def walk(self) -> "subprocess.Popen[str]":
        words = [str(SALT_RUN), "-c", str(self.folder / "conf"), "--out=json"]
        return subprocess.Popen(
            [*words, "state.orchestrate", "walk"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=self.environment,
            start_new_session=True,
        )

    def holds(self, walk: "subprocess.Popen[str]") -> dict[str, Any]:
        """Wait until ``walk`` holds the lock; return its record."""
        end = time.monotonic() + 60
        while not (self.folder / "held").exists():
            assert walk.poll() is None, walk.communicate()
            assert time.monotonic() < end, "the walk did not come to its second state in 60 s"
            time.sleep(0.05)
        (self.folder / "held").unlink()
        return dict(json.loads((self.folder / "lock").read_text()))

    def goes_on(self) -> None:
        with (self.folder / "fifo").open("w") as file:
            file.write("on\n")


@pytest.mark.timeout(180)
def test_a_second_walk_is_refused_and_a_killed_one_leaves_nothing(tmp_path):
    operator = Operator(tmp_path)
    first = operator.walk()
    try:
        record = operator.holds(first)
        assert (record["what"], record["who"]) == ("orch.cluster", "ada@laptop")
        out, err = operator.walk().communicate(timeout=60)
        assert not (tmp_path / "held").exists(), "nothing ran of the second"
        wanted = f"as process {record['pid']}, by ada@laptop; wait for it, or stop that process"
        assert wanted in out, err
    finally:
        os.killpg(first.pid, signal.SIGKILL)
        first.communicate(timeout=20)
    third = operator.walk()
    assert operator.holds(third)["pid"] != record["pid"], "the record is of who holds it now"
    operator.goes_on()
    out, err = third.communicate(timeout=60)
    assert third.returncode == 0, out + err


def road(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, test: bool = False) -> Any:
    module = load_ext("states/road.py")
    asked: list[tuple[str, dict[str, Any]]] = []
    lock = load_ext("utils/lock.py")
    module.__dict__.update(
        __opts__={"test": test},
        __context__={},
        __utils__={
            "lock.hold": lock.hold,
            "lock.me": lambda: "ada@laptop",
            "ec2.machines": lambda: {"f1-worker-1": {}, "f1-master": {}},
            "knobs.state_dir": lambda: tmp_path,
        },
    )
    monkeypatch.setattr(module, "_run", lambda name, runner, **more: asked.append((runner, more)))
    module.asked = asked
    return module


def test_the_master_is_told_who_asks_for_what(monkeypatch, tmp_path):
    module = road(monkeypatch, tmp_path)
    module.orchestrated("x", "cluster.rotate_token")
    ((runner, more),) = module.asked
    assert (runner, more["sls"]) == ("master.orchestrate", "cluster.rotate_token")
    assert more["pillar"] == {
        "asked": {"by": "ada@laptop", "what": "cluster.rotate_token"},
        "machines": ["f1-master", "f1-worker-1"],
    }


def test_a_plan_takes_no_lock(monkeypatch, tmp_path):
    assert road(monkeypatch, tmp_path, test=True).alone("orch.up")["result"] is True
    assert list(tmp_path.iterdir()) == []
    assert road(monkeypatch, tmp_path).alone("orch.up")["result"] is True
    assert json.loads((tmp_path / "lock").read_text())["what"] == "orch.up"
