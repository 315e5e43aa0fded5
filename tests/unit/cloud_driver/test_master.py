"""The runner `master`: what is sent, when it is sent again, how failures come back."""

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import aws
import firstcontact
import knobs
import pytest
import ssh
import tree

from tests.conftest import load_ext


@pytest.fixture
def repository(tmp_path) -> Path:
    root = tmp_path / "repo"
    for name, body in {
        "salt/states/top.sls": "base: {}\n",
        "salt/states/__pycache__/x.pyc": "junk",
        "salt/ext/modules/k3s.py": "",
        "k8s/app/vote.yaml": "kind: Deployment\n",
        "salt/pillar/top.sls": "base: {}\n",
        "salt/pillar/site.sls": "platform: {}\n",
        "mine/site.sls": "platform: {name: mine}\n",
        "app/secret.py": "",
    }.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(body)
    (root / "salt/states/_modules").symlink_to("../ext/modules")
    return root


def roots(repository: Path) -> list[Path]:
    return [repository / "mine", repository / "salt/pillar", repository / "nowhere"]


def test_the_tree_holds_what_the_master_needs(repository):
    made = tree.pack(repository, roots(repository))
    with tarfile.open(fileobj=io.BytesIO(made.archive)) as tar:
        names = tar.getnames()
        site = tar.extractfile("pillar/site.sls")
        assert site is not None
        assert site.read() == b"platform: {name: mine}\n"
        assert tar.getmember("salt/states/_modules").linkname == "../ext/modules"
    assert "pillar/top.sls" in names
    assert "k8s/app/vote.yaml" in names
    assert not [name for name in names if "pycache" in name or name.startswith("app")]


def test_the_version_is_of_the_content_alone(repository):
    first = tree.pack(repository, roots(repository))
    (repository / "k8s/app/vote.yaml").touch()
    assert tree.pack(repository, roots(repository)) == first
    (repository / "mine/site.sls").write_text("platform: {name: other}\n")
    assert tree.pack(repository, roots(repository)).version != first.version


@pytest.fixture
def runner(opts, platform, machines, repository, monkeypatch) -> Any:
    """The runner, with a master that is a folder (see machines.py)."""
    monkeypatch.setattr(knobs, "ROOT", repository)
    monkeypatch.setattr(firstcontact, "remember_master", lambda platform: {})
    opts["pillar_roots"] = {"base": [str(root) for root in roots(repository)]}
    key = tuple(opts["pillar_roots"]["base"])
    monkeypatch.setattr(knobs, "_compiled", {key: {"platform": platform, "versions": {}}})
    master = machines.folder / "f1-master"
    for folder in ("var/run", "srv", "opt/salt/bin"):
        (master / folder).mkdir(parents=True)
    (master / "var/run/sshd").touch()
    module = load_ext("runners/master.py")
    module.__opts__ = opts
    module.root = master
    return module


def test_push_once_then_only_what_differs(runner, repository):
    plan = runner.push(test=True)
    assert plan["result"] is None
    assert not (runner.root / "srv/f1-vote").exists()
    first = runner.push()
    assert first["result"] is True
    assert first["changes"]["tree"]["old"] is None
    srv = runner.root / "srv/f1-vote"
    assert (srv / "pillar/site.sls").read_text() == "platform: {name: mine}\n"
    assert (srv / "salt/states/_modules/k3s.py").exists()
    assert srv.resolve().stat().st_mode & 0o077 == 0
    assert runner.push()["changes"] == {}

    for number in range(3):
        (repository / "k8s/app/vote.yaml").write_text(f"kind: {number}\n")
        changed = runner.push()
    assert changed["changes"]["tree"]["old"] != changed["changes"]["tree"]["new"]
    assert (srv / "k8s/app/vote.yaml").read_text() == "kind: 2\n"
    assert len(list((runner.root / "srv/f1-vote-trees").iterdir())) == 2


def salt_run(runner: Any, data: Any, code: int = 0, before: str = "") -> None:
    program = runner.root / "opt/salt/bin/salt-run"
    said = json.dumps(data, indent=1)
    program.write_text(f"#!/bin/sh\ncat <<'E'\n{before}{said}\nE\necho STAGE >&2\nexit {code}\n")
    program.chmod(0o755)


STATES = {
    "fleet_|-minions_|-minions_|-ready": {"result": True, "changes": {}, "comment": "3 answer"},
    "kube_|-k8s_|-k8s_|-applied": {
        "result": True,
        "changes": {"vote": "created"},
        "comment": "",
    },
}


def test_orchestrate_gives_back_what_the_master_did(runner, capfd):
    salt_run(runner, {"data": {"f1-master_master": STATES}, "retcode": 0}, before="noise\n")
    done = runner.orchestrate("orch.cluster")
    assert done["result"] is True
    assert done["comment"] == "2 states, 1 changed"
    assert done["changes"]["data"]["f1-master_master"] == STATES
    assert "STAGE" in capfd.readouterr().err


def test_orchestrate_without_a_change_has_no_changes(runner):
    same = {"fleet_|-m_|-m_|-ready": STATES["fleet_|-minions_|-minions_|-ready"]}
    salt_run(runner, {"f1-master_master": same})
    assert runner.orchestrate("orch.cluster") == {
        "result": True,
        "changes": {},
        "comment": "1 states, 0 changed",
    }


def test_a_failed_state_is_named_with_its_comment(runner):
    bad = {"result": False, "changes": {}, "comment": "waited 60 s for node f1-worker-1"}
    salt_run(runner, {"data": {"m": {**STATES, "k3s_|-join_|-join_|-joined": bad}}}, code=1)
    done = runner.orchestrate("orch.cluster")
    assert done["result"] is False
    assert "join: waited 60 s for node f1-worker-1" in done["comment"]


def test_what_does_not_render_fails(runner):
    salt_run(runner, {"data": {"m": ["Rendering SLS 'base:orch.cluster' failed: no key"]}}, code=1)
    done = runner.orchestrate("orch.cluster")
    assert done["result"] is False
    assert "Rendering SLS" in done["comment"]


def test_no_answer_is_an_error(runner):
    with pytest.raises(aws.CloudError, match="salt-run"):
        runner.orchestrate("orch.cluster")


def test_run_gives_words_back_and_complaints_up(runner, monkeypatch):
    assert runner.run("echo a; echo b") == "a\nb\n"
    assert runner.run(["echo", "a b"]) == "a b\n"
    with pytest.raises(aws.CloudError, match=r"ended with 3: no disk"):
        runner.run("echo no disk >&2; exit 3")
    with pytest.raises(aws.CloudError, match=r"no end in 0\.3 s"):
        runner.run("exec sleep 5", seconds=0.3)
    (runner.root / "var/run/sshd").unlink()
    with pytest.raises(ssh.Unreachable, match="refused"):
        runner.run("true")


def test_the_client_never_asks_and_never_trusts(platform, tmp_path):
    ssh.configure("f1-master", "203.0.113.9", "i-0abc")
    text = ssh.config().read_text()
    for line in (
        "HostName 203.0.113.9",
        "HostKeyAlias i-0abc",
        "BatchMode yes",
        "StrictHostKeyChecking yes",
        f"UserKnownHostsFile {tmp_path}/state/known_hosts",
        "GlobalKnownHostsFile /dev/null",
        "IdentitiesOnly yes",
    ):
        assert f"  {line}\n" in text


def test_without_a_master_a_plan_knows_what_would_come(runner, monkeypatch):
    def none(platform: dict[str, Any]) -> None:
        raise firstcontact.NoMaster("no machine named f1-master")

    monkeypatch.setattr(firstcontact, "remember_master", none)
    assert runner.push(test=True)["result"] is None
    assert runner.push(test=True)["changes"].keys() == {"tree"}
    assert runner.orchestrate("orch.cluster", test=True)["changes"].keys() == {"orch.cluster"}
    with pytest.raises(aws.CloudError, match="no machine named f1-master"):
        runner.push()
