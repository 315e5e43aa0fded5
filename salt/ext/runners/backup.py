"""The backups that there are, from the operator's machine."""

from typing import Any

import archive
import backup_copies
import knobs

__opts__: dict[str, Any]


def copies() -> dict[str, dict[str, Any]]:
    """
    Return the copies by name, the newest first: where each is, and its size in bytes.

    CLI Example:

    .. code-block:: bash

        salt-run backup.copies
    """
    platform = knobs.load(__opts__)["platform"]
    found: dict[str, dict[str, Any]] = {}
    for path in backup_copies.folder().glob(f"{platform['name']}-*{archive.SUFFIX}"):
        found[path.name] = {"here": path.stat().st_size, "bucket": None}
    for name, size in backup_copies.stored(platform).items():
        found.setdefault(name, {"here": None})["bucket"] = size
    return dict(sorted(found.items(), reverse=True))
