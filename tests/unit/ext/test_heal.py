"""The scheduled highstate: what it writes down, and when it keeps away."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import server_restore
from salt.exceptions import SaltException

from tests.conftest import ROOT, load_ext

VERSION = "v1.36.4+k3s1"


class Master:
    """The runner, over a folder of its own and an orchestration that answers as told."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.state = folder / "f1"
        self.nodes: dict[str, Any] | None = {"f1-master": {"version": VERSION}}
        self.answer: Any = orchestrated()
        self.ran: list[str] = []
        self.heal = load_ext("runners/heal.py")
        self.heal.__dict__.update(
            __opts__={}, __salt__={"state.orchestrate": self.orchestrate}, STATE=self.state
        )
        pillar = {"versions": {"k3s": {"version": VERSION}}}
        monkeypatch.setattr(self.heal.knobs, "load", lambda opts: pillar)
        told = lambda: {} if self.nodes is None else {"nodes": self.nodes}  # noqa: E731
        monkeypatch.setattr(self.heal.status, "here", told)
        self.k3s = folder / "k3s"
        monkeypatch.setattr(self.heal, "K3S", str(self.k3s))

    def orchestrate(self, sls: str) -> Any:
        self.ran.append(sls)
        held = json.loads((self.state / "lock").read_text())
        assert (held["what"], held["pid"]) == ("heal", os.getpid())
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    def run(self) -> dict[str, Any]:
        said = self.heal.run()
        assert said["outputter"] == "heal"
        self.shown = load_ext("outputters/heal.py").output(said["data"])
        return dict(said["data"])

    @property
    def last(self) -> dict[str, Any]:
        return dict(json.loads((self.state / "heal/last.json").read_text()))

    @property
    def metrics(self) -> dict[str, float]:
        text = (self.state / "metrics/heal.prom").read_text()
        lines = [line.split() for line in text.splitlines() if not line.startswith("#")]
        return {name: float(value) for name, value in lines}


def state(name: str, result: bool = True, **changes: Any) -> dict[str, Any]:
    key = f"file_|-{name}_|-{name}_|-managed"
    return {key: {"__id__": name, "result": result, "changes": changes, "comment": "x"}}


def orchestrated(comment: str = "", **minions: dict[str, Any]) -> dict[str, Any]:
    """Return what `state.orchestrate cluster.highstate` does."""
    ret = {name.replace("_", "-"): value for name, value in minions.items()}
    highstate = {
        "result": not comment,
        "changes": {"ret": ret} if ret else {},
        "comment": comment,
    }
    stage = {"result": True, "changes": {}, "comment": ""}
    states = {
        "stage_|-begins_|-h_|-begin": stage,
        "fleet_|-highstate_|-h_|-highstate": highstate,
    }
    return {"data": {"f1-master_master": states}, "outputter": "highstate", "retcode": 0}


@pytest.fixture
def master(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Master:
    return Master(tmp_path, monkeypatch)


def test_nothing_drifted(master):
    said = master.run()
    assert master.ran == ["cluster.highstate"]
    assert (said["retcode"], said["ok"], said["repaired"]) == (0, True, [])
    assert master.metrics["f1_heal_last_success_timestamp_seconds"] == master.last["at"] > 1e9
    assert master.shown.startswith("0 repaired, 0 failed")


def test_what_it_repaired_is_one_line_a_change(master):
    changed = state("/etc/x", diff="-a +b") | state("/etc/same") | state("vote", Deployment="new")
    master.answer = orchestrated(f1_worker_1=state("ssh", running=True), f1_master=changed)
    lines = ["f1-worker-1: ssh (running)", "f1-master: /etc/x (diff)"]
    lines += ["f1-master: vote (Deployment)"]
    assert master.run()["repaired"] == lines
    assert master.shown.splitlines()[:3] == [f"repaired {line}" for line in lines]
    assert "-a +b" not in json.dumps(master.last), "no content of a file is told"
    assert master.metrics["f1_heal_repaired_total"] == 3
    assert (master.state / "metrics/heal.prom").stat().st_mode & 0o777 == 0o644
    master.answer = orchestrated()
    master.run()
    assert master.metrics["f1_heal_repaired_total"] == 3, "it counts on, and nothing twice"
    master.answer = orchestrated(f1_worker_1=state("ssh", running=True))
    master.run()
    assert master.metrics["f1_heal_repaired_total"] == 4


def test_a_failure_is_told_and_the_last_success_stays(master):
    master.run()
    good = {**master.last, "succeeded": 1234}
    (master.state / "heal/last.json").write_text(json.dumps(good))
    broken = state("pkg", False, half="done") | state("/etc/x", diff="d")
    master.answer = orchestrated("f1-worker-2: silent for 120 s\npkg: x", f1_worker_1=broken)
    said = master.run()
    assert said["failed"] == ["f1-worker-2: silent for 120 s", "pkg: x"]
    assert said["repaired"] == ["f1-worker-1: /etc/x (diff)"]
    assert (said["retcode"], said["ok"]) == (1, False)
    assert master.metrics["f1_heal_last_success_timestamp_seconds"] == 1234
    assert master.metrics["f1_heal_failed_states"] == 2
    assert "FAILED f1-worker-2: silent for 120 s" in master.shown


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ({"data": {"m": ["Rendering SLS failed"]}, "retcode": 1}, "Rendering SLS failed"),
        (SaltException("no master"), "no master"),
    ],
)
def test_an_orchestration_that_does_not_run_is_a_failure(master, answer, said):
    master.answer = answer
    found = master.run()
    assert found["retcode"] == 1
    assert said in found["failed"][0]


def test_it_keeps_away_from_an_orchestration(master):
    master.run()
    code = f"""
import sys; sys.path.insert(0, {str(ROOT / "salt/ext/utils")!r})
import lock; lock.hold({str(master.state / "other")!r}, "cluster", who="ada@laptop")
print("held", flush=True); sys.stdin.read()
"""
    pipe = subprocess.PIPE
    other = subprocess.Popen([sys.executable, "-c", code], stdin=pipe, stdout=pipe, text=True)
    assert other.stdout is not None
    assert other.stdout.readline() == "held\n"
    try:
        (master.state / "other").rename(master.state / "lock")
        said = master.run()
    finally:
        other.kill()
        other.communicate()
    assert len(master.ran) == 1
    assert (said["retcode"], said["ok"]) == (0, True), "what it last found still holds"
    assert said["skipped"]["why"].startswith("cluster runs since ")
    assert master.shown == f"not now: {said['skipped']['why']}"
    assert "by ada@laptop" in master.last["skipped"]["why"]


def test_it_never_upgrades(master):
    master.nodes = {"f1-master": {"version": VERSION}, "f1-worker-1": {"version": "v1.36.3+k3s1"}}
    assert "f1-worker-1 v1.36.3+k3s1" in master.run()["skipped"]["why"]
    master.nodes = {"f1-master": {"version": VERSION}}
    (master.state / "upgrade.json").write_text("{}")
    assert "did not end" in master.run()["skipped"]["why"]
    assert master.ran == []
    (master.state / "upgrade.json").unlink()
    assert "skipped" not in master.run()


def test_it_leaves_a_half_done_restore_alone(master, monkeypatch, tmp_path):
    master.nodes = {"f1-master": {"version": VERSION}}
    monkeypatch.setattr(server_restore, "FOLDER", tmp_path / "restore")
    server_restore.note(kept=True)
    assert "make restore" in master.run()["skipped"]["why"]
    assert master.ran == []
    server_restore.forget()
    assert "skipped" not in master.run()


@pytest.mark.parametrize(
    ("version", "runs"), [(VERSION, True), ("v1.36.3+k3s1", False), (None, False)]
)
def test_a_cluster_that_is_down_is_repaired_at_its_version_only(master, version, runs):
    master.nodes = None
    if version:
        master.k3s.write_text(f"#!/bin/sh\necho 'k3s version {version} (abc)'\necho go version\n")
        master.k3s.chmod(0o755)
    assert ("skipped" not in master.run()) is runs
    assert bool(master.ran) is runs


def test_a_record_that_cannot_be_read_is_begun_anew(master):
    (master.state / "heal").mkdir(parents=True)
    (master.state / "heal/last.json").write_text("{")
    assert master.run()["ok"] is True
