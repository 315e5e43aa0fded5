"""The lab's cloud with real machines: what a user of a cloud relies on. Runs in order."""

import os
import signal
import subprocess
import time
import urllib.request
from pathlib import Path

import pytest

from lab import cloud
from lab.cloud import machines, network
from tests.cloud.conftest import Lab, opens, outside, until

pytestmark = pytest.mark.lab

USER_DATA = """#cloud-config
hostname: f1-one
write_files:
  - path: /usr/local/bin/serve
    permissions: "0755"
    content: |
      #!/bin/sh
      cd /srv && exec python3 -m http.server "$1"
runcmd:
  - [sh, -c, "echo hello > /srv/index.html"]
  - [systemd-run, --unit=web, /usr/local/bin/serve, "80"]
  - [systemd-run, --unit=api, /usr/local/bin/serve, "6443"]
"""
TOKEN = (
    "curl -s -m 3 -X PUT -H 'X-aws-ec2-metadata-token-ttl-seconds: 60' "
    "http://169.254.169.254/latest/api/token"
)


class State:
    one = ""
    two = ""
    boot = ""


def public(lab: Lab, instance: str) -> str:
    return lab.describe(instance)["PublicIpAddress"]


def test_two_machines_boot_with_key_name_and_user_data(lab: Lab) -> None:
    begin = time.monotonic()
    State.one = lab.run("f1-one", "master", USER_DATA, PrivateIpAddress="10.20.1.10")
    State.two = lab.run("f1-two", "worker")
    State.boot = lab.booted(State.one)
    lab.booted(State.two)
    print(f"two machines booted in {time.monotonic() - begin:.1f} s")
    assert lab.execute(State.one, "hostname") == (0, "f1-one\n")
    assert lab.execute(State.one, "cloud-init", "status")[1] == "status: done\n"
    assert lab.execute(State.one, "systemctl", "is-system-running")[1] == "running\n"
    assert lab.execute(State.one, "test", "-f", "/opt/shelf/artifact")[0] == 0
    assert lab.execute(State.one, "touch", "/opt/shelf/x")[0] != 0
    ssh = [
        "ssh",
        "-i",
        str(lab.key),
        "-o",
        "BatchMode=yes",
        "-o",
        "StrictHostKeyChecking=no",
        "-o",
        "UserKnownHostsFile=/dev/null",
        "-o",
        "ConnectTimeout=10",
        f"admin@{public(lab, State.one)}",
        "sudo id -u",
    ]
    assert subprocess.run(ssh, capture_output=True, text=True, timeout=30).stdout == "0\n"


def test_no_two_machines_share_an_identity(lab: Lab) -> None:
    for file in ("/etc/machine-id", "/etc/ssh/ssh_host_ed25519_key.pub"):
        assert lab.execute(State.one, "cat", file) != lab.execute(State.two, "cat", file)


def test_a_rule_counts_within_a_second_both_ways(lab: Lab) -> None:
    address = public(lab, State.one)
    assert not opens(address, 80, "f1-outside")
    lab.allow("master", "tcp", 80, cidr="0.0.0.0/0")
    assert opens(address, 80, "f1-outside", wait=1)
    lab.forbid("master", "tcp", 80, cidr="0.0.0.0/0")
    assert not opens(address, 80, "f1-outside", wait=0.5)
    lab.allow("master", "tcp", 80, cidr="0.0.0.0/0")
    assert "hello" in outside("curl", "-s", "-m", "5", f"http://{address}/").stdout
    # ssh is the operator's alone
    assert opens(address, 22)
    assert not opens(address, 22, "f1-outside")


def test_a_rule_by_group_lets_its_members_in(lab: Lab) -> None:
    call = ["curl", "-s", "-m", "1", "http://10.20.1.10:6443/"]
    assert lab.execute(State.two, *call)[0] != 0
    lab.allow("master", "tcp", 6443, group="worker")
    assert lab.execute(State.two, *call) == (0, "hello\n")
    assert not opens(public(lab, State.one), 6443, "f1-outside")
    # nor does the group's name open anything on the member
    assert lab.execute(State.one, "nc", "-z", "-w", "1", "10.20.1.4", "22")[0] != 0


def test_a_forged_source_address_goes_nowhere(lab: Lab) -> None:
    lab.allow("master", "icmp", -1, cidr="0.0.0.0/0")
    assert lab.execute(State.two, "ping", "-c1", "-W1", "10.20.1.10")[0] == 0
    lab.execute(State.two, "ip", "addr", "add", "10.20.1.77/32", "dev", "eth0")
    forged = lab.execute(State.two, "ping", "-c1", "-W1", "-I", "10.20.1.77", "10.20.1.10")
    assert forged[0] != 0


def test_the_internet_needs_a_public_address(lab: Lab) -> None:
    hidden = lab.run("f1-hidden", "worker", SubnetId=_private_subnet(lab))
    lab.booted(hidden)
    fetch = ["curl", "-sf", "-m", "2", "-o", "/dev/null", f"{lab.config.files_url}/artifact"]
    assert lab.execute(State.two, *fetch)[0] == 0
    assert lab.execute(hidden, *fetch)[0] != 0
    assert lab.execute(hidden, "getent", "hosts", "localhost")[0] == 0
    lab.ec2.terminate_instances(InstanceIds=[hidden])
    until(lambda: lab.execute(hidden, "true")[0] == 255, "the machine to go", 10)


def _private_subnet(lab: Lab) -> str:
    made = lab.ec2.create_subnet(VpcId=lab.vpc, CidrBlock="10.20.2.0/24")
    return made["Subnet"]["SubnetId"]


def test_an_elastic_address_moves(lab: Lab) -> None:
    elastic = lab.ec2.allocate_address(Domain="vpc")
    address, allocation = elastic["PublicIp"], elastic["AllocationId"]
    assert not opens(address, 80, "f1-outside")
    lab.ec2.associate_address(InstanceId=State.one, AllocationId=allocation)
    assert opens(address, 80, "f1-outside", wait=1)
    seen = lab.execute(
        State.one,
        "sh",
        "-c",
        f"T=$({TOKEN}); curl -s -H "
        '"X-aws-ec2-metadata-token: $T" '
        "http://169.254.169.254/latest/meta-data/public-ipv4",
    )
    assert seen == (0, address)


def test_names_are_the_zones(lab: Lab) -> None:
    zone = lab.route53.create_hosted_zone(Name="example.org", CallerReference="1")
    record = {
        "Name": "vote.example.org",
        "Type": "A",
        "TTL": 60,
        "ResourceRecords": [{"Value": public(lab, State.one)}],
    }
    lab.route53.change_resource_record_sets(
        HostedZoneId=zone["HostedZone"]["Id"],
        ChangeBatch={"Changes": [{"Action": "UPSERT", "ResourceRecordSet": record}]},
    )
    assert "hello" in outside("curl", "-s", "-m", "5", "http://vote.example.org/").stdout
    assert outside("curl", "-s", "-m", "5", "http://nobody.example.org/").returncode == 6
    asked = lab.execute(State.two, "getent", "ahostsv4", "vote.example.org")
    assert public(lab, State.one) in asked[1]
    name = lab.describe(State.one)["PrivateDnsName"]
    assert "10.20.1.10" in lab.execute(State.two, "getent", "ahostsv4", name)[1]


def test_a_published_port_leads_to_the_machine(lab: Lab) -> None:
    with urllib.request.urlopen("http://127.0.0.1:8180/", timeout=5) as answer:
        assert answer.read() == b"hello\n"


def test_metadata_wants_a_token_and_gives_a_machine_its_own(lab: Lab) -> None:
    base = "http://169.254.169.254/latest"
    code = "curl -s -m 3 -o /dev/null -w '%{http_code}'"
    assert lab.execute(State.one, "sh", "-c", f"{code} {base}/user-data")[1] == "401"
    with_token = f'T=$({TOKEN}); {code} -H "X-aws-ec2-metadata-token: $T" {base}/user-data'
    assert lab.execute(State.one, "sh", "-c", with_token)[1] == "200"
    assert not opens("169.254.169.254", 80, "f1-outside")


def test_a_token_goes_no_further_than_the_hop_limit(lab: Lab) -> None:
    """A pod's network: one more hop behind the machine's own translation."""
    pod = """
    set -e
    ip netns add pod; ip link add p0 type veth peer name eth0 netns pod
    ip addr add 10.42.0.1/24 dev p0; ip link set p0 up
    ip -n pod addr add 10.42.0.2/24 dev eth0; ip -n pod link set eth0 up
    ip -n pod route add default via 10.42.0.1
    echo 1 > /proc/sys/net/ipv4/ip_forward
    iptables -t nat -A POSTROUTING -s 10.42.0.0/24 -o eth0 -j MASQUERADE
    """
    code, out = lab.execute(State.two, "sh", "-c", pod)
    assert code == 0, out
    ask = ["ip", "netns", "exec", "pod", "sh", "-c", TOKEN.replace("-m 3", "-m 2")]
    assert lab.execute(State.two, *ask)[0] != 0
    assert lab.execute(State.two, "sh", "-c", TOKEN)[0] == 0
    lab.ec2.modify_instance_metadata_options(
        InstanceId=State.two, HttpTokens="required", HttpPutResponseHopLimit=2
    )
    assert lab.execute(State.two, *ask)[0] == 0


def test_s3_by_presigned_url_and_no_api_from_a_machine(lab: Lab) -> None:
    where = {"LocationConstraint": lab.config.region}
    lab.s3.create_bucket(Bucket="f1-bucket", CreateBucketConfiguration=where)
    key = {"Bucket": "f1-bucket", "Key": "announce/f1-one.json"}
    put = lab.s3.generate_presigned_url("put_object", Params=key, ExpiresIn=900)
    get = lab.s3.generate_presigned_url("get_object", Params=key, ExpiresIn=900)
    sent = lab.execute(State.one, "curl", "-sf", "-m", "5", "-X", "PUT", "-d", "{}", put)
    assert sent[0] == 0, sent
    assert lab.execute(State.two, "curl", "-sf", "-m", "5", get) == (0, "{}")
    unsigned = lab.execute(State.one, "curl", "-sf", "-m", "5", get.split("?")[0])
    assert unsigned[0] != 0
    api = f"{lab.config.s3_url}/?Action=DescribeInstances&Version=2016-11-15"
    assert lab.execute(State.one, "curl", "-sf", "-m", "5", api)[0] != 0
    assert not opens("198.18.0.1", lab.config.api_port, "f1-outside")


def test_a_killed_process_comes_back_with_everything(lab: Lab) -> None:
    def described() -> object:
        return (
            lab.ec2.describe_instances()["Reservations"],
            lab.ec2.describe_security_groups()["SecurityGroups"],
            lab.ec2.describe_addresses()["Addresses"],
            lab.s3.get_object(Bucket="f1-bucket", Key="announce/f1-one.json")["Body"].read(),
        )

    before = described()
    os.kill(cloud.status()["pid"], signal.SIGKILL)
    until(lambda: not opens("127.0.0.1", lab.config.api_port), "the API to be gone", 5)
    cloud.start(lab.config)
    assert described() == before
    assert lab.booted(State.one) == State.boot  # adopted, not booted again
    assert opens(public(lab, State.one), 80, "f1-outside", wait=1)
    assert cloud.status()["processes"] == {"sleeper": "running"}


def test_reboots_by_api_and_by_itself_keep_the_disk(lab: Lab) -> None:
    assert lab.execute(State.one, "sh", "-c", "echo kept > /root/kept /var/lib/thing/kept")
    lab.ec2.reboot_instances(InstanceIds=[State.one])
    second = lab.booted(State.one, State.boot)
    assert lab.execute(State.one, "cat", "/root/kept")[0] == 0
    assert lab.execute(State.one, "hostname") == (0, "f1-one\n")
    lab.execute(State.one, "systemctl", "reboot")
    third = lab.booted(State.one, second)
    assert third not in (State.boot, second)
    assert lab.describe(State.one)["State"]["Name"] == "running"
    until(lambda: opens(public(lab, State.one), 22), "sshd to answer", 10)


def test_stop_start_and_switching_itself_off(lab: Lab) -> None:
    def container() -> str:
        return lab.docker.containers.get(f"f1-{State.one}").status

    lab.ec2.stop_instances(InstanceIds=[State.one])
    until(lambda: container() == "exited", "the machine to stop", 25)
    lab.ec2.start_instances(InstanceIds=[State.one])
    until(lambda: container() == "running", "the machine to start", 5)
    lab.booted(State.one)
    lab.execute(State.one, "systemctl", "poweroff")
    until(lambda: lab.describe(State.one)["State"]["Name"] == "stopped", "the API to know", 25)
    assert container() == "exited"
    console = lab.ec2.get_console_output(InstanceId=State.one)["Output"]
    assert "cloud-init" in console


def test_terminated_means_gone_with_its_volumes(lab: Lab) -> None:
    begin = time.monotonic()
    lab.ec2.terminate_instances(InstanceIds=[State.two])
    until(
        lambda: (
            f"f1-{State.two}"
            not in [c["Names"][0].lstrip("/") for c in lab.docker.api.containers(all=True)]
        ),
        "the container to go",
        5,
    )
    assert time.monotonic() - begin < 3
    volumes = lab.docker.volumes.list(filters={"label": "f1.lab=1"})
    assert len(volumes) == 1  # the other machine's


def test_down_leaves_nothing_even_after_a_kill(lab: Lab) -> None:
    # Its engine may end with the lab: what it kept is looked for on the disk.
    root = Path(lab.docker.info()["DockerRootDir"])
    mine = lab.docker.containers.list(all=True, filters=machines.OURS)
    kept = [root / "containers" / str(container.id) for container in mine]
    kept += [root / "volumes" / m["Name"] for c in mine for m in c.attrs["Mounts"] if "Name" in m]
    assert kept
    assert all(path.exists() for path in kept)
    os.kill(cloud.status()["pid"], signal.SIGKILL)
    report = cloud.down()
    assert f"container f1-{State.one}" in report["removed"]
    assert cloud.down() == {"removed": [], "foreign": report["foreign"]}
    assert network.exists() == []
    routes = subprocess.run(["ip", "route"], capture_output=True, text=True).stdout
    assert "198.1" not in routes
    assert not Path(os.environ["F1_LAB_HOME"]).exists()
    assert [path for path in kept if path.exists()] == []
