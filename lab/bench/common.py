"""What the measurements share: the lab's API, bare machines, the evidence files."""

import datetime
import os
import re
import subprocess
import time
from pathlib import Path
from typing import Any, NamedTuple

from lab import site
from lab.__main__ import ROOT

EVIDENCE = ROOT / "docs" / "evidence"
HINT = "Repeat: `make bench`, or one part of it: `python -m lab.bench"


def shell(*words: str, seconds: float = 900, env: dict[str, str] | None = None) -> str:
    """Run a command at the root; return what it printed.

    Raises:
        SystemExit: it failed; with what it printed.
    """
    done = subprocess.run(
        words,
        cwd=ROOT,
        env=env,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=seconds,
    )
    if done.returncode:
        raise SystemExit(f"bench: {' '.join(words)} failed:\n{done.stdout}")
    return done.stdout


def timed(*words: str, env: dict[str, str] | None = None) -> tuple[float, str]:
    """Run a command as `shell` does; return its seconds and what it printed."""
    began = time.monotonic()
    text = shell(*words, env=env)
    return time.monotonic() - began, text


def salt_cloud(*words: str, env: dict[str, str] | None = None) -> float:
    """Run salt-cloud without questions; return its seconds.

    Raises:
        SystemExit: it failed, or a machine did (which its exit code does not say).
    """
    seconds, text = timed("salt-cloud", *words, "-y", "--out=json", env=env or operator())
    if '"Error"' in text:
        raise SystemExit(f"bench: salt-cloud {' '.join(words)} failed:\n{text}")
    return seconds


def operator() -> dict[str, str]:
    """The environment of a lab's operator (``.state/env``)."""
    kept = {k: v for k, v in os.environ.items() if k not in ("AWS_SESSION_TOKEN", "AWS_PROFILE")}
    return kept | {
        "PATH": f"{ROOT / '.venv' / 'bin'}:{os.environ['PATH']}",
        "PYTHONWARNINGS": "ignore",
        "AWS_ACCESS_KEY_ID": "lab",
        "AWS_SECRET_ACCESS_KEY": "lab",
    }


class Bare:
    """A network of its own, open within, and machines in it of which the platform knows nothing."""

    class Machine(NamedTuple):
        """One of them: instance id and public address."""

        id: str
        public: str

    def __init__(self, client: Any, ssh_from: str | None = None) -> None:
        self.ec2 = client
        self.vpc = client.create_vpc(CidrBlock="10.77.0.0/16")["Vpc"]["VpcId"]
        self.subnet = client.create_subnet(VpcId=self.vpc, CidrBlock="10.77.1.0/24")["Subnet"][
            "SubnetId"
        ]
        self.gateway = client.create_internet_gateway()["InternetGateway"]["InternetGatewayId"]
        client.attach_internet_gateway(InternetGatewayId=self.gateway, VpcId=self.vpc)
        self.table = client.create_route_table(VpcId=self.vpc)["RouteTable"]["RouteTableId"]
        client.create_route(
            RouteTableId=self.table, DestinationCidrBlock="0.0.0.0/0", GatewayId=self.gateway
        )
        self.association = client.associate_route_table(
            RouteTableId=self.table, SubnetId=self.subnet
        )["AssociationId"]
        self.group = client.create_security_group(
            GroupName="bare", Description="bare", VpcId=self.vpc
        )["GroupId"]
        permissions: list[dict[str, Any]] = [
            {"IpProtocol": "-1", "UserIdGroupPairs": [{"GroupId": self.group}]}
        ]
        if ssh_from:
            ssh = {"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22}
            permissions.append({**ssh, "IpRanges": [{"CidrIp": ssh_from}]})
        client.authorize_security_group_ingress(GroupId=self.group, IpPermissions=permissions)
        self.machines: list[Bare.Machine] = []

    def run(self, address: str, user_data: str = "", **more: Any) -> "Bare.Machine":
        """Launch a machine with this private address and a public one."""
        made = self.ec2.run_instances(
            ImageId=site.doors().images[0].ami,
            MinCount=1,
            MaxCount=1,
            InstanceType="t3.small",
            UserData=user_data,
            NetworkInterfaces=[
                {
                    "DeviceIndex": 0,
                    "SubnetId": self.subnet,
                    "Groups": [self.group],
                    "PrivateIpAddress": address,
                    "AssociatePublicIpAddress": True,
                }
            ],
            TagSpecifications=[
                {
                    "ResourceType": "instance",
                    "Tags": [{"Key": "Name", "Value": f"bare-{len(self.machines)}"}],
                }
            ],
            **more,
        )["Instances"][0]
        self.machines.append(Bare.Machine(made["InstanceId"], made["PublicIpAddress"]))
        return self.machines[-1]

    def remove(self) -> None:
        """Terminate the machines and delete the network."""
        self.ec2.terminate_instances(InstanceIds=[m.id for m in self.machines])
        self.ec2.disassociate_route_table(AssociationId=self.association)
        self.ec2.delete_route_table(RouteTableId=self.table)
        self.ec2.detach_internet_gateway(InternetGatewayId=self.gateway, VpcId=self.vpc)
        self.ec2.delete_internet_gateway(InternetGatewayId=self.gateway)
        self.ec2.delete_subnet(SubnetId=self.subnet)
        self.ec2.delete_security_group(GroupId=self.group)
        self.ec2.delete_vpc(VpcId=self.vpc)


def stamp() -> str:
    """When, which commit, how many cores, and what else ran (load average of a minute)."""
    commit = shell("git", "rev-parse", "--short", "HEAD").strip()
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    return f"{today}, commit {commit}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.0f}"


def table(head: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def write_section(file: Path, title: str, heading: str, body: str) -> None:
    """Put a section into an evidence file, in the place of an older one of that heading."""
    text = file.read_text() if file.exists() else f"# {title}\n"
    section = f"## {heading}\n\n{body.strip()}\n"
    pattern = re.compile(rf"^## {re.escape(heading)}\n.*?(?=^## |\Z)", re.M | re.S)
    if pattern.search(text):
        text = pattern.sub(lambda _: section + "\n", text)
    else:
        text = f"{text.rstrip()}\n\n{section}"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text.rstrip() + "\n")
    print(section)
