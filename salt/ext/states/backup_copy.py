"""
The operator's part of backup and restore: the key, the copies, the handing over.

With ``test=True`` nothing is made, copied or handed over.
"""

from typing import Any

import backup_copies
import firstcontact
import sealed
from steps import guarded

Result = dict[str, Any]

__opts__: dict[str, Any]
__pillar__: dict[str, Any]


@guarded
def keyed(name: str, replace: bool = False) -> Result:
    """
    Only this machine can open what the master seals: there is a private key here (``name``, made
    once), and the master has its public key.

    A master that seals for another key already is left alone, unless ``replace``.
    """
    platform = __pillar__["platform"]
    path = backup_copies.key()
    test = bool(__opts__["test"])
    changes: dict[str, Any] = {}
    if not path.exists():
        changes[str(path)] = "made"
        if not test:
            sealed.make_key(path)
    try:
        there = backup_copies.master_key(platform)
    except firstcontact.NoMaster as error:
        if not test:
            raise
        return _result(name, None, {**changes, "recipient": "handed over"}, f"to come: {error}")
    ours = sealed.public(path) if path.exists() else None
    if there != ours:
        if there and not replace:
            return _result(
                name,
                False,
                {} if test else changes,
                f"the master seals its backups for another key ({there}): copy that one to {path} "
                f"from the machine that made it, or give it ours with "
                f'pillar=\'{{"backup": {{"new_key": true}}}}\'',
            )
        changes["recipient"] = {"old": there or None, "new": ours}
        if not test:
            backup_copies.hand_key(platform)
    if not changes:
        return _result(name, True, {}, "in place")
    return _result(name, None if test else True, changes, "")


@guarded
def fetched(name: str, keep: int) -> Result:
    """
    The master's last backup is here (``.state/backup``) and in the bucket (``backup/``), read back;
    the ``keep`` newest are left in both.
    """
    platform = __pillar__["platform"]
    if __opts__["test"]:
        return _result(name, True, {}, "a plan copies no backup")
    record = backup_copies.last(platform)
    path = backup_copies.fetch(platform, record)
    changes: dict[str, Any] = {}
    if backup_copies.stored(platform).get(path.name) != record["bytes"]:
        backup_copies.store(platform, path)
        changes[path.name] = f"copied to {path.parent} and to the bucket"
    changes |= dict.fromkeys(backup_copies.thin(platform, keep), "removed")
    return _result(name, True, changes, f"{path}: {record['bytes']} bytes, {record['counts']}")


@guarded
def handed_over(name: str, roots: list[str], source: str | None = None) -> Result:
    """
    The master has the backup ``source`` (a file, a name, none: the newest), opened and judged here.

    ``roots``: the folders of the server that it may hold files of.
    """
    platform = __pillar__["platform"]
    path = backup_copies.find(platform, source)
    if __opts__["test"]:
        return _result(name, None, {path.name: "would be opened and handed over"}, "")
    manifest = backup_copies.hand_over(platform, path, roots)
    counts = f"{len(manifest['members'])} files, {len(manifest['objects'])} objects"
    return _result(name, True, {path.name: counts}, f"{path}, made by K3s {manifest['k3s']}")


def _result(name: str, result: bool | None, changes: dict[str, Any], comment: str) -> Result:
    return {"name": name, "result": result, "changes": changes, "comment": comment}
