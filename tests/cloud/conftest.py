"""A lab of its own for this folder's tests: own folder, own ports, gone afterwards."""

import fcntl
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import docker
import pytest

from lab import cloud
from lab.cloud import engine
from lab.cloud.config import GUARD, HOST_ADDRESS

HERE = Path(__file__).parent


def until(true: Callable[[], Any], what: str, seconds: float = 30) -> Any:
    """Wait for a truth, with a deadline; give it back."""
    deadline = time.monotonic() + seconds
    while True:
        found = true()
        if found:
            return found
        assert time.monotonic() < deadline, f"waited {seconds} s for {what}; last seen: {found!r}"
        time.sleep(0.05)


class Lab:
    """The running lab as its user sees it."""

    def __init__(self, config: cloud.Config, key: Path) -> None:
        self.config = config
        self.key = key
        session = boto3.Session("testing", "testing", region_name=config.region)
        self.ec2 = session.client("ec2", endpoint_url=config.api_url)
        self.route53 = session.client("route53", endpoint_url=config.api_url)
        self.s3 = session.client("s3", endpoint_url=config.s3_url)
        self.docker = docker.from_env()

    def network(self) -> None:
        """A VPC with a way out, two groups, a key."""
        ec2 = self.ec2
        self.vpc = ec2.create_vpc(CidrBlock="10.20.0.0/16")["Vpc"]["VpcId"]
        subnet = ec2.create_subnet(VpcId=self.vpc, CidrBlock="10.20.1.0/24")["Subnet"]
        self.subnet = subnet["SubnetId"]
        ec2.modify_subnet_attribute(SubnetId=self.subnet, MapPublicIpOnLaunch={"Value": True})
        gateway = ec2.create_internet_gateway()["InternetGateway"]["InternetGatewayId"]
        self.gateway = gateway
        ec2.attach_internet_gateway(InternetGatewayId=gateway, VpcId=self.vpc)
        table = ec2.create_route_table(VpcId=self.vpc)["RouteTable"]["RouteTableId"]
        ec2.create_route(RouteTableId=table, DestinationCidrBlock="0.0.0.0/0", GatewayId=gateway)
        ec2.associate_route_table(RouteTableId=table, SubnetId=self.subnet)
        self.groups = {}
        for name in ("master", "worker"):
            made = ec2.create_security_group(GroupName=name, Description=name, VpcId=self.vpc)
            self.groups[name] = made["GroupId"]
        self.allow("master", "tcp", 22, cidr=f"{HOST_ADDRESS}/32")
        key = self.key.with_suffix(".pub").read_bytes()
        ec2.import_key_pair(KeyName="f1", PublicKeyMaterial=key)

    def permission(
        self, protocol: str, port: int, cidr: str | None = None, group: str | None = None
    ) -> dict[str, Any]:
        made: dict[str, Any] = {"IpProtocol": protocol, "FromPort": port, "ToPort": port}
        if cidr:
            made["IpRanges"] = [{"CidrIp": cidr}]
        if group:
            made["UserIdGroupPairs"] = [{"GroupId": self.groups[group]}]
        return made

    def allow(self, name: str, *args: Any, **kwargs: Any) -> None:
        permission = [self.permission(*args, **kwargs)]
        self.ec2.authorize_security_group_ingress(
            GroupId=self.groups[name], IpPermissions=permission
        )

    def forbid(self, name: str, *args: Any, **kwargs: Any) -> None:
        permission = [self.permission(*args, **kwargs)]
        self.ec2.revoke_security_group_ingress(GroupId=self.groups[name], IpPermissions=permission)

    def run(self, name: str, group: str, user_data: str = "", **values: Any) -> str:
        images = self.ec2.describe_images(Owners=["136693071363"])["Images"]
        tags = [{"ResourceType": "instance", "Tags": [{"Key": "Name", "Value": name}]}]
        given: dict[str, Any] = {
            "ImageId": images[0]["ImageId"],
            "InstanceType": "t3.small",
            "MinCount": 1,
            "MaxCount": 1,
            "SubnetId": self.subnet,
            "SecurityGroupIds": [self.groups[group]],
            "KeyName": "f1",
            "UserData": user_data,
            "MetadataOptions": {"HttpTokens": "required", "HttpPutResponseHopLimit": 1},
            "TagSpecifications": tags,
        }
        return self.ec2.run_instances(**(given | values))["Instances"][0]["InstanceId"]

    def describe(self, instance: str) -> dict[str, Any]:
        answer = self.ec2.describe_instances(InstanceIds=[instance])
        return answer["Reservations"][0]["Instances"][0]

    def execute(self, instance: str, *argv: str) -> tuple[int, str]:
        """Run a command in the machine by the hypervisor's door."""
        try:
            code, out = self.docker.containers.get(f"f1-{instance}").exec_run(list(argv))
        except docker.errors.APIError as error:  # not there, or not running now
            return 255, str(error)
        return code, out.decode(errors="replace")

    def booted(self, instance: str, boot: str = "") -> str:
        """Wait for the end of cloud-init; give the boot's id (another one than ``boot``)."""

        def look() -> str:
            code, out = self.execute(
                instance,
                "sh",
                "-c",
                "test -e /run/cloud-init/result.json && stat -c %i-%Z /run/cloud-init",
            )
            return "" if code or out == boot else out

        return until(look, f"{instance} to boot", 60)


def outside(*argv: str, timeout: float = 20) -> subprocess.CompletedProcess[str]:
    """A command as a voter."""
    return subprocess.run(
        ["ip", "netns", "exec", "f1-outside", *argv],
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def opens(address: str, port: int, namespace: str | None = None, wait: float = 0.4) -> bool:
    """Whether a TCP connection comes about."""
    argv = ["timeout", str(wait), "bash", "-c", f"exec 3<>/dev/tcp/{address}/{port}"]
    prefix = ["ip", "netns", "exec", namespace] if namespace else []
    return subprocess.run([*prefix, *argv], capture_output=True, check=False).returncode == 0


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    if os.geteuid() != 0:
        pytest.skip("machines and networks need root")
    with GUARD.open("a+") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            pytest.fail("another lab runs on this machine; `make down` it first")
    folder = tmp_path_factory.mktemp("lab")
    key = folder / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    shelf = folder / "shelf"
    shelf.mkdir()
    (shelf / "artifact").write_bytes(os.urandom(1 << 20))
    before = os.environ.get("F1_LAB_HOME")
    os.environ["F1_LAB_HOME"] = str(folder / "home")
    config = cloud.Config(
        api_port=5101,
        s3_port=9100,
        files_port=9180,
        files=str(shelf),
        images=[cloud.Image(mounts={str(shelf): "/opt/shelf"}, volumes=["/var/lib/thing"])],
        publish=[cloud.Publish("127.0.0.1:8180", "f1-one", 80)],
        processes=[cloud.Process("sleeper", ["sleep", "3600"])],
    )
    assert cloud.preflight(config) == []
    try:
        cloud.start(config)
        made = Lab(config, key)
        made.network()
        yield made
    finally:
        cloud.down()
        shutil.rmtree(folder, ignore_errors=True)
        if before is None:
            del os.environ["F1_LAB_HOME"]
        else:
            os.environ["F1_LAB_HOME"] = before


__all__ = ["Lab", "engine", "opens", "outside", "until"]
