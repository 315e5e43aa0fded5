"""
The cluster's objects and nodes as states of the machine that carries its server.

With ``test=True`` nothing is written: the server is asked for a dry run, so that a plan is exact.
"""

import time
from typing import Any

from salt.exceptions import SaltException

Result = dict[str, Any]

__opts__: dict[str, Any]
__salt__: dict[str, Any]

PAUSE = 1.0


def applied(name: str) -> Result:
    """
    Every object of the kustomize folder ``name`` is in the cluster as written there.

    ``changes`` by object: ``{"created": true}`` or ``{"changed": {field: {"old", "new"}}}``.

    .. code-block:: yaml

        /srv/f1-vote/render:
          kube.applied: []
    """
    if _only_planned():
        return _planned(name)
    try:
        objects = __salt__["kube.render"](name)
        done = __salt__["kube.apply"](objects, test=bool(__opts__["test"]))
    except SaltException as error:
        return _result(name, False, {}, str(error))
    changes: dict[str, Any] = {title: {"created": True} for title in done["created"]}
    changes |= {title: {"changed": fields} for title, fields in done["changed"].items()}
    counts = (
        f"{len(done['created'])} created, {len(done['changed'])} changed, "
        f"{len(done['unchanged'])} unchanged"
    )
    if done["error"]:
        return _result(name, False, changes, f"{counts}; refused: {done['error']}")
    return _result(name, None if __opts__["test"] and changes else True, changes, counts)


def absent(name: str) -> Result:
    """No object of the kustomize folder ``name`` is in the cluster."""
    if not __salt__["kubectl.available"]():
        return _result(name, True, {}, "there is no cluster")
    try:
        objects = __salt__["kube.render"](name)
        found = __salt__["kube.present"](objects)
        changes = dict.fromkeys(found, "removed")
        if __opts__["test"]:
            return _result(name, None if found else True, changes, "would be removed")
        __salt__["kube.remove"](objects)
    except SaltException as error:
        return _result(name, False, {}, str(error))
    return _result(name, True, changes, f"{len(found)} removed")


def rolled_out(name: str, deadline: float = 180) -> Result:
    """
    Every Deployment, StatefulSet and DaemonSet of the kustomize folder ``name`` is rolled out,
    within ``deadline`` seconds. On expiry it names the pods, their reasons and the last events.
    """
    if __opts__["test"]:
        return _result(name, True, {}, "a plan waits for nothing")
    end = time.monotonic() + deadline
    try:
        objects = __salt__["kube.render"](name)
        while lagging := __salt__["kube_health.lagging"](objects):
            if time.monotonic() >= end:
                spaces = sorted({one["metadata"].get("namespace", "default") for one in objects})
                told = [f"{title}: {how}" for title, how in lagging.items()]
                told += __salt__["kube_health.troubles"](spaces)
                comment = "\n".join([f"waited {deadline:g} s; last seen:", *told])
                return _result(name, False, {}, comment)
            time.sleep(PAUSE)
    except SaltException as error:
        return _result(name, False, {}, str(error))
    return _result(name, True, {}, "rolled out")


def secret_present(name: str, namespace: str, keys: list[str]) -> Result:
    """
    The Secret ``name`` holds every one of ``keys``: a random value is made for what it lacks.

    What it holds already stays. Neither old nor new values are ever returned.

    .. code-block:: yaml

        vote-secrets:
          kube.secret_present:
            - namespace: f1
            - keys: [cookie-key]
    """
    if _only_planned():
        return _planned(name)
    try:
        missing = __salt__["kube.secret_lacks"](name, namespace, keys)
        changes = {f"Secret {namespace}/{name} {key}": "made" for key in missing}
        if not missing:
            return _result(name, True, {}, "in place")
        if __opts__["test"]:
            return _result(name, None, changes, "would be made")
        __salt__["kube.secret_fill"](name, namespace, keys)
    except SaltException as error:
        return _result(name, False, {}, str(error))
    return _result(name, True, changes, "made")


def nodes_pruned(name: str, nodes: list[str], machines: dict[str, str] | None = None) -> Result:
    """
    None of ``nodes`` is of another machine than ``machines`` (machine ids by node) say.

    A node that joined with another machine id is of a machine that was replaced; it goes, with its
    password, so that the new machine can join under its name. Where no id is given nothing is
    asked. (A node that is of no machine of ``platform.workers`` is emptied first: see
    ``fleet.shrunk``.)
    """
    known = {node: machine for node, machine in (machines or {}).items() if node in nodes}
    if _only_planned() or not known:
        return _result(name, True, {}, "no machine was replaced")
    try:
        gone = [
            node
            for node, facts in __salt__["kube_health.nodes"]().items()
            if node in known and facts["machine"] != known[node]
        ]
        changes = {f"Node {node}": {"removed": "its machine was replaced"} for node in gone}
        if __opts__["test"] and gone:
            return _result(name, None, changes, "would be removed")
        for node in gone:
            __salt__["kube_health.node_remove"](node)
    except SaltException as error:
        return _result(name, False, {}, str(error))
    return _result(name, True, changes, f"{len(gone)} removed")


def nodes_ready(name: str, nodes: dict[str, dict[str, str]], deadline: float = 180) -> Result:
    """
    Every one of ``nodes`` has joined, is Ready and carries its labels, within ``deadline`` seconds.

    .. code-block:: yaml

        nodes are ready:
          kube.nodes_ready:
            - nodes: {f1-master: {f1.vote/role: server}}
    """
    if _only_planned():
        return _result(name, True, {}, "a plan waits for nothing")
    end = time.monotonic() + deadline
    try:
        while True:
            found = __salt__["kube_health.nodes"]()
            late = [node for node in nodes if not found.get(node, {}).get("ready")]
            if not late or __opts__["test"]:
                break
            if time.monotonic() >= end:
                seen = [f"{node}: {_seen(found.get(node))}" for node in late]
                comment = "\n".join([f"waited {deadline:g} s for nodes; last seen:", *seen])
                return _result(name, False, {}, comment)
            time.sleep(PAUSE)
        lacking = _lacking(nodes, found)
        changes = {f"Node {node}": {"labels": labels} for node, labels in lacking.items()}
        if __opts__["test"]:
            return _result(name, None if changes else True, changes, "")
        for node, labels in lacking.items():
            __salt__["kube_health.node_label"](node, labels)
    except SaltException as error:
        return _result(name, False, {}, str(error))
    return _result(name, True, changes, f"{len(nodes)} nodes are Ready")


def _lacking(
    nodes: dict[str, dict[str, str]], found: dict[str, dict[str, Any]]
) -> dict[str, dict[str, str]]:
    """Return the labels that nodes lack, by node; a node that has not joined gets its own."""
    lacking = {}
    for node, labels in nodes.items():
        held = found.get(node, {}).get("labels", labels)
        missing = {key: value for key, value in labels.items() if held.get(key) != value}
        if missing:
            lacking[node] = missing
    return lacking


def _seen(facts: dict[str, Any] | None) -> str:
    return "; ".join(facts["conditions"]) if facts else "has not joined"


def _only_planned() -> bool:
    """Say whether this is a plan made before the cluster exists."""
    return bool(__opts__["test"]) and not __salt__["kubectl.available"]()


def _planned(name: str) -> Result:
    return _result(name, None, {name: "would be applied once K3s runs"}, "there is no cluster yet")


def _result(name: str, result: bool | None, changes: dict[str, Any], comment: str) -> Result:
    return {"name": name, "result": result, "changes": changes, "comment": comment}
