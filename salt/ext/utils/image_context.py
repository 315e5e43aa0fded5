"""
What the image of the app is made of, and its name: a hash of exactly that.

The locked packages are installed here, on the operator's machine, into a folder that the image
copies: the image needs neither pip nor a network, and no step of its build runs inside it.
"""

import compileall
import hashlib
import io
import os
import py_compile
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Any

from salt.exceptions import SaltException

# Of app/; what is not listed is not in the image.
PARTS = ("Dockerfile", "requirements.txt", "f1vote", "locale", "polls")
# The Python of requirements.txt (requirements/lock.sh) and of the base (versions.images.python).
PYTHON = "3.11"
# Debian 12 and every newer base have at least this glibc, 2.x.
GLIBC_MINOR = 36
MACHINES = {"amd64": "x86_64", "arm64": "aarch64"}
# Pure Python that is published as source alone (a dependency of aioprometheus).
SOURCE_ONLY = "quantile-python"
# Changes when the same parts make another image.
RECIPE = "1"
# One moment for every file, so that the same parts give the same bytes: 2000-01-01.
EPOCH = 946684800


def architecture(platform: dict[str, Any]) -> str:
    """Return the nodes' architecture, amd64 or arm64: the machine image's name says it."""
    return "arm64" if "arm64" in platform["image"]["name"] else "amd64"


def key(app: Path, base: str, arch: str) -> str:
    """
    Return the sha256 of everything that decides what the image of ``app`` is: its parts, the
    digest of its base and ``arch``.
    """
    total = hashlib.sha256(f"{RECIPE}\0{base}\0{arch}\0{PYTHON}\0".encode())
    for file in files(app):
        total.update(f"{file.relative_to(app)}\0".encode())
        total.update(hashlib.sha256(file.read_bytes()).digest())
    return total.hexdigest()


def files(app: Path) -> list[Path]:
    """Return the files of the parts of ``app``, sorted; raise SaltException if one is missing."""
    found: list[Path] = []
    for part in PARTS:
        path = app / part
        if not path.exists():
            raise SaltException(f"{path}: missing; restore it (git checkout {path})")
        found += [path] if path.is_file() else (p for p in path.rglob("*") if p.is_file())
    return sorted(p for p in found if "__pycache__" not in p.parts)


def packages(app: Path, arch: str, cache: Path) -> Path:
    """
    Return the folder of the packages of ``app/requirements.txt``, installed for ``arch``.

    It is made once for a lock and kept under ``cache``. Raises SaltException.
    """
    lock = app / "requirements.txt"
    name = hashlib.sha256(f"{RECIPE}\0{arch}\0{PYTHON}\0".encode() + lock.read_bytes()).hexdigest()
    folder = cache / f"site-{name[:16]}"
    if folder.is_dir():
        return folder
    cache.mkdir(parents=True, exist_ok=True)
    machine = MACHINES[arch]
    tags = [f"manylinux_2_{minor}_{machine}" for minor in range(5, GLIBC_MINOR + 1)]
    with tempfile.TemporaryDirectory(dir=cache) as work:
        made = Path(work) / "site"
        command = [
            sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check",
            "--no-input", "--no-deps", "--no-compile", "--require-hashes",
            "--only-binary=:all:", f"--no-binary={SOURCE_ONLY}",
            "--target", str(made), "--requirement", str(lock),
            "--python-version", PYTHON, "--implementation", "cp",
            *(f"--abi={abi}" for abi in ("cp" + PYTHON.replace(".", ""), "abi3", "none")),
            *(f"--platform={tag}" for tag in (*tags, f"manylinux2014_{machine}", "any")),
        ]  # fmt: skip
        ended = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
        if ended.returncode != 0:
            said = "\n".join(ended.stderr.strip().splitlines()[-5:])
            raise SaltException(
                f"the packages of {lock} cannot be installed: {said}\n"
                "check the network, or refresh the lock (make lock)"
            )
        shutil.rmtree(made / "bin", ignore_errors=True)
        compile_all(made)
        try:
            made.rename(folder)
        except OSError:
            # Another run was faster; its folder is the same.
            if not folder.is_dir():
                raise
    return folder


def compile_all(folder: Path) -> None:
    """
    Compile the modules in ``folder``, if this Python is the image's: a pod starts sooner.

    Files compiled so are taken as they are (PEP 552, unchecked), whatever their dates.
    """
    if f"{sys.version_info.major}.{sys.version_info.minor}" != PYTHON:
        return
    compileall.compile_dir(
        folder,
        quiet=2,
        stripdir=str(folder),
        invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
    )


def context(app: Path, arch: str, cache: Path) -> io.BytesIO:
    """Return the build context of the image of ``app`` as a tar: the same parts, the same bytes."""
    site = packages(app, arch, cache)
    with tempfile.TemporaryDirectory() as work:
        root = Path(work)
        for file in files(app):
            target = root / file.relative_to(app)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, target)
        compile_all(root / "f1vote")
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w", format=tarfile.GNU_FORMAT) as tar:
            for source, prefix in ((root, ""), (site, "site/")):
                for file in sorted(p for p in source.rglob("*") if p.is_file()):
                    _add(tar, file, prefix + str(file.relative_to(source)))
    packed.seek(0)
    return packed


def cache_dir() -> Path:
    """Return the folder for what can be made again (XDG base directory specification)."""
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache") / "f1-vote" / "app"


def _add(tar: tarfile.TarFile, file: Path, name: str) -> None:
    info = tarfile.TarInfo(name)
    info.size = file.stat().st_size
    info.mtime = EPOCH
    info.mode = 0o644
    with file.open("rb") as content:
        tar.addfile(info, content)
