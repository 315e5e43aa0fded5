"""The first stage of ``up``: all that can be known to be wrong before anything is touched."""

import shutil
from typing import Any

from salt.exceptions import SaltException

__utils__: dict[str, Any]

# Program → what gives it.
PROGRAMS = {"ssh": "openssh-client", "ssh-keygen": "openssh-client", "tar": "tar"}


def everything() -> str:
    """
    Check every knob, program and credential; say what is right in one sentence.

    Raises SaltException that lists everything wrong, one line each, with its fix.

    CLI Example:

    .. code-block:: bash

        salt-run check.everything
    """
    pillar = __utils__["knobs.load"]()
    found = __utils__["knobs_check.problems"](pillar)
    found += [
        f"{program}: not found; install {package}"
        for program, package in PROGRAMS.items()
        if shutil.which(program) is None
    ]
    if found:
        raise SaltException("\n".join(["nothing was touched; put this right first:", *found]))
    return f"{len(pillar['platform'])} knobs, the lock and {len(PROGRAMS)} programs are right"
