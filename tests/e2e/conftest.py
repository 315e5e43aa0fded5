"""
The platform in the lab, used from outside as its users would.

The tests run in the order of their files: they tell one story. They leave the platform as they
found it: up if it was up.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import pytest
import yaml
from salt.utils.dictupdate import merge_recurse

from lab.cloud.config import home
from lab.cloud.requests import FILE
from tests.conftest import ROOT

pytestmark = pytest.mark.e2e
OUTSIDE = "f1-outside"


def make(target: str, *, timeout: float, ok: bool = True) -> subprocess.CompletedProcess[str]:
    """Run ``make <target>`` at the root; its output goes to the test's, too."""
    done = subprocess.run(
        ["make", "--no-print-directory", target],
        cwd=ROOT,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=timeout,
    )
    print(done.stdout)
    if ok:
        assert done.returncode == 0, done.stdout[-4000:]
    return done


@dataclass
class Platform:
    """What a test asks of the running platform."""

    pillar: dict[str, Any]

    @property
    def domain(self) -> str:
        return str(self.pillar["platform"]["domain"])

    @property
    def ec2(self) -> Any:
        aws = self.pillar["platform"]["aws"]
        return boto3.client(
            "ec2",
            endpoint_url=aws["endpoint_url"],
            region_name=aws["region"],
            aws_access_key_id="f1",
            aws_secret_access_key="f1",
        )

    def machines(self) -> dict[str, dict[str, Any]]:
        """Return the live instances by their Name tag."""
        found = {}
        live = [{"Name": "instance-state-name", "Values": ["pending", "running"]}]
        for reservation in self.ec2.describe_instances(Filters=live)["Reservations"]:
            for instance in reservation["Instances"]:
                tags = {tag["Key"]: tag["Value"] for tag in instance.get("Tags", [])}
                found[tags.get("Name", "")] = instance
        return found

    def on_master(self, command: str, *, timeout: float = 60) -> str:
        """Return what ``command`` prints on the master, as root over the operator's SSH."""
        return subprocess.run(
            ["ssh", "-F", str(ROOT / ".state/ssh/config"), "f1-master", f"sudo {command}"],
            cwd=ROOT,
            check=True,
            capture_output=True,
            text=True,
            timeout=timeout,
        ).stdout

    def kubectl(self, *args: str) -> Any:
        return json.loads(self.on_master("k3s kubectl " + " ".join(args) + " -o json"))

    def redis(self, *words: str) -> list[str]:
        """Return the lines that Redis answers to one command."""
        line = "k3s kubectl -n f1 exec redis-0 -- redis-cli --raw " + " ".join(words)
        return self.on_master(line).splitlines()

    def redis_hash(self, key: str) -> dict[str, str]:
        lines = self.redis("HGETALL", key)
        return dict(zip(lines[::2], lines[1::2], strict=True))

    def outside(self, *argv: str, timeout: float = 60) -> subprocess.CompletedProcess[str]:
        """Run ``argv`` in the outside world, whose only way into the cloud is the public one."""
        return subprocess.run(
            ["ip", "netns", "exec", OUTSIDE, *argv],
            cwd=ROOT,
            text=True,
            capture_output=True,
            timeout=timeout,
        )

    def voter(self, *steps: str) -> list[Any]:
        """Play ``steps`` (see ``voter.py``) as one voter outside; return what each step saw."""
        script = Path(__file__).with_name("voter.py")
        done = self.outside(sys.executable, str(script), self.domain, *steps)
        assert done.returncode == 0, done.stderr
        return list(json.loads(done.stdout))


def wait_for(what: str, seconds: float, probe: Callable[[], tuple[bool, Any]]) -> Any:
    """Call ``probe`` until its first value is true; fail with the last thing it saw."""
    deadline = time.monotonic() + seconds
    while True:
        done, seen = probe()
        if done:
            return seen
        assert time.monotonic() < deadline, f"{what}: not in {seconds} s; last seen: {seen}"
        time.sleep(0.5)


def requests_since(moment: float = 0) -> list[dict[str, Any]]:
    """
    Return what the cloud's API was asked since ``moment`` (seconds since 1970), oldest first:
    ``{"time", "service", "operation", "source", "mutating", "status"}``.
    """
    lines = (home() / FILE).read_text(encoding="utf-8").splitlines()
    return [r for line in lines if (r := json.loads(line))["time"] >= moment]


@pytest.fixture(scope="session")
def platform() -> Platform:
    if os.geteuid() != 0:
        pytest.fail("the lab needs root: sudo make e2e")
    make("up", timeout=3000)
    layers = [ROOT / "salt/pillar/platform.sls", ROOT / ".state/pillar/local.sls"]
    base, local = (yaml.safe_load(layer.read_text()) for layer in layers)
    return Platform(merge_recurse(base, local))
