"""The cluster against the CIS Kubernetes Benchmark, from the operator's machine."""

import json
from typing import Any

import knobs
import ssh
from salt.exceptions import SaltException

__opts__: dict[str, Any]
__salt__: dict[str, Any]

Found = dict[str, str]

# A minion's, and that of the whole question.
SECONDS = 90
# From the best to the worst: a number is as good as its worst machine.
STATUS = ("n/a", "pass", "accepted", "fail")


def cluster() -> dict[str, Any]:
    """
    Run every check of ``cis.check`` on every machine, through their master.

    Returns ``{"checks": [{"id", "title", "status", "evidence", "machines": {name: status}}],
    "counts": {status: n}}``; the exit code is 1 if one fails. Raises SaltException if a machine
    could not be asked: what was not looked at has not passed.

    CLI Example:

    .. code-block:: bash

        salt-run --out=audit audit.cluster
        salt-run --out=json audit.cluster
    """
    fleet = knobs.load(__opts__)["fleet"]
    machines = [fleet["master"], *fleet["workers"]]
    found = _asked(machines)
    silent = [f"{name}: {_why(found.get(name))}" for name in machines if not _told(found.get(name))]
    if silent:
        raise SaltException("\n".join(["not every machine could be looked at:", *silent]))
    # The server's list is the whole table.
    checks = [_together(each, machines, found) for each in found[fleet["master"]]]
    counts = {status: sum(each["status"] == status for each in checks) for status in STATUS}
    return {"checks": checks, "counts": counts, "retcode": 1 if counts["fail"] else 0}


def _asked(machines: list[str]) -> dict[str, Any]:
    words = ["/opt/salt/bin/salt", "--out=json", "--static", "--log-level=quiet"]
    words += [f"--timeout={SECONDS}", "-L", ",".join(machines), "cis.check"]
    try:
        said = __salt__["master.run"](words, seconds=SECONDS + 30)
    except ssh.CommandFailed as error:
        # A minion that fails makes `salt` fail; what it says then is all the same its answer.
        if "{" not in error.stdout:
            raise
        said = error.stdout
    try:
        return dict(json.loads(said[said.index("{") :]))
    except ValueError:
        raise SaltException(f"the master's salt did not answer in JSON: {said[-500:]}") from None


def _told(answer: Any) -> bool:
    return isinstance(answer, list) and bool(answer)


def _why(answer: Any) -> str:
    if answer in (None, False):
        return "no answer; `make status` tells how it is"
    if "is not available" in str(answer):
        return f"{answer} `make up` gives it this tree."
    return str(answer)


def _together(check: Found, machines: list[str], found: dict[str, list[Found]]) -> dict[str, Any]:
    """Return one number's verdict over all machines that have it."""
    told = {name: each for name in machines for each in found[name] if each["id"] == check["id"]}
    worst = max(told, key=lambda name: STATUS.index(told[name]["status"]))
    evidence = told[worst]["evidence"]
    return {
        "id": check["id"],
        "title": check["title"],
        "status": told[worst]["status"],
        "evidence": evidence if len(told) == 1 else f"{worst}: {evidence}",
        "machines": {name: each["status"] for name, each in told.items()},
    }
