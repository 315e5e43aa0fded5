"""
The road measured, beside a bare cluster on the same machine in the same run.

    python -m lab.bench            writes docs/evidence/road.md

Bare is: three machines of the same lab whose user-data fetches `k3s` and starts it with a fixed
token. No Salt, no network of our own, no platform. The ratio is what the rest of the road costs.
"""

import datetime
import json
import os
import re
import subprocess
import time
from pathlib import Path
from typing import Any

import boto3

from lab import build, cloud, site
from lab.__main__ import ROOT, STATE, lay_out
from lab.cloud.config import home
from lab.cloud.machines import container_name

EVIDENCE = ROOT / "docs" / "evidence" / "road.md"
ROUNDS = 3
READY_SECONDS = 180

# `lab.__main__` has put the product's utilities on the path.
import events  # noqa: E402

BARE = """\
#!/bin/sh
set -eu
mkdir -p /etc/rancher/k3s /var/lib/rancher/k3s/agent/images
curl -fsS -o /usr/local/bin/k3s {files}/k3s; chmod 755 /usr/local/bin/k3s
curl -fsS -o /var/lib/rancher/k3s/agent/images/{airgap} {files}/{airgap}
umask 077
printf '%s\\n' {config} >/etc/rancher/k3s/config.yaml
cat >/etc/systemd/system/k3s.service <<UNIT
[Service]
Type=notify
KillMode=process
Delegate=yes
ExecStart=/usr/local/bin/k3s {role}
UNIT
systemctl daemon-reload; systemctl start --no-block k3s
"""


def make(target: str) -> tuple[float, str]:
    """Run ``make <target>``; return its seconds and what it printed."""
    began = time.monotonic()
    done = subprocess.run(
        ["make", "--no-print-directory", target],
        cwd=ROOT,
        text=True,
        check=False,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=900,
    )
    seconds = time.monotonic() - began
    print(done.stdout)
    if done.returncode:
        raise SystemExit(f"bench: make {target} failed")
    return seconds, done.stdout


def bare(airgap: str) -> float:
    """Return the seconds from RunInstances to three Ready nodes, without Salt."""
    ec2 = boto3.client(
        "ec2",
        endpoint_url=site.doors().api_url,
        region_name=site.doors().region,
        aws_access_key_id="lab",
        aws_secret_access_key="lab",  # noqa: S106 - the lab's API takes any
    )
    vpc = ec2.create_vpc(CidrBlock="10.77.0.0/16")["Vpc"]["VpcId"]
    subnet = ec2.create_subnet(VpcId=vpc, CidrBlock="10.77.1.0/24")["Subnet"]["SubnetId"]
    gateway = ec2.create_internet_gateway()["InternetGateway"]["InternetGatewayId"]
    ec2.attach_internet_gateway(InternetGatewayId=gateway, VpcId=vpc)
    table = ec2.create_route_table(VpcId=vpc)["RouteTable"]["RouteTableId"]
    ec2.create_route(RouteTableId=table, DestinationCidrBlock="0.0.0.0/0", GatewayId=gateway)
    ec2.associate_route_table(RouteTableId=table, SubnetId=subnet)
    group = ec2.create_security_group(GroupName="bare", Description="bare", VpcId=vpc)["GroupId"]
    ec2.authorize_security_group_ingress(
        GroupId=group,
        IpPermissions=[{"IpProtocol": "-1", "UserIdGroupPairs": [{"GroupId": group}]}],
    )
    server = "10.77.1.10"
    began = time.monotonic()
    for number, address in enumerate((server, "10.77.1.11", "10.77.1.12")):
        role = "agent" if number else "server"
        config = ["'token: a-token-for-the-bench'", f"'node-name: bare-{number}'"]
        config += ["'disable: [traefik, servicelb, metrics-server]'"] if not number else []
        config += [f"'server: https://{server}:6443'"] if number else []
        ec2.run_instances(
            ImageId=site.doors().images[0].ami,
            MinCount=1,
            MaxCount=1,
            InstanceType="t3.small",
            UserData=BARE.format(
                files=site.doors().files_url, airgap=airgap, role=role, config=" ".join(config)
            ),
            NetworkInterfaces=[
                {
                    "DeviceIndex": 0,
                    "SubnetId": subnet,
                    "Groups": [group],
                    "PrivateIpAddress": address,
                    "AssociatePublicIpAddress": True,
                }
            ],
            TagSpecifications=[
                {
                    "ResourceType": "instance",
                    "Tags": [{"Key": "Name", "Value": f"bare-{number}"}],
                }
            ],
        )
    ids = {
        instance["PrivateIpAddress"]: instance["InstanceId"]
        for r in ec2.describe_instances(Filters=[{"Name": "vpc-id", "Values": [vpc]}])[
            "Reservations"
        ]
        for instance in r["Instances"]
    }
    seconds = _three_ready(container_name(ids[server]), began)
    ec2.terminate_instances(InstanceIds=list(ids.values()))
    return seconds


def _three_ready(container: str, began: float) -> float:
    last = ""
    while time.monotonic() - began < READY_SECONDS:
        last = subprocess.run(
            ["docker", "exec", container, "k3s", "kubectl", "get", "nodes", "--no-headers"],
            capture_output=True,
            text=True,
            check=False,
            timeout=30,
        ).stdout
        if len(re.findall(r" Ready ", last)) == 3:
            return time.monotonic() - began
        time.sleep(0.3)
    raise SystemExit(f"bench: no three Ready nodes in {READY_SECONDS} s; last seen:\n{last}")


def stages(log: Path) -> dict[str, float]:
    """Return the seconds of each stage in the events file ``log``."""
    return {e["stage"]: e["seconds"] for e in events.read(log) if e["kind"] == "end"}


def main() -> None:
    """Measure, print, write the evidence."""
    rows: list[dict[str, Any]] = []
    for _ in range(ROUNDS):
        make("down")
        up, _text = make("up")
        seen = stages(STATE / "events.jsonl")
        again, text = make("up")
        if " 0 changed, 0 failed" not in text:
            raise SystemExit("bench: the second `up` changed something")
        make("down")
        manifest = build.manifest()
        files = home() / "files"
        airgap = lay_out(manifest, files)["airgap"]["url"].rpartition("/")[2]
        cloud.start(site.cloud(manifest, files))
        naked = bare(airgap)
        cloud.down()
        rows.append({"up": up, "again": again, "bare": naked, "stages": seen})
        print(json.dumps(rows[-1]), flush=True)
    EVIDENCE.parent.mkdir(parents=True, exist_ok=True)
    EVIDENCE.write_text(report(rows))
    print(EVIDENCE.read_text())


def report(rows: list[dict[str, Any]]) -> str:
    """Return the evidence file for ``rows``, one a round."""
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    lines = [
        "# The road, measured",
        "",
        f"{today}, commit {commit}, {os.cpu_count()} cores, cached. Repeat: `make bench`.",
        "Bare: three lab machines to three Ready nodes with neither Salt nor platform, same run.",
        "",
        "| round | nothing → counted vote (s) | second `up` (s) | bare cluster (s) | ratio |",
        "|---|---|---|---|---|",
    ]
    for number, row in enumerate(rows, 1):
        ratio = row["up"] / row["bare"]
        lines.append(
            f"| {number} | {row['up']:.1f} | {row['again']:.1f} | {row['bare']:.1f} | {ratio:.2f} |"
        )
    lines += [
        "",
        "Stages of `up` (s):",
        "",
        "| stage | " + " | ".join(str(n) for n in range(1, len(rows) + 1)) + " |",
        "|---" * (len(rows) + 1) + "|",
    ]
    for name in rows[0]["stages"]:
        values = " | ".join(f"{row['stages'].get(name) or 0:.1f}" for row in rows)
        lines.append(f"| {name} | {values} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
