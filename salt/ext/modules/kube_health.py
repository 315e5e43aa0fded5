"""How the cluster is: its nodes, its rollouts, the troubles of its pods."""

from typing import Any

Object = dict[str, Any]

__salt__: dict[str, Any]


def lagging(objects: list[Object]) -> dict[str, str]:
    """
    Return which Deployments, StatefulSets and DaemonSets among ``objects`` are not rolled out,
    and how far they are. The rules are those of ``kubectl rollout status``.

    CLI Example:

    .. code-block:: bash

        salt f1-master kube_health.lagging '[{kind: Deployment, metadata: {name: vote}}]'
    """
    wanted = [one for one in objects if one["kind"] in _ROLLOUTS]
    if not wanted:
        return {}
    kinds = ",".join(kind.lower() for kind in _ROLLOUTS)
    live = __salt__["kubectl.items"](__salt__["kubectl.run"]("get", kinds, "-A", "-o", "json"))
    found = {__salt__["kubectl.title"](one): one for one in live}
    progress = {
        __salt__["kubectl.title"](one): _progress(found.get(__salt__["kubectl.title"](one)))
        for one in wanted
    }
    return {name: words for name, words in progress.items() if words}


def troubles(namespaces: list[str], events: int = 5) -> list[str]:
    """
    Return one line for each pod of ``namespaces`` that is not ready, with its reasons, and the
    last warning events there.

    CLI Example:

    .. code-block:: bash

        salt f1-master kube_health.troubles '[f1, ingress]'
    """
    both = __salt__["kubectl.items"](
        __salt__["kubectl.run"]("get", "pods,events", "-A", "-o", "json")
    )
    here = [one for one in both if one["metadata"].get("namespace") in namespaces]
    lines = [
        f"{__salt__['kubectl.title'](one)}: {why}"
        for one in here
        if one["kind"] == "Pod" and (why := _pod_trouble(one))
    ]
    warnings = [one for one in here if one["kind"] == "Event" and one.get("type") == "Warning"]
    warnings.sort(key=lambda one: one.get("lastTimestamp") or one.get("eventTime") or "")
    for one in warnings[-events:]:
        about = one["involvedObject"]
        message = str(one.get("message", "")).strip()
        lines.append(f"{about['kind']} {about['name']}: {one.get('reason')}: {message}")
    return lines


def nodes() -> dict[str, dict[str, Any]]:
    """
    Return the nodes: ``{name: {"ready", "conditions", "labels", "machine", "version",
    "cordoned"}}``, where
    ``conditions`` are the words of those that are not as they should be, ``machine`` is the
    machine id (machine-id(5)) of the machine that joined under that name and ``version`` what its
    kubelet reports.

    CLI Example:

    .. code-block:: bash

        salt f1-master kube_health.nodes
    """
    found = {}
    for one in __salt__["kubectl.items"](__salt__["kubectl.run"]("get", "nodes", "-o", "json")):
        status = one.get("status", {})
        conditions = {each["type"]: each for each in status.get("conditions", [])}
        bad = [
            f"{kind}={each['status']} ({each.get('reason')}: {each.get('message')})"
            for kind, each in conditions.items()
            if each["status"] != ("True" if kind == "Ready" else "False")
        ]
        info = status.get("nodeInfo", {})
        found[one["metadata"]["name"]] = {
            "ready": conditions.get("Ready", {}).get("status") == "True",
            "conditions": bad or ([] if conditions else ["the node has not reported yet"]),
            "labels": one["metadata"].get("labels", {}),
            "machine": info.get("machineID", ""),
            "version": info.get("kubeletVersion", ""),
            "cordoned": bool(one.get("spec", {}).get("unschedulable")),
        }
    return found


def node_remove(name: str) -> None:
    """
    Delete the node ``name`` and the password that K3s keeps for that name, so that another
    machine can join under it.

    CLI Example:

    .. code-block:: bash

        salt f1-master kube_health.node_remove f1-worker-3
    """
    __salt__["kubectl.run"]("delete", "node", name, "--ignore-not-found")
    password = f"{name}.node-password.k3s"
    __salt__["kubectl.run"]("delete", "secret", "-n", "kube-system", password, "--ignore-not-found")


def node_label(name: str, labels: dict[str, str]) -> None:
    """
    Set ``labels`` on the node ``name``.

    CLI Example:

    .. code-block:: bash

        salt f1-master kube_health.node_label f1-worker-1 '{f1.vote/role: worker}'
    """
    pairs = [f"{key}={value}" for key, value in labels.items()]
    __salt__["kubectl.run"]("label", "node", name, "--overwrite", *pairs)


def _progress(one: Object | None) -> str:
    """Return how far the rollout of ``one`` is; empty once it is done."""
    if one is None:
        return "does not exist"
    status = one.get("status", {})
    if status.get("observedGeneration", 0) < one["metadata"]["generation"]:
        return "its controller has not seen it yet"
    want, updated, available_ = _ROLLOUTS[one["kind"]](one["spec"], status)
    if updated < want:
        return f"{updated} of {want} pods are of the new version"
    if available_ < want:
        return f"{available_} of {want} pods are available"
    if one["kind"] == "Deployment" and status.get("replicas", 0) > want:
        return f"{status['replicas'] - want} old pods are still there"
    return ""


# Kind → (pods wanted, of the new version, available), from spec and status.
_ROLLOUTS = {
    "Deployment": lambda spec, status: (
        spec.get("replicas", 1),
        status.get("updatedReplicas", 0),
        status.get("availableReplicas", 0),
    ),
    "StatefulSet": lambda spec, status: (
        spec.get("replicas", 1),
        status.get("updatedReplicas", 0),
        status.get("readyReplicas", 0),
    ),
    "DaemonSet": lambda spec, status: (
        # No node for it yet is not "all of none are up".
        max(1, status.get("desiredNumberScheduled", 0)),
        status.get("updatedNumberScheduled", 0),
        status.get("numberAvailable", 0),
    ),
}


def _pod_trouble(pod: Object) -> str:
    """Return why ``pod`` is not ready; empty if it is, or has ended well."""
    status = pod.get("status", {})
    conditions = {each["type"]: each for each in status.get("conditions", [])}
    if status.get("phase") == "Succeeded" or conditions.get("Ready", {}).get("status") == "True":
        return ""
    containers = status.get("initContainerStatuses", []) + status.get("containerStatuses", [])
    reasons = []
    for each in containers:
        for when in ("state", "lastState"):
            for kind in ("waiting", "terminated"):
                told = each.get(when, {}).get(kind)
                if told and told.get("reason") not in (None, "Completed"):
                    text = f"{each['name']} {told['reason']}: {told.get('message') or ''}"
                    reasons.append(text.rstrip(": "))
    if not reasons:
        reasons = [
            f"{kind}: {each['message']}"
            for kind, each in conditions.items()
            if each["status"] == "False" and each.get("message")
        ]
    node = pod.get("spec", {}).get("nodeName") or "no node"
    return f"{status.get('phase', 'Unknown')} on {node}; {'; '.join(reasons) or 'no reason given'}"
