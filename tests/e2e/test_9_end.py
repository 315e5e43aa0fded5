"""`down` leaves nothing behind."""

import subprocess
from pathlib import Path

import pytest

from tests.e2e.conftest import make

pytestmark = pytest.mark.e2e


def lines(*argv: str) -> list[str]:
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout.splitlines()


def processes() -> list[str]:
    """Command lines of the lab's own processes."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            except OSError:
                continue
            if "lab.cloud" in command or "/f1-lab/" in command:
                found.append(command)
    return found


def disks() -> set[Path]:
    """Where the engine keeps the lab's containers and volumes: seen also when the engine is off."""
    root = Path(lines("docker", "info", "-f", "{{.DockerRootDir}}")[0])
    found = set()
    for container in lines("docker", "ps", "-aq", "--no-trunc", "--filter", "label=f1.lab"):
        found.add(root / "containers" / container)
        mounts = "{{range .Mounts}}{{.Name}} {{end}}"
        for volume in lines("docker", "inspect", "-f", mounts, container)[0].split():
            found.add(root / "volumes" / volume)
    return found


def test_down_leaves_nothing(platform):
    kept = disks()
    assert len(kept) >= 9, "three machines with two volumes each"
    assert all(path.exists() for path in kept)
    make("down", timeout=120)
    assert [path for path in kept if path.exists()] == []
    assert [n for n in lines("ip", "netns", "list") if n.startswith("f1-")] == []
    assert [i for i in lines("ip", "-br", "link") if i.startswith("f1-")] == []
    assert [t for t in lines("nft", "list", "tables") if "f1" in t] == []
    assert [r for r in lines("ip", "route") if "198.18." in r or "198.19." in r] == []
    assert processes() == []


def test_down_again_has_nothing_to_do(platform):
    make("down", timeout=60)
