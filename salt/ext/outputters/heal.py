"""
What the scheduled highstate did, as its journal keeps it: one line a change, one a failure.

What ``salt-run heal.run`` shows; the same with ``--out=json`` for a program.
"""

from typing import Any


def output(data: Any, **kwargs: Any) -> str:
    """Return the text for ``data``, the return of ``heal.run`` (or anything else)."""
    if not isinstance(data, dict) or not {"skipped", "repaired"} & set(data):
        return str(data)
    if "skipped" in data:
        return f"not now: {data['skipped']['why']}"
    lines = [f"repaired {line}" for line in data["repaired"]]
    lines += [f"FAILED {line}" for line in data["failed"]]
    counts = f"{len(data['repaired'])} repaired, {len(data['failed'])} failed"
    return "\n".join([*lines, f"{counts}, {data['seconds']} s"])
