"""The platform as a whole, from the operator's machine: plan, status, logs."""

import json
import re
import sys
import time
from typing import Any

import belongings
import knobs
import lock
import salt.output
import status as state
from salt.exceptions import SaltException

__opts__: dict[str, Any]
__salt__: dict[str, Any]
__utils__: dict[str, Any]

# What a change found by a plan makes of the exit code.
DIFFERS = 2

# What a master knows, without Salt's loader: salt/ext/utils/status.py.
STATUS = ["env", "PYTHONPATH=/opt/salt/lib", "PYTHONDONTWRITEBYTECODE=1", "/usr/bin/python3", "-s"]
STATUS += ["/srv/f1-vote/salt/ext/utils/status.py"]
STATUS_SECONDS = 15
# What ``platform.name`` may be (``knobs_check``), and nothing that a shell or Salt would read.
_NAME = re.compile(r"[a-z][a-z0-9-]*")


def plan() -> dict[str, Any]:
    """
    Walk ``orch.up`` without touching anything; exit code 2 if something differs, 1 on failure.

    CLI Example:

    .. code-block:: bash

        salt-run --out=summary platform.plan
    """
    data: dict[str, Any] = __salt__["state.orchestrate"]("orch.up", test=True)
    results = list(__utils__["results.walk"](data))
    # salt-run takes its exit code from here.
    if any(state["result"] is False for state in results):
        data["retcode"] = 1
    else:
        data["retcode"] = DIFFERS if any(state["changes"] for state in results) else 0
    return data


def down(confirm: str | None = None) -> dict[str, Any]:
    """
    Remove for good all that ``up`` made; say at the end what is still paid and what is not ours.

    ``confirm`` is the platform's name. Without it, at a terminal the plan is shown and the name
    asked for; elsewhere ``orch.down`` refuses, tells what it would remove and what to type
    (``CONFIRM=``). Exit code 1 if anything failed.

    CLI Example:

    .. code-block:: bash

        salt-run --out=summary platform.down confirm=f1
    """
    if not confirm and sys.stdin.isatty():
        plan = _removal(test=True)
        if plan["retcode"]:
            return plan
        salt.output.display_output(plan, "summary", __opts__)
        confirm = _asked("To remove all this for good, type the name of the platform: ")
    name = str(confirm or "")
    if name and not _NAME.fullmatch(name):
        return {"notes": [f"{name!r} is no platform's name"], "retcode": 1}
    data = _removal(pillar={"confirm": name})
    try:
        data["notes"] = belongings.left(knobs.load(__opts__)["platform"])
    except SaltException as error:
        data["notes"] = [f"what is left is not known: {error}"]
        data["retcode"] = 1
    return data


def _removal(**arguments: Any) -> dict[str, Any]:
    """Walk ``orch.down``; return its data, with the exit code."""
    data: dict[str, Any] = __salt__["state.orchestrate"]("orch.down", **arguments)
    is_failed = any(state["result"] is False for state in __utils__["results.walk"](data))
    data["retcode"] = 1 if is_failed else 0
    return data


def _asked(question: str) -> str:
    """Return what is typed; nothing if the terminal is closed."""
    try:
        return input(question).strip()
    except EOFError:
        return ""


def status() -> dict[str, Any]:
    """
    Return how the platform is: machines (asked of the cloud), nodes, app, votes, drift, backup,
    certificates, locks (asked of the master, once); ``wrong`` says what is not as it should be.

    Shown as a short text, whole with ``--out=json``; the exit code is 1 if something is wrong.
    What cannot be told is said to be so.

    CLI Example:

    .. code-block:: bash

        salt-run platform.status
        salt-run --out=json platform.status
    """
    pillar = knobs.load(__opts__)
    unknown: dict[str, str] = {}
    machines = facts = None
    try:
        machines = __utils__["ec2.machines"]()
    except SaltException as error:
        unknown["cloud"] = str(error)
    try:
        facts = json.loads(__salt__["master.run"](STATUS, seconds=STATUS_SECONDS))
    except (SaltException, ValueError) as error:
        unknown["master"] = str(error)
    version = pillar["versions"]["k3s"]["version"]
    data = state.judged(facts, machines, pillar["fleet"], version, time.time(), unknown)
    data["locks"] = {"operator": lock.show(knobs.state_dir() / "lock"), **data["locks"]}
    # Salt shows it with this outputter, unless another one is asked for.
    return {"outputter": "status", "data": {**data, "retcode": 1 if data["wrong"] else 0}}


def logs(lines: int = 20) -> dict[str, Any]:
    """
    Return the last ``lines`` log lines of Salt, K3s, what repairs drift, and the app.

    CLI Example:

    .. code-block:: bash

        salt-run platform.logs lines=50
    """
    names = ("salt-master", "k3s", "f1-heal")
    units = {unit: f"journalctl -o cat -n {lines} -u {unit}" for unit in names}
    units["app"] = f"k3s kubectl -n f1 logs --tail {lines} -l app.kubernetes.io/name=vote"
    return {name: __salt__["master.run"](line).splitlines() for name, line in units.items()}
