"""
What the master's timer runs: the highstate of all machines, which repairs what drifted.

It is `cluster.highstate`, as in `orch.cluster`, and what it repaired is written down: one line a
change into the journal (outputter `heal`), all of it into ``/var/lib/f1/heal/last.json``, numbers
into ``/var/lib/f1/metrics/heal.prom`` (the text format of Prometheus, for its node exporter).
"""

import json
import subprocess
import time
from pathlib import Path
from typing import Any

import knobs
import lock
import records
import results
import server_restore
import status
from salt.exceptions import SaltException

__opts__: dict[str, Any]
__salt__: dict[str, Any]

Record = dict[str, Any]

STATE = Path("/var/lib/f1")
K3S = "/usr/local/bin/k3s"
# The name under which it holds the lock; orchestrations wait for that one (states/road.py).
NAME = "heal"
SLS = "cluster.highstate"


def run() -> dict[str, Any]:
    """
    Repair what drifted, unless an orchestration is under way or an upgrade is due: only a person
    starts one. Exit code 1 if something could not be repaired.

    Returns ``{"at", "ok", "repaired": [line], "failed": [line], "seconds"}``, or what it was before
    with ``skipped``: ``{"at", "why"}``.

    CLI Example:

    .. code-block:: bash

        salt-run heal.run
    """
    before = _read()
    began = time.monotonic()
    repaired: list[str] = []
    try:
        lock.hold(STATE / "lock", NAME, who="the timer")
        if why := _against(str(knobs.load(__opts__)["versions"]["k3s"]["version"])):
            return _skipped(before, why)
        repaired, failed = _told(__salt__["state.orchestrate"](SLS))
    except lock.Held as held:
        return _skipped(before, str(held))
    except SaltException as error:
        failed = [str(error)]
    now = int(time.time())
    record = {
        "at": now,
        "ok": not failed,
        "repaired": repaired,
        "failed": failed,
        "seconds": round(time.monotonic() - began, 1),
        "succeeded": before.get("succeeded", 0) if failed else now,
        "repaired_total": before.get("repaired_total", 0) + len(repaired),
    }
    _write(record)
    return {"outputter": "heal", "data": {**record, "retcode": 1 if failed else 0}}


def _skipped(before: Record, why: str) -> dict[str, Any]:
    record = {**before, "skipped": {"at": int(time.time()), "why": why}}
    _write(record)
    return {"outputter": "heal", "data": {**record, "retcode": 0}}


def _against(version: str) -> str:
    """Return why a highstate of all machines at once must not run now; empty if it may."""
    if why := server_restore.unfinished():
        return why
    if (STATE / "upgrade.json").exists():
        return "an upgrade did not end; `make up` goes on with it"
    nodes = status.here().get("nodes")
    if nodes is None:
        # The cluster is down, which the highstate repairs, if it is of this version.
        found = {"K3s here": _installed()}
    else:
        found = {name: node["version"] for name, node in nodes.items()}
    if not any(found.values()):
        return "there is no cluster yet; `make up` makes it"
    others = [f"{name} {its}" for name, its in found.items() if its != version]
    if others:
        return f"K3s is to be {version}, and is not: {', '.join(others)}; `make up` upgrades it"
    return ""


def _installed() -> str:
    """Return the version of the K3s on this machine; empty if there is none."""
    try:
        done = subprocess.run(
            [K3S, "--version"], capture_output=True, text=True, timeout=30, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return next(iter(done.stdout.removeprefix("k3s version ").split()), "")


def _told(data: dict[str, Any]) -> tuple[list[str], list[str]]:
    """Return what an orchestration repaired and what failed: one line each, by machine."""
    repaired: list[str] = []
    failed: list[str] = []
    states = [
        state
        for states in data["data"].values()
        if isinstance(states, dict)
        for state in states.values()
        if isinstance(state, dict) and "result" in state
    ]
    if not states:
        return [], [f"{SLS}: {json.dumps(data['data'])[:1000]}"]
    for state in states:
        for minion, value in (state.get("changes") or {}).get("ret", {}).items():
            # What failed may have changed something all the same.
            repaired += [
                f"{minion}: {one['id']} ({', '.join(map(str, one['changes']))})"
                for one in results.walk(value)
                if one["changes"] and one["result"] is not False
            ]
        if state["result"] is False:
            failed += [line for line in str(state["comment"]).splitlines() if line.strip()]
    return repaired, failed


def _read() -> Record:
    return records.read(STATE / "heal" / "last.json") or {}


def _write(record: Record) -> None:
    last, prom = STATE / "heal" / "last.json", STATE / "metrics" / "heal.prom"
    records.write(last, json.dumps(record, indent=1) + "\n")
    lines = []
    for name, kind, text, value in (
        (
            "f1_heal_last_success_timestamp_seconds",
            "gauge",
            "When the scheduled highstate last ended without a failure, in Unix seconds.",
            record.get("succeeded", 0),
        ),
        (
            "f1_heal_repaired_total",
            "counter",
            "States that the scheduled highstate put right.",
            record.get("repaired_total", 0),
        ),
        (
            "f1_heal_failed_states",
            "gauge",
            "What the last scheduled highstate could not put right.",
            len(record.get("failed", [])),
        ),
    ):
        lines += [f"# HELP {name} {text}", f"# TYPE {name} {kind}", f"{name} {value}"]
    records.write(prom, "\n".join(lines) + "\n")
