"""
A backup of the platform, made on K3s's server while everything runs.

It holds what https://docs.k3s.io/datastore/backup-restore names, the datastore and the server's
token, and what makes a restored server the same to those who know it: authorities, keys,
certificates, the key of the encrypted Secrets, the agents' token, the node's password; then the
votes, and the folders of ``paths``. Sealed (see ``sealed``) before it has its name.
"""

import hashlib
import json
import os
import shutil
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any, BinaryIO

import archive
import records
import redis_copy
import sealed
from salt.exceptions import SaltException

Functions = dict[str, Callable[..., Any]]
Record = dict[str, Any]

FOLDER = Path("/var/lib/f1/backup")
METRICS = Path("/var/lib/f1/metrics/backup.prom")
K3S = Path("/var/lib/rancher/k3s")
ETC = Path("/etc/rancher")

# Of K3s's server folder. What else is there K3s makes anew.
SERVER = ("token", "node-token", "agent-token", "tls", "cred")
DATASTORE = "db/state.db"
# Of /etc/rancher: the agents' secret, and the password with which the server's own node is known.
OTHERS = ("k3s/agent-token", "node/password")
ENCRYPTION = "cred/encryption-config.json"

# Kinds that nothing replaces by itself: after a restore they have the same UIDs.
KINDS = (
    "namespaces,deployments,statefulsets,daemonsets,services,ingresses,configmaps,secrets,"
    "serviceaccounts,persistentvolumes,persistentvolumeclaims"
)
# K3s's password of a node, which goes when the node joins anew.
_PASSWORD = ".node-password.k3s"  # noqa: S105

_METRICS = """\
# HELP f1_backup_ok Whether the last backup succeeded.
# TYPE f1_backup_ok gauge
f1_backup_ok {ok}
# HELP f1_backup_last_success_timestamp_seconds When a backup last succeeded, in Unix seconds.
# TYPE f1_backup_last_success_timestamp_seconds gauge
f1_backup_last_success_timestamp_seconds {at}
# HELP f1_backup_size_bytes How large the last good backup is, sealed.
# TYPE f1_backup_size_bytes gauge
f1_backup_size_bytes {size}
"""


class BackupError(SaltException):
    """Something that a backup needs is not as it should be; the text says what."""


def roots(paths: list[str]) -> list[str]:
    """Return the folders that a backup may hold files of."""
    return [str(K3S), str(ETC), *paths]


def make(functions: Functions, platform: str, master: str, keep: int, paths: list[str]) -> Record:
    """
    Make a backup, and leave the ``keep`` newest; return what ``last.json`` says of it: ``{"at",
    "ok", "file", "bytes", "sha256", "counts"}``.

    If it fails, that is told there and in the metrics too, and raised.
    """
    FOLDER.mkdir(mode=0o700, parents=True, exist_ok=True)
    FOLDER.chmod(0o700)
    at = time.time()
    try:
        record = _made(functions, platform, master, paths, at)
    except (SaltException, OSError, sqlite3.Error) as error:
        last = last_record() or {}
        _told({"at": at, "ok": False, "error": str(error), "good": good(last)})
        raise BackupError(f"no backup was made: {error}") from error
    _told(record)
    for name in archive.surplus([path.name for path in FOLDER.iterdir()], platform, keep):
        (FOLDER / name).unlink()
    return record


def last_record() -> Record | None:
    """Return what the last backup left to say; None if there was none."""
    return records.read(FOLDER / "last.json")


def good(record: Record) -> dict[str, Any] | None:
    """Return ``{"at", "bytes"}`` of the last backup that succeeded."""
    if record.get("ok"):
        return {"at": record["at"], "bytes": record["bytes"]}
    return record.get("good")


def objects(functions: Functions) -> dict[str, str]:
    """Return the UIDs of the cluster's lasting objects by title."""
    text = functions["kubectl.run"]("get", KINDS, "-A", "-o", "json")
    return {
        functions["kubectl.title"](one): one["metadata"]["uid"]
        for one in functions["kubectl.items"](text)
        if not one["metadata"]["name"].endswith(_PASSWORD)
    }


def redis_address(functions: Functions) -> tuple[str, int] | None:
    """
    Return where the pod of Redis is reached from this machine; None if the app is not there.

    Raises BackupError if it should be there and has no address.
    """
    if not _get(functions, "statefulset", "redis"):
        return None
    address = (_get(functions, "pod", "redis-0") or {}).get("status", {}).get("podIP")
    if not address:
        raise BackupError("the pod f1/redis-0 has no address: is it running?")
    return address, redis_copy.PORT


def _made(functions: Functions, platform: str, master: str, paths: list[str], at: float) -> Record:
    recipient = _recipient()
    work = FOLDER / ".work"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(mode=0o700)
    try:
        manifest = _gathered(functions, platform, master, paths, at, work)
        # What is sealed cannot be looked into here.
        archive.read(work / "backup.tar", platform, roots(paths))
        name = archive.name(platform, at)
        digest, size = _sealed(work / "backup.tar", work / name, recipient)
        (work / name).replace(FOLDER / name)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return {
        "at": at,
        "ok": True,
        "file": name,
        "bytes": size,
        "sha256": digest,
        "counts": counts(manifest),
    }


def counts(manifest: archive.Manifest) -> dict[str, Any]:
    """Return how much a backup holds: objects, keys of Redis, voters and tally of each poll."""
    held = manifest["redis"] or {"keys": 0, "polls": {}}
    polls = {
        poll: {"voters": told["voters"], "tally": told["tally"]}
        for poll, told in held["polls"].items()
    }
    return {"objects": len(manifest["objects"]), "keys": held["keys"], "polls": polls}


def _recipient() -> str:
    try:
        return (FOLDER / "recipient").read_text(encoding="ascii").strip()
    except OSError:
        raise BackupError(
            f"there is no public key in {FOLDER}/recipient: `make backup` on the operator's "
            f"machine brings it"
        ) from None


def _gathered(
    functions: Functions, platform: str, master: str, paths: list[str], at: float, work: Path
) -> archive.Manifest:
    server = K3S / "server"
    before = objects(functions)
    _datastore(server / DATASTORE, work / "state.db", server / ENCRYPTION)
    after = objects(functions)
    writer = archive.Writer(work / "backup.tar")
    writer.add(work / "state.db", server / DATASTORE)
    for name in SERVER:
        if not (server / name).exists():
            raise BackupError(f"{server / name} does not exist: is this K3s's server?")
        writer.add(server / name, server / name)
    for name in OTHERS:
        writer.add(ETC / name, ETC / name)
    held = None
    if address := redis_address(functions):
        held = _votes(writer, address, work, _volume(functions))
    for path in paths:
        if Path(path).exists():
            writer.add(Path(path), Path(path))
    found = functions["kube_health.nodes"]()
    return writer.finish(
        platform=platform,
        at=at,
        k3s=found.get(master, {}).get("version", ""),
        # Only what was there all the while is surely in the datastore's copy.
        objects={title: uid for title, uid in before.items() if after.get(title) == uid},
        redis=held,
    )


def _datastore(source: Path, target: Path, encryption: Path) -> None:
    """Copy K3s's SQLite database as of one moment, whoever writes to it, and check the copy."""
    if not source.exists():
        raise BackupError(f"{source} does not exist: is this K3s's server?")
    with (
        closing(sqlite3.connect(f"file:{source}?mode=ro", uri=True)) as there,
        closing(sqlite3.connect(target)) as here,
    ):
        # https://www.sqlite.org/backup.html: all pages in one step are of one transaction.
        there.backup(here)
        # The copy needs no log beside it.
        here.execute("PRAGMA journal_mode=DELETE")
        said = [row[0] for row in here.execute("PRAGMA integrity_check")]
        if said != ["ok"]:
            raise BackupError(f"the copy of {source} is damaged: {'; '.join(said[:3])}")
        # The prefix of an encrypted value in Kubernetes' storage.
        query = "SELECT count(*) FROM kine WHERE name LIKE '/registry/secrets/%' AND deleted = 0 "
        query += "AND substr(value, 1, 8) = CAST('k8s:enc:' AS BLOB)"
        encrypted = here.execute(query).fetchone()[0]
    if encrypted and not encryption.exists():
        raise BackupError(f"{encrypted} Secrets are encrypted, and {encryption} is not there")


def _votes(
    writer: archive.Writer, address: tuple[str, int], work: Path, volume: Path
) -> redis_copy.Facts:
    if not volume.is_dir():
        raise BackupError(f"the volume of Redis is not on this machine: {volume}")
    copied = work / redis_copy.FOLDER
    with redis_copy.Client(address) as client:
        held = redis_copy.copy(client, copied)
    live = volume / redis_copy.FOLDER
    writer.folder(volume)
    writer.add(copied, live, owner=live.stat())
    return held


def _volume(functions: Functions) -> Path:
    claim = _get(functions, "persistentvolumeclaim", "data-redis-0") or {}
    name = claim.get("spec", {}).get("volumeName")
    found = _get(functions, "persistentvolume", name) if name else None
    spec = (found or {}).get("spec", {})
    path = spec.get("local", spec.get("hostPath", {})).get("path")
    if not path:
        raise BackupError("the claim f1/data-redis-0 has no volume that is a folder of a machine")
    return Path(path)


def _get(functions: Functions, kind: str, name: str) -> dict[str, Any] | None:
    words = ("get", kind, name, "-n", "f1", "--ignore-not-found", "-o", "json")
    found = functions["kubectl.items"](functions["kubectl.run"](*words))
    return found[0] if found else None


class _Hashing:
    """A file that is written to, and the SHA-256 of what was."""

    def __init__(self, file: BinaryIO) -> None:
        self.file, self.digest, self.size = file, hashlib.sha256(), 0

    def write(self, data: bytes) -> int:
        self.digest.update(data)
        self.size += len(data)
        return self.file.write(data)


def _sealed(source: Path, target: Path, recipient: str) -> tuple[str, int]:
    """Seal ``source`` into ``target``, read that back, return its SHA-256 and size."""
    with source.open("rb") as plain, target.open("wb") as file:
        target.chmod(0o600)
        written: Any = _Hashing(file)
        sealed.seal(plain, written, recipient)
        file.flush()
        os.fsync(file.fileno())
    digest = str(written.digest.hexdigest())
    if (read := archive.sha256(target)) != digest:
        raise BackupError(
            f"{target} was written as {digest} and reads as {read}: is the disk sound?"
        )
    return digest, int(written.size)


def _told(record: Record) -> None:
    records.write(FOLDER / "last.json", json.dumps(record, indent=1) + "\n", 0o600)
    well = good(record) or {"at": 0, "bytes": 0}
    text = _METRICS.format(ok=int(record["ok"]), at=f"{well['at']:.0f}", size=well["bytes"])
    records.write(METRICS, text, 0o644)
