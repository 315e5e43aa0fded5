"""
An audit as a person reads it: number, verdict, title, evidence; what failed once more at the end.

Used as ``salt-run --out=audit audit.cluster``; the same with ``--out=json`` for a program.
"""

from typing import Any


def output(data: Any, **kwargs: Any) -> str:
    """Return the text for ``data``, the return of ``audit.cluster`` (or anything else)."""
    if not isinstance(data, dict) or "checks" not in data:
        return str(data)
    lines = [_line(each) for each in data["checks"]]
    counts = ", ".join(f"{number} {status}" for status, number in data["counts"].items() if number)
    failed = [_line(each) for each in data["checks"] if each["status"] == "fail"]
    return "\n".join([*lines, f"  {len(lines)} checks: {counts}", *failed])


def _line(check: dict[str, Any]) -> str:
    return f"  {check['id']:<7} {check['status']:<9} {check['title']}: {check['evidence']}"
