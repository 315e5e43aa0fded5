"""
What the Salt master keeps of its minions: keys, mine data, cached grains and pillars.

Read and removed where they lie, in the process of the master's own orchestration.
"""

from typing import Any

import salt.cache
import salt.key

# Kind → bank of Salt's cache. (A pillar's key may carry its environment: ``minion:env``.)
BANKS = {"mine data": "mine", "grains": "grains", "pillar": "pillar"}
_STATES = {
    "minions": "accepted",
    "minions_pre": "pending",
    "minions_rejected": "rejected",
    "minions_denied": "denied",
}


def known(opts: dict[str, Any]) -> dict[str, dict[str, str]]:
    """Return ``{"key": {minion: state}, "mine data": {minion: "kept"}, "grains": …}``."""
    keys = salt.key.Key(opts).list_keys()
    cache = salt.cache.factory(opts)
    found = {
        kind: {entry.partition(":")[0]: "kept" for entry in cache.list(bank)}
        for kind, bank in BANKS.items()
    }
    states = {minion: state for name, state in _STATES.items() for minion in keys[name]}
    return {"key": states, **found}


def forget(opts: dict[str, Any], kind: str, minion: str) -> None:
    """Remove what the master keeps of that kind (a key of ``known``) of ``minion``."""
    if kind == "key":
        with salt.key.Key(opts) as keys:
            held = {name: [minion] for name, ids in keys.list_keys().items() if minion in ids}
            # The master's session key changes with it: the minion can neither hear nor speak.
            keys.delete_key(match_dict=held)
        return
    cache = salt.cache.factory(opts)
    for entry in cache.list(BANKS[kind]):
        if entry.partition(":")[0] == minion:
            cache.flush(BANKS[kind], entry)


def orphans(
    found: dict[str, dict[str, str]],
    minions: list[str],
    nodes: list[str],
    machines: list[str] | None,
) -> list[str]:
    """
    Return one line for each key, mine data or node that belongs to nothing.

    ``found``: as ``known`` gives it; ``machines``: those that live, if anybody told.
    """
    keys = found["key"]
    lines = []
    for minion, state in sorted(keys.items()):
        if minion not in minions:
            why = f"its {state} key is of no machine of platform.workers"
            lines.append(f"{minion}: {why}; `salt-key -d {minion}` removes it")
        elif machines is not None and minion not in machines:
            lines.append(f"{minion}: has a key and no machine; the next `up` makes it again")
    lines += [
        f"{minion}: has mine data and no key; `salt-run cache.clear_mine tgt={minion}` removes it"
        for minion in sorted(found["mine data"])
        if minion not in keys
    ]
    lines += [
        f"{node}: is a node and has no minion; `k3s kubectl delete node {node}` removes it"
        for node in sorted(nodes)
        if keys.get(node) != "accepted"
    ]
    return lines
