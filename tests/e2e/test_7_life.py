"""The cluster's whole life under votes: upgrade, rotate, shrink, grow, heal, lose all, restore."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from lab.__main__ import OLDER
from lab.build.families import OLDER as KUBERNETES
from lab.faults import Lab, account, wait_for
from tests.conftest import ROOT
from tests.e2e.conftest import make

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

SITE = ROOT / ".state/pillar/site.sls"


def versions(platform) -> set[str]:
    nodes = platform.kubectl("get", "nodes")["items"]
    return {node["status"]["nodeInfo"]["kubeletVersion"] for node in nodes}


def nodes(platform) -> set[str]:
    return {node["metadata"]["name"] for node in platform.kubectl("get", "nodes")["items"]}


@contextmanager
def votes() -> Iterator[None]:
    """Two votes a second from outside meanwhile; none that was accepted is lost, none too many."""
    lab = Lab()
    before = lab.tally()["votes"]
    with lab.load() as lines:

        def accepted() -> str:
            count = sum(line["kind"] == "vote" and line["state"] == "accepted" for line in lines)
            return "" if count > 3 else f"{count} accepted"

        wait_for("the first votes", 60, accepted)
        yield
    after = lab.tally()
    seen = account(lines, before, after["votes"])
    print(seen)
    assert (seen.lost, seen.unasked, after["broken"]) == (0, 0, [])
    assert seen.accepted > 3


def test_an_older_kubernetes_is_upgraded_node_by_node_and_no_vote_is_lost(platform, monkeypatch):
    (older,) = KUBERNETES
    make("down", timeout=120)
    monkeypatch.setenv(OLDER, older)
    make("up", timeout=1800)
    assert versions(platform) == {f"{older}+k3s1"}
    monkeypatch.delenv(OLDER)
    # The lab's part of `up`, which names the newer one.
    subprocess.run([sys.executable, "-m", "lab", "prepare"], cwd=ROOT, check=True, timeout=600)
    with votes():
        plan = make("plan", timeout=120, ok=False)
        assert plan.returncode == 2
        make("up", timeout=400)
    (now,) = versions(platform)
    assert now != f"{older}+k3s1"
    assert " 0 changed, 0 failed" in make("up", timeout=120).stdout


def test_the_join_token_is_rotated(platform):
    before = platform.on_master("cat /etc/rancher/k3s/agent-token")
    with votes():
        done = make("rotate", timeout=300)
    after = platform.on_master("cat /etc/rancher/k3s/agent-token")
    assert before != after
    for secret in (before.strip(), after.strip()):
        assert secret not in done.stdout


def test_certificates_are_made_anew(platform):
    def ends() -> list[str]:
        """When the certificates of each machine end, to the second."""
        told = ["cat", "/var/lib/f1/metrics/k3s-certificates.prom"]
        return [
            subprocess.run(
                ["docker", "exec", f"f1-{machine['InstanceId']}", *told],
                check=True,
                capture_output=True,
                text=True,
                timeout=30,
            ).stdout
            for _, machine in sorted(platform.machines().items())
        ]

    before = ends()
    with votes():
        make("certificates", timeout=400)
    after = ends()
    for old, new in zip(before, after, strict=True):
        assert old != new


def test_one_worker_less_and_one_more(platform):
    try:
        with votes():
            SITE.write_text("platform:\n  workers: {count: 1}\n")
            make("up", timeout=400)
            assert nodes(platform) == {"f1-master", "f1-worker-1"}
            assert sorted(platform.machines()) == ["f1-master", "f1-worker-1"]
            assert "f1-worker-2" not in platform.on_master("ls /etc/salt/pki/master/minions")
    finally:
        SITE.unlink()
    with votes():
        make("up", timeout=400)
    assert nodes(platform) == {"f1-master", "f1-worker-1", "f1-worker-2"}


def test_the_benchmark_is_met(platform):
    make("audit", timeout=120)


def test_what_drifts_is_repaired_by_the_master_itself(platform):
    platform.on_master("k3s kubectl -n f1 delete deployment vote")
    worker = platform.machines()["f1-worker-1"]["InstanceId"]
    spoil = ["sh", "-c", "echo '# by hand' >> /etc/rancher/k3s/registries.yaml"]
    subprocess.run(["docker", "exec", f"f1-{worker}", *spoil], check=True, timeout=30)
    platform.on_master("systemctl start f1-heal.service", timeout=300)
    told = json.loads(platform.on_master("cat /var/lib/f1/heal/last.json"))
    assert "registries.yaml" in json.dumps(told)
    assert "vote" in json.dumps(told)
    made = platform.kubectl("-n", "f1", "get", "deployment", "vote")
    assert made["metadata"]["name"] == "vote"


def test_everything_is_lost_and_comes_back(platform):
    with votes():
        pass
    before = Lab().tally()
    assert before["voters"] > 3
    make("drill", timeout=900)
    assert Lab().tally() == before
    done = make("status", timeout=60)
    assert "everything is as it should be" in done.stdout
