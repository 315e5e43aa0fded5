"""
The road measured, beside a bare cluster on the same machine in the same run.

Bare is: three machines of the same lab whose user-data fetches `k3s` and starts it with a fixed
token. No Salt, no network of our own, no platform. The ratio is what the rest of the road costs.

Also of the running platform: when its three nodes were Ready, a highstate that changes nothing on
all machines, and how the time of a state grows with their number.
"""

import datetime
import json
import re
import subprocess
import time
from pathlib import Path
from typing import Any

from lab import build, cloud, site
from lab.__main__ import STATE, lay_out
from lab.bench.common import EVIDENCE, HINT, Bare, stamp, timed
from lab.cloud.config import home
from lab.cloud.machines import container_name

ROAD = EVIDENCE / "road.md"
ROUNDS = 3
READY_SECONDS = 180
STATES = (40, 400)

# `lab.__main__` has put the product's utilities on the path.
import events  # noqa: E402

BARE = """\
#!/bin/sh
set -eu
mkdir -p /etc/rancher/k3s /var/lib/rancher/k3s/agent/images
curl -fsS -o /usr/local/bin/k3s {k3s}; chmod 755 /usr/local/bin/k3s
curl -fsS --output-dir /var/lib/rancher/k3s/agent/images -O {airgap}
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
    seconds, text = timed("make", "--no-print-directory", target)
    print(text)
    return seconds, text


def bare(k3s: str, airgap: str) -> float:
    """
    Return the seconds from RunInstances to three Ready nodes, without Salt.

    ``k3s`` and ``airgap`` are where machines fetch the program and its images.
    """
    network = Bare(site.client("ec2"))
    server = "10.77.1.10"
    began = time.monotonic()
    for number, address in enumerate((server, "10.77.1.11", "10.77.1.12")):
        role = "agent" if number else "server"
        config = ["'token: a-token-for-the-bench'", f"'node-name: bare-{number}'"]
        config += ["'disable: [traefik, servicelb, metrics-server]'"] if not number else []
        config += [f"'server: https://{server}:6443'"] if number else []
        network.run(
            address, BARE.format(k3s=k3s, airgap=airgap, role=role, config=" ".join(config))
        )
    seconds = _three_ready(container_name(network.machines[0].id), began)
    network.remove()
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


def on_master(command: str) -> tuple[float, str]:
    """Run ``command`` as root on the master; return its seconds and what it printed."""
    return timed("ssh", "-F", str(STATE / "ssh/config"), "f1-master", f"sudo {command}")


def nodes_ready(log: Path) -> float:
    """Return the seconds from the stage ``cluster`` (machines have Salt) to three Ready nodes."""
    (began,) = [
        e["at"] for e in events.read(log) if (e["kind"], e["stage"]) == ("begin", "cluster")
    ]
    nodes = json.loads(on_master("k3s kubectl get nodes -o json")[1])["items"]
    since = [
        datetime.datetime.fromisoformat(condition["lastTransitionTime"]).timestamp()
        for node in nodes
        for condition in node["status"]["conditions"]
        if (condition["type"], condition["status"]) == ("Ready", "True")
    ]
    if len(since) != 3:
        raise SystemExit(f"bench: {len(since)} nodes are Ready, not 3")
    return max(since) - began


def each_state(count: int) -> float:
    """Return the seconds that one of ``count`` states takes, Salt's start apart."""
    text = "\n".join(
        f"/run/f1-bench/{n}:\n  file.managed:\n    - contents: '{n}'\n    - makedirs: true"
        for n in range(count)
    )
    subprocess.run(
        ["ssh", "-F", str(STATE / "ssh/config"), "f1-master",
         "sudo rm -rf /run/f1-bench && sudo mkdir -p /run/f1-sls && sudo tee /run/f1-sls/many.sls"],
        input=text, text=True, check=True, stdout=subprocess.DEVNULL, timeout=60,
    )  # fmt: skip
    call = "/opt/salt/bin/salt-call --local --file-root=/run/f1-sls --out=quiet"
    started, _ = on_master(f"{call} test.ping")
    seconds, _ = on_master(f"{call} state.apply many")
    on_master("rm -rf /run/f1-bench /run/f1-sls")
    return (seconds - started) / count


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
        ready = nodes_ready(STATE / "events.jsonl")
        again, text = make("up")
        if " 0 changed, 0 failed" not in text:
            raise SystemExit("bench: the second `up` changed something")
        highstate, _text = on_master("/opt/salt/bin/salt '*' state.apply --out=quiet -t 120")
        states = {count: each_state(count) for count in STATES}
        make("down")
        manifest = build.manifest()
        files = home() / "files"
        artifacts = lay_out(manifest, files)
        cloud.start(site.cloud(manifest, files))
        naked = bare(artifacts["k3s"]["url"], artifacts["airgap"]["url"])
        cloud.down()
        rows.append(
            {
                "up": up, "again": again, "bare": naked, "stages": seen, "ready": ready,
                "highstate": highstate, "states": states,
            }
        )  # fmt: skip
        print(json.dumps(rows[-1]), flush=True)
    ROAD.parent.mkdir(parents=True, exist_ok=True)
    ROAD.write_text(report(rows))
    print(ROAD.read_text())


def report(rows: list[dict[str, Any]]) -> str:
    """Return the evidence file for ``rows``, one a round."""
    lines = [
        "# The road, measured",
        "",
        f"{stamp()}, cached. {HINT} road`.",
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
    lines += [
        "",
        "Of the cluster. Three machines with Salt → three Ready nodes: from the begin of the stage "
        "`cluster` to the last node's Ready; its ratio is to the bare cluster, whose time has the "
        "boot of its machines in it. Highstate: `salt '*' state.apply` that changes nothing. A "
        "state: one of so many `file.managed`, Salt's start apart.",
        "",
        "| round | three Ready nodes (s) | ratio | highstate (s) | "
        + " | ".join(f"one of {count} states (ms)" for count in STATES)
        + " |",
        "|---" * (4 + len(STATES)) + "|",
    ]
    for number, row in enumerate(rows, 1):
        each = " | ".join(f"{1000 * row['states'][count]:.1f}" for count in STATES)
        lines.append(
            f"| {number} | {row['ready']:.1f} | {row['ready'] / row['bare']:.2f} | "
            f"{row['highstate']:.1f} | {each} |"
        )
    return "\n".join(lines) + "\n"
