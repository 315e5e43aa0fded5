"""
The operator's commands as typed, from a folder that is the repository's root, without a daemon:
salt-run and salt-cloud against a cloud API, with machines that boot their user-data.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import aws
import pytest
import yaml

from tests.conftest import ROOT
from tests.unit.cloud_driver.conftest import endpoint, machines, platform  # noqa: F401

BIN = Path(sys.executable).parent


@pytest.fixture
def repository(platform, machines, tmp_path, monkeypatch) -> Path:  # noqa: F811
    """The tree, with a state folder of its own and an environment that is quick to build."""
    root = tmp_path / "repo"
    root.mkdir()
    shutil.copytree(ROOT / "salt", root / "salt", symlinks=True)
    shutil.copy(ROOT / "Saltfile", root)
    (root / "requirements").mkdir()
    (root / "requirements/node.txt").write_text("")
    (root / "k8s").mkdir()
    monkeypatch.setenv("F1_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("F1_STATE")
    monkeypatch.setenv("PYTHONWARNINGS", "ignore")
    site = {"platform": {key: platform[key] for key in ("aws", "image", "operator")}}
    (root / ".state/pillar").mkdir(parents=True)
    (root / ".state/pillar/site.sls").write_text(yaml.safe_dump(site))
    return root


def call(root: Path, *words: str, code: int = 0) -> Any:
    done = subprocess.run(
        [str(BIN / words[0]), "--out=json", *words[1:]],
        cwd=root,
        capture_output=True,
        text=True,
        timeout=120,
        env=dict(os.environ),
        check=False,
    )
    assert done.returncode == code, done.stdout + done.stderr
    assert "not-to-be-shown" not in done.stdout + done.stderr
    assert "PRIVATE KEY" not in done.stdout + done.stderr
    return json.loads(done.stdout[done.stdout.index("{") :]) if "{" in done.stdout else {}


def states(answer: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the results of an orchestration by id, whatever is around them."""
    found = answer.get("data", answer)
    (results,) = [value for value in found.values() if isinstance(value, dict)]
    return {result["__id__"]: result for result in results.values()}


def orchestrate(root: Path, sls: str, *words: str, code: int = 0) -> dict[str, dict[str, Any]]:
    return states(call(root, "salt-run", "state.orchestrate", sls, *words, code=code))


def test_the_walk_of_the_stages_and_the_commands_by_hand(repository, platform, machines):  # noqa: F811
    network = orchestrate(repository, "orch.network")
    assert {state["result"] for state in network.values()} == {True}
    call(repository, "salt-run", "saltenv.publish")
    assert orchestrate(repository, "orch.machines", "test=True")["machines"]["result"] is None
    made = orchestrate(repository, "orch.machines")["machines"]
    assert set(made["changes"]) == {"f1-master", "f1-worker-1", "f1-worker-2"}
    again = orchestrate(repository, "orch.machines")["machines"]
    assert again["result"] is True
    assert again["changes"] == {}

    listed = call(repository, "salt-cloud", "-Q")["aws"]["ec2"]
    assert set(listed) == {"f1-master", "f1-worker-1", "f1-worker-2"}
    assert set(call(repository, "salt-cloud", "-S")["aws"]["ec2"]["f1-master"]) == {
        "id",
        "state",
        "size",
        "private_ips",
        "public_ips",
    }
    shown = call(repository, "salt-cloud", "-y", "-a", "show_instance", "f1-master")
    assert shown["aws"]["ec2"]["f1-master"]["groups"] == ["f1-master"]
    stopped = call(repository, "salt-cloud", "-y", "-a", "stop", "f1-worker-1")
    assert stopped["aws"]["ec2"]["f1-worker-1"]["state"] == "stopped"
    call(repository, "salt-cloud", "-y", "-d", "f1-worker-2")

    # One stopped, one gone, the address taken away: one run puts it all right.
    (address,) = aws.call(platform, "ec2", "describe_addresses")["Addresses"]
    aws.call(platform, "ec2", "disassociate_address", AssociationId=address["AssociationId"])
    healed = orchestrate(repository, "orch.machines")["machines"]
    assert healed["result"] is True
    assert set(healed["changes"]) == {"f1-master address", "f1-worker-1", "f1-worker-2"}
    listed = call(repository, "salt-cloud", "-Q")["aws"]["ec2"]
    assert {item["state"] for item in listed.values()} == {"running"}
    assert listed["f1-master"]["public_ips"] == [address["PublicIp"]]


def test_machines_by_hand_and_by_map(repository, platform, machines):  # noqa: F811
    orchestrate(repository, "orch.network")
    master = call(repository, "salt-cloud", "-p", "k3s-master", "f1-master")["f1-master"]
    assert master["private_ips"] == ["10.20.1.10"]
    worker = call(repository, "salt-cloud", "-p", "k3s-worker", "f1-worker-1")["f1-worker-1"]
    assert worker["state"] == "running"
    mapped = call(repository, "salt-cloud", "-y", "-P", "-m", "salt/cloud/k3s.map")
    assert mapped["f1-worker-2"]["state"] == "running"
    words = ("-f", "dry_run", "aws", "profile=k3s-worker", "name=f1-worker-9")
    asked = call(repository, "salt-cloud", *words)["aws"]["ec2"]
    assert asked["InstanceType"] == "t3.small"
    assert "UserData" not in asked
    assert "f1-worker-9" not in call(repository, "salt-cloud", "-Q")["aws"]["ec2"]


def test_a_wrong_profile_is_told_whole(repository, platform, machines):  # noqa: F811
    orchestrate(repository, "orch.network")
    profiles = repository / "salt/cloud/profiles.conf"
    profiles.write_text(profiles.read_text() + "  sise: t3.small\n  monitoring: 1\n")
    failed = orchestrate(repository, "orch.machines", code=1)["machines"]
    for words in ("k3s-worker.sise: unknown; write size", "k3s-worker.monitoring: 1: write true"):
        assert words in failed["comment"]
    assert call(repository, "salt-cloud", "-Q") == {}


def test_one_failed_machine_fails_the_stage(repository, platform, machines):  # noqa: F811
    orchestrate(repository, "orch.network")
    machines.fails = "salt-minion did not start: no memory"
    failed = orchestrate(repository, "orch.machines", code=1)["machines"]
    assert failed["result"] is False
    assert "f1-master: f1-master (i-" in failed["comment"]
    assert "no memory" in failed["comment"]
    assert call(repository, "salt-cloud", "-Q") == {}


def test_the_pillar_reaches_the_driver(repository, platform, machines):  # noqa: F811
    site = repository / ".state/pillar/site.sls"
    values = yaml.safe_load(site.read_text())
    values["platform"]["workers"] = {"size": "t3.large", "count": 1}
    site.write_text(yaml.safe_dump(values))
    orchestrate(repository, "orch.network")
    orchestrate(repository, "orch.machines")
    listed = call(repository, "salt-cloud", "-Q")["aws"]["ec2"]
    assert {name: item["size"] for name, item in listed.items()} == {
        "f1-master": "t3.medium",
        "f1-worker-1": "t3.large",
    }
