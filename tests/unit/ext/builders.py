"""Objects of a cluster, as `kubectl get -o json` gives them, and what minions say."""

from collections.abc import Callable
from typing import Any

import jobs

Object = dict[str, Any]


def node(name: str, version: str = "v1.36.3+k3s1", ready: bool = True, **info: str) -> Object:
    condition = {
        "type": "Ready",
        "status": str(ready),
        "reason": "KubeletReady" if ready else "NodeStatusUnknown",
        "message": "it is ready" if ready else "Kubelet stopped posting node status",
    }
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": {}},
        "status": {
            "conditions": [condition],
            "nodeInfo": {"kubeletVersion": version, "machineID": f"id-{name}", **info},
        },
    }


def pod(name: str, on: str, owner: str | None = "ReplicaSet", **labels: str) -> Object:
    owners = {"ownerReferences": [{"kind": owner, "name": "o"}]} if owner else {}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "f1", "labels": labels, **owners},
        "spec": {"nodeName": on},
        "status": {"phase": "Running"},
    }


def budget(name: str, allowed: int, healthy: int = 2, desired: int = 1, **labels: str) -> Object:
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": {"name": name, "namespace": "f1"},
        "spec": {"selector": {"matchLabels": labels}},
        "status": {
            "disruptionsAllowed": allowed,
            "currentHealthy": healthy,
            "desiredHealthy": desired,
        },
    }


class Minions:
    """
    What minions answer, and which states were run on them: in place of Salt's client.

    ``applied`` holds (minion, sls) in order; ``act(minion, sls)`` may change the cluster, and
    returns the failed states' ``{id: comment}``.
    """

    def __init__(self) -> None:
        self.applied: list[tuple[str, str | None]] = []
        self.pillars: list[dict[str, Any]] = []
        self.asked: list[tuple[str, str, tuple[Any, ...]]] = []
        self.answers: dict[str, Callable[[str], Any]] = {"grains.get": lambda m: f"id-{m}"}
        self.silent: set[str] = set()
        self.act: Callable[[str, str | None], dict[str, str]] = lambda minion, sls: {}

    def cmd(self, minions: list[str], functions: list[str], arg: Any, **_: Any) -> dict[str, Any]:
        """Stand for ``saltutil.cmd``."""
        told = {}
        for minion in minions:
            for function, arguments in zip(functions, arg, strict=True):
                self.asked.append((minion, function, tuple(arguments)))
            if minion not in self.silent:
                told[minion] = {
                    "ret": {f: self.answers.get(f, lambda m: True)(minion) for f in functions}
                }
        return told

    def states(
        self,
        opts: dict[str, Any],
        minions: list[str],
        sls: str | None = None,
        pillar: dict[str, Any] | None = None,
        deadline: float = 0,
    ) -> jobs.Outcome:
        """Stand for ``jobs.states``."""
        outcome = jobs.Outcome()
        for minion in minions:
            if minion in self.silent:
                outcome.failed[minion] = "silent for 120 s"
                continue
            self.applied.append((minion, sls))
            self.pillars.append(pillar or {})
            wrong = self.act(minion, sls)
            changes: dict[str, Any] = {} if wrong else {"done": sls}
            value = {
                f"x_|-{name}_|-{name}_|-y": {
                    "__id__": name,
                    "result": name not in wrong,
                    "changes": changes,
                    "comment": wrong.get(name, ""),
                }
                for name in (wrong or ["a state"])
            }
            outcome.returned[minion] = value
        return outcome
