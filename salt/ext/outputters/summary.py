"""
The end of an orchestration as a person wants it: what changed, what failed and why.

Used as ``salt-run --out=summary state.orchestrate …``; the whole data stays available with
``--out=json``.
"""

from collections.abc import Iterator
from typing import Any

__virtualname__ = "summary"


def __virtual__() -> str:
    return __virtualname__


def output(data: Any, **kwargs: Any) -> str:
    """Return the text for ``data``, the return of ``state.orchestrate`` (or anything else)."""
    states = list(walk(data))
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
    return "\n".join(lines)


def walk(data: Any) -> Iterator[dict[str, Any]]:
    """
    Yield every state result in ``data`` as ``{id, result, changes, comment}``, those of nested
    orchestrations and of minions instead of the state that carries them.
    """
    if not isinstance(data, dict):
        return
    for key, value in data.items():
        if not isinstance(value, dict):
            continue
        if "result" in value and "changes" in value and "_|-" in str(key):
            inner = list(walk(value["changes"]))
            yield from inner
            if not inner or value["result"] is False:
                yield {
                    "id": str(value.get("__id__") or key.split("_|-")[1]),
                    "result": value["result"],
                    "changes": {} if inner else value["changes"],
                    "comment": str(value.get("comment") or "").strip(),
                }
        else:
            yield from walk(value)


def _changes(changes: Any) -> str:
    if isinstance(changes, dict):
        return ", ".join(str(key) for key in changes) or "changed"
    return str(changes)
