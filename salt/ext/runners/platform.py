"""The platform as a whole, from the operator's machine: plan, status, logs."""

import json
import time
from typing import Any

import knobs
import lock
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
