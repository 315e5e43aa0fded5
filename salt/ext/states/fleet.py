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
# A minion that is not connected when it is asked never hears it: ask again soon.
PING_SECONDS = 2


def ready(name: str, minions: list[str], deadline: float = 120) -> Result:
    """
    Every one of ``minions`` answers and has the modules and states of this tree, within
    ``deadline`` seconds. On expiry it names those that did not answer.

    With ``test=True`` they are only asked to answer.
    """
    end = time.monotonic() + deadline
    silent = list(minions)
    while silent:
        silent = [m for m in silent if m not in _ask(silent, ["test.ping"], PING_SECONDS)]
        if silent and time.monotonic() >= end:
            comment = (
                f"waited {deadline:g} s for minions to answer; silent: {', '.join(silent)}. "
                f"`salt-key -L` tells whether their keys are accepted, /var/log/f1-first-boot.log "
                f"and `journalctl -u salt-minion` there why they do not come."
            )
            return _result(name, False, {}, comment)
    if __opts__["test"]:
        return _result(name, True, {}, f"{len(minions)} minions answer")
    answers = _ask(minions, ["saltutil.sync_modules", "saltutil.sync_states"])
    faults = [
        f"{minion}: {answers.get(minion, f'did not synchronise in {ANSWER_SECONDS} s')}"
        for minion in minions
        if not isinstance(answers.get(minion), dict)
    ]
    changes = {
        minion: synced
        for minion, answer in answers.items()
        if isinstance(answer, dict)
        and (synced := [one for each in answer.values() if isinstance(each, list) for one in each])
    }
    if faults:
        return _result(name, False, changes, "\n".join(faults))
    return _result(name, True, changes, f"{len(minions)} minions answer")


def highstate(name: str, minions: list[str], deadline: float = 300) -> Result:
    """
    Run the highstate on all ``minions`` at once; its results are this state's changes.

    The machine id of each is given along as the pillar's ``machines``: that is how
    ``kube.nodes_pruned`` knows a machine that was replaced under the same name.
    """
    # A state run that is still under way, of an `up` that was interrupted, is waited for. (Salt's
    # `queue` would lose sight of a job that waits, and report it as not returned.)
    end = time.monotonic() + deadline
    questions = {"grains.get": ["machine_id"], "state.running": []}
    while True:
        answers = _ask(minions, list(questions), arguments=list(questions.values()))
        busy = {minion: a["state.running"] for minion, a in answers.items() if a["state.running"]}
        if not busy:
            break
        if time.monotonic() >= end:
            return _result(name, False, {}, f"waited {deadline:g} s for other state runs: {busy}")
        time.sleep(1)
    machines = {minion: str(answer["grains.get"]) for minion, answer in answers.items()}
    run: Result = __states__["salt.state"](  # noqa: F821 - from the loader, as __salt__
        name,
        tgt=minions,
        tgt_type="list",
        highstate=True,
        pillar={"machines": machines},
    )
    return run


def _ask(
    minions: list[str],
    functions: list[str],
    seconds: int = ANSWER_SECONDS,
    arguments: list[list[str]] | None = None,
) -> dict[str, Any]:
    """Return what each minion that answered within ``seconds`` returned, by function."""
    said = __salt__["saltutil.cmd"](
        minions,
        functions,
        arg=arguments or [[] for _ in functions],
        tgt_type="list",
        timeout=seconds,
        gather_job_timeout=seconds,
    )
    return {minion: told["ret"] for minion, told in said.items() if "ret" in told}


def _result(name: str, result: bool | None, changes: dict[str, Any], comment: str) -> Result:
    return {"name": name, "result": result, "changes": changes, "comment": comment}
