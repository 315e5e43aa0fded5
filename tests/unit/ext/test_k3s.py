"""K3s's unit, secrets and artifacts on a machine; systemd is a script here."""

import hashlib
import os
import stat
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from salt.exceptions import CommandExecutionError
from salt.utils.state import gen_tag

from tests.conftest import load_ext

TOKEN = f"K10{'a' * 64}::node:0123456789abcdef"

# `show` prints the file `unit`; `start` and `restart` count, and become `unit.<verb>` if there.
SYSTEMCTL = """#!/bin/sh
echo "$*" >> "$F1_FAKE/calls"
case "$1" in
  show) cat "$F1_FAKE/unit" ;;
  start|restart|enable)
    [ -e "$F1_FAKE/unit.$1" ] && cp "$F1_FAKE/unit.$1" "$F1_FAKE/unit" ;;
esac
exit 0
"""
JOURNALCTL = f"""#!/bin/sh
echo "joining with {TOKEN}"
echo "fatal: no route to host"
"""


class Machine:
    """A machine with a fake systemd, and our module and states on it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.module = load_ext("modules/k3s.py")
        self.states = load_ext("states/k3s.py")
        self.opts: dict[str, Any] = {"test": False, "id": "f1-worker-1"}
        salt = {f"k3s.{name}": getattr(self.module, name) for name in dir(self.module)}
        self.states.__dict__.update(__salt__=salt, __opts__=self.opts)

    def watched(self, **changes: bool) -> None:
        """What the state compiler tells mod_watch: what is watched, and what of it has changes."""
        lows = [
            {"state": "file", "__id__": name, "name": f"/etc/{name}", "fun": "managed"}
            for name in changes
        ]
        running = {
            gen_tag(low): {"changes": {"x": 1} if changes[low["__id__"]] else {}} for low in lows
        }
        self.states.__dict__.update(__low__={"__reqs__": {"watch": lows}}, __running__=running)

    def unit(self, active: str, enabled: str = "enabled", after: str = "", **more: str) -> None:
        """What `systemctl show` says; ``after``: of which verb only."""
        facts = {"ActiveState": active, "SubState": "s", "Result": "success", "NRestarts": "0"}
        facts |= {"UnitFileState": enabled, "NeedDaemonReload": "no", **more}
        text = "".join(f"{key}={value}\n" for key, value in facts.items())
        (self.folder / f"unit{after and '.' + after}").write_text(text)

    def calls(self) -> list[str]:
        lines = (self.folder / "calls").read_text().splitlines()
        return [line for line in lines if not line.startswith("show")]


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    for name, text in (("systemctl", SYSTEMCTL), ("journalctl", JOURNALCTL)):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("F1_FAKE", str(tmp_path))
    (tmp_path / "calls").touch()
    return Machine(tmp_path)


def test_a_stopped_unit_is_enabled_and_started(machine: Machine) -> None:
    machine.unit("inactive", enabled="disabled", NeedDaemonReload="yes")
    machine.unit("active", after="start")
    said = machine.states.running("k3s")
    assert said["result"] is True, said["comment"]
    assert set(said["changes"]) == {"enabled", "state"}
    # Without --no-block a Type=notify unit with no start timeout would hold Salt forever.
    assert machine.calls() == [
        "daemon-reload",
        "enable --quiet k3s.service",
        "start --no-block k3s.service",
    ]


def test_a_running_unit_is_left_alone(machine: Machine) -> None:
    machine.unit("active")
    said = machine.states.running("k3s")
    assert (said["result"], said["changes"]) == (True, {})
    assert machine.calls() == []


def test_a_change_restarts(machine: Machine) -> None:
    machine.unit("active")
    machine.watched(config=True, token=False, audit=True)
    said = machine.states.mod_watch("k3s", sfun="running")
    assert said["result"] is True
    assert machine.calls()[-1] == "restart --no-block k3s.service"
    assert said["changes"]["state"]["cause"] == ["/etc/config", "/etc/audit"]
    assert said["comment"] == "restarted because of /etc/config, /etc/audit"


def test_a_restart_that_fails_names_its_cause_too(machine: Machine) -> None:
    machine.unit("active")
    machine.unit("activating", after="restart")
    machine.watched(config=True)
    said = machine.states.mod_watch("k3s", deadline=0)
    assert said["result"] is False
    assert said["comment"].startswith("restarted because of /etc/config: k3s.service is not ready")


def test_a_plan_starts_nothing(machine: Machine) -> None:
    machine.opts["test"] = True
    machine.unit("inactive", enabled="disabled")
    machine.watched(config=True)
    assert machine.states.running("k3s")["result"] is None
    said = machine.states.mod_watch("k3s")
    assert (said["result"], said["comment"]) == (None, "would restart because of /etc/config")
    assert machine.calls() == []


def test_a_queued_restart_is_not_ready_yet(machine: Machine) -> None:
    machine.unit("active", Job="17")
    with pytest.raises(CommandExecutionError, match="waited 0 s"):
        machine.module.wait_ready("k3s", deadline=0)


def test_a_late_unit_is_named_with_its_journal_but_no_token(machine: Machine) -> None:
    machine.unit("activating", enabled="disabled")
    said = machine.states.running("k3s-agent", deadline=0)
    assert said["result"] is False
    assert said["skip_watch"] is True
    assert "k3s-agent.service is not ready (waited 0 s)" in said["comment"]
    assert "last seen: activating/s" in said["comment"]
    assert "fatal: no route to host" in said["comment"]
    assert "0123456789abcdef" not in said["comment"]


def test_a_unit_that_dies_again_and_again_is_not_waited_for(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.unit("activating")
    restarts = iter(range(100))

    def unit(name: str) -> dict[str, str]:
        return {"ActiveState": "activating", "NRestarts": str(next(restarts))}

    monkeypatch.setattr(machine.module, "unit", unit)
    monkeypatch.setattr(machine.module, "PAUSE", 0)
    with pytest.raises(CommandExecutionError, match="restarted 5 times"):
        machine.module.wait_ready("k3s", deadline=60)


def test_a_secret_is_made_once_and_kept_private(machine: Machine, tmp_path: Path) -> None:
    path = tmp_path / "agent-token"
    machine.opts["test"] = True
    assert machine.states.secret_present(str(path))["result"] is None
    assert not path.exists()
    machine.opts["test"] = False
    first = machine.states.secret_present(str(path))
    secret = path.read_text().strip()
    assert len(secret) == 64
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert secret not in str(first)

    path.chmod(0o644)
    second = machine.states.secret_present(str(path))
    assert second["changes"] == {"mode": {"old": "0644", "new": "0600"}}
    assert machine.states.secret_present(str(path))["changes"] == {}
    assert path.read_text().strip() == secret


@pytest.mark.parametrize(
    ("offered", "words"),
    [({}, "offers nothing"), ({"f1-master": "abc"}, "is no K3s token")],
)
def test_no_use_is_made_of_no_token(
    machine: Machine, tmp_path: Path, offered: dict[str, str], words: str
) -> None:
    machine.states.__dict__["__salt__"]["mine.get"] = lambda *_: offered
    path = str(tmp_path / "token")
    said = machine.states.token_from_mine(path, "f1-master", "https://127.0.0.1:1", deadline=0)
    assert said["result"] is False
    assert words in said["comment"]
    assert "mine.update" in said["comment"]
    machine.opts["test"] = True
    assert (
        machine.states.token_from_mine(path, "f1-master", "https://127.0.0.1:1")["result"] is None
    )


def test_a_server_that_does_not_answer_is_named(machine: Machine, tmp_path: Path) -> None:
    machine.states.__dict__["__salt__"]["mine.get"] = lambda *_: {"f1-master": TOKEN}
    path = str(tmp_path / "token")
    said = machine.states.token_from_mine(path, "f1-master", "https://127.0.0.1:1", deadline=0)
    assert "https://127.0.0.1:1 does not answer" in said["comment"]
    assert TOKEN not in str(said)


def test_the_mine_gives_only_a_whole_token(machine: Machine, tmp_path: Path) -> None:
    path = tmp_path / "agent-token"
    machine.module.__dict__["AGENT_TOKEN"] = path
    with pytest.raises(CommandExecutionError, match=r"is k3s\.service up"):
        machine.module.agent_token()
    path.write_text("half")
    with pytest.raises(CommandExecutionError, match="holds no K10"):
        machine.module.agent_token()
    path.write_text(f"{TOKEN}\n")
    assert machine.module.agent_token() == TOKEN


def test_absent_removes_what_is_left(machine: Machine, tmp_path: Path) -> None:
    left = tmp_path / "rancher"
    left.mkdir()
    machine.module.__dict__.update(LEFT=(str(left),), MOUNTED_UNDER=("/none/",), LINKS=())
    machine.module.__dict__["_shims"] = list
    assert machine.states.absent("k3s")["changes"] == {str(left): "removed"}
    assert machine.states.absent("k3s")["changes"] == {}


BODY = b"binary" * 1000


@pytest.fixture
def artifacts() -> Iterator[tuple[str, list[str]]]:
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(404 if "missing" in self.path else 200)
            self.end_headers()
            self.wfile.write(BODY)

        def log_message(self, *_: Any) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", asked
    server.shutdown()


@pytest.fixture
def artifact(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    module = load_ext("states/artifact.py")
    module.__dict__["__opts__"] = {"test": False}
    monkeypatch.setattr(module.time, "sleep", lambda _: None)
    return module


def test_an_artifact_is_fetched_once(
    artifact: ModuleType, artifacts: tuple[str, list[str]], tmp_path: Path
) -> None:
    url, asked = artifacts
    path, sha256 = tmp_path / "k3s", hashlib.sha256(BODY).hexdigest()
    said = artifact.fetched(str(path), f"{url}/k3s?signature=secret", sha256, "0755")
    assert said["result"] is True
    assert "secret" not in str(said)
    assert path.read_bytes() == BODY
    assert stat.S_IMODE(path.stat().st_mode) == 0o755
    assert artifact.fetched(str(path), f"{url}/k3s", sha256, "0755")["changes"] == {}
    path.chmod(0o700)
    assert set(artifact.fetched(str(path), f"{url}/k3s", sha256, "0755")["changes"]) == {"mode"}
    assert len(asked) == 1


def test_a_wrong_or_missing_artifact_leaves_nothing(
    artifact: ModuleType, artifacts: tuple[str, list[str]], tmp_path: Path
) -> None:
    url, asked = artifacts
    path = tmp_path / "k3s"
    wrong = artifact.fetched(str(path), f"{url}/k3s", "0" * 64)
    assert wrong["result"] is False
    assert "the lock says 000" in wrong["comment"]
    missing = artifact.fetched(str(path), f"{url}/missing?signature=secret", "0" * 64)
    assert missing["result"] is False
    assert "404" in missing["comment"]
    assert "secret" not in missing["comment"]
    assert asked.count("/missing?signature=secret") == artifact.ATTEMPTS
    assert list(tmp_path.iterdir()) == []
