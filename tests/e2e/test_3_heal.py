"""A worker is lost, with its minion killed and its machine terminated; `up` makes it again."""

import subprocess

import pytest

from tests.e2e.conftest import make, wait_for

pytestmark = pytest.mark.e2e


def ready(platform) -> dict[str, bool]:
    return {
        node["metadata"]["name"]: any(
            c["type"] == "Ready" and c["status"] == "True" for c in node["status"]["conditions"]
        )
        for node in platform.kubectl("get", "nodes")["items"]
    }


def spread(platform) -> tuple[bool, list[str]]:
    label = "app.kubernetes.io/name=vote"
    pods = platform.kubectl("-n", "f1", "get", "pods", "-l", label)["items"]
    running = [pod["spec"].get("nodeName") for pod in pods if pod["status"]["phase"] == "Running"]
    return sorted(running) == ["f1-worker-1", "f1-worker-2"], running


def test_a_lost_worker_is_rebuilt(platform):
    choice = sorted(platform.voter("tally")[0])[0]
    before, _ = platform.voter("tally", f"vote:{choice}")
    lost = platform.machines()["f1-worker-2"]["InstanceId"]
    kill = ["systemctl", "kill", "--signal=KILL", "salt-minion"]
    subprocess.run(["docker", "exec", f"f1-{lost}", *kill], check=True, timeout=30)
    platform.ec2.terminate_instances(InstanceIds=[lost])
    make("up", timeout=300)
    rebuilt = platform.machines()["f1-worker-2"]
    assert rebuilt["InstanceId"] != lost
    wait_for(
        "three Ready nodes", 60, lambda: (all((r := ready(platform)).values()) and len(r) == 3, r)
    )
    after = platform.voter("tally")[0]
    assert after[choice] == before[choice] + 1, "no vote was lost with the worker"
    wait_for("an app pod on each worker", 60, lambda: spread(platform))
