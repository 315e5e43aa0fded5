"""
May the cluster go from these versions to that one? Pure: facts in, reasons out.

Rules: Kubernetes' version skew policy (https://kubernetes.io/releases/version-skew-policy/): a
kubelet is never newer than the API server and at most three minor versions older; the API server
goes up one minor version at a time. Its datastore knows no way back across a minor version.
"""

import re
from typing import Any

from salt.exceptions import SaltException

_VERSION = re.compile(r"v(\d+)\.(\d+)\.(\d+)(?:-[\w.]+)?(?:\+k3s(\d+))?")
_OLDEST = 3


def parsed(version: str) -> tuple[int, int, int, int]:
    """Return ``v1.36.4+k3s1`` as numbers that compare. Raises SaltException for what is none."""
    found = _VERSION.fullmatch(version)
    if not found:
        raise SaltException(f"{version!r} is no version of K3s (as v1.36.4+k3s1)")
    major, minor, patch, build = (int(number or 0) for number in found.groups())
    return major, minor, patch, build


def skew(
    server: str, kubelets: dict[str, str], wanted: str, came_from: str | None = None
) -> list[str]:
    """
    Return why the server at version ``server`` and ``kubelets`` (version by node) must not go to
    ``wanted``; nothing if they may.

    ``came_from``: the version that an upgrade which did not end started from. Back to that one is
    allowed, within the same minor version.
    """
    old, new = parsed(server), parsed(wanted)
    back = came_from is not None and parsed(came_from) == new and old[:2] == new[:2]
    found = []
    if new < old and not back:
        found.append(
            f"{server} → {wanted} is a downgrade: the datastore was written by the newer version; "
            "put the newer version back in the lock, or restore a backup of the older one"
        )
    elif new[0] != old[0] or new[1] - old[1] > 1:
        found.append(
            f"{server} → {wanted} leaves out minor versions: Kubernetes goes up one at a time; "
            f"lock a v{old[0]}.{old[1] + 1} first"
        )
    for node, version in kubelets.items():
        its = parsed(version)
        if its > max(old, new):
            found.append(
                f"{node}: its kubelet ({version}) is newer than any server of this upgrade"
            )
        elif new[0] == its[0] and new[1] - its[1] > _OLDEST:
            found.append(
                f"{node}: its kubelet ({version}) is more than {_OLDEST} minor versions older "
                f"than {wanted}"
            )
    return found


def unhealthy(nodes: dict[str, dict[str, Any]], wanted: list[str]) -> list[str]:
    """Return what keeps the nodes ``wanted`` from bearing a restart: not Ready, under pressure."""
    return [
        f"{node}: {'; '.join(nodes[node]['conditions'])}"
        for node in wanted
        if node in nodes and nodes[node]["conditions"]
    ]


def backup(last: dict[str, Any] | None, now: float, oldest: float) -> str:
    """
    Return why the last backup does not cover an upgrade; empty if it does.

    ``last``: ``{"at": unix seconds, "ok": bool}``; ``oldest``: seconds.
    """
    if last is None:
        return "there is no backup"
    if not last.get("ok"):
        return "the last backup failed"
    age = now - float(last.get("at", 0))
    if age > oldest:
        return f"the last backup is {age / 3600:.0f} h old, older than {oldest / 3600:.0f} h"
    return ""
