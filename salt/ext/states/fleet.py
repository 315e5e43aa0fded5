"""
All minions of the fleet at once, from an orchestration on their master.

``salt.function`` would report every return as a change; these tell what really changed.
"""

import time
from typing import Any

Result = dict[str, Any]

__opts__: dict[str, Any]
__salt__: dict[str, Any]
__states__: dict[str, Any]

ANSWER_SECONDS = 15


def ready(name: str, minions: list[str], deadline: float = 120) -> Result:
    """
    Every one of ``minions`` answers and has the modules and states of this tree, within
    ``deadline`` seconds. On expiry it names those that did not answer.

    With ``test=True`` they are only asked to answer.
    """
    end = time.monotonic() + deadline
    silent = list(minions)
    changes: dict[str, Any] = {}
    functions = ["saltutil.sync_modules", "saltutil.sync_states"]
    if __opts__["test"]:
        functions = ["test.ping"]
    while True:
        answers = _ask(silent, functions, [[] for _ in functions])
        for minion, answer in answers.items():
            if not isinstance(answer, dict):
                return _result(name, False, changes, f"{minion}: {answer}")
            synced = [one for each in answer.values() if isinstance(each, list) for one in each]
            if synced:
                changes[minion] = synced
        silent = [minion for minion in silent if minion not in answers]
        if not silent:
            return _result(name, True, changes, f"{len(minions)} minions answer")
        if time.monotonic() >= end:
            comment = (
                f"waited {deadline:g} s for minions to answer; silent: {', '.join(silent)}. "
                f"`salt-key -L` tells whether their keys are accepted, /var/log/f1-first-boot.log "
                f"and `journalctl -u salt-minion` there why they do not come."
            )
            return _result(name, False, changes, comment)


def highstate(name: str, minions: list[str]) -> Result:
    """
    Run the highstate on all ``minions`` at once; its results are this state's changes.

    The machine id of each is given along as the pillar's ``machines``: that is how
    ``kube.nodes_pruned`` knows a machine that was replaced under the same name.
    """
    answers = _ask(minions, ["grains.get"], [["machine_id"]])
    machines = {minion: str(answer["grains.get"]) for minion, answer in answers.items()}
    run: Result = __states__["salt.state"](  # noqa: F821 - from the loader, as __salt__
        name, tgt=minions, tgt_type="list", highstate=True, pillar={"machines": machines}
    )
    return run


def _ask(minions: list[str], functions: list[str], arguments: list[list[str]]) -> dict[str, Any]:
    """Return what each minion that answered returned, by function."""
    said = __salt__["saltutil.cmd"](
        minions, functions, arg=arguments, tgt_type="list", timeout=ANSWER_SECONDS
    )
    return {minion: told["ret"] for minion, told in said.items() if "ret" in told}


def _result(name: str, result: bool | None, changes: dict[str, Any], comment: str) -> Result:
    return {"name": name, "result": result, "changes": changes, "comment": comment}
