"""
A backup put back, on K3s's server, over whatever runs there.

The cluster is taken down on every machine, its server's data kept aside, the backup's files laid
where K3s and Redis look for them before either starts, and the server started. Workers join anew
afterwards: no pod, certificate or node of before can meddle. Each step may be done twice; until
the result is proved nobody votes, so doing all again loses nothing, and after that nothing is done.
"""

import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import archive
import records
import redis_copy
import server_backup
import upgrade
from salt.exceptions import SaltException

Functions = dict[str, Callable[..., Any]]

FOLDER = Path("/var/lib/f1/restore")
PAUSE = 1.0

# What is kept aside: not that of K3s which it makes anew.
KEPT = (
    server_backup.K3S / "server",
    server_backup.K3S / "storage",
    server_backup.ETC / "node",
    server_backup.ETC / "k3s/agent-token",
)


class RestoreError(SaltException):
    """A restore that must not begin, or did not bring back what the backup says."""


def incoming() -> Path:
    """Return where the operator puts the opened backup."""
    return FOLDER / "incoming.tar"


def record() -> dict[str, Any]:
    """Return what a restore that has not ended keeps in mind: ``kept``, ``before``, ``proved``."""
    return records.read(FOLDER / "state.json") or {}


def unfinished() -> str:
    """Return why nothing else must touch the cluster now; empty if no restore is half done."""
    if not record():
        return ""
    return "a restore did not end; `make restore` goes on with it"


def note(**facts: Any) -> None:
    """Keep ``facts`` in mind too."""
    records.write(FOLDER / "state.json", json.dumps({**record(), **facts}))


def begin(which: str) -> None:
    """
    Begin the restore of the backup with the SHA-256 ``which``, or go on with it. If another one
    was restored to the end before, what is there now is that one's: it is kept aside anew.
    """
    if record().get("proved") not in (None, which):
        (FOLDER / "state.json").unlink()
        shutil.rmtree(FOLDER / "before", ignore_errors=True)


def fits(made_with: str, wanted: str) -> str:
    """Return why a datastore written by K3s ``made_with`` must not be given to ``wanted``."""
    old, new = upgrade.parsed(made_with)[:2], upgrade.parsed(wanted)[:2]
    if old > new:
        return f"it was made by K3s {made_with}, newer than the lock's {wanted}: lock that one"
    if old[0] != new[0] or new[1] - old[1] > 1:
        return (
            f"it was made by K3s {made_with}, and {wanted} is more than one minor version newer: "
            f"lock a v{old[0]}.{old[1]} for the restore, then upgrade"
        )
    return ""


def keep_aside() -> None:
    """Move what K3s's server holds away, to ``before/`` in our folder; its unit must be stopped."""
    for path in KEPT:
        target = FOLDER / "before" / path.relative_to("/")
        if path.exists() and not target.exists():
            target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            _moved(path, target)
    note(kept=True)


def forget() -> None:
    """Remove the opened backup and what was kept aside: the restore is over."""
    shutil.rmtree(FOLDER, ignore_errors=True)


def wait_same(functions: Functions, manifest: archive.Manifest, deadline: float) -> None:
    """
    Wait until the cluster and Redis answer, at most ``deadline`` seconds, and compare them with
    the backup: every object's UID, every voter's vote. Raises RestoreError with what differs.
    """
    held = manifest["redis"]
    end = time.monotonic() + deadline
    while True:
        try:
            wrong = _lacking(manifest, server_backup.objects(functions))
            now = redis_facts(functions) if held else None
            break
        except SaltException as error:
            if time.monotonic() >= end:
                raise RestoreError(
                    f"waited {deadline:g} s for the restored server and its Redis; last seen: "
                    f"{error}"
                ) from None
        time.sleep(PAUSE)
    if held and now != held:
        wrong.append(f"Redis holds {words(now)}, the backup {words(held)}")
    if wrong:
        raise RestoreError("\n".join(["not as in the backup:", *wrong]))


def redis_facts(functions: Functions) -> redis_copy.Facts:
    """Return what the platform's Redis holds. Raises SaltException if it does not answer."""
    address = server_backup.redis_address(functions)
    if address is None:
        raise RestoreError("there is no StatefulSet f1/redis")
    with redis_copy.Client(address) as client:
        return redis_copy.facts(client)


def words(facts: redis_copy.Facts | None) -> str:
    """Say how much a Redis holds."""
    if not facts:
        return "nothing"
    polls = [
        f"{told['voters']} voters in {poll} ({told['tally']})"
        for poll, told in sorted(facts["polls"].items())
    ]
    return ", ".join([f"{facts['keys']} keys", *polls, f"digest {facts['digest'][:12]}"])


def _lacking(manifest: archive.Manifest, found: dict[str, str]) -> list[str]:
    return [
        f"{title}: {'another UID' if title in found else 'missing'}"
        for title, uid in manifest["objects"].items()
        if found.get(title) != uid
    ]


def _moved(path: Path, target: Path) -> None:
    """Move ``path``, whole or not at all, over file systems too."""
    try:
        path.rename(target)
    except OSError:
        part = target.with_name(f".{target.name}.part")
        shutil.rmtree(part, ignore_errors=True)
        if path.is_dir():
            shutil.copytree(path, part, symlinks=True)
        else:
            shutil.copy2(path, part)
        os.sync()
        part.rename(target)
