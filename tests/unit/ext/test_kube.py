"""Objects, secrets, rollouts and nodes against a fake kubectl."""

import base64
import json
from typing import Any

import pytest
from salt.exceptions import CommandExecutionError

from .conftest import Wired

Object = dict[str, Any]

NAMESPACE: Object = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "f1"}}


def thing(kind: str, name: str, **more: Any) -> Object:
    return {
        "apiVersion": "apps/v1",
        "kind": kind,
        "metadata": {"name": name, "namespace": "f1"},
        **more,
    }


VOTE = thing("Deployment", "vote", spec={"replicas": 2})
REDIS = thing("StatefulSet", "redis", spec={"replicas": 1})


def test_created_then_unchanged_then_changed(wired: Wired) -> None:
    folder = wired.rendered(VOTE, REDIS, NAMESPACE)
    first = wired.states["kube.applied"](folder)
    assert first["result"] is True, first["comment"]
    assert first["changes"] == {
        "Deployment f1/vote": {"created": True},
        "StatefulSet f1/redis": {"created": True},
        "Namespace f1": {"created": True},
    }
    second = wired.states["kube.applied"](folder)
    assert (second["result"], second["changes"]) == (True, {})
    assert second["comment"] == "0 created, 0 changed, 3 unchanged"

    wired.rendered({**VOTE, "spec": {"replicas": 3}}, REDIS, NAMESPACE)
    third = wired.states["kube.applied"](folder)
    assert third["changes"] == {
        "Deployment f1/vote": {"changed": {"spec.replicas": {"old": "2", "new": "3"}}}
    }


def test_three_calls_to_kubectl_however_many_objects(wired: Wired) -> None:
    many = [thing("ConfigMap", f"c{number}", data={}) for number in range(30)]
    wired.states["kube.applied"](wired.rendered(NAMESPACE, *many))
    assert [words[0] for words in wired.calls()] == ["kustomize", "get", "apply"]


def test_a_plan_is_exact_and_writes_nothing(wired: Wired) -> None:
    wired.opts["test"] = True
    folder = wired.rendered(NAMESPACE, VOTE)
    # The server cannot dry-run an object of a namespace that does not exist.
    fresh = wired.states["kube.applied"](folder)
    assert fresh["result"] is None
    assert set(fresh["changes"]) == {"Namespace f1", "Deployment f1/vote"}
    assert wired.objects == {}

    wired.have(NAMESPACE, {**VOTE, "spec": {"replicas": 9}})
    drifted = wired.states["kube.applied"](folder)
    assert drifted["changes"] == {
        "Deployment f1/vote": {"changed": {"spec.replicas": {"old": "9", "new": "2"}}}
    }
    assert wired.objects["Deployment f1/vote"]["spec"] == {"replicas": 9}

    wired.have(VOTE)
    same = wired.states["kube.applied"](folder)
    assert (same["result"], same["changes"]) == (True, {})


def test_a_plan_before_there_is_a_cluster(wired: Wired, monkeypatch: pytest.MonkeyPatch) -> None:
    wired.opts["test"] = True
    monkeypatch.setattr(wired.kubectl, "KUBECONFIG", wired.folder / "none")
    assert wired.states["kube.applied"](wired.rendered(VOTE))["result"] is None
    assert wired.states["kube.secret_present"]("s", "f1", ["k"])["result"] is None
    assert wired.states["kube.nodes_pruned"]("n", ["f1-master"])["changes"] == {}
    assert wired.calls() == []


def test_what_is_refused_is_told_with_what_was_done(wired: Wired) -> None:
    (wired.folder / "refuse").write_text("StatefulSet\n")
    said = wired.states["kube.applied"](wired.rendered(NAMESPACE, VOTE, REDIS))
    assert said["result"] is False
    assert set(said["changes"]) == {"Namespace f1", "Deployment f1/vote"}
    assert "StatefulSet f1/redis is refused" in said["comment"]


def test_status_and_bookkeeping_are_no_change(wired: Wired) -> None:
    live = {**VOTE, "status": {"replicas": 1}, "metadata": {**VOTE["metadata"], "generation": 4}}
    wired.have(NAMESPACE, live)
    wired.rendered({**VOTE, "status": {"replicas": 0}})
    assert wired.states["kube.applied"](str(wired.folder))["changes"] == {}


def test_lists_differ_by_name_and_long_values_are_cut(wired: Wired) -> None:
    def pod(image: str, first: str) -> Object:
        containers = [{"name": "a", "image": image}, {"name": "b", "image": "b"}]
        if first == "b":
            containers.reverse()
        return thing("Deployment", "vote", spec={"containers": containers, "x": "y" * 500})

    wired.have(NAMESPACE, pod("one", "a"))
    said = wired.states["kube.applied"](wired.rendered(pod("two", "b")))
    assert said["changes"]["Deployment f1/vote"]["changed"] == {
        "spec.containers[a].image": {"old": "one", "new": "two"}
    }
    said = wired.states["kube.applied"](
        wired.rendered(thing("Deployment", "vote", spec={"x": "z" * 500}))
    )
    assert len(json.dumps(said["changes"])) < 400


def test_values_of_a_secret_are_never_shown(wired: Wired) -> None:
    def secret(value: str) -> Object:
        return thing("Secret", "s", data={"key": value})

    wired.have(NAMESPACE, secret("b2xk"))
    said = wired.states["kube.applied"](wired.rendered(secret("bmV3")))
    assert said["changes"]["Secret f1/s"]["changed"] == {
        "data.key": {"old": "<hidden>", "new": "<hidden>"}
    }


def test_a_secret_is_made_once_and_completed_later(wired: Wired) -> None:
    wired.have(NAMESPACE)
    made = wired.states["kube.secret_present"]("s", "f1", ["one"])
    assert made["changes"] == {"Secret f1/s one": "made"}
    one = wired.objects["Secret f1/s"]["data"]["one"]
    assert len(base64.b64decode(one)) == 64

    again = wired.states["kube.secret_present"]("s", "f1", ["one"])
    assert (again["result"], again["changes"]) == (True, {})
    more = wired.states["kube.secret_present"]("s", "f1", ["one", "two"])
    assert more["changes"] == {"Secret f1/s two": "made"}
    data = wired.objects["Secret f1/s"]["data"]
    assert data["one"] == one
    assert data["two"] != one
    said = json.dumps([made, again, more, wired.calls()])
    assert not any(
        base64.b64decode(value).decode() in said or value in said for value in data.values()
    )


def test_a_refused_secret_is_not_quoted(wired: Wired) -> None:
    (wired.folder / "refuse").write_text("Secret\n")
    said = wired.states["kube.secret_present"]("s", "f1", ["one"])
    assert said["result"] is False
    assert "f1/s could not be written" in said["comment"]


def rollout(**status: Any) -> Object:
    return {
        **VOTE,
        "metadata": {**VOTE["metadata"], "generation": 2},
        "status": {"observedGeneration": 2, "replicas": 2, **status},
    }


def test_rolled_out_only_when_the_new_pods_are_available(wired: Wired) -> None:
    lagging = wired.salt["kube_health.lagging"]
    done = {"updatedReplicas": 2, "availableReplicas": 2}
    for status, words in (
        ({"observedGeneration": 1, **done}, "its controller has not seen it yet"),
        ({"updatedReplicas": 1}, "1 of 2 pods are of the new version"),
        ({"updatedReplicas": 2, "availableReplicas": 1}, "1 of 2 pods are available"),
        ({**done, "replicas": 3}, "1 old pods are still there"),
    ):
        wired.have(rollout(**status))
        assert lagging([VOTE, NAMESPACE]) == {"Deployment f1/vote": words}
    wired.have(rollout(**done))
    assert lagging([VOTE]) == {}
    assert lagging([REDIS]) == {"StatefulSet f1/redis": "does not exist"}
    assert wired.states["kube.rolled_out"](wired.rendered(VOTE))["result"] is True


def test_a_late_rollout_names_pods_reasons_and_events(wired: Wired) -> None:
    waiting = {"waiting": {"reason": "ErrImagePull", "message": "no such digest"}}
    pod = thing(
        "Pod",
        "vote-1",
        spec={"nodeName": "f1-worker-1"},
        status={"phase": "Pending", "containerStatuses": [{"name": "vote", "state": waiting}]},
    )
    event = thing(
        "Event",
        "e",
        type="Warning",
        reason="Failed",
        message="pull failed",
        involvedObject={"kind": "Pod", "name": "vote-1"},
        lastTimestamp="2026-11-24T12:00:00Z",
    )
    wired.have(rollout(updatedReplicas=0), pod, event)
    said = wired.states["kube.rolled_out"](wired.rendered(VOTE), deadline=0)
    assert said["result"] is False
    for words in (
        "Deployment f1/vote: 0 of 2 pods are of the new version",
        "Pod f1/vote-1: Pending on f1-worker-1; vote ErrImagePull: no such digest",
        "Pod vote-1: Failed: pull failed",
    ):
        assert words in said["comment"]


def node(name: str, ready: str = "True", machine: str = "m", **labels: str) -> Object:
    condition = {"type": "Ready", "status": ready, "reason": "Kubelet", "message": "no CNI"}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": labels},
        "status": {"conditions": [condition], "nodeInfo": {"machineID": machine}},
    }


def test_late_nodes_are_named_with_their_conditions(wired: Wired) -> None:
    wired.have(node("f1-master"), node("f1-worker-1", ready="False"))
    nodes: dict[str, dict[str, str]] = {"f1-master": {}, "f1-worker-1": {}, "f1-worker-2": {}}
    said = wired.states["kube.nodes_ready"]("ready", nodes, deadline=0)
    assert said["result"] is False
    assert "f1-worker-1: Ready=False (Kubelet: no CNI)" in said["comment"]
    assert "f1-worker-2: has not joined" in said["comment"]
    assert "f1-master" not in said["comment"]


def test_ready_nodes_get_the_labels_that_they_lack(wired: Wired) -> None:
    wired.have(node("f1-master", role="server"), node("f1-worker-1", role="server"))
    nodes = {"f1-master": {"role": "server"}, "f1-worker-1": {"role": "worker"}}
    wired.opts["test"] = True
    plan = wired.states["kube.nodes_ready"]("ready", nodes)
    assert plan["result"] is None
    wired.opts["test"] = False
    said = wired.states["kube.nodes_ready"]("ready", nodes)
    assert (
        said["changes"] == plan["changes"] == {"Node f1-worker-1": {"labels": {"role": "worker"}}}
    )
    assert wired.states["kube.nodes_ready"]("ready", nodes)["changes"] == {}


def test_a_node_of_a_replaced_machine_goes_with_its_password(wired: Wired) -> None:
    password = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "f1-worker-1.node-password.k3s", "namespace": "kube-system"},
    }
    # f1-worker-3 is of no machine of ours: that one is emptied first (fleet.shrunk).
    wired.have(node("f1-master"), node("f1-worker-1", machine="old"), node("f1-worker-3"), password)
    nodes = ["f1-master", "f1-worker-1", "f1-worker-2"]
    machines = {"f1-master": "m", "f1-worker-1": "new", "f1-worker-3": "other"}
    wired.opts["test"] = True
    assert wired.states["kube.nodes_pruned"]("prune", nodes, machines)["result"] is None
    assert len(wired.objects) == 4
    wired.opts["test"] = False
    said = wired.states["kube.nodes_pruned"]("prune", nodes, machines)
    assert said["changes"] == {"Node f1-worker-1": {"removed": "its machine was replaced"}}
    assert list(wired.objects) == ["Node /f1-master", "Node /f1-worker-3"]


def test_where_no_machine_was_replaced_nothing_is_asked(wired: Wired) -> None:
    wired.have(node("f1-worker-1", machine="old"))
    assert wired.states["kube.nodes_pruned"]("prune", ["f1-worker-1"], {})["changes"] == {}
    assert wired.calls() == []


def test_absent_removes_all(wired: Wired) -> None:
    wired.have(NAMESPACE, VOTE)
    said = wired.states["kube.absent"](wired.rendered(NAMESPACE, VOTE, REDIS))
    assert said["changes"] == {"Namespace f1": "removed", "Deployment f1/vote": "removed"}
    assert wired.objects == {}


def test_a_silent_cluster_is_named(wired: Wired, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wired.kubectl, "KUBECTL", ("sh", "-c", "sleep 5"))
    monkeypatch.setattr(wired.kubectl, "SECONDS", 0.1)
    with pytest.raises(CommandExecutionError, match="no answer"):
        wired.kubectl.run("get")
    monkeypatch.setattr(wired.kubectl, "KUBECTL", ("/none/k3s",))
    with pytest.raises(CommandExecutionError, match="/none/k3s: No such file"):
        wired.kubectl.run("get")
