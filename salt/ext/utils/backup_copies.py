"""
Copies of the backups away from the platform: on the operator's machine, and in the bucket.

``.state/backup/`` holds the only key that opens them (``key``, 0600) and the copies; the bucket
has them under ``backup/``. The master seals them to the public key, and has no credentials: both
copies are made from here, with the operator's.
"""

import base64
import hashlib
import json
import os
import re
import tempfile
from pathlib import Path
from typing import Any

import archive
import aws
import firstcontact
import knobs
import sealed
import ssh

PREFIX = "backup/"
SECONDS = 600

_MASTERS = "/var/lib/f1/backup"
_NAME = re.compile(r"[a-z][a-z0-9-]*-\d{8}T\d{6}Z\.f1backup")

# Both run as root on the master; the content comes on stdin.
_TAKE_KEY = """\
set -eu; umask 077; mkdir -p /var/lib/f1/backup; cd /var/lib/f1/backup
cat > .recipient.new; mv .recipient.new recipient
"""
_TAKE_BACKUP = """\
set -eu; umask 077; mkdir -p /var/lib/f1/restore; cd /var/lib/f1/restore
cat > .incoming.part; echo "{digest}  .incoming.part" | sha256sum --check --quiet --strict
mv .incoming.part incoming.tar
"""

Platform = dict[str, Any]


def folder() -> Path:
    """Return where the operator's machine keeps the key and its copies."""
    return knobs.state_dir() / "backup"


def key() -> Path:
    """Return the path of the private key."""
    return folder() / "key"


def master_key(platform: Platform) -> str:
    """Return the public key that the master seals to; empty if it has none."""
    return _run(platform, ["sh", "-c", f"cat {_MASTERS}/recipient 2>/dev/null || true"]).strip()


def hand_key(platform: Platform) -> None:
    """Have the master seal its backups to our key from now on."""
    _run(platform, ["sh", "-c", _TAKE_KEY], stdin=f"{sealed.public(key())}\n".encode())


def last(platform: Platform) -> dict[str, Any]:
    """Return what the master says of its last backup. Raises CloudError if it failed."""
    said = _run(platform, ["sh", "-c", f"cat {_MASTERS}/last.json 2>/dev/null || true"])
    record = json.loads(said or "{}")
    if not record.get("ok"):
        raise aws.CloudError(f"the master has no good backup: {record.get('error', 'none yet')}")
    if not _NAME.fullmatch(record["file"]):
        raise aws.CloudError(f"the master's last backup has a name that is none: {record['file']}")
    return dict(record)


def fetch(platform: Platform, record: dict[str, Any]) -> Path:
    """Copy the master's backup ``record`` here, whole; return its path."""
    target = folder() / record["file"]
    if target.exists() and archive.sha256(target) == record["sha256"]:
        return target
    text = _run(platform, ["base64", "-w0", f"{_MASTERS}/{record['file']}"])
    data = base64.b64decode(text)
    if (got := hashlib.sha256(data).hexdigest()) != record["sha256"]:
        raise aws.CloudError(
            f"{record['file']} came as {got}, the master wrote {record['sha256']}: run it again"
        )
    _keep(target, data)
    return target


def stored(platform: Platform) -> dict[str, int]:
    """Return the sizes of the bucket's copies by name. Raises CloudError."""
    wanted = {"Bucket": aws.bucket(platform), "Prefix": f"{PREFIX}{platform['name']}-"}
    said = aws.call(platform, "s3", "list_objects_v2", **wanted)
    found = {item["Key"].removeprefix(PREFIX): item["Size"] for item in said.get("Contents", [])}
    return {name: size for name, size in found.items() if _NAME.fullmatch(name)}


def store(platform: Platform, path: Path) -> None:
    """Put the copy ``path`` into the bucket, and read it back. Raises CloudError if it differs."""
    data = path.read_bytes()
    aws.call(
        platform, "s3", "put_object", Bucket=aws.bucket(platform), Key=PREFIX + path.name, Body=data
    )
    if _load(platform, path.name) != data:
        raise aws.CloudError(f"s3 {PREFIX}{path.name} reads otherwise than it was written")


def thin(platform: Platform, keep: int) -> list[str]:
    """Leave the ``keep`` newest copies here and in the bucket; return what was removed."""
    gone = []
    here = [path.name for path in folder().iterdir()]
    for name in archive.surplus(here, platform["name"], keep):
        (folder() / name).unlink()
        gone.append(str(folder() / name))
    for name in archive.surplus(list(stored(platform)), platform["name"], keep):
        bucket = aws.bucket(platform)
        aws.call(platform, "s3", "delete_object", Bucket=bucket, Key=PREFIX + name)
        gone.append(f"s3 {PREFIX}{name}")
    return gone


def find(platform: Platform, wanted: str | None = None) -> Path:
    """
    Return the copy to restore: the file or the name ``wanted``, or the newest of here and the
    bucket; one that is only there is fetched. Raises CloudError if there is none.
    """
    if wanted and Path(wanted).is_file():
        return Path(wanted)
    here = (
        {path.name for path in folder().glob(f"*{archive.SUFFIX}")} if folder().is_dir() else set()
    )
    if wanted in here:
        return folder() / str(wanted)
    ours = {name for name in here if name.startswith(f"{platform['name']}-")}
    there = set(stored(platform))
    name = wanted or max(ours | there, default="")
    if name in ours:
        return folder() / name
    if name not in there:
        known = ", ".join(sorted(ours | there)) or "none"
        raise aws.CloudError(
            f"there is no backup {name or 'at all'}, in {folder()} or in the bucket; known: {known}"
        )
    _keep(folder() / name, _load(platform, name))
    return folder() / name


def hand_over(platform: Platform, path: Path, roots: list[str]) -> archive.Manifest:
    """
    Open the copy ``path`` with our key, judge it, and give it to the master; return its manifest.

    It is open only in a folder of its own (0700), for that long. Raises SealError, ArchiveError.
    """
    with tempfile.TemporaryDirectory(prefix=".open-", dir=folder()) as inside:
        opened = Path(inside) / "backup.tar"
        with path.open("rb") as source, opened.open("wb") as target:
            sealed.open_sealed(source, target, key())
        manifest = archive.read(opened, platform["name"], roots)
        script = _TAKE_BACKUP.format(digest=archive.sha256(opened))
        _run(platform, ["sh", "-c", script], stdin=opened.read_bytes())
    return manifest


def _run(platform: Platform, words: list[str], stdin: bytes = b"") -> str:
    firstcontact.remember_master(platform)
    return ssh.run(f"{platform['name']}-master", ["sudo", *words], stdin=stdin, seconds=SECONDS)


def _load(platform: Platform, name: str) -> bytes:
    bucket = aws.bucket(platform)
    answer = aws.call(platform, "s3", "get_object", Bucket=bucket, Key=PREFIX + name)
    return bytes(answer["Body"].read())


def _keep(target: Path, data: bytes) -> None:
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    new = target.with_name(f".{target.name}.{os.getpid()}")
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(data)
        os.fsync(file.fileno())
    new.replace(target)
