"""
What a backup holds: ``files/<path from the root>`` as they lay on the server, ``manifest.json``.

Restoring is unpacking ``files/`` over an empty machine. The manifest::

    {"schema": 1, "platform": "f1", "at": <Unix seconds>, "k3s": "v1.36.4+k3s1",
     "members": {"files/…": {"sha256", "bytes"}, …},
     "objects": {"Deployment f1/vote": <uid>, …}, "redis": <as redis_copy.facts>}
"""

import hashlib
import io
import json
import os
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from salt.exceptions import SaltException

SCHEMA = 1
FILES = "files"
MANIFEST = "manifest.json"
SUFFIX = ".f1backup"

Manifest = dict[str, Any]


class ArchiveError(SaltException):
    """A backup that must not be restored; the text says why."""


class Writer:
    """A backup in the making: a tar archive in ``path`` (0600)."""

    def __init__(self, path: Path) -> None:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        self._file = os.fdopen(descriptor, "wb")
        self._tar = tarfile.TarFile(fileobj=self._file, mode="w", format=tarfile.PAX_FORMAT)
        self.members: dict[str, dict[str, Any]] = {}

    def folder(self, path: Path) -> None:
        """Hold that there is this folder, with its owner and mode, but nothing of what is in it."""
        item = self._tar.gettarinfo(str(path))
        item.name = f"{FILES}/{path.relative_to('/')}"
        self._tar.addfile(item)

    def add(self, source: Path, target: Path, owner: os.stat_result | None = None) -> None:
        """
        Hold ``source`` (a file, a symbolic link, or a folder and what is in it) as ``target``;
        ``owner``: whose it shall be, if not its own's. Sockets and such are left out.
        """
        for path in _walk(source):
            item = self._tar.gettarinfo(str(path))
            if item is None:
                continue  # a socket
            where = target / path.relative_to(source)
            item.name = f"{FILES}/{where.relative_to('/')}"
            if owner:
                item.uid, item.gid, item.uname, item.gname = owner.st_uid, owner.st_gid, "", ""
            if item.isdir() or item.issym():
                self._tar.addfile(item)
                continue
            if not (item.isfile() or item.islnk()):
                continue
            # Read once, whole: a file may change while it is read.
            data = path.read_bytes()
            item.type, item.linkname, item.size = tarfile.REGTYPE, "", len(data)
            self._put(item, data)

    def finish(self, **manifest: Any) -> Manifest:
        """Write the manifest, and all of it to the disk; return the manifest."""
        made = {"schema": SCHEMA, "members": self.members, **manifest}
        item = tarfile.TarInfo(MANIFEST)
        item.mode, item.mtime = 0o600, int(time.time())
        data = json.dumps(made, indent=1, sort_keys=True).encode()
        item.size = len(data)
        self._tar.addfile(item, io.BytesIO(data))
        self._tar.close()
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        return made

    def _put(self, item: tarfile.TarInfo, data: bytes) -> None:
        self._tar.addfile(item, io.BytesIO(data))
        self.members[item.name] = {
            "sha256": hashlib.sha256(data).hexdigest(),
            "bytes": len(data),
        }


def read(path: Path, platform: str, roots: list[str]) -> Manifest:
    """
    Return the manifest of the backup in ``path``, having read every byte of it.

    Raises ArchiveError if it is of another platform or a schema newer than this tree's, if a
    member is missing, changed or not in the manifest, or would be unpacked outside ``roots``.
    """
    found: dict[str, dict[str, Any]] = {}
    manifest: Manifest = {}
    try:
        with tarfile.open(path) as tar:
            for item in tar:
                if item.name == MANIFEST:
                    manifest = json.loads(_content(tar, item))
                    continue
                _check(item, roots)
                if item.isfile():
                    data = _content(tar, item)
                    digest = hashlib.sha256(data).hexdigest()
                    found[item.name] = {"sha256": digest, "bytes": len(data)}
    except (tarfile.TarError, ValueError, EOFError) as error:
        raise ArchiveError(f"the backup is damaged: {error}") from None
    except OSError as error:
        raise ArchiveError(f"the backup cannot be read: {error}") from None
    if not manifest:
        raise ArchiveError(f"the backup is damaged: it has no {MANIFEST}")
    _judge(manifest, platform)
    for name in sorted({*found, *manifest["members"]}):
        held, wanted = found.get(name), manifest["members"].get(name)
        if held != wanted:
            how = "is missing" if not held else "was changed" if wanted else "is not in its list"
            raise ArchiveError(f"the backup is damaged: {name} {how}")
    return manifest


def unpack(path: Path, root: Path = Path("/")) -> list[str]:
    """
    Put the files of the backup in ``path``, which ``read`` has judged, below ``root``; return
    their names. Each comes into being whole, with its owner, mode and time.
    """
    done = []
    with tarfile.open(path) as tar:
        for item in tar:
            if not item.name.startswith(f"{FILES}/"):
                continue
            target = root / item.name.removeprefix(f"{FILES}/")
            target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            if item.isdir():
                target.mkdir(mode=0o700, exist_ok=True)
                _own(target, item)
                continue
            new = target.with_name(f".{target.name}.restored")
            new.unlink(missing_ok=True)
            if item.issym():
                new.symlink_to(item.linkname)
            else:
                with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT, 0o600), "wb") as file:
                    file.write(_content(tar, item))
                    os.fsync(file.fileno())
                _own(new, item)
            new.replace(target)
            done.append(str(target))
    return done


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file, as hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def name(platform: str, at: float) -> str:
    """Return the file name of a backup: names sort as their times do."""
    return f"{platform}-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime(at))}{SUFFIX}"


def surplus(names: list[str], platform: str, keep: int) -> list[str]:
    """Return those of ``names`` that are backups of ``platform`` beyond the ``keep`` newest."""
    ours = [one for one in names if one.startswith(f"{platform}-") and one.endswith(SUFFIX)]
    return sorted(ours)[:-keep]


def _walk(path: Path) -> Iterator[Path]:
    yield path
    if path.is_dir() and not path.is_symlink():
        for each in sorted(path.iterdir()):
            yield from _walk(each)


def _content(tar: tarfile.TarFile, item: tarfile.TarInfo) -> bytes:
    file: BinaryIO | None = tar.extractfile(item)  # type: ignore[assignment]
    data = file.read() if file else b""
    if len(data) != item.size:
        raise EOFError(f"{item.name} is cut off")
    return data


def _own(path: Path, item: tarfile.TarInfo) -> None:
    # By number: names need not be the same on another machine.
    os.chown(path, item.uid, item.gid)
    path.chmod(item.mode & 0o7777)
    os.utime(path, (item.mtime, item.mtime))


def _check(item: tarfile.TarInfo, roots: list[str]) -> None:
    """Refuse what would be written elsewhere than to one of ``roots``."""
    path = PurePosixPath("/", item.name.removeprefix(f"{FILES}/"))
    inside = any(path.is_relative_to(root) for root in roots)
    plain = item.isfile() or item.isdir() or item.issym()
    if not item.name.startswith(f"{FILES}/") or ".." in path.parts or not inside or not plain:
        raise ArchiveError(
            f"the backup holds {item.name}, which belongs to none of {', '.join(roots)}"
        )
    if item.issym() and ("/" in item.linkname or item.linkname == ".."):
        raise ArchiveError(f"the backup holds {item.name}, a link to elsewhere: {item.linkname}")


def _judge(manifest: Manifest, platform: str) -> None:
    schema = manifest.get("schema")
    if not isinstance(schema, int) or schema > SCHEMA:
        raise ArchiveError(
            f"the backup is of schema {schema}, this tree knows {SCHEMA}: use the tree that made it"
        )
    if manifest.get("platform") != platform:
        raise ArchiveError(
            f"the backup is of the platform {manifest.get('platform')!r}, not of {platform!r}"
        )
