"""
What the Salt master is given: the folders ``salt`` and ``k8s`` and the pillar in force, as one
archive that is the same for the same content.
"""

import hashlib
import io
import tarfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

FOLDERS = ("salt", "k8s")
_LEFT_OUT = {"__pycache__", ".pytest_cache", ".mypy_cache", ".ruff_cache"}


class Tree(NamedTuple):
    """A tar archive and the name of its content: the first 16 digits of its SHA-256."""

    archive: bytes
    version: str


def pack(root: Path, pillar_roots: Iterable[Path]) -> Tree:
    """
    Return the tree of the repository ``root``, with the files of ``pillar_roots`` as ``pillar/``.

    Of two pillar files of one name that of the earlier root is taken, as Salt does.
    """
    files = {str(path.relative_to(root)): path for name in FOLDERS for path in _walk(root / name)}
    for pillar in reversed(list(pillar_roots)):
        for path in _walk(pillar):
            if path.suffix == ".sls":
                files[f"pillar/{path.relative_to(pillar)}"] = path
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name in sorted(files):
            tar.add(files[name], arcname=name, recursive=False, filter=_plain)
    return Tree(raw.getvalue(), hashlib.sha256(raw.getvalue()).hexdigest()[:16])


def _walk(folder: Path) -> Iterator[Path]:
    if not folder.is_dir():
        return
    for path in sorted(folder.iterdir()):
        if path.name in _LEFT_OUT or path.suffix == ".pyc":
            continue
        if path.is_dir() and not path.is_symlink():
            yield from _walk(path)
        else:
            yield path


def _plain(item: tarfile.TarInfo) -> tarfile.TarInfo:
    item.uid = item.gid = 0
    item.uname = item.gname = "root"
    item.mtime = 0
    item.mode = 0o755 if item.mode & 0o100 else 0o644
    return item
