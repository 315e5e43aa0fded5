"""The cloud as its operator meets it: salt-cloud by hand, the workers' way out, drift."""

import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.conftest import ROOT
from tests.e2e.conftest import make, requests_since, wait_for

pytestmark = pytest.mark.e2e

VOTER = "198.18.0.10"


def salt_cloud(*words: str, timeout: float = 120) -> subprocess.CompletedProcess[str]:
    """Run ``salt-cloud`` at the root with the lab's environment, as a person would."""
    line = '. .state/env && exec salt-cloud "$@"'
    return subprocess.run(
        ["bash", "-c", line, "bash", *words],
        cwd=ROOT,
        text=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=timeout,
    )


def answer(*words: str, timeout: float = 120) -> dict:
    done = salt_cloud("--out=json", *words, timeout=timeout)
    assert done.returncode == 0, done.stdout
    return json.loads(done.stdout[done.stdout.index("{") :])


@contextmanager
def listener(port: int) -> Iterator[list[str]]:
    """Take connections at the voter's address; yield the addresses they came from."""
    script = (
        "import socket,sys\n"
        f"s=socket.create_server(('{VOTER}',{port}))\n"
        "print('listening',flush=True)\n"
        "while True:\n"
        "    c,a=s.accept();print(a[0],flush=True);c.close()\n"
    )
    process = subprocess.Popen(
        ["ip", "netns", "exec", "f1-outside", sys.executable, "-c", script],
        stdout=subprocess.PIPE,
        text=True,
    )
    seen: list[str] = []
    try:
        assert process.stdout is not None
        assert process.stdout.readline().strip() == "listening"
        reader = threading.Thread(target=lambda: seen.extend(map(str.strip, process.stdout)))
        reader.start()
        yield seen
    finally:
        process.terminate()
        process.wait(10)


def connect(instance_id: str, port: int) -> bool:
    """Whether the machine can open a connection to the voter's address."""
    probe = ["nc", "-z", "-w", "3", VOTER, str(port)]
    done = subprocess.run(["docker", "exec", f"f1-{instance_id}", *probe], timeout=30, check=False)
    return done.returncode == 0


def test_workers_have_no_public_address_and_go_out_by_the_masters(platform):
    machines = platform.machines()
    workers = [machines[name] for name in ("f1-worker-1", "f1-worker-2")]
    assert [m.get("PublicIpAddress") for m in workers] == [None, None]
    with listener(443) as seen:
        for worker in workers:
            assert connect(worker["InstanceId"], 443)
        wait_for("two connections", 5, lambda: (len(seen) == 2, seen))
    assert set(seen) == {machines["f1-master"]["PublicIpAddress"]}


def test_the_master_forwards_only_what_the_knob_says(platform):
    with listener(2525) as seen:
        assert connect(platform.machines()["f1-master"]["InstanceId"], 2525)
        assert not connect(platform.machines()["f1-worker-1"]["InstanceId"], 2525)
        assert len(seen) <= 1


def test_the_lists_of_salt_cloud(platform):
    names = {"f1-master", "f1-worker-1", "f1-worker-2"}
    assert set(answer("-Q")["aws"]["ec2"]) == names
    full = answer("-F")["aws"]["ec2"]
    assert set(full) == names
    assert "user" not in json.dumps(full).lower(), "no user-data, no credentials"
    selected = answer("-S")["aws"]["ec2"]["f1-master"]
    assert set(selected) == {"id", "state", "size", "private_ips", "public_ips"}
    shown = answer("-y", "-a", "show_instance", "f1-worker-1")["aws"]["ec2"]["f1-worker-1"]
    assert shown["id"] == platform.machines()["f1-worker-1"]["InstanceId"]
    assert "aws" in answer("-f", "list_nodes_min", "aws")
    assert "aws" in answer("--list-sizes", "aws")


def test_the_console_shows_no_secret(platform):
    said = salt_cloud("-y", "-a", "console_output", "f1-worker-1")
    assert said.returncode == 0, said.stdout
    assert "X-Amz-Signature" not in said.stdout


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("-p", "k3s-wroker", "f1-worker-3"), "k3s-wroker"),
        (("-y", "-p", "k3s-worker", "gandalf"), "gandalf cannot be made"),
        (("-y", "-a", "stop", "f1-worker-77"), "f1-worker-77"),
        (("-y", "-a", "no_such_action", "f1-worker-1"), "no_such_action"),
        (("-f", "show_instance", "aws"), "salt-cloud -a show_instance"),
    ],
    ids=["profile", "name", "machine", "action", "function"],
)
def test_what_is_typed_wrong_fails_and_says_why(platform, words, message):
    done = salt_cloud(*words)
    print(done.stdout)
    assert done.returncode != 0, done.stdout
    assert message in done.stdout
    assert "Traceback" not in done.stdout


def test_a_map_whose_machine_fails_fails(platform, tmp_path):
    bad = tmp_path / "bad.map"
    bad.write_text("k3s-worker:\n  - gandalf\n")
    done = salt_cloud("-y", "-P", "-m", str(bad))
    assert done.returncode != 0, done.stdout
    assert "gandalf cannot be made" in done.stdout


@pytest.mark.timeout(400)
def test_every_drift_is_planned_without_a_touch_and_repaired(platform, tmp_path):
    """All at once, on the running platform: what the unit tests do one by one."""
    ec2, machines = platform.ec2, platform.machines()
    master, first, second = (machines[name] for name in ("f1-master", "f1-worker-1", "f1-worker-2"))
    vpc = master["VpcId"]
    inside = [{"Name": "vpc-id", "Values": [vpc]}]
    groups = {
        g["GroupName"]: g["GroupId"]
        for g in ec2.describe_security_groups(Filters=inside)["SecurityGroups"]
    }
    before = {name: m["InstanceId"] for name, m in machines.items()}
    attached = [{"Name": "attachment.vpc-id", "Values": [vpc]}]
    gateway = ec2.describe_internet_gateways(Filters=attached)["InternetGateways"][0]
    for source in ({"IpRanges": [{"CidrIp": "0.0.0.0/0"}]}, {"Ipv6Ranges": [{"CidrIpv6": "::/0"}]}):
        rule = {"IpProtocol": "tcp", "FromPort": 30000, "ToPort": 30000, **source}
        ec2.authorize_security_group_ingress(GroupId=groups["f1-master"], IpPermissions=[rule])
    ec2.create_tags(Resources=[vpc], Tags=[{"Key": "Name", "Value": "somebody-else"}])
    ec2.delete_tags(Resources=[vpc], Tags=[{"Key": "f1:platform"}])
    ec2.modify_vpc_attribute(VpcId=vpc, EnableDnsHostnames={"Value": False})
    ec2.modify_subnet_attribute(SubnetId=first["SubnetId"], MapPublicIpOnLaunch={"Value": True})
    ec2.detach_internet_gateway(InternetGatewayId=gateway["InternetGatewayId"], VpcId=vpc)
    ec2.modify_instance_attribute(InstanceId=first["InstanceId"], Groups=[groups["default"]])
    ec2.stop_instances(InstanceIds=[second["InstanceId"]])
    ec2.create_tags(Resources=[second["InstanceId"]], Tags=[{"Key": "Name", "Value": "lost"}])
    ec2.modify_instance_attribute(InstanceId=master["InstanceId"], SourceDestCheck={"Value": True})
    ec2.delete_key_pair(KeyName="f1")
    other = tmp_path / "other"
    subprocess.run(
        ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(other)], check=True, timeout=30
    )
    ec2.import_key_pair(KeyName="f1", PublicKeyMaterial=other.with_suffix(".pub").read_bytes())

    mark = time.time()
    plan = make("plan", timeout=120, ok=False)
    assert plan.returncode == 2, plan.stdout
    assert [r["operation"] for r in requests_since(mark) if r["mutating"]] == []
    for words in (
        "30000",
        "0.0.0.0/0",
        "::/0",
        "enableDnsHostnames",
        "attached to",
        "f1-worker-1",
        "f1-worker-2",
        "f1-master",
        "key pair",
    ):
        assert words in plan.stdout, words

    make("up", timeout=300)
    assert {name: m["InstanceId"] for name, m in platform.machines().items()} == before
    wait_for(
        "the page",
        60,
        lambda: ((status := platform.voter("page")[0][0]) == 200, status),
    )
    done = make("plan", timeout=120, ok=False)
    assert done.returncode == 0, done.stdout
    ours = ec2.describe_vpcs(Filters=[{"Name": "cidr", "Values": ["10.20.0.0/16"]}])["Vpcs"]
    assert [v["VpcId"] for v in ours] == [vpc], "drifted tags make no second VPC"
