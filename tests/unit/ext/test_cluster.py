"""Upgrade and rotations, one machine after the other, over a fake cluster and fake minions."""

import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import nodes
import pytest
from salt.exceptions import CommandExecutionError

from .builders import Minions, node, pod
from .conftest import Wired

OLD, NEW = "v1.36.3+k3s1", "v1.36.4+k3s1"
FLEET = ["f1-master", "f1-worker-1", "f1-worker-2"]
VOTE = {
    "apiVersion": "apps/v1",
    "kind": "Deployment",
    "metadata": {"name": "vote", "namespace": "f1"},
}
SLS = {"k3s.server": "f1-master", "k3s.agent": "a worker"}


class Cluster:
    """Three nodes at the old version; applying K3s's sls brings one to `installs`."""

    def __init__(self, wired: Wired, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.wired = wired
        self.minions = Minions()
        self.installs = NEW
        wired.salt["saltutil.cmd"] = self.minions.cmd
        self.minions.answers["k3s.journal"] = lambda minion: f"log of {minion}"
        self.minions.act = self.act
        (self.module,) = wired.orchestration("cluster")
        self.state = folder
        monkeypatch.setattr(self.module, "STATE", folder)
        monkeypatch.setattr(self.module, "BACKUP", folder / "last.json")
        monkeypatch.setattr(self.module, "PAUSE", 0.01)
        monkeypatch.setattr(nodes, "PAUSE", 0.01)
        monkeypatch.setattr(self.module.jobs, "states", self.minions.states)
        wired.have(*(node(name, OLD) for name in FLEET))

    def act(self, minion: str, sls: str | None) -> dict[str, str]:
        if sls in SLS:
            self.wired.have(node(minion, self.installs))
        return {}

    def call(self, function: str, **more: Any) -> dict[str, Any]:
        self.wired.context.clear()
        arguments = {"master": FLEET[0], "workers": FLEET[1:], "deadline": 0.05, **more}
        return dict(self.wired.states[f"cluster.{function}"]("x", **arguments))

    def upgrade(self, version: str = NEW, **more: Any) -> dict[str, Any]:
        return self.call("upgraded", version=version, **more)

    def versions(self) -> list[str]:
        found = self.wired.salt["kube_health.nodes"]()
        return [found[name]["version"] for name in FLEET]


@pytest.fixture
def cluster(wired: Wired, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    return Cluster(wired, tmp_path / "state", monkeypatch)


PLAN = {name: {"old": OLD, "new": NEW} for name in FLEET}


def test_no_difference_costs_one_question(cluster: Cluster) -> None:
    said = cluster.upgrade(OLD)
    assert (said["result"], said["changes"]) == (True, {})
    assert [words[:2] for words in cluster.wired.calls()] == [["get", "nodes"]]
    assert cluster.minions.asked == cluster.minions.applied == []


def test_the_server_first_then_one_after_the_other(cluster: Cluster) -> None:
    cluster.wired.opts["test"] = True
    plan = cluster.upgrade()
    assert (plan["result"], plan["changes"]) == (None, PLAN)
    assert cluster.minions.applied == []
    assert not cluster.state.exists()
    cluster.wired.opts["test"] = False
    said = cluster.upgrade()
    assert said["result"] is True, said["comment"]
    assert said["changes"] == PLAN
    assert "not covered by a backup: there is no backup" in said["comment"]
    assert cluster.minions.applied == [
        ("f1-master", "k3s.server"),
        ("f1-worker-1", "k3s.agent"),
        ("f1-worker-2", "k3s.agent"),
    ]
    assert cluster.wired.drawn[:2] == [f"f1-master: {OLD} → {NEW}", "f1-master done"]
    assert cluster.upgrade()["changes"] == {}
    assert list(cluster.state.iterdir()) == []


def test_the_first_failure_stops_it_and_tells_the_way_back(cluster: Cluster) -> None:
    def act(minion: str, sls: str | None) -> dict[str, str]:
        if minion == "f1-worker-1":
            return {"k3s-agent": "k3s-agent.service is not ready"}
        return cluster.act(minion, sls)

    cluster.minions.act = act
    said = cluster.upgrade()
    assert said["result"] is False
    assert said["changes"] == {"f1-master": PLAN["f1-master"]}
    for words in (
        f"f1-worker-1 failed on its way {OLD} → {NEW}; upgraded before it: f1-master",
        "k3s-agent: k3s-agent.service is not ready",
        "log of f1-worker-1",
        f"put {OLD} back in the lock",
        "make up",
    ):
        assert words in said["comment"]
    assert cluster.versions() == [NEW, OLD, OLD]


def test_another_run_goes_on_though_a_node_is_broken(cluster: Cluster) -> None:
    cluster.minions.silent = {"f1-worker-1"}
    assert cluster.upgrade()["result"] is False
    cluster.wired.have(node("f1-worker-1", OLD, ready=False))
    cluster.minions.silent = set()
    said = cluster.upgrade()
    assert said["result"] is True, said["comment"]
    assert set(said["changes"]) == {"f1-worker-1", "f1-worker-2"}
    assert "an upgrade from v1.36.3+k3s1 did not end: this goes on" in said["comment"]
    assert cluster.versions() == [NEW, NEW, NEW]


def test_the_way_back_is_open_workers_first(cluster: Cluster) -> None:
    cluster.minions.silent = {"f1-worker-2"}
    assert cluster.upgrade()["result"] is False
    assert cluster.versions() == [NEW, NEW, OLD]
    cluster.minions.silent, cluster.installs = set(), OLD
    cluster.minions.applied.clear()
    said = cluster.upgrade(OLD)
    assert said["result"] is True, said["comment"]
    # A kubelet is never newer than its server.
    assert [minion for minion, _ in cluster.minions.applied] == ["f1-worker-1", "f1-master"]
    assert cluster.versions() == [OLD, OLD, OLD]
    # With the upgrade over, down is down again.
    assert "is a downgrade" in cluster.upgrade("v1.36.2+k3s1")["comment"]


def test_all_that_speaks_against_it_is_said_at_once(cluster: Cluster) -> None:
    cluster.wired.have(node("f1-worker-1", OLD, ready=False))
    said = cluster.upgrade("v1.38.0+k3s1", backup_required=True)
    assert (said["result"], said["changes"]) == (False, {})
    for words in (
        "nothing was touched",
        "leaves out minor versions",
        "not fit for a restart: f1-worker-1: Ready=False",
        "there is no backup",
        '{"upgrade": {"without_backup": true}}',
    ):
        assert words in said["comment"]
    assert cluster.minions.applied == []


def test_pressure_is_no_time_for_a_restart(cluster: Cluster) -> None:
    full = node("f1-worker-1", OLD)
    full["status"]["conditions"].append(
        {"type": "DiskPressure", "status": "True", "reason": "Full", "message": "97 %"}
    )
    cluster.wired.have(full)
    assert "DiskPressure=True (Full: 97 %)" in cluster.upgrade()["comment"]


def test_a_fresh_backup_or_a_word_suffices(cluster: Cluster) -> None:
    assert cluster.upgrade(backup_required=True)["result"] is False
    cluster.wired.opts["test"] = True
    assert cluster.upgrade(backup_required=True, without_backup=True)["result"] is None
    cluster.state.mkdir()
    (cluster.state / "last.json").write_text(json.dumps({"at": time.time(), "ok": True}))
    said = cluster.upgrade(backup_required=True)
    assert said["result"] is None
    assert "backup" not in said["comment"]


def test_what_the_kubelet_reports_counts(cluster: Cluster) -> None:
    cluster.installs = "v1.36.9+k3s1"
    said = cluster.upgrade()
    assert said["result"] is False
    assert f"f1-master to be Ready at {NEW}" in said["comment"]
    assert "its kubelet reports v1.36.9+k3s1" in said["comment"]


def test_a_replaced_machine_and_one_that_never_joined_are_left_to_the_highstate(
    cluster: Cluster,
) -> None:
    cluster.minions.answers["grains.get"] = lambda m: "new" if m == "f1-worker-1" else f"id-{m}"
    said = cluster.upgrade(workers=[*FLEET[1:], "f1-worker-3"])
    assert set(said["changes"]) == {"f1-master", "f1-worker-2"}


def test_emptied_only_if_asked_and_filled_again(cluster: Cluster) -> None:
    cluster.wired.have(pod("vote-1", "f1-worker-1"))
    assert cluster.upgrade(drain=True)["result"] is True
    verbs = [words[:2] for words in cluster.wired.calls() if words[0] in ("drain", "uncordon")]
    assert verbs == [
        ["drain", "f1-worker-1"],
        ["uncordon", "f1-worker-1"],
        ["drain", "f1-worker-2"],
        ["uncordon", "f1-worker-2"],
    ]


class App:
    """An app that answers with `status`, and knows what it was asked."""

    def __init__(self) -> None:
        self.status = 200
        self.hosts: list[str | None] = []
        app = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                app.hosts.append(self.headers["Host"])
                self.send_response(app.status)
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.way = {
            "url": f"http://127.0.0.1:{self.server.server_port}/readyz",
            "host": "vote.example.org",
        }


@pytest.fixture
def app() -> Iterator[App]:
    made = App()
    yield made
    made.server.shutdown()


def test_the_app_answers_after_every_node(cluster: Cluster, app: App) -> None:
    cluster.wired.have(VOTE)
    assert cluster.upgrade(app=app.way)["result"] is True
    assert app.hosts == ["vote.example.org"] * 3


def test_an_app_that_does_not_answer_stops_it(cluster: Cluster, app: App) -> None:
    cluster.wired.have(VOTE)
    app.status = 503
    said = cluster.upgrade(app=app.way)
    assert said["result"] is False
    assert "last seen: HTTP Error 503" in said["comment"]
    assert cluster.versions() == [NEW, OLD, OLD]


def test_an_app_that_is_not_there_yet_is_not_asked(cluster: Cluster, app: App) -> None:
    app.status = 503
    assert cluster.upgrade(app=app.way)["result"] is True
    assert app.hosts == []


def down(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    kubectl = cluster.wired.kubectl
    monkeypatch.setattr(kubectl, "KUBECTL", ("sh", "-c", "echo refused >&2; exit 1"))


def test_a_cluster_that_is_down_is_repaired_if_no_version_differs(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    down(cluster, monkeypatch)
    cluster.minions.answers["k3s.version"] = lambda m: "" if m == "f1-worker-2" else NEW
    assert cluster.upgrade()["result"] is True


def test_a_cluster_that_is_down_is_never_upgraded_blindly(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    down(cluster, monkeypatch)
    monkeypatch.setattr(cluster.module, "START_SECONDS", 0)
    cluster.minions.answers["k3s.version"] = lambda minion: OLD
    said = cluster.upgrade()
    assert said["result"] is False
    assert "no upgrade can be judged" in said["comment"]
    assert ("f1-master", "k3s.start", ("k3s",)) in cluster.minions.asked
    assert cluster.minions.applied == []


def test_a_machine_that_does_not_tell_its_version_is_no_proof(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    down(cluster, monkeypatch)
    monkeypatch.setattr(cluster.module, "START_SECONDS", 0)
    cluster.minions.answers["k3s.version"] = lambda minion: NEW
    cluster.minions.silent = {"f1-worker-1"}
    assert cluster.upgrade()["result"] is False


class Rotation:
    """A rotation over a server that admits `admitted`; secrets are in files, as in life."""

    def __init__(self, cluster: Cluster, folder: Path) -> None:
        self.cluster = cluster
        self.path = folder / "agent-token"
        self.path.write_text("first\n")
        self.answers: dict[str, int] = {}
        wired = cluster.wired
        wired.salt["k3s.admits"] = self.admits
        wired.salt["k3s.agent_token"] = lambda: "K10::node:" + self.path.read_text()
        self.offers: list[str] = []
        cluster.minions.act = self.act

    def admits(self, server: str, path: str) -> int:
        kind = "old" if path.endswith(".old") else "new"
        return self.answers.get(kind, {"old": 401, "new": 200}[kind])

    def act(self, minion: str, sls: str | None) -> dict[str, str]:
        old = Path(f"{self.path}.old")
        if sls == "cluster.token_server" and not old.exists():
            old.write_text(self.path.read_text())
            self.path.write_text("second\n")
        return {}

    def run(self, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
        monkeypatch.setattr(self.cluster.module, "_offered", lambda *_: self.offers.append("x"))
        return self.cluster.call("token_rotated", server="https://s:6443", secret=str(self.path))


@pytest.fixture
def rotation(cluster: Cluster, tmp_path: Path) -> Rotation:
    return Rotation(cluster, tmp_path)


def test_a_token_is_rotated_server_mine_workers_proof(
    rotation: Rotation, monkeypatch: pytest.MonkeyPatch
) -> None:
    rotation.cluster.wired.opts["test"] = True
    assert set(rotation.run(monkeypatch)["changes"]) == {"agent token", *FLEET[1:]}
    assert rotation.path.read_text() == "first\n"
    rotation.cluster.wired.opts["test"] = False
    said = rotation.run(monkeypatch)
    assert said["result"] is True, said["comment"]
    assert said["changes"]["proof"] == {"new": 200, "old": 401}
    assert rotation.cluster.minions.applied == [
        ("f1-master", "cluster.token_server"),
        ("f1-worker-1", "cluster.token_agent"),
        ("f1-worker-2", "cluster.token_agent"),
    ]
    assert rotation.offers == ["x"]
    assert [path.name for path in rotation.path.parent.glob("agent-token*")] == ["agent-token"]
    assert "first" not in str(said)
    assert "second" not in str(said)


@pytest.mark.parametrize(
    ("answers", "words"),
    [
        ({"old": 200}, "still admits the old secret"),
        # A server that refuses everybody proves nothing.
        ({"new": 401}, "not proved"),
        ({"new": 404, "old": 404}, "not proved"),
        ({"old": 500}, "not proved"),
    ],
)
def test_without_a_proof_it_is_not_over(
    rotation: Rotation, answers: dict[str, int], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rotation.answers = answers
    said = rotation.run(monkeypatch)
    assert said["result"] is False
    assert words in said["comment"]
    assert "Run it again" in said["comment"]
    assert Path(f"{rotation.path}.old").read_text() == "first\n"


def test_an_interrupted_rotation_goes_on_with_the_same_secret(
    rotation: Rotation, monkeypatch: pytest.MonkeyPatch
) -> None:
    rotation.cluster.minions.silent = {"f1-worker-2"}
    said = rotation.run(monkeypatch)
    assert said["result"] is False
    assert "f1-worker-2: silent" in said["comment"]
    assert set(said["changes"]) == {"f1-master", "f1-worker-1"}
    secret = rotation.path.read_text()
    # Broken meanwhile: no reason not to go on.
    rotation.cluster.minions.silent = set()
    assert rotation.run(monkeypatch)["result"] is True
    assert rotation.path.read_text() == secret


def test_no_rotation_begins_with_a_node_that_is_not_ready(
    rotation: Rotation, monkeypatch: pytest.MonkeyPatch
) -> None:
    rotation.cluster.wired.have(node("f1-worker-1", ready=False))
    said = rotation.run(monkeypatch)
    assert said["result"] is False
    assert "nothing was touched" in said["comment"]
    assert "f1-worker-1: Ready=False" in said["comment"]
    assert rotation.cluster.minions.applied == []


def test_certificates_one_node_after_the_other_and_again(cluster: Cluster) -> None:
    cluster.minions.silent = {"f1-worker-1"}
    assert cluster.call("certificates_rotated")["result"] is False
    began = json.loads((cluster.state / "certificates.json").read_text())["began"]
    cluster.minions.silent = set()
    said = cluster.call("certificates_rotated")
    assert said["result"] is True, said["comment"]
    assert cluster.minions.applied == [
        ("f1-master", "cluster.certificates"),
        *((name, "cluster.certificates") for name in FLEET),
    ]
    # Those that were made before it began first, whichever run finds them.
    assert {each["rotation"]["began"] for each in cluster.minions.pillars} == {began}
    assert not (cluster.state / "certificates.json").exists()
    cluster.wired.opts["test"] = True
    assert set(cluster.call("certificates_rotated")["changes"]) == set(FLEET)


def test_the_mine_is_waited_for(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held: dict[str, Any] = {}

    class Cache:
        def fetch(self, bank: str, key: str) -> dict[str, Any]:
            assert (bank, key) == ("mine", "f1-master")
            return held

    monkeypatch.setattr(cluster.module.salt.cache, "factory", lambda opts: Cache())
    cluster.wired.salt["k3s.agent_token"] = lambda: "new"
    for stale in ({}, {"k3s_agent_token": {"__data__": "old"}}, {"k3s_agent_token": "old"}):
        held.clear()
        held.update(stale)
        with pytest.raises(CommandExecutionError, match="it offers the token of before"):
            cluster.module._offered("f1-master", 0)
    held["k3s_agent_token"] = {"__data__": "new"}
    cluster.module._offered("f1-master", 0)
