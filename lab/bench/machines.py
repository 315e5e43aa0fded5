"""
The machines stage measured, beside a classic deployment over SSH on the same lab.

Ours: the network is there; `salt-cloud -m salt/cloud/k3s.map -P -y` makes three machines that bring
up their own Salt. Classic: three bare machines, then Salt's in-core `saltify` driver, which pushes
the same Salt to each over SSH and runs a deploy script there. Both: from the request until all
three minions answer `test.ping` of the master on the first machine.
"""

import json
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import yaml

from lab import site
from lab.__main__ import ROOT, STATE
from lab.bench.common import (
    EVIDENCE,
    HINT,
    Bare,
    operator,
    salt_cloud,
    shell,
    stamp,
    table,
    timed,
)
from lab.bench.common import write_section as write
from lab.cloud.config import HOST_ADDRESS

# `lab.__main__` has put the product's utilities on the path.
import environment  # isort: skip

FILE = EVIDENCE / "cloud.md"
TITLE = "The cloud driver, measured"
ROUNDS = 3
PING_SECONDS = 180
SALT = "sudo /opt/salt/bin/salt '*' test.ping --out=json --static --timeout=3"
CHANGED = " 0 changed, 0 failed"

# salt-cloud puts it beside the minion's keys and configuration, and the master's if it is one.
DEPLOY = """\
#!/bin/sh
set -eu
given=$(dirname "$0")
mkdir -p /opt/salt /etc/salt/pki/minion /etc/salt/pki/master/minions
tar -xzf /tmp/salt.tar.gz -C /opt/salt
cp "$given/minion" /etc/salt/minion
install -m 0400 "$given/minion.pem" /etc/salt/pki/minion/minion.pem
install -m 0644 "$given/minion.pub" /etc/salt/pki/minion/minion.pub
if [ -e "$given/master.pem" ]; then
  cp "$given/master" /etc/salt/master
  install -m 0400 "$given/master.pem" /etc/salt/pki/master/master.pem
  install -m 0644 "$given/master.pub" /etc/salt/pki/master/master.pub
  cp "$given"/preseed-minion-keys/* /etc/salt/pki/master/minions/
  systemd-run --unit=salt-master /opt/salt/bin/salt-master
fi
systemd-run --unit=salt-minion /opt/salt/bin/salt-minion
"""


def answered(ssh: list[str], began: float) -> float:
    """Return the seconds since ``began`` until three minions answer their master.

    Args:
        ssh: the command that reaches the master, without what to do there.
        began: `time.monotonic` then.
    """
    last = ""
    while time.monotonic() - began < PING_SECONDS:
        done = subprocess.run(
            [*ssh, SALT],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
            timeout=30,
        )
        last = done.stdout or done.stderr
        try:
            found = json.loads(done.stdout)
        except ValueError:
            found = {}
        if [answer for answer in found.values() if answer is True] == [True] * 3:
            return time.monotonic() - began
        time.sleep(0.2)
    raise SystemExit(f"bench: no three minions in {PING_SECONDS} s; last seen:\n{last}")


def ours() -> tuple[float, float]:
    """Return the seconds until salt-cloud is done, and until three minions answer."""
    began = time.monotonic()
    done = salt_cloud("-m", "salt/cloud/k3s.map", "-P")
    answer = answered(["ssh", "-F", str(STATE / "ssh" / "config"), "f1-master"], began)
    salt_cloud("-m", "salt/cloud/k3s.map", "-P", "-d")
    return done, answer


def classic() -> tuple[float, float]:
    """Return the same two numbers of a deployment over SSH."""
    key = STATE / "ssh" / "id_ed25519"
    archive = environment.build().path
    client = site.client("ec2")
    client.import_key_pair(KeyName="bare", PublicKeyMaterial=key.with_suffix(".pub").read_bytes())
    network = Bare(client, f"{HOST_ADDRESS}/32")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        began = time.monotonic()
        for number in range(3):
            network.run(f"10.77.1.{10 + number}", KeyName="bare")
        script = folder / "deploy.sh"
        script.write_text(DEPLOY)
        machines = [
            {f"bare-{number}": {"ssh_host": machine.public, **({} if number else _master())}}
            for number, machine in enumerate(network.machines)
        ]
        for name, data in {
            "cloud": {"providers_config": "providers", "profiles_config": "profiles"},
            "providers": {"ssh": {"driver": "saltify"}},
            "profiles": {
                "bare": {
                    "provider": "ssh",
                    "ssh_username": "admin",
                    "key_filename": str(key),
                    "sudo": True,
                    "deploy": True,
                    "script": str(script),
                    "file_map": {str(archive): "/tmp/salt.tar.gz"},  # noqa: S108
                    "minion": {"master": "10.77.1.10"},
                }
            },
            "master": {"root_dir": str(folder / "root"), "file_client": "local"},
            "map": {"bare": machines},
        }.items():
            (folder / name).write_text(yaml.safe_dump(data))
        salt_cloud("-c", temporary, "-m", str(folder / "map"), "-P")
        done = time.monotonic() - began
        ssh = ["ssh", "-i", str(key), "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=no"]
        ssh += ["-o", "UserKnownHostsFile=/dev/null", f"admin@{network.machines[0].public}"]
        answer = answered(ssh, began)
    network.remove()
    client.delete_key_pair(KeyName="bare")
    return done, answer


def _master() -> dict[str, object]:
    return {"make_master": True, "master": {"user": "root"}}


def unchanged() -> list[float]:
    """Return the seconds of the network stage when nothing is to change, each round."""
    rows = []
    for _ in range(ROUNDS):
        command = ("salt-run", "--out=summary", "state.orchestrate", "orch.network")
        seconds, text = timed(*command, env=operator())
        if CHANGED not in text:
            raise SystemExit(f"bench: the network stage changed something:\n{text}")
        rows.append(seconds)
    return rows


def main() -> None:
    """Measure from an empty lab, print, write the evidence; leaves no lab."""
    intro = f"{stamp()}, cached. {HINT} machines`."
    shell("make", "--no-print-directory", "down")
    shell(".venv/bin/python", "-m", "lab", "prepare", env=operator())
    for stage in ("check", "network", "artifacts"):
        shell("salt-run", "--out=summary", "state.orchestrate", f"orch.{stage}", env=operator())
    still = unchanged()
    rounds: list[Callable[[], tuple[float, float]]] = [ours, classic]
    rows = [[measure() for measure in rounds] for _ in range(ROUNDS)]
    shell("make", "--no-print-directory", "down")
    head = ["round", "salt-cloud ends", "ours", "salt-cloud ends", "classic over SSH", "ratio"]
    lines = [
        [
            str(number),
            *(f"{seconds:.1f}" for pair in row for seconds in pair),
            f"{row[0][1] / row[1][1]:.2f}",
        ]
        for number, row in enumerate(rows, 1)
    ]
    write(
        FILE,
        TITLE,
        "Three machines",
        f"{intro} Seconds from the request until three minions answer `test.ping`: "
        "`salt-cloud -m salt/cloud/k3s.map -P` from an up network, beside three bare machines of "
        "the same lab and Salt's in-core `saltify` driver (the same Salt pushed over SSH, a deploy "
        f"script), alternating.\n\n{table(head, lines)}",
    )
    write(
        FILE,
        TITLE,
        "The network stage without a change",
        f"{intro} `salt-run state.orchestrate orch.network`, nothing to do, one after the other: "
        f"{', '.join(f'{seconds:.1f}' for seconds in still)} s.",
    )
