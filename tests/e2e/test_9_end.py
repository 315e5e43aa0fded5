"""`down` leaves nothing behind; then the platform is put back as the tests found it."""

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


def test_down_leaves_nothing(platform):
    volumes = {v for v in lines("docker", "volume", "ls", "-q")}
    mounted = {
        v for c in lines("docker", "ps", "-aq", "--filter", "label=f1.lab")
        for v in lines("docker", "inspect", "-f", "{{range .Mounts}}{{.Name}} {{end}}", c)[0].split()
    }
    assert mounted, "the machines keep their disks on volumes"
    make("down", timeout=120)
    if Path("/var/run/docker.sock").exists() and subprocess.run(["docker", "info"], capture_output=True).returncode == 0:
        assert lines("docker", "ps", "-aq", "--filter", "label=f1.lab") == []
        assert set(lines("docker", "volume", "ls", "-q")) & (mounted & volumes) == set()
    assert [n for n in lines("ip", "netns", "list") if n.startswith("f1-")] == []
    assert [i for i in lines("ip", "-br", "link") if i.startswith("f1-")] == []
    assert [t for t in lines("nft", "list", "tables") if "f1" in t] == []
    assert [r for r in lines("ip", "route") if "198.18." in r or "198.19." in r] == []
    assert processes() == []


def test_down_again_has_nothing_to_do(platform):
    make("down", timeout=60)


@pytest.mark.timeout(400)
def test_up_again_within_two_minutes_of_nothing(platform):
    make("up", timeout=300)
    assert sorted(platform.machines()) == ["f1-master", "f1-worker-1", "f1-worker-2"]
