"""The platform as a whole, from the operator's machine: plan, status, logs."""

from typing import Any

from salt.exceptions import SaltException

__salt__: dict[str, Any]
__utils__: dict[str, Any]

# What a change found by a plan makes of the exit code.
DIFFERS = 2


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
    Return machines (from the cloud), nodes and pods (from Kubernetes) and the page's tally.

    CLI Example:

    .. code-block:: bash

        salt-run platform.status
    """
    try:
        tally: Any = __salt__["proof.standing"]()
    except SaltException as error:
        tally = str(error)
    return {
        "tally": tally,
        "machines": __utils__["ec2.machines"](),
        "cluster": __salt__["master.run"]("k3s kubectl get nodes,pods -A -o wide").splitlines(),
    }


def logs(lines: int = 20) -> dict[str, Any]:
    """
    Return the last ``lines`` log lines of Salt, K3s and the app.

    CLI Example:

    .. code-block:: bash

        salt-run platform.logs lines=50
    """
    units = {unit: f"journalctl -o cat -n {lines} -u {unit}" for unit in ("salt-master", "k3s")}
    units["app"] = f"k3s kubectl -n f1 logs --tail {lines} -l app.kubernetes.io/name=vote"
    return {name: __salt__["master.run"](line).splitlines() for name, line in units.items()}
