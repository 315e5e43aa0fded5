"""
One operation at a time: two walks of the road at once would undo each other.

The lock is an flock(2) on a file, held by the process that walks: it ends with that process,
however it ends. There is one on the operator's machine and one on the master (``MASTER``), which
orchestrations from elsewhere and its own timer meet at. The file says who holds it, in one line of
JSON: ``{"what", "who": "user@host", "since": <unix seconds>, "pid", "started"}``; ``started`` tells
the process from a later one of the same number (proc_pid_stat(5), field 22).
"""

import fcntl
import getpass
import json
import os
import socket
import time
from collections.abc import Collection
from pathlib import Path
from typing import Any

from salt.exceptions import SaltException

Record = dict[str, Any]

MASTER = Path("/var/lib/f1/lock")

PAUSE = 0.5
_FIELDS = {"what", "who", "since", "pid", "started"}

# Whoever looks whether it is held holds it for a moment: it is asked for more than once.
ATTEMPTS = 3
ATTEMPT_PAUSE = 0.05


class Held(SaltException):
    """Another process holds the lock; ``holder`` is what it wrote of itself."""

    def __init__(self, message: str, holder: Record | None) -> None:
        super().__init__(message)
        self.holder = holder


def hold(
    path: str | os.PathLike[str],
    what: str,
    who: str | None = None,
    wait_for: Collection[str] = (),
    seconds: float = 0,
    *,
    wait_for_own: bool = False,
) -> None:
    """
    Hold the lock ``path`` for the rest of this process; the same process may ask again.

    ``what`` and ``who`` (``user@host``; this process's own if none is given) are told to whoever is
    refused. While the holder is one of ``wait_for``, or with ``wait_for_own`` one that ``who``
    began, it is waited for, at most ``seconds``. Raises Held naming the holder, its process and
    since when, if it is taken.
    """
    end = time.monotonic() + seconds
    while True:
        if _taken(Path(path), what, who):
            return
        holder = read(path)
        if holder and holder["pid"] == os.getpid() and _lives(holder):
            return
        patient = holder is not None and (
            holder["what"] in wait_for or (wait_for_own and holder["who"] == (who or me()))
        )
        if not patient or time.monotonic() >= end:
            waited = f"waited {seconds:g} s: " if patient else ""
            raise Held(f"{waited}{words(holder)}; wait for it, or stop that process", holder)
        time.sleep(PAUSE)


def show(path: str | os.PathLike[str]) -> Record | None:
    """
    Return the record of ``path`` with ``held`` (does any process hold it?) and ``alive`` (does the
    one that wrote it live, on this machine?); None if nobody ever held it.
    """
    held = _is_held(Path(path))
    holder = read(path)
    if holder is None:
        nobody = {"what": "", "who": "", "since": 0.0, "pid": 0, "started": 0}
        return {**nobody, "held": True, "alive": False} if held else None
    return {**holder, "held": held, "alive": _lives(holder)}


def broken(path: str | os.PathLike[str], what: str) -> str:
    """
    Take the lock ``path`` from the operation ``what``; say in one sentence what was done.

    Stale is what a process holds that was forked off the one that took it, or the record of a dead
    one. Raises SaltException if the process that took it lives, or if somebody else holds it.
    """
    found = show(path)
    if found is None or (not found["held"] and found["what"] != what):
        raise SaltException(f"nothing is locked as {what}")
    if found["what"] != what:
        raise SaltException(f"{what} holds nothing: {words(found)}")
    if found["held"] and found["alive"]:
        raise SaltException(
            f"{words(found)}; that process lives, so its lock is not stale: stop it first"
        )
    Path(path).unlink(missing_ok=True)
    if not found["held"]:
        return f"{words(found)} no more: its record was removed, nothing held the lock"
    return (
        f"{words(found)} no more, but one of its children held the lock: the file was replaced, "
        f"the next operation takes a new one"
    )


def read(path: str | os.PathLike[str]) -> Record | None:
    """Return the record in the file ``path``, be it of now or of before; None if there is none."""
    try:
        line = Path(path).read_text(encoding="utf-8").partition("\n")[0]
        record = json.loads(line)
    except (OSError, ValueError):
        return None
    if not isinstance(record, dict) or not set(record) >= _FIELDS:
        return None
    return record


def words(holder: Record | None) -> str:
    """Say who holds a lock, since when, doing what."""
    if not holder or not holder["what"]:
        return "another process runs that has not said what it is"
    since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(holder["since"]))
    return f"{holder['what']} runs since {since} as process {holder['pid']}, by {holder['who']}"


def me() -> str:
    """Return this process's ``user@host``; behind sudo the user who called it."""
    try:
        user = os.environ.get("SUDO_USER") or getpass.getuser()
    except (KeyError, OSError):  # a user without a name
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()}"


def _taken(path: Path, what: str, who: str | None) -> bool:
    """Take the lock if nobody has it. Its descriptor stays open as long as the process lives."""
    path.parent.mkdir(parents=True, exist_ok=True)
    for attempt in range(ATTEMPTS):
        if attempt:
            time.sleep(ATTEMPT_PAUSE)
        # A number, not a file object: nothing that Python throws away may let go of the lock.
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(handle)
            continue
        if not _is_at(handle, path):  # it was broken at this moment
            os.close(handle)
            continue
        pid = os.getpid()
        record = {
            "what": what,
            "who": who or me(),
            "since": round(time.time(), 1),
            "pid": pid,
            "started": _started(pid) or 0,
        }
        line = json.dumps(record).encode() + b"\n"
        os.pwrite(handle, line, 0)
        os.ftruncate(handle, len(line))
        return True
    return False


def _is_at(handle: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except FileNotFoundError:
        return False


def _is_held(path: Path) -> bool:
    try:
        handle = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(handle)
    return False


def _lives(holder: Record) -> bool:
    started = _started(holder["pid"])
    return started is not None and started == holder["started"]


def _started(pid: int) -> int | None:
    """Return when a process began, in ticks since boot; 0 if that cannot be told, None if gone."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    except (OSError, ValueError, IndexError):
        pass
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        pass
    return 0
