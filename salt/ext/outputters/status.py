"""
The status of the platform as a person reads it: what is wrong first, then one line a part.

What ``salt-run platform.status`` shows; the same with ``--out=json`` for a program.
"""

from typing import Any

LATER = "monitoring and mail: not yet"

# What a line shows → how the part is called that tells it, where that differs.
_ASKED = {"drift": "heal"}


def output(data: Any, **kwargs: Any) -> str:
    """Return the text for ``data``, the return of ``platform.status`` (or anything else)."""
    if not isinstance(data, dict) or "wrong" not in data:
        return str(data)
    lines = [f"  ✗ {reason}" for reason in data["wrong"]] or ["  ✓ everything is as it should be"]
    parts = {
        "machines": _machines(data["machines"]),
        "nodes": _nodes(data["nodes"]),
        "app": _app(data["app"]),
        "tally": _tally(data["tally"]),
        "drift": _drift(data["drift"]),
        "backup": _backup(data["backup"]),
        "certificates": _certificate(data["certificate"]),
        "locks": _locks(data["locks"]),
    }
    for name, part in parts.items():
        # Why nothing answers at all is said above, once.
        why = data["missing"].get(_ASKED.get(name, name), "not known")
        lines.append(f"  {name:<13} {part or why}")
    return "\n".join([*lines, f"  {'later':<13} {LATER}"])


def _machines(machines: dict[str, Any] | None) -> str:
    told = [
        f"{name} {each['state']} {each['size']} {(each['public_ips'] or each['private_ips'])[0]}"
        if each["public_ips"] or each["private_ips"]
        else f"{name} {each['state']} {each['size']}"
        for name, each in sorted((machines or {}).items())
    ]
    return ", ".join(told)


def _nodes(nodes: dict[str, Any] | None) -> str:
    return ", ".join(
        f"{name} {each['version']} {'Ready' if each['ready'] else 'NOT READY'}"
        + (" cordoned" if each["cordoned"] else "")
        for name, each in sorted((nodes or {}).items())
    )


def _app(app: dict[str, Any] | None) -> str:
    return ", ".join(
        f"{name} {each['ready']}/{each['wanted']} {each['image'].partition('@')[2][:19]}"
        for name, each in sorted((app or {}).items())
    )


def _tally(tally: dict[str, Any] | None) -> str:
    if tally is None:
        return ""
    most = sorted(tally["votes"].items(), key=lambda each: (-each[1], each[0]))[:3]
    first = f"; most: {', '.join(f'{code} {n}' for code, n in most)}" if most else ""
    return f"{tally['voters']} voters, {'BROKEN' if tally['broken'] else 'invariant holds'}{first}"


def _drift(heal: dict[str, Any] | None) -> str:
    if heal is None:
        return ""
    if heal.get("ok") is None:
        return f"not looked for yet: {heal.get('skipped', {}).get('why', 'unknown')}"
    repaired = len(heal.get("repaired", []))
    what = "failed" if not heal["ok"] else f"{repaired} repaired" if repaired else "none"
    later = f"; skipped since: {heal['skipped']['why']}" if heal.get("skipped") else ""
    return f"{what}, {_ago(heal['age'])}{later}"


def _backup(backup: dict[str, Any] | None) -> str:
    if backup is None:
        return ""
    return f"{'good' if backup.get('ok') else 'FAILED'}, {_ago(backup['age'])}"


def _certificate(certificate: dict[str, Any] | None) -> str:
    return f"{certificate['name']} ends first, in {certificate['days']} days" if certificate else ""


def _locks(locks: dict[str, Any]) -> str:
    held = [
        f"{place}: {each['what'] or 'something'} by {each['who'] or 'somebody'}, process "
        f"{each['pid']}"
        for place, each in locks.items()
        if each and each["held"]
    ]
    return ", ".join(held) or "none held"


def _ago(seconds: int) -> str:
    for size, name in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds // size} {name} ago"
    return f"{seconds} s ago"
