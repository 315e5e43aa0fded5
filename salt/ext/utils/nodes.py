"""The cluster's nodes as an orchestration on their master sees them."""

import time
from collections.abc import Callable
from typing import Any

from salt.exceptions import CommandExecutionError, SaltException

Functions = dict[str, Callable[..., Any]]
Nodes = dict[str, dict[str, Any]]

PAUSE = 1.0
_SEEN = "nodes.seen"


def seen(context: dict[str, Any], functions: Functions) -> Nodes:
    """
    Return the nodes as `kube_health.nodes` first told them in this orchestration; none if there is
    no cluster. One call of kubectl serves all states that only want to know whether to act.

    Raises CommandExecutionError if the cluster does not answer.
    """
    if _SEEN not in context:
        there = functions["kubectl.available"]()
        context[_SEEN] = functions["kube_health.nodes"]() if there else {}
    return dict(context[_SEEN])


def forget(context: dict[str, Any], node: str) -> None:
    """Take ``node``, which was removed, out of what ``seen`` tells."""
    context.get(_SEEN, {}).pop(node, None)


def wait_ready(
    functions: Functions, node: str, deadline: float, version: str | None = None
) -> None:
    """
    Wait until ``node`` is Ready, with its kubelet at ``version`` if given.

    Raises CommandExecutionError with the last thing seen after ``deadline`` seconds.
    """
    end = time.monotonic() + deadline
    while True:
        try:
            facts = functions["kube_health.nodes"]().get(node)
            last = words(facts)
            right = version is None or bool(facts and facts["version"] == version)
            if facts and facts["ready"] and right:
                return
            if not right and facts:
                last = f"its kubelet reports {facts['version']}; {last}"
        except SaltException as error:
            last = str(error)
        if time.monotonic() >= end:
            wanted = f"Ready at {version}" if version else "Ready"
            raise CommandExecutionError(
                f"waited {deadline:g} s for {node} to be {wanted}; last seen: {last}"
            )
        time.sleep(PAUSE)


def words(facts: dict[str, Any] | None) -> str:
    """Say how a node is."""
    if facts is None:
        return "has not joined"
    return "; ".join(facts["conditions"]) or "Ready"
