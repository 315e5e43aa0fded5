"""The lab's cloud with real machines: what a user of a cloud relies on. Runs in order."""

import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab import cloud
from lab.cloud import machines, network, requests
from lab.cloud.config import home
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
  - [sysctl, -qw, net.ipv4.ip_forward=1]
  - [nft, "add table ip way; add chain ip way out { type nat hook postrouting priority 100; };
     add rule ip way out ip saddr 10.20.2.0/24 oifname eth0 masquerade"]
"""
# What the internet sees of a caller: its address.
ECHO = """
import socketserver
class Echo(socketserver.StreamRequestHandler):
    def handle(self):
        self.rfile.readline()
        self.wfile.write(b"HTTP/1.0 200 OK\\r\\n\\r\\n" + self.client_address[0].encode())
socketserver.ThreadingTCPServer.allow_reuse_address = True
socketserver.ThreadingTCPServer(("198.18.0.10", 8000), Echo).serve_forever()
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


@pytest.fixture
def echo() -> Iterator[None]:
    argv = ["ip", "netns", "exec", "f1-outside", sys.executable, "-c", ECHO]
    with subprocess.Popen(argv) as server:
        until(lambda: opens("198.18.0.10", 8000, "f1-outside"), "the echo to listen", 10)
        yield
        server.terminate()


def test_the_way_out_is_the_subnets_route_table(lab: Lab, echo: None) -> None:
    """One machine without a public address, its ways one after the other."""
    ec2 = lab.ec2
    subnet = ec2.create_subnet(
        VpcId=lab.vpc, CidrBlock="10.20.2.0/24", AvailabilityZone=f"{lab.config.region}b"
    )["Subnet"]["SubnetId"]
    table = ec2.create_route_table(VpcId=lab.vpc)["RouteTable"]["RouteTableId"]
    ec2.associate_route_table(RouteTableId=table, SubnetId=subnet)
    inner = lab.run("f1-hidden", "worker", SubnetId=subnet, PrivateIpAddress="10.20.2.10")
    lab.booted(inner)

    def seen(machine: str) -> str:
        return lab.execute(machine, "curl", "-s", "-m", "1", "http://198.18.0.10:8000/")[1]

    where = {"LocationConstraint": lab.config.region}
    lab.s3.create_bucket(Bucket="f1-ways", CreateBucketConfiguration=where)
    lab.s3.put_object(Bucket="f1-ways", Key="k", Body=b"kept")
    stored = lab.s3.generate_presigned_url("get_object", Params={"Bucket": "f1-ways", "Key": "k"})

    def fetch(url: str) -> str:
        return lab.execute(inner, "curl", "-sf", "-m", "1", url)[1]

    # Nothing: the VPC and its own services only.
    assert seen(State.two) == public(lab, State.two)
    assert (seen(inner), fetch(stored)) == ("", "")
    assert fetch("http://10.20.1.10:6443/") == "hello\n"
    assert lab.execute(inner, "getent", "hosts", "f1.invalid")[0] == 2
    # A public address of the VPC's is on the internet as well.
    assert fetch(f"http://{public(lab, State.one)}/") == ""

    # S3's endpoint: S3 and nothing beside it on the same address.
    endpoint = ec2.create_vpc_endpoint(
        VpcId=lab.vpc, ServiceName=f"com.amazonaws.{lab.config.region}.s3", RouteTableIds=[table]
    )["VpcEndpoint"]["VpcEndpointId"]
    assert fetch(stored) == "kept"
    assert (seen(inner), fetch(f"{lab.config.files_url}/artifact")) == ("", "")

    # Another machine, if it takes what is not for it and its group lets the port in.
    route = {"RouteTableId": table, "DestinationCidrBlock": "0.0.0.0/0"}
    nic = lab.describe(State.one)["NetworkInterfaces"][0]["NetworkInterfaceId"]
    ec2.create_route(NetworkInterfaceId=nic, **route)
    lab.allow("master", "tcp", 8000, group="worker")
    assert seen(inner) == ""
    ec2.modify_instance_attribute(InstanceId=State.one, SourceDestCheck={"Value": False})
    assert seen(inner) == public(lab, State.one)
    assert fetch("http://10.20.2.99/") == ""  # nobody's address of the VPC does not go there
    lab.forbid("master", "tcp", 8000, group="worker")
    assert seen(inner) == ""

    # A NAT gateway: its address, and no way in.
    elastic = ec2.allocate_address(Domain="vpc")
    nat = ec2.create_nat_gateway(SubnetId=lab.subnet, AllocationId=elastic["AllocationId"])
    nat = nat["NatGateway"]["NatGatewayId"]
    ec2.replace_route(NatGatewayId=nat, **route)
    assert seen(inner) == elastic["PublicIp"]
    assert seen(State.one) == public(lab, State.one)
    lab.allow("worker", "tcp", 22, cidr="0.0.0.0/0")
    assert lab.execute(State.one, "nc", "-z", "-w", "1", "10.20.2.10", "22")[0] == 0
    outside("ip", "route", "add", "10.20.0.0/16", "via", "198.18.0.254")
    for address in ("10.20.2.10", elastic["PublicIp"]):
        assert not opens(address, 22, "f1-outside", wait=1)
    outside("ip", "route", "del", "10.20.0.0/16")
    lab.forbid("worker", "tcp", 22, cidr="0.0.0.0/0")

    # All of them end at the internet gateway; the endpoint does not.
    ec2.detach_internet_gateway(InternetGatewayId=lab.gateway, VpcId=lab.vpc)
    assert (seen(inner), seen(State.two), fetch(stored)) == ("", "", "kept")
    ec2.attach_internet_gateway(InternetGatewayId=lab.gateway, VpcId=lab.vpc)
    assert (seen(inner), seen(State.two)) == (elastic["PublicIp"], public(lab, State.two))

    ec2.delete_nat_gateway(NatGatewayId=nat)
    ec2.delete_vpc_endpoints(VpcEndpointIds=[endpoint])
    assert (seen(inner), fetch(stored)) == ("", "")
    ec2.release_address(AllocationId=elastic["AllocationId"])
    ec2.modify_instance_attribute(InstanceId=State.one, SourceDestCheck={"Value": True})
    ec2.terminate_instances(InstanceIds=[inner])
    until(lambda: lab.execute(inner, "true")[0] == 255, "the machine to go", 10)


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
    asked = [r for r in requests.read(home()) if r["source"] == "machine"][-3:]
    assert [(r["operation"], r["status"]) for r in asked] == [
        ("PutObject", 200),
        ("GetObject", 200),
        ("GetObject", 403),
    ]
    assert asked[0]["address"] == public(lab, State.one)
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
