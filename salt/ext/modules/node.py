"""
A node on its way out: no new pods, then no pods, then no node.

As ``kubectl drain`` does it (https://kubernetes.io/docs/tasks/administer-cluster/safely-drain-node/):
by evictions, which PodDisruptionBudgets may refuse.
"""

from typing import Any

from salt.exceptions import CommandExecutionError

Object = dict[str, Any]

__salt__: dict[str, Any]

# kubectl says by itself that its time is over; this is for one that does not.
GRACE = 15


def cordon(name: str) -> None:
    """
    Let no new pod onto the node ``name``; what runs there goes on.

    CLI Example:

    .. code-block:: bash

        salt f1-master node.cordon f1-worker-3
    """
    __salt__["kubectl.run"]("cordon", name)


def uncordon(name: str) -> None:
    """
    Let new pods onto the node ``name`` again.

    CLI Example:

    .. code-block:: bash

        salt f1-master node.uncordon f1-worker-3
    """
    __salt__["kubectl.run"]("uncordon", name)


def drain(name: str, deadline: float = 120) -> None:
    """
    Cordon the node ``name`` and evict its pods, at most ``deadline`` seconds; data in their
    emptyDirs goes, pods of DaemonSets stay. It stays cordoned, whatever comes of it.

    Raises CommandExecutionError that names the pods which are left and what holds each.

    CLI Example:

    .. code-block:: bash

        salt f1-master node.drain f1-worker-3 deadline=60
    """
    arguments = ("--ignore-daemonsets", "--delete-emptydir-data", f"--timeout={deadline:g}s")
    try:
        __salt__["kubectl.run"]("drain", name, *arguments, seconds=deadline + GRACE)
    except CommandExecutionError as error:
        held = holders(name)
        told = held or [str(error).splitlines()[-1]]
        raise CommandExecutionError(
            "\n".join(
                [
                    f"{name} was not emptied in {deadline:g} s; it stays cordoned, and another run "
                    f"goes on. Left there:",
                    *told,
                ]
            )
        ) from None


def holders(name: str) -> list[str]:
    """
    Return one line for each pod that a drain of the node ``name`` still waits for: the
    PodDisruptionBudget that keeps it, or why else it is there.

    CLI Example:

    .. code-block:: bash

        salt f1-master node.holders f1-worker-3
    """
    found = __salt__["kubectl.items"](
        __salt__["kubectl.run"]("get", "pods,poddisruptionbudgets", "-A", "-o", "json")
    )
    budgets = [one for one in found if one["kind"] == "PodDisruptionBudget"]
    return [
        f"{__salt__['kubectl.title'](one)}: {_held(one, budgets)}"
        for one in found
        if one["kind"] == "Pod" and one["spec"].get("nodeName") == name and _evictable(one)
    ]


def _evictable(pod: Object) -> bool:
    """Say whether a drain takes ``pod`` away: not those of DaemonSets, nor static ones."""
    meta = pod["metadata"]
    owners = {owner["kind"] for owner in meta.get("ownerReferences", [])}
    static = "kubernetes.io/config.mirror" in meta.get("annotations", {})
    ended = pod.get("status", {}).get("phase") in ("Succeeded", "Failed")
    return not (static or ended or "DaemonSet" in owners)


def _held(pod: Object, budgets: list[Object]) -> str:
    meta = pod["metadata"]
    if meta.get("deletionTimestamp"):
        return f"has been asked to end (by {meta['deletionTimestamp']})"
    keeping = [
        f"{__salt__['kubectl.title'](one)} allows no disruption now: "
        f"{one['status'].get('currentHealthy', 0)} pods are healthy, "
        f"{one['status'].get('desiredHealthy', 0)} must be"
        for one in budgets
        if one["metadata"]["namespace"] == meta["namespace"]
        and one.get("status", {}).get("disruptionsAllowed", 0) == 0
        and _selects(one["spec"].get("selector") or {}, meta.get("labels", {}))
    ]
    if keeping:
        return "; ".join(keeping)
    if not meta.get("ownerReferences"):
        return "nothing would bring it back elsewhere: delete it, or give it a controller"
    return "not evicted yet"


def _selects(selector: Object, labels: dict[str, str]) -> bool:
    """Say whether a label selector fits ``labels``; an empty one fits all."""
    fits = all(labels.get(key) == value for key, value in selector.get("matchLabels", {}).items())
    return fits and all(
        _OPERATORS[each["operator"]](labels.get(each["key"]), each.get("values") or [])
        for each in selector.get("matchExpressions", [])
    )


_OPERATORS = {
    "In": lambda value, values: value in values,
    "NotIn": lambda value, values: value not in values,
    "Exists": lambda value, values: value is not None,
    "DoesNotExist": lambda value, values: value is None,
}
