"""
The Salt environment of a machine: one tree, built once, known by its hash.

``/opt/salt/lib`` holds the packages of ``requirements/node.txt`` (locked by hash), compiled for
CPython 3.11; ``/opt/salt/bin`` the commands, run by the machine's ``/usr/bin/python3``. Debian 12
has Python 3.11: the build refuses another version, and the machine checks again before it unpacks.

The archive is a function of the lock and of this file: sorted, owned by root, all times zero,
and ``.pyc`` files of the *unchecked hash* kind (PEP 552), which hold no time either.
"""

import fcntl
import gzip
import hashlib
import os
import platform as host
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import aws
import knobs

PYTHON = (3, 11)
LOCK = knobs.ROOT / "requirements" / "node.txt"
BUILD_SECONDS = 900
KEPT = 3

# Command → the function of salt.scripts behind it.
COMMANDS = {
    "salt": "salt_main",
    "salt-call": "salt_call",
    "salt-cp": "salt_cp",
    "salt-key": "salt_key",
    "salt-master": "salt_master",
    "salt-minion": "salt_minion",
    "salt-run": "salt_run",
}

# What pip puts there and no machine needs: it may go without anything else changing.
UNUSED = (
    "bin",  # commands of the packages, for the builder's interpreter
    "libcloud",  # clouds are made from the operator's machine
    "virtualenv",  # carries wheels of pip
    # Optional to Salt, and compiled here: never the same bytes twice.
    "timelib.*.so",
)
_LAUNCHER = """\
#!/usr/bin/python3 -sEI
import sys
sys.path.insert(0, "/opt/salt/lib")
from salt.scripts import {function}
sys.exit({function}())
"""


class Built(NamedTuple):
    """An archive and its SHA-256, in hexadecimal."""

    path: Path
    sha256: str


def key() -> str:
    """Return the name of this environment in the cache: a hash of all that goes into it."""
    parts = (LOCK.read_bytes(), Path(__file__).read_bytes(), host.machine().encode())
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:16]


def object_key(built: Built) -> str:
    """Return the archive's key in the bucket."""
    return f"saltenv/{built.sha256}.tar.gz"


def _folder() -> Path:
    cache = os.environ.get("F1_CACHE") or Path.home() / ".cache" / "f1-vote"
    return Path(cache) / "saltenv"


def cached() -> Built | None:
    """Return the archive if it was built here before."""
    path = _folder() / f"{key()}.tar.gz"
    note = path.with_suffix(".sha256")
    if not (path.exists() and note.exists()):
        return None
    return Built(path, note.read_text(encoding="ascii").strip())


def build() -> Built:
    """
    Return the archive, built now unless it is in the cache (about a minute).

    Raises CloudError with pip's last lines if a package cannot be had as locked.
    """
    folder = _folder()
    folder.mkdir(parents=True, exist_ok=True)
    with _alone(folder / ".lock"):
        found = cached()
        if found:
            return found
        path = folder / f"{key()}.tar.gz"
        with tempfile.TemporaryDirectory(dir=folder, prefix=".build-") as temporary:
            tree = Path(temporary) / "salt"
            _install(tree)
            archive = Path(temporary) / "salt.tar.gz"
            _pack(tree, archive)
            sha256 = hashlib.sha256(archive.read_bytes()).hexdigest()
            archive.replace(path)
            path.with_suffix(".sha256").write_text(sha256 + "\n", encoding="ascii")
        _prune(folder)
        return Built(path, sha256)


def published(platform: dict[str, Any], built: Built) -> bool:
    """Say whether the bucket has this archive."""
    try:
        aws.call(platform, "s3", "head_object", **aws.store(platform), Key=object_key(built))
    except aws.CloudError as error:
        if aws.code(error) in {"404", "NoSuchKey", "NoSuchBucket"}:
            return False
        raise
    return True


def publish(platform: dict[str, Any], built: Built) -> str:
    """Put the archive into the bucket unless it is there; return its key."""
    if not published(platform, built):
        with built.path.open("rb") as body:
            aws.call(
                platform,
                "s3",
                "put_object",
                **aws.store(platform),
                Key=object_key(built),
                Body=body,
                ContentType="application/gzip",
            )
    return object_key(built)


def _prune(folder: Path) -> None:
    """Keep the newest archives: one is 40 MB, and every change of the lock makes another."""
    archives = sorted(folder.glob("*.tar.gz"), key=lambda path: path.stat().st_mtime)
    for old in archives[:-KEPT]:
        old.unlink()
        old.with_suffix(".sha256").unlink(missing_ok=True)


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Build once, however many ask at the same time."""
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _python() -> str:
    """Return an interpreter of the machines' version, which compiles what they can load."""
    if sys.version_info[:2] == PYTHON:
        return sys.executable
    wanted = ".".join(map(str, PYTHON))
    found = shutil.which(f"python{wanted}")
    if found is None:
        raise aws.CloudError(
            f"the Salt environment needs Python {wanted}, Debian 12's; "
            f"this is {host.python_version()}: install python{wanted} with its venv module"
        )
    return found


def _install(tree: Path) -> None:
    lib = tree / "lib"
    command = [_python(), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    command += ["--no-input", "--no-deps", "--require-hashes", "--no-compile"]
    _run([*command, "--target", str(lib), "--requirement", str(LOCK)])
    # Test suites are folders; salt.modules.test and its like are files.
    suites = [path for name in ("tests", "test") for path in lib.rglob(name) if path.is_dir()]
    for unused in [*(path for pattern in UNUSED for path in lib.glob(pattern)), *suites]:
        if unused.is_dir():
            shutil.rmtree(unused)
        else:
            unused.unlink(missing_ok=True)
    for record in lib.glob("*.dist-info/RECORD"):
        # It lists what was removed, and nothing on a machine reads it.
        record.unlink()
    # -s: names in tracebacks as on the machine.
    compiler = [_python(), "-m", "compileall", "-q", "-j", "0", "-s", str(tree), "-p", "/opt/salt"]
    _run([*compiler, "--invalidation-mode", "unchecked-hash", str(lib)])
    (tree / "bin").mkdir()
    for name, function in COMMANDS.items():
        launcher = tree / "bin" / name
        launcher.write_text(_LAUNCHER.format(function=function), encoding="ascii")
        launcher.chmod(0o755)


def _run(command: list[str]) -> None:
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=BUILD_SECONDS,
            stdin=subprocess.DEVNULL,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise aws.CloudError(f"the Salt environment: no end in {BUILD_SECONDS} s") from error
    if done.returncode:
        last = "\n".join((done.stderr or done.stdout).strip().splitlines()[-10:])
        raise aws.CloudError(f"the Salt environment: {' '.join(command[1:4])} failed:\n{last}")


def _pack(tree: Path, archive: Path) -> None:
    def plain(item: tarfile.TarInfo) -> tarfile.TarInfo:
        item.uid = item.gid = 0
        item.uname = item.gname = "root"
        item.mtime = 0
        item.mode = 0o755 if item.isdir() or item.mode & 0o100 else 0o644
        return item

    with (
        archive.open("wb") as raw,
        gzip.GzipFile(fileobj=raw, mode="wb", filename="", mtime=0, compresslevel=6) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as tar,
    ):
        for path in sorted(tree.rglob("*")):
            name = str(path.relative_to(tree))
            tar.add(path, arcname=name, recursive=False, filter=plain)
