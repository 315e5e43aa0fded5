"""
One operation at a time: two walks of the road at once would undo each other.

The lock is an flock(2) on a file, held by the process that walks: it ends with that process,
however it ends, so there is never a dead one to break. The file says who holds it.
"""

import fcntl
import os
import time
from pathlib import Path
from typing import IO

from salt.exceptions import SaltException

_held: dict[str, IO[str]] = {}


def hold(path: str | os.PathLike[str], what: str) -> None:
    """
    Hold the lock ``path`` for the rest of this process; ``what`` is told to whoever is refused.

    Raises SaltException naming the holder, its process and since when, if it is taken.
    """
    name = os.fspath(path)
    if name in _held:
        return
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    file = Path(name).open("a+", encoding="utf-8")  # noqa: SIM115 - open as long as it is held
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.seek(0)
        holder = file.read().strip() or "another process"
        file.close()
        raise SaltException(f"{holder}; wait for it, or stop that process") from None
    file.truncate(0)
    since = time.strftime("%H:%M:%S")
    file.write(f"{what} runs since {since} as process {os.getpid()}\n")
    file.flush()
    _held[name] = file
