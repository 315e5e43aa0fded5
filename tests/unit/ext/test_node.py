"""A node is emptied as budgets allow; what holds a pod is named."""

import pytest
from salt.exceptions import CommandExecutionError

from .builders import budget, node, pod
from .conftest import Wired


def test_a_node_is_emptied_but_for_its_daemons(wired: Wired) -> None:
    daemon = pod("agent-1", "f1-worker-3", owner="DaemonSet")
    wired.have(node("f1-worker-3"), pod("vote-1", "f1-worker-3"), daemon, pod("vote-2", "f1-w-1"))
    wired.salt["node.drain"]("f1-worker-3", 30)
    assert set(wired.objects) == {"Node /f1-worker-3", "Pod f1/agent-1", "Pod f1/vote-2"}
    assert wired.objects["Node /f1-worker-3"]["spec"]["unschedulable"] is True
    assert wired.calls()[0] == [
        "drain",
        "f1-worker-3",
        "--ignore-daemonsets",
        "--delete-emptydir-data",
        "--timeout=30s",
    ]


def test_the_budget_that_holds_a_pod_is_named(wired: Wired) -> None:
    held = pod("vote-1", "f1-worker-3", app="vote")
    wired.have(
        node("f1-worker-3"),
        held,
        budget("vote", 0, healthy=1, desired=1, app="vote"),
        budget("other", 0, app="other"),
    )
    with pytest.raises(CommandExecutionError) as caught:
        wired.salt["node.drain"]("f1-worker-3", 1)
    words = str(caught.value)
    assert "f1-worker-3 was not emptied in 1 s; it stays cordoned" in words
    assert "Pod f1/vote-1: PodDisruptionBudget f1/vote allows no disruption now" in words
    assert "1 pods are healthy, 1 must be" in words
    assert "f1/other" not in words
    assert wired.objects["Node /f1-worker-3"]["spec"]["unschedulable"] is True


def test_what_else_holds_a_pod_is_named(wired: Wired) -> None:
    ending = pod("ending", "f1-worker-3")
    ending["metadata"]["deletionTimestamp"] = "2026-11-24T12:00:00Z"
    done = pod("done", "f1-worker-3")
    done["status"]["phase"] = "Succeeded"
    wired.have(node("f1-worker-3"), ending, pod("bare", "f1-worker-3", owner=None), done)
    ended, bare = wired.salt["node.holders"]("f1-worker-3")
    assert ended == "Pod f1/ending: has been asked to end (by 2026-11-24T12:00:00Z)"
    assert bare.startswith("Pod f1/bare: nothing would bring it back elsewhere")


@pytest.mark.parametrize(
    ("expression", "fits"),
    [
        ({"key": "app", "operator": "In", "values": ["vote"]}, True),
        ({"key": "app", "operator": "NotIn", "values": ["vote"]}, False),
        ({"key": "app", "operator": "Exists"}, True),
        ({"key": "app", "operator": "DoesNotExist"}, False),
    ],
)
def test_budgets_select_by_expressions_too(wired: Wired, expression: dict, fits: bool) -> None:
    told = budget("b", 0)
    told["spec"]["selector"] = {"matchExpressions": [expression]}
    wired.have(pod("vote-1", "n", app="vote"), told)
    (line,) = wired.salt["node.holders"]("n")
    assert ("PodDisruptionBudget f1/b" in line) is fits


def test_a_node_that_is_not_there_is_kubectls_complaint(wired: Wired) -> None:
    with pytest.raises(CommandExecutionError, match='nodes "f1-worker-9" not found'):
        wired.salt["node.drain"]("f1-worker-9", 1)


def test_cordon_and_back(wired: Wired) -> None:
    wired.have(node("n"))
    wired.salt["node.cordon"]("n")
    assert wired.salt["kube_health.nodes"]()["n"]["cordoned"] is True
    wired.salt["node.uncordon"]("n")
    assert wired.salt["kube_health.nodes"]()["n"]["cordoned"] is False
