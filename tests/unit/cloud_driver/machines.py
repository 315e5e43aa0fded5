"""
Machines for tests: each instance that the API runs boots its user-data in a folder.

The first-boot.py inside the user-data is run as it is; only what needs a real machine (unpacking
to /opt, systemd) is left out. ``ssh`` is a program that runs its command in the master's folder.
"""

import base64
import gzip
import json
import threading
import types
from pathlib import Path
from typing import Any

import aws
import boto3
import vpc
import yaml

SSH = """\
#!/bin/sh
# ssh -F config name -- command
while [ "$1" != -- ]; do name=$last; last=$1; shift; done
root={root}/$last
[ -e "$root/var/run/sshd" ] || {{ echo "connect to host $last port 22: refused" >&2; exit 255; }}
echo "$2" >> {root}/ssh.log
exec sh -c "$(echo "$2" | sed -e "s,/etc/salt,$root/etc/salt,g" -e "s,/srv,$root/srv,g" \
  -e "s,/opt/salt,$root/opt/salt,g" -e 's,^sudo ,,')"
"""


class Machines:
    """Boots every running instance of the platform once. ``wrong`` changes what it announces."""

    def __init__(self, platform: dict[str, Any], folder: Path) -> None:
        self.folder = folder
        self._ours: Any = aws.mine(platform)
        self.programs = folder / "bin"
        self.programs.mkdir(parents=True)
        ssh = self.programs / "ssh"
        ssh.write_text(SSH.format(root=folder))
        ssh.chmod(0o755)
        self.wrong: dict[str, Any] = {}
        self.fails: str | None = None
        self.patience = 20.0  # seconds that a worker waits for its master
        self.booted: list[str] = []
        self.user_data: dict[str, str] = {}
        self._ec2 = boto3.client(
            "ec2",
            endpoint_url=platform["aws"]["endpoint_url"],
            region_name=platform["aws"]["region"],
        )
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._boots: list[threading.Thread] = []

    def __enter__(self) -> "Machines":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        for thread in [self._thread, *self._boots]:
            thread.join(30)

    def _watch(self) -> None:
        while not self._end.wait(0.05):
            for reservation in self._ec2.describe_instances(Filters=self._ours)["Reservations"]:
                for item in reservation["Instances"]:
                    ident = item["InstanceId"]
                    if item["State"]["Name"] == "running" and ident not in self.booted:
                        self.booted.append(ident)
                        thread = threading.Thread(target=self._boot, args=(ident,))
                        self._boots.append(thread)
                        thread.start()

    def _boot(self, ident: str) -> None:
        answer = self._ec2.describe_instance_attribute(InstanceId=ident, Attribute="userData")
        data = base64.b64decode(answer["UserData"]["Value"])
        text = (gzip.decompress(data) if data.startswith(b"\x1f\x8b") else data).decode()
        files = {item["path"]: item["content"] for item in yaml.safe_load(text)["write_files"]}
        job = json.loads(files["/var/lib/f1/first-boot.json"])
        self.user_data[job["id"]] = text
        root = self.folder / job["id"]
        for path, body in {
            "var/lib/cloud/data/instance-id": ident + "\n",
            "etc/ssh/ssh_host_ed25519_key.pub": f"ssh-ed25519 AAAA{ident[2:]} root@{job['id']}\n",
            "var/run/sshd": "",
        }.items():
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_text(body)
        boot: Any = types.ModuleType("first_boot")
        exec(compile(files["/var/lib/f1/first-boot.py"], "first-boot.py", "exec"), boot.__dict__)
        boot.ROOT = root
        boot.unpack = lambda job: None
        boot.start = self._start
        real = boot.announce
        boot.announce = lambda job, told: real(job, {**told, **self.wrong})
        boot.MASTER_SECONDS = self.patience
        boot.KEY_BITS = 1024
        try:
            boot.boot(job)
        except Exception as error:
            self.last = error

    def _start(self, job: dict[str, Any]) -> None:
        if self.fails:
            raise RuntimeError(self.fails)


def network(platform: dict[str, Any]) -> None:
    """Make what a machine needs of the network, by the API alone."""
    call = aws.call
    name = platform["name"]

    def tags(kind: str, value: str) -> list[dict[str, Any]]:
        return [{"ResourceType": kind, "Tags": aws.tags(platform, value)}]

    home = call(
        platform,
        "ec2",
        "create_vpc",
        CidrBlock=platform["network"]["vpc_cidr"],
        TagSpecifications=tags("vpc", name),
    )["Vpc"]["VpcId"]
    for subnet, (cidr, zone) in vpc.subnets(platform).items():
        call(
            platform,
            "ec2",
            "create_subnet",
            VpcId=home,
            CidrBlock=cidr,
            AvailabilityZone=zone,
            TagSpecifications=tags("subnet", subnet),
        )
    for role, text in vpc.GROUPS.items():
        call(
            platform,
            "ec2",
            "create_security_group",
            GroupName=f"{name}-{role}",
            Description=text,
            VpcId=home,
            TagSpecifications=tags("security-group", f"{name}-{role}"),
        )
    call(
        platform,
        "ec2",
        "allocate_address",
        Domain="vpc",
        TagSpecifications=tags("elastic-ip", f"{name}-master"),
    )
    call(platform, "ec2", "create_key_pair", KeyName=name)
    call(
        platform,
        "s3",
        "create_bucket",
        Bucket=aws.bucket(platform),
        CreateBucketConfiguration={"LocationConstraint": platform["aws"]["region"]},
    )
