"""
The cache of what was built: outside the checkout, addressed by what it was made from.

An artifact is a folder ``<cache>/<kind>/<key>``. It is made beside its place and renamed into it,
so that it is there as a whole or not at all, whatever ends the build.
"""

import fcntl
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

PART = ".part-"


def root() -> Path:
    """Return the folder of everything that was built (``F1_CACHE``)."""
    return Path(os.environ.get("F1_CACHE") or Path.home() / ".cache" / "f1-vote").absolute()


def logs() -> Path:
    """Return the folder of build logs."""
    folder = root() / "log"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def digest(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def key(*parts: str | bytes) -> str:
    """Return the key of an artifact that is made from ``parts``, in this order."""
    made = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        made.update(len(data).to_bytes(8, "big") + data)
    return made.hexdigest()[:32]


def artifact(kind: str, name: str, make: Callable[[Path], None]) -> Path:
    """
    Return ``<cache>/<kind>/<name>``, made by ``make(folder)`` unless it is there.

    Two processes never make the same kind at once: the second waits and finds it made.
    """
    target = root() / kind / name
    if target.exists():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with (target.parent / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        # Under the lock nobody else is at work here: these are of a build that was killed.
        for left in target.parent.glob(f"{PART}*"):
            shutil.rmtree(left)
        if not target.exists():
            part = Path(tempfile.mkdtemp(prefix=PART, dir=target.parent))
            try:
                part.chmod(0o755)
                make(part)
                part.rename(target)
            finally:
                shutil.rmtree(part, ignore_errors=True)
    return target


def write_sums(folder: Path) -> None:
    """Write ``SHA256SUMS`` over the files in ``folder``."""
    lines = [f"{digest(path)}  {path.name}\n" for path in sorted(folder.iterdir())]
    (folder / "SHA256SUMS").write_text("".join(lines))


def read_sums(folder: Path) -> dict[str, str]:
    """Return ``{file name: SHA-256}`` as `write_sums` wrote it."""
    lines = (folder / "SHA256SUMS").read_text().splitlines()
    return {name: made for made, _, name in (line.partition("  ") for line in lines)}


def link(source: Path, target: Path) -> None:
    """Give a file a second place without a second copy, where the file systems allow it."""
    try:
        target.hardlink_to(source)
    except OSError:
        shutil.copy2(source, target)
