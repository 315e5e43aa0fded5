"""
The end of an orchestration as a person wants it: what changed, what failed and why.

Used as ``salt-run --out=summary state.orchestrate …``; the whole data stays available with
``--out=json``.
"""

import logging
from typing import Any

import salt.loader

__opts__: dict[str, Any]


def output(data: Any, **kwargs: Any) -> str:
    """
    Return the text for ``data``, the return of ``state.orchestrate`` (or anything else).

    The lines under ``notes``, which a runner may add, come last.
    """
    # Salt 3008.3 loads its returners once more while Python shuts down and logs a trace of that,
    # with no handler left to take it: nothing that comes after this text is worth showing.
    logging.lastResort = logging.NullHandler()
    states = list(salt.loader.utils(__opts__)["results.walk"](data))
    notes = data.get("notes", []) if isinstance(data, dict) else []
    if not states and notes:
        return "\n".join(notes)
    if not states:
        return data if isinstance(data, str) else repr(data)
    failed = [s for s in states if s["result"] is False]
    changed = [s for s in states if s["changes"]]
    lines = [f"  · {s['id']}: {_changes(s['changes'])}" for s in changed]
    # A state that was skipped because another failed tells nothing new.
    lines += [
        f"  ✗ {s['id']}: {s['comment']}"
        for s in failed
        if not s["comment"].startswith("One or more requisite failed")
    ]
    would = any(s["result"] is None for s in states)
    verb = "would change" if would else "changed"
    lines.append(f"  {len(states)} states, {len(changed)} {verb}, {len(failed)} failed")
    return "\n".join([*lines, *notes])


def _changes(changes: Any) -> str:
    if isinstance(changes, dict):
        return ", ".join(str(key) for key in changes) or "changed"
    return str(changes)
