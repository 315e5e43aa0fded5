"""
The locks of orchestrations: this machine's own, and, from the operator's, the master's as well.

Who is refused by one is told who holds it; `break` is for one whose process is gone.
"""

import json
from pathlib import Path
from typing import Any

import knobs
import lock
from salt.exceptions import SaltException

__func_alias__ = {"break_": "break"}
__salt__: dict[str, Any]

MASTER_SECONDS = 20
_SALT_RUN = ["/opt/salt/bin/salt-run", "--out=json", "--log-level=quiet"]


def show() -> dict[str, Any]:
    """
    Return the locks that are held, by place: ``{what, who, since, pid, held, alive}``.

    A record whose ``held`` is false is of an operation that has ended or was killed.

    CLI Example:

    .. code-block:: bash

        salt-run lock.show
    """
    found: dict[str, Any] = {str(path): lock.show(path) for path in _here()}
    if _operator():
        try:
            found |= _on_master("lock.show")
        except (SaltException, ValueError) as error:
            found["master"] = f"does not tell: {error}"
    return {place: each for place, each in found.items() if each}


def break_(what: str) -> dict[str, Any]:
    """
    Break the lock of the operation ``what`` (its name as `lock.show` tells it): ``{"comment"}``
    says what was done, or why nothing was: its process lives, or nothing is locked by that name.
    The exit code is 1 then.

    CLI Example:

    .. code-block:: bash

        salt-run lock.break orch.up
    """
    try:
        for path in _here():
            found = lock.show(path)
            if found and found["what"] == what:
                return {"comment": f"{path}: {lock.broken(path, what)}", "retcode": 0}
        if _operator():
            return _on_master("lock.break", what)
    except (SaltException, ValueError) as error:
        return {"comment": str(error), "retcode": 1}
    why = f"nothing is locked as {what}; `salt-run lock.show` tells what is"
    return {"comment": why, "retcode": 1}


def _here() -> list[Path]:
    return [path for path in (knobs.state_dir() / "lock", lock.MASTER) if path.exists()]


def _operator() -> bool:
    """Say whether this machine knows a master to reach."""
    return (knobs.state_dir() / "ssh" / "config").exists()


def _on_master(*words: str) -> dict[str, Any]:
    """Return what this runner's function says there. Raises SaltException or ValueError."""
    try:
        said = __salt__["master.run"]([*_SALT_RUN, *words], seconds=MASTER_SECONDS)
    except SaltException as error:
        # An exit code that is not 0 comes with an answer all the same (utils/ssh.py).
        said = getattr(error, "stdout", "")
        if "{" not in said:
            raise
    return dict(json.loads(said[said.index("{") :]))
