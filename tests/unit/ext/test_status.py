"""What the master tells of itself, what is wrong with it, and how that is shown."""

import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT, load_ext

VERSION = "v1.36.4+k3s1"
FLEET = {"master": "f1-master", "workers": ["f1-worker-1"]}
NOW = 1_800_000_000
DIGEST = "sha256:" + "a" * 64

KUBECTL = """\
#!{python}
import os, subprocess, sys
words = sys.argv[2:]
folder = {folder!r}
if "exec" in words:
    words = words[words.index("redis-cli") + 1:]
    sys.exit(subprocess.run(["redis-cli", "-s", folder + "/redis.sock", *words]).returncode)
path = folder + "/objects.json"
if not os.path.exists(path):
    sys.exit("error: The connection to the server was refused")
print(open(path).read())
"""


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    module = load_ext("utils/status.py")
    fake = tmp_path / "kubectl"
    fake.write_text(KUBECTL.format(python=sys.executable, folder=str(tmp_path)))
    fake.chmod(0o755)
    monkeypatch.setattr(module, "KUBECTL", (str(fake),))
    monkeypatch.setattr(module, "STATE", tmp_path / "f1")
    monkeypatch.setattr(module, "TREE", tmp_path / "tree")
    monkeypatch.setattr(module, "SECONDS", 20)
    return module


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[Any]:
    """A Redis that answers at once; call it with the words of a command."""
    socket = str(tmp_path / "redis.sock")
    words = ["redis-server", "--port", "0", "--unixsocket", socket, "--save", "", "--loglevel"]
    server = subprocess.Popen([*words, "warning"], stdout=subprocess.DEVNULL, cwd=tmp_path)

    def call(*command: str) -> str:
        words = ["redis-cli", "-s", socket, *command]
        return subprocess.run(words, check=True, capture_output=True, text=True, timeout=20).stdout

    ping = ["sh", "-c", f"until redis-cli -s {socket} ping; do sleep 0.05; done"]
    subprocess.run(ping, check=True, capture_output=True, timeout=20)
    yield call
    server.terminate()
    server.wait(timeout=20)


def cluster(folder: Path, ready: bool = True, pods: int = 2, version: str = VERSION) -> None:
    def node(name: str, ready: bool) -> dict[str, Any]:
        condition = {"type": "Ready", "status": str(ready), "message": "it stopped posting status"}
        info = {"kubeletVersion": version}
        status = {"conditions": [condition], "nodeInfo": info}
        return {"kind": "Node", "metadata": {"name": name}, "spec": {}, "status": status}

    def workload(kind: str, name: str, wanted: int, ready: int) -> dict[str, Any]:
        spec = {"containers": [{"image": f"registry/{name}@{DIGEST}"}]}
        status = {"readyReplicas": ready, "updatedReplicas": wanted, "observedGeneration": 2}
        return {
            "kind": kind,
            "metadata": {"name": name, "namespace": "f1", "generation": 2},
            "spec": {"replicas": wanted, "template": {"spec": spec}},
            "status": status,
        }

    items = [node("f1-master", True), node("f1-worker-1", ready)]
    items += [workload("Deployment", "vote", 2, pods), workload("StatefulSet", "redis", 1, 1)]
    (folder / "objects.json").write_text(json.dumps({"items": items}))


def records(state: Any) -> None:
    (state.STATE / "heal").mkdir(parents=True)
    (state.STATE / "backup").mkdir()
    (state.STATE / "metrics").mkdir()
    heal = {"at": NOW - 600, "ok": True, "repaired": ["f1-worker-1: /etc/x"], "failed": []}
    (state.STATE / "heal/last.json").write_text(json.dumps(heal))
    (state.STATE / "backup/last.json").write_text(json.dumps({"at": NOW - 7200, "ok": True}))
    expiry = "f1_certificate_expiry_seconds"
    lines = [f"# TYPE {expiry} gauge"]
    lines += [f'{expiry}{{name="agent/a.crt"}} {NOW + 90 * 86400}']
    lines += [f'{expiry}{{name="server/tls/b.crt"}} {NOW + 30 * 86400}']
    (state.STATE / "metrics/k3s-certificates.prom").write_text("\n".join(lines) + "\n")
    (state.STATE.parent / "trees").mkdir()
    state.TREE.symlink_to("trees/0123456789abcdef")


def machines(**states: str) -> dict[str, dict[str, Any]]:
    every = {"f1-master": "running", "f1-worker-1": "running"} | states
    return {
        name: {"state": each, "size": "t3.small", "private_ips": ["10.20.1.10"], "public_ips": []}
        for name, each in every.items()
    }


def judge(state: Any, facts: Any, **more: Any) -> dict[str, Any]:
    found: dict[str, Any] = state.judged(
        facts, more.pop("machines", machines()), FLEET, VERSION, NOW, more.pop("unknown", None)
    )
    return found


def show(data: dict[str, Any]) -> str:
    return str(load_ext("outputters/status.py").output(data))


def test_everything_is_told_at_once(state, redis, tmp_path):
    cluster(tmp_path)
    records(state)
    redis("HSET", "poll:f1:tally", "ham", "2", "lec", "1", "ver", "0")
    redis("HSET", "poll:f1:meta", "voters", "3")
    redis("HSET", "poll:f1:recount", "at", str(time.time()), "difference", "0")
    facts = state.here()
    assert facts["missing"] == {}
    data = judge(state, facts)
    assert data["wrong"] == []
    assert data["tally"] == {"voters": 3, "votes": {"ham": 2, "lec": 1}, "broken": []}
    assert data["certificate"]["name"] == "server/tls/b.crt"
    assert (data["certificate"]["days"], data["drift"]["age"]) == (30, 600)
    assert data["tree"] == "0123456789abcdef"
    text = show(data)
    assert "everything is as it should be" in text
    for part in ("vote 2/2 sha256:aaaaaaaaaaaa", "3 voters, invariant holds", "1 repaired, 10 min"):
        assert part in text
    assert json.loads(json.dumps(data)) == data


def test_a_tally_that_is_not_proved_is_named(state, redis, tmp_path):
    cluster(tmp_path)
    for poll, at, difference in (
        ("f1", time.time(), "2"),
        ("fresh", time.time() - 5, "0"),
        ("late", time.time() - 1000, "0"),
    ):
        redis("HSET", f"poll:{poll}:tally", "ham", "2")
        redis("HSET", f"poll:{poll}:meta", "voters", "2")
        redis("HSET", f"poll:{poll}:recount", "at", str(at), "difference", difference)
    redis("HSET", "poll:never:tally", "ver", "1")
    redis("HSET", "poll:never:meta", "voters", "1")
    redis("HSET", "poll:empty:tally", "ver", "0")
    differs, late, never = judge(state, state.here())["wrong"]
    assert differs == "the tally is not proved: f1: the last recount differs by 2"
    assert re.fullmatch(r"the tally is not proved: late: not recounted for \d+ s", late)
    assert never == "the tally is not proved: never: never recounted"


def test_no_vote_yet_is_no_fault(state, redis, tmp_path):
    cluster(tmp_path)
    assert judge(state, state.here())["tally"] == {"voters": 0, "votes": {}, "broken": []}


def test_what_is_wrong_comes_first(state, redis, tmp_path):
    cluster(tmp_path, ready=False, pods=1, version="v1.36.3+k3s1")
    records(state)
    (state.STATE / "heal/last.json").write_text(
        json.dumps({"at": NOW, "ok": False, "failed": ["f1-worker-1: silent for 120 s"]})
    )
    (state.STATE / "backup/last.json").write_text(json.dumps({"at": NOW - 200_000, "ok": True}))
    path = state.STATE / "metrics/k3s-certificates.prom"
    path.write_text(f'f1_certificate_expiry_seconds{{name="a.crt"}} {NOW + 86400}\n')
    data = judge(state, state.here(), machines=machines(**{"f1-worker-1": "stopped"}))
    assert data["wrong"] == [
        "machine f1-worker-1: stopped",
        "node f1-worker-1: not Ready: it stopped posting status",
        f"K3s is not {VERSION} everywhere: f1-master v1.36.3+k3s1, f1-worker-1 v1.36.3+k3s1",
        "vote is not whole: 1 of 2 ready, 2 of this version",
        "the scheduled highstate failed: f1-worker-1: silent for 120 s",
        "the last backup is 55 h old",
        "the certificate a.crt ends in 1 days: rotate_certificates",
    ]
    lines = show(data).splitlines()
    assert [line[:4] for line in lines[:7]] == ["  ✗ "] * 7
    assert "NOT READY" in show(data)


def test_what_is_not_there_is_said_and_never_raises(state, tmp_path):
    facts = state.here()
    assert set(facts["missing"]) == {"cluster", "tally", "heal", "backup", "certificates", "tree"}
    data = judge(state, facts)
    assert data["wrong"][0].startswith("the cluster does not answer: error: The connection")
    text = show(data)
    assert "Traceback" not in text
    assert "drift         none yet" in text


def test_no_master_and_no_cloud(state):
    unknown = {"cloud": "no route", "master": "ssh to f1-master failed"}
    data = judge(state, None, machines=None, unknown=unknown)
    assert data["wrong"] == [
        "the cloud does not answer: no route",
        "the master does not answer: ssh to f1-master failed",
    ]
    assert "nodes         not known" in show(data)


def test_a_machine_that_never_joined(state, redis, tmp_path):
    cluster(tmp_path)
    fleet = {**FLEET, "workers": ["f1-worker-1", "f1-worker-2"]}
    found = state.judged(state.here(), machines(), fleet, VERSION, NOW)
    wrong = ["machine f1-worker-2: missing", "node f1-worker-2: has not joined"]
    assert found["wrong"] == wrong


def test_it_is_a_program_that_needs_only_salts_packages(tmp_path):
    """As the operator's machine runs it on the master, where nothing is there yet."""
    script = str(ROOT / "salt/ext/utils/status.py")
    done = subprocess.run(
        [sys.executable, "-s", script], capture_output=True, text=True, timeout=60, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert "missing" in json.loads(done.stdout)
