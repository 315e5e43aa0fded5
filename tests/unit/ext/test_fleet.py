"""Those that leave the fleet: node, key, mine, cache; and what belongs to nothing."""

from pathlib import Path
from typing import Any

import pytest
import salt.cache
import salt.config

from .builders import Minions, budget, node, pod
from .conftest import Wired

ARGUMENTS: dict[str, Any] = {"master": "f1-master", "workers": ["f1-worker-1"]}
# Real enough for Salt to take it for one; nothing is ever encrypted with it.
KEY = "-----BEGIN PUBLIC KEY-----\nMIIB\n-----END PUBLIC KEY-----\n"


class Master:
    """The Salt master's files, and the fleet's states over a fake cluster."""

    def __init__(self, wired: Wired, folder: Path) -> None:
        self.wired = wired
        self.minions = Minions()
        overrides = {
            **salt.config.DEFAULT_MASTER_OPTS,
            "__role": "master",
            "id": "f1-master_master",
            "root_dir": str(folder),
            "pki_dir": str(folder / "pki"),
            "cachedir": str(folder / "cache"),
            "sock_dir": str(folder / "sock"),
            "conf_file": str(folder / "master"),
        }
        wired.opts.update(overrides)
        (folder / "sock").mkdir(parents=True)
        self.keys = folder / "pki" / "minions"
        self.keys.mkdir(parents=True)
        self.cache = salt.cache.factory(wired.opts)
        wired.salt["saltutil.cmd"] = self.minions.cmd
        (self.fleet,) = wired.orchestration("fleet")

    def has(self, minion: str, *, key: bool = True, mine: bool = True) -> None:
        if key:
            (self.keys / minion).write_text(KEY)
        if mine:
            self.cache.store("mine", minion, {"x": 1})
            self.cache.store("grains", minion, {"id": minion})

    def shrunk(self, **more: Any) -> dict[str, Any]:
        self.wired.context.clear()
        return dict(self.wired.states["fleet.shrunk"]("surplus", **{**ARGUMENTS, **more}))

    def accounted(self, **more: Any) -> dict[str, Any]:
        self.wired.context.clear()
        return dict(self.wired.states["fleet.accounted"]("orphans", **{**ARGUMENTS, **more}))


@pytest.fixture
def master(wired: Wired, tmp_path: Path) -> Master:
    made = Master(wired, tmp_path / "salt")
    for name in ("f1-master", "f1-worker-1"):
        made.has(name)
    wired.have(node("f1-master"), node("f1-worker-1"))
    return made


GONE = {
    "Node f1-worker-3": {"old": "Ready", "new": None},
    "key of f1-worker-3": {"old": "accepted", "new": None},
    "mine data of f1-worker-3": {"old": "kept", "new": None},
    "grains of f1-worker-3": {"old": "kept", "new": None},
}


def test_a_surplus_worker_goes_and_nothing_of_it_stays(master: Master) -> None:
    master.has("f1-worker-3")
    master.wired.have(node("f1-worker-3"), pod("vote-1", "f1-worker-3"))
    master.wired.opts["test"] = True
    plan = master.shrunk()
    assert (plan["result"], plan["changes"]) == (None, GONE)
    assert [words[0] for words in master.wired.calls()] == ["get", "get"]
    assert master.minions.asked == []
    master.wired.opts["test"] = False
    said = master.shrunk()
    assert said["result"] is True, said["comment"]
    assert said["changes"] == GONE
    assert set(master.wired.objects) == {"Node /f1-master", "Node /f1-worker-1"}
    assert {path.name for path in master.keys.iterdir()} == {"f1-master", "f1-worker-1"}
    for bank in ("mine", "grains"):
        assert set(master.cache.list(bank)) == {"f1-master", "f1-worker-1"}
    again = master.shrunk()
    assert (again["result"], again["changes"]) == (True, {})


def test_its_agent_is_stopped_before_its_node_goes(master: Master) -> None:
    master.has("f1-worker-3")
    master.wired.have(node("f1-worker-3"))
    master.shrunk()
    assert ("f1-worker-3", "service.stop", ("k3s-agent",)) in master.minions.asked
    assert master.minions.asked[-1] == (
        "f1-worker-3",
        "service.stop",
        ("salt-minion", "no_block=True"),
    )


def test_nothing_surplus_costs_one_question(master: Master) -> None:
    assert master.shrunk()["changes"] == {}
    assert [words[:2] for words in master.wired.calls()] == [["get", "nodes"]]


def test_a_budget_holds_it_and_another_run_goes_on(master: Master) -> None:
    master.has("f1-worker-3")
    held = pod("vote-1", "f1-worker-3", app="vote")
    master.wired.have(node("f1-worker-3"), held, budget("vote", 0, app="vote"))
    said = master.shrunk(deadline=1)
    assert said["result"] is False
    assert said["changes"] == {}
    assert "Pod f1/vote-1: PodDisruptionBudget f1/vote allows no disruption" in said["comment"]
    assert master.wired.objects["Node /f1-worker-3"]["spec"]["unschedulable"] is True
    assert (master.keys / "f1-worker-3").exists(), "its key is its way back"
    master.wired.have(budget("vote", 1, app="vote"))
    assert set(master.shrunk()["changes"]) == set(GONE)


def test_a_dead_machine_is_not_waited_for(master: Master) -> None:
    master.has("f1-worker-3")
    (master.wired.folder / "stuck").write_text("vote-1\n")
    master.wired.have(node("f1-worker-3", ready=False), pod("vote-1", "f1-worker-3"))
    said = master.shrunk(dead_deadline=3)
    assert said["result"] is True
    assert said["changes"]["Node f1-worker-3"] == {"old": "not Ready", "new": None}
    assert "its node was removed all the same" in said["comment"]
    assert "Pod f1/vote-1: has been asked to end" in said["comment"]
    assert [w[-1] for w in master.wired.calls() if w[0] == "drain"] == ["--timeout=3s"]
    assert "Node /f1-worker-3" not in master.wired.objects


def test_all_that_leave_are_cordoned_before_the_first_is_emptied(master: Master) -> None:
    for name in ("f1-worker-2", "f1-worker-3"):
        master.has(name)
        master.wired.have(node(name))
    assert master.shrunk()["result"] is True
    verbs = [words[:2] for words in master.wired.calls() if words[0] in ("cordon", "drain")]
    assert verbs == [
        ["cordon", "f1-worker-2"],
        ["cordon", "f1-worker-3"],
        ["drain", "f1-worker-2"],
        ["drain", "f1-worker-3"],
    ]


def test_what_an_interrupted_run_left_goes_without_its_node(master: Master) -> None:
    master.has("f1-worker-3", key=False)
    assert set(master.shrunk()["changes"]) == {
        "mine data of f1-worker-3",
        "grains of f1-worker-3",
    }


def test_others_are_none_of_our_business(master: Master) -> None:
    master.has("a-friend")
    master.wired.have(node("f1-workers-9"), node("zz-worker-1"))
    assert master.shrunk()["changes"] == {}


def test_a_cluster_that_is_down_stops_it_only_if_somebody_leaves(
    master: Master, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(master.wired.kubectl, "KUBECTL", ("sh", "-c", "echo refused >&2; exit 1"))
    assert master.shrunk()["result"] is True
    master.has("f1-worker-3")
    said = master.shrunk()
    assert (said["result"], said["changes"]) == (False, {})
    assert "refused" in said["comment"]


def test_orphans_are_named_with_what_removes_them(master: Master) -> None:
    assert master.accounted()["comment"] == "everything belongs to a machine"
    master.has("a-friend", mine=False)
    master.has("ghost", key=False)
    # To be removed by `shrunk`, so no orphan.
    master.has("f1-worker-3")
    master.wired.have(node("stranger"), node("f1-worker-3"))
    said = master.accounted(machines=["f1-master"])
    assert (said["result"], said["changes"]) == (True, {})
    assert said["comment"].splitlines() == [
        "a-friend: its accepted key is of no machine of platform.workers; "
        "`salt-key -d a-friend` removes it",
        "f1-worker-1: has a key and no machine; the next `up` makes it again",
        "ghost: has mine data and no key; `salt-run cache.clear_mine tgt=ghost` removes it",
        "stranger: is a node and has no minion; `k3s kubectl delete node stranger` removes it",
    ]
    assert len(master.wired.drawn) == 1


def highstate(master: Master, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.setattr(master.fleet.jobs, "states", master.minions.states)
    master.wired.context.clear()
    fleet = ["f1-master", "f1-worker-1"]
    return dict(master.wired.states["fleet.highstate"]("highstate", fleet))


def test_a_node_that_never_joined_is_named_with_its_log(
    master: Master, monkeypatch: pytest.MonkeyPatch
) -> None:
    master.minions.answers["k3s.journal"] = lambda minion: f"log of {minion}"
    master.wired.have(node("f1-worker-1", ready=False))
    master.minions.act = lambda minion, _: (
        {"nodes are ready": "waited 180 s"} if minion == "f1-master" else {}
    )
    said = highstate(master, monkeypatch)
    assert said["result"] is False
    assert said["comment"].splitlines() == [
        "f1-master: nodes are ready: waited 180 s",
        "f1-worker-1: node Ready=False (NodeStatusUnknown: Kubelet stopped posting node status); "
        "its K3s logged last:",
        "log of f1-worker-1",
    ]
    assert set(said["changes"]["ret"]) == {"f1-master", "f1-worker-1"}


def test_a_minion_that_did_not_answer_fails_the_highstate(
    master: Master, monkeypatch: pytest.MonkeyPatch
) -> None:
    master.minions.silent = {"f1-worker-1"}
    said = highstate(master, monkeypatch)
    assert said["result"] is False
    assert "f1-worker-1: silent for 120 s" in said["comment"]


def test_only_replaced_machines_are_told_to_the_highstate(
    master: Master, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert highstate(master, monkeypatch)["result"] is True
    assert master.minions.pillars[0] == {"machines": {}}
    master.minions.answers["grains.get"] = lambda minion: "new"
    highstate(master, monkeypatch)
    assert master.minions.pillars[-1] == {
        "machines": {"f1-master": "new", "f1-worker-1": "new"},
    }
