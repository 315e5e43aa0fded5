"""K3s's unit, secrets and artifacts on a machine; systemd is a script here."""

import base64
import datetime
import hashlib
import os
import ssl
import stat
import subprocess
import threading
import time
import types
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from salt.exceptions import CommandExecutionError
from salt.utils.state import gen_tag

from tests.conftest import load_ext

TOKEN = f"K10{'a' * 64}::node:0123456789abcdef"

# `show` prints the file `unit`; `start` and `restart` count, and become `unit.<verb>` if there.
SYSTEMCTL = """#!/bin/sh
echo "$*" >> "$F1_FAKE/calls"
case "$1" in
  show) cat "$F1_FAKE/unit" ;;
  start|restart|stop|enable)
    [ -e "$F1_FAKE/unit.$1" ] && cp "$F1_FAKE/unit.$1" "$F1_FAKE/unit" ;;
esac
exit 0
"""
JOURNALCTL = f"""#!/bin/sh
echo "joining with {TOKEN}"
echo "fatal: no route to host"
"""


RULES = """\
#!/bin/sh
cat <<END
*nat
:CNI-HOSTPORT-DNAT - [0:0]
-A OUTPUT -d 192.0.2.1/32 -j ACCEPT
-A PREROUTING -m addrtype --dst-type LOCAL -j CNI-HOSTPORT-DNAT
-A KUBE-SERVICES -j KUBE-NODEPORTS
-A POSTROUTING -m comment --comment "flanneld masq" -j FLANNEL-POSTRTG
COMMIT
END
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
    programs = {"systemctl": SYSTEMCTL, "journalctl": JOURNALCTL}
    for name in ("iptables", "ip6tables"):
        programs |= {f"{name}-save": RULES, f"{name}-restore": f"#!/bin/sh\ncat >$F1_FAKE/{name}\n"}
    for name, text in programs.items():
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


def test_absent_forgets_the_rules_of_pods_and_no_others(machine: Machine, tmp_path: Path) -> None:
    machine.module.__dict__.update(LEFT=(), MOUNTED_UNDER=("/none/",), LINKS=())
    machine.module.__dict__["_shims"] = list
    machine.module.clear()
    for name in ("iptables", "ip6tables"):
        kept = (tmp_path / name).read_text()
        assert kept == "*nat\n-A OUTPUT -d 192.0.2.1/32 -j ACCEPT\nCOMMIT\n"


BODY = b"binary" * 1000


@pytest.fixture
def artifacts() -> Iterator[tuple[str, list[str]]]:
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            status = 404 if "missing" in self.path else 200
            if "busy" in self.path and len(asked) < 4:
                status = 503
            self.send_response(status)
            self.send_header("Content-Length", str(len(BODY) * (2 if "cut" in self.path else 1)))
            self.end_headers()
            self.wfile.write(BODY)

        def log_message(self, *_: Any) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", asked
    server.shutdown()


@pytest.fixture
def artifact() -> ModuleType:
    module = load_ext("states/artifact.py")
    module.__dict__["__opts__"] = {"test": False}
    # Pauses pass at once.
    clock = types.SimpleNamespace(now=0.0)
    clock.monotonic = lambda: clock.now
    clock.sleep = lambda seconds: setattr(clock, "now", clock.now + seconds)
    module.__dict__["time"] = clock
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
    assert asked.count("/missing?signature=secret") == 1, "it will be missing in a minute as well"
    assert list(tmp_path.iterdir()) == []


def test_what_is_reached_later_is_fetched(
    artifact: ModuleType, artifacts: tuple[str, list[str]], tmp_path: Path
) -> None:
    url, asked = artifacts
    said = artifact.fetched(str(tmp_path / "k3s"), f"{url}/busy", hashlib.sha256(BODY).hexdigest())
    assert said["result"] is True, said
    assert len(asked) == 4
    assert artifact.time.now == 3 * artifact.PAUSE_SECONDS


@pytest.mark.parametrize(
    ("where", "seen"),
    [("http://127.0.0.1:9/k3s", "Connection refused"), ("/cut", "ended after 6000 of 12000 bytes")],
)
def test_what_is_never_reached_is_given_up_with_the_last_thing_seen(
    artifact: ModuleType, artifacts: tuple[str, list[str]], tmp_path: Path, where: str, seen: str
) -> None:
    url = where if where.startswith("http") else artifacts[0] + where
    said = artifact.fetched(str(tmp_path / "k3s"), f"{url}?signature=secret", "0" * 64)
    assert said["result"] is False
    assert "given up after 151 attempts in 300 s; last seen: " in said["comment"]
    assert seen in said["comment"]
    assert "secret" not in said["comment"]
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_cannot_be_written_is_said_at_once(
    artifact: ModuleType, artifacts: tuple[str, list[str]], tmp_path: Path
) -> None:
    said = artifact.fetched(str(tmp_path / "none" / "k3s"), f"{artifacts[0]}/k3s", "0" * 64)
    assert said["result"] is False
    assert "No such file or directory" in said["comment"]
    assert artifact.time.now == 0


def test_a_secret_is_rotated_once_until_the_rotation_is_over(
    machine: Machine, tmp_path: Path
) -> None:
    path, old = tmp_path / "agent-token", tmp_path / "agent-token.old"
    rotate = machine.states.secret_rotated
    assert "nothing to rotate" in rotate(str(path))["comment"]
    path.write_text("first\n")
    machine.opts["test"] = True
    assert rotate(str(path))["result"] is None
    assert not old.exists()
    machine.opts["test"] = False
    said = rotate(str(path))
    secret = path.read_text().strip()
    assert len(secret) == 64
    assert old.read_text() == "first\n"
    assert {stat.S_IMODE(each.stat().st_mode) for each in (path, old)} == {0o600}
    assert said["changes"] == {str(path): "another"}
    assert secret not in str(said)
    again = rotate(str(path))
    assert (again["result"], again["changes"]) == (True, {})
    assert path.read_text().strip() == secret
    # Interrupted between the two files: the new one is still to be made.
    path.write_text("first\n")
    assert rotate(str(path))["changes"] == {str(path): "another"}
    old.unlink()
    assert rotate(str(path))["changes"] == {str(path): "another"}


def test_a_unit_older_than_its_files_is_restarted(machine: Machine, tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text("x")
    started = time.monotonic() - (time.time() - path.stat().st_mtime)
    for offset, restarts in ((-1.0, 1), (1.0, 0)):
        moment = str(int((started + offset) * 1e6))
        machine.unit("active", ExecMainStartTimestampMonotonic=moment)
        (machine.folder / "calls").write_text("")
        machine.opts["test"] = True
        plan = machine.states.current("k3s-agent", [str(path)])
        assert machine.calls() == []
        machine.opts["test"] = False
        said = machine.states.current("k3s-agent", [str(path), str(tmp_path / "none")])
        assert said["result"] is True
        assert plan["changes"] == said["changes"]
        assert machine.calls().count("restart --no-block k3s-agent.service") == restarts
        if restarts:
            assert said["changes"]["state"]["cause"] == [str(path)]


def test_a_unit_that_never_started_is_started(machine: Machine, tmp_path: Path) -> None:
    machine.unit("inactive", ExecMainStartTimestampMonotonic="0")
    machine.unit("active", after="restart")
    (tmp_path / "token").write_text("x")
    said = machine.states.current("k3s", [str(tmp_path / "token")])
    assert said["result"] is True


def certificate(path: Path, days: float, authority: bool = False, chain: bytes = b"") -> bytes:
    """Write a certificate that ends in ``days`` days."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, path.stem)])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=900))
        .not_valid_after(now + datetime.timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
        .public_bytes(serialization.Encoding.PEM)
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(made + chain)
    return made


@pytest.fixture
def certified(machine: Machine, tmp_path: Path) -> Path:
    """K3s's folder with an authority and three certificates under it."""
    data = tmp_path / "rancher"
    machine.module.__dict__["DATA"] = data
    authority = certificate(data / "server/tls/server-ca.crt", 3000.5, authority=True)
    certificate(data / "server/tls/client-admin.crt", 100.5, chain=authority)
    certificate(data / "server/tls/etcd/client.crt", -1.5)
    certificate(data / "agent/client-kubelet.crt", 200.5, chain=authority)
    (data / "agent/broken.crt").write_text("")
    return data


def test_certificates_are_read_soonest_first(machine: Machine, certified: Path) -> None:
    told = machine.module.certificates()
    assert [(each["name"], each["days"], each["authority"]) for each in told] == [
        ("server/tls/etcd/client.crt", -2, False),
        ("server/tls/client-admin.crt", 100, False),
        ("agent/client-kubelet.crt", 200, False),
        ("server/tls/server-ca.crt", 3000, True),
    ]
    assert told[1]["not_after"] == pytest.approx(time.time() + 100.5 * 86400, abs=60)


def test_certificates_are_told_as_a_metric(
    machine: Machine, certified: Path, tmp_path: Path
) -> None:
    path = tmp_path / "metrics" / "k3s-certificates.prom"
    machine.opts["test"] = True
    assert machine.states.certificates_told(str(path))["result"] is None
    assert not path.exists()
    machine.opts["test"] = False
    assert machine.states.certificates_told(str(path))["changes"] == {str(path): "written"}
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    help_, type_, *values = path.read_text().splitlines()
    assert help_.startswith("# HELP f1_certificate_expiry_seconds ")
    assert type_ == "# TYPE f1_certificate_expiry_seconds gauge"
    name, _, value = values[0].rpartition(" ")
    assert name == 'f1_certificate_expiry_seconds{name="agent/client-kubelet.crt"}'
    assert int(value) == machine.module.certificates()[2]["not_after"]
    assert machine.states.certificates_told(str(path))["changes"] == {}


def rotating(machine: Machine, data: Path, *, but: str = "") -> str:
    """Stand for `k3s certificate rotate`, at whose next start all but ``but`` are made anew."""
    order = machine.folder / "order"
    k3s = machine.folder / "k3s"
    k3s.write_text(f'#!/bin/sh\necho "$*" >> {order}\n')
    k3s.chmod(0o755)
    machine.module.__dict__["BINARY"] = str(k3s)
    salt = machine.states.__dict__["__salt__"]
    start = machine.module.start

    def started(name: str, restart: bool = False) -> None:
        for each in machine.module.certificates():
            if not each["authority"] and each["name"] != but:
                certificate(data / each["name"], 365)
        start(name, restart)

    salt["k3s.start"] = started
    return str(order)


def test_certificates_are_made_anew_with_the_unit_stopped(
    machine: Machine, certified: Path
) -> None:
    order = rotating(machine, certified)
    machine.unit("inactive", after="stop")
    machine.unit("active", after="start")
    machine.unit("active")
    leaves = {"server/tls/client-admin.crt", "server/tls/etcd/client.crt"}
    leaves |= {"agent/client-kubelet.crt"}
    machine.opts["test"] = True
    plan = machine.states.certificates_rotated("k3s")
    assert (plan["result"], set(plan["changes"])) == (None, leaves)
    assert machine.calls() == []
    machine.opts["test"] = False
    began = time.time()
    said = machine.states.certificates_rotated("k3s", before=began)
    assert said["result"] is True, said["comment"]
    assert set(said["changes"]) == leaves
    assert Path(order).read_text() == "certificate rotate\n"
    verbs = [call.split()[0] for call in machine.calls()]
    assert verbs.index("stop") < verbs.index("start")
    again = machine.states.certificates_rotated("k3s", before=began)
    assert (again["result"], again["changes"]) == (True, {})


def test_a_certificate_that_stayed_is_named(machine: Machine, certified: Path) -> None:
    rotating(machine, certified, but="agent/client-kubelet.crt")
    machine.unit("inactive", after="stop")
    machine.unit("active", after="start")
    machine.unit("active")
    said = machine.states.certificates_rotated("k3s")
    assert said["result"] is False
    assert "did not make these anew: agent/client-kubelet.crt" in said["comment"]


def test_a_refused_rotation_starts_the_unit_again(machine: Machine, certified: Path) -> None:
    rotating(machine, certified)
    (machine.folder / "k3s").write_text("#!/bin/sh\necho no such command >&2; exit 1\n")
    machine.unit("inactive", after="stop")
    machine.unit("active", after="start")
    machine.unit("active")
    said = machine.states.certificates_rotated("k3s")
    assert said["result"] is False
    assert "k3s certificate rotate: no such command" in said["comment"]
    assert machine.calls()[-1] == "start --no-block k3s.service"


def test_the_installed_version_is_read(machine: Machine, tmp_path: Path) -> None:
    machine.module.__dict__["BINARY"] = str(tmp_path / "k3s")
    assert machine.module.version() == ""
    (tmp_path / "k3s").write_text("#!/bin/sh\necho 'k3s version v1.36.4+k3s1 (abc)'\n")
    (tmp_path / "k3s").chmod(0o755)
    assert machine.module.version() == "v1.36.4+k3s1"
    (tmp_path / "k3s").write_text("#!/bin/sh\necho broken\n")
    with pytest.raises(CommandExecutionError, match="broken"):
        machine.module.version()


@pytest.fixture
def supervisor(machine: Machine, tmp_path: Path) -> Iterator[str]:
    """A server that admits the user `node` with the secret `right`, as K3s's does."""
    folder = tmp_path / "data" / "server" / "tls"
    folder.mkdir(parents=True)
    ca, key = folder / "server-ca.crt", tmp_path / "key"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    command += ["-nodes", "-subj", "/CN=k3s", "-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run([*command, "-keyout", key, "-out", ca], check=True, capture_output=True)
    machine.module.__dict__["DATA"] = tmp_path / "data"

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            shown = self.headers["Authorization"].removeprefix("Basic ")
            right = base64.b64decode(shown) == b"node:right" and self.path == "/v1-k3s/config"
            self.send_response(200 if right else 401)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(ca, key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"https://127.0.0.1:{server.server_port}"
    server.shutdown()


def test_a_server_is_asked_whom_it_admits(
    machine: Machine, supervisor: str, tmp_path: Path
) -> None:
    path = tmp_path / "secret"
    for secret, status in (("right", 200), ("wrong", 401)):
        path.write_text(f"{secret}\n")
        assert machine.module.admits(supervisor, str(path)) == status
    with pytest.raises(CommandExecutionError, match="cannot be read"):
        machine.module.admits(supervisor, str(tmp_path / "none"))
    with pytest.raises(CommandExecutionError, match="does not answer"):
        machine.module.admits("https://127.0.0.1:1", str(path))
