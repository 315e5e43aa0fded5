"""
All minions of the fleet at once, from an orchestration on their master; and those that leave it.

``salt.function`` would report every return as a change; these tell what really changed.
"""

import re
import time
from functools import partial
from typing import Any

import jobs
import members
import nodes
import salt.utils.state
from salt.exceptions import SaltException
from steps import Steps, failed, guarded

Result = dict[str, Any]

__opts__: dict[str, Any]
__salt__: dict[str, Any]
__utils__: dict[str, Any]
__context__: dict[str, Any]

ANSWER_SECONDS = 15
# A minion that is not connected when it is asked never hears it: ask again soon.
PING_SECONDS = 2
# One that leaves may be dead already.
LAST_SECONDS = 5


def ready(name: str, minions: list[str], deadline: float = 120) -> Result:
    """
    Every one of ``minions`` answers and has the modules and states of this tree, within
    ``deadline`` seconds. On expiry it names those that did not answer.

    With ``test=True`` they are only asked to answer.
    """
    end = time.monotonic() + deadline
    silent = list(minions)
    while silent:
        silent = [m for m in silent if m not in _ask(silent, ["test.ping"], seconds=PING_SECONDS)]
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


@guarded
def highstate(name: str, minions: list[str], deadline: float = 900) -> Result:
    """
    Run the highstate on all ``minions`` at once; its results are this state's changes.

    It fails if any minion did not answer, and names each that failed and why; for one whose node
    is not Ready, also what its K3s logged last. Machines that joined under the name of another are
    told to ``kube.nodes_pruned`` by the pillar's ``machines`` (machine ids by name).
    """
    outcome = jobs.states(
        __opts__, minions, pillar={"machines": _replaced(minions)}, deadline=deadline
    )
    wrong = {
        minion: jobs.faults(value)
        for minion, value in outcome.returned.items()
        if not salt.utils.state.check_result(value, recurse=True)
    }
    changed = {m: value for m, value in outcome.returned.items() if m in wrong or _changed(value)}
    changes = {"ret": changed} if changed else {}
    if outcome.failed or wrong:
        lines = [f"{minion}: {why}" for minion, why in sorted(outcome.failed.items())]
        lines += [f"{minion}: {fault}" for minion in sorted(wrong) for fault in wrong[minion]]
        lines += _never_joined(minions)
        return _result(name, False, changes, "\n".join(lines))
    comment = f"{len(outcome.returned)} machines, {len(changed)} changed"
    return _result(name, None if __opts__["test"] and changed else True, changes, comment)


@guarded
def shrunk(
    name: str,
    master: str,
    workers: list[str],
    deadline: float = 120,
    dead_deadline: float = 20,
) -> Result:
    """
    Nothing is left of a machine named as ours are (``<platform>-worker-<number>``) that is none of
    ``workers``: its node, its key, its mine data, what the master cached of it.

    The node is emptied first, PodDisruptionBudgets respected, within ``deadline`` seconds; then it
    stays cordoned, the comment says which pods are held by what, and another run goes on. The
    pods of a node that is not Ready are waited for ``dead_deadline`` seconds only, and said to be
    left. The machine itself is the operator's to terminate, once this is true.
    """
    kept = members.known(__opts__)
    try:
        found = nodes.seen(__context__, __salt__)
        unknown = None
    except SaltException as error:
        found, unknown = {}, error
    surplus = _surplus(set(found).union(*kept.values()), master, workers)
    if not surplus:
        return _result(name, True, {}, f"no machine besides {len(workers)} workers is known")
    if unknown:
        return failed(name, unknown)
    # How they are now, not at the beginning of this orchestration.
    found = __salt__["kube_health.nodes"]() if found else {}
    leaving = [machine for machine in surplus if machine in found]
    notes: list[str] = []
    steps = Steps(name, bool(__opts__["test"]))
    for machine in leaving:
        state = "Ready" if found[machine]["ready"] else "not Ready"
        limit = deadline if found[machine]["ready"] else dead_deadline
        act = partial(_removed, machine, found[machine]["ready"], limit, notes)
        steps.differs(f"Node {machine}", state, None, act)
    for kind, held in kept.items():
        for machine in surplus:
            if machine in held:
                forget = partial(_forgotten, kind, machine, held[machine])
                steps.differs(f"{kind} of {machine}", held[machine], None, forget)
    if not steps.test:
        for machine in leaving:
            # All of them before the first is emptied: no pod moves from one to the next.
            __salt__["node.cordon"](machine)
    result = steps.finish("")
    return {**result, "comment": "\n".join([result["comment"], *notes])}


def accounted(
    name: str, master: str, workers: list[str], machines: list[str] | None = None
) -> Result:
    """
    Say which keys, mine data and nodes belong to nothing; nobody but a person removes those.

    ``machines``: the names of the cloud's living machines, if the operator told them.
    """
    kept = members.known(__opts__)
    try:
        found = list(nodes.seen(__context__, __salt__))
    except SaltException:
        found = []
    # `shrunk` speaks of those.
    surplus = _surplus(set(found).union(*kept.values()), master, workers)
    kept = {
        kind: {m: state for m, state in held.items() if m not in surplus}
        for kind, held in kept.items()
    }
    found = [node for node in found if node not in surplus]
    lines = members.orphans(kept, [master, *workers], found, machines)
    if lines:
        # Seen by whoever runs this: a state without changes is not drawn at the end.
        __utils__["events.begin"]("orphans", "; ".join(lines))
    return _result(name, True, {}, "\n".join(lines) or "everything belongs to a machine")


def _surplus(everybody: set[str], master: str, workers: list[str]) -> list[str]:
    """Return those of ``everybody`` that are named as our workers are and are none."""
    pattern = re.compile(rf"{re.escape(master.removesuffix('-master'))}-worker-\d+")
    return [m for m in sorted(everybody - set(workers)) if pattern.fullmatch(m)]


def _replaced(minions: list[str]) -> dict[str, str]:
    """Return the machine ids of the minions whose node joined from another machine."""
    try:
        found = nodes.seen(__context__, __salt__)
    except SaltException:
        # It is down, which the highstate puts right: what it knows then is compared then.
        found = None
    answers = _ask(minions, ["grains.get"], [["machine_id"]])
    ids = {minion: str(answer["grains.get"]) for minion, answer in answers.items()}
    if found is None:
        return ids
    return {m: its for m, its in ids.items() if m in found and found[m]["machine"] != its}


def _changed(value: dict[str, Any]) -> bool:
    return any(isinstance(state, dict) and state.get("changes") for state in value.values())


def _never_joined(minions: list[str]) -> list[str]:
    """Return for each minion whose node is not Ready what K3s logged there last."""
    try:
        found = __salt__["kube_health.nodes"]() if __salt__["kubectl.available"]() else {}
    except SaltException as error:
        return [f"the cluster does not answer: {error}"]
    late = [minion for minion in minions if not found.get(minion, {}).get("ready")]
    if not late:
        return []
    answers = _ask(late, ["k3s.journal"])
    return [
        f"{minion}: node {nodes.words(found.get(minion))}; its K3s logged last:\n"
        + str(answers.get(minion, {}).get("k3s.journal", "(its minion does not answer)"))
        for minion in late
    ]


def _removed(machine: str, alive: bool, deadline: float, notes: list[str]) -> None:
    """Empty and delete the node; ``notes`` gets what was left undone for a dead one."""
    try:
        __salt__["node.drain"](machine, deadline)
    except SaltException as error:
        if alive:
            raise
        notes.append(f"{machine} is not Ready: its node was removed all the same. {error}")
    # Or a restart of its agent would bring the node back.
    _ask([machine], ["service.disable", "service.stop"], [["k3s-agent"]] * 2, LAST_SECONDS)
    __salt__["kube_health.node_remove"](machine)
    nodes.forget(__context__, machine)


def _forgotten(kind: str, machine: str, state: str) -> None:
    if kind == "key" and state == "accepted":
        # Or it would ask for a new key until its machine is terminated. It cannot answer that.
        _ask([machine], ["service.disable"], [["salt-minion"]], LAST_SECONDS)
        _ask([machine], ["service.stop"], [["salt-minion", "no_block=True"]], PING_SECONDS)
    members.forget(__opts__, kind, machine)


def _ask(
    minions: list[str],
    functions: list[str],
    arguments: list[list[Any]] | None = None,
    seconds: float = ANSWER_SECONDS,
) -> dict[str, Any]:
    return jobs.ask(__salt__["saltutil.cmd"], minions, functions, arguments, seconds)


def _result(name: str, result: bool | None, changes: dict[str, Any], comment: str) -> Result:
    return {"name": name, "result": result, "changes": changes, "comment": comment}
