"""The agent token: a real master, real minions, the mine between them, and nobody else."""

import hashlib
import ssl
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT

SECRET = "s3cr3t-0f-the-cluster"
SERVER, WORKER = "f1-master", "f1-worker-1"
# Named like a worker, told to be one by its grains, and none all the same.
INTRUDER = "f1-worker-10"

PROBE = """
k3s_agent_token:
  k3s.token_offered: []
"""
JOIN = """
{token}:
  k3s.token_from_mine:
    - master: f1-master
    - server: {server}
    - deadline: {deadline}
"""
READY = f"""
fleet:
  fleet.ready:
    - minions: [{SERVER}, {WORKER}, {INTRUDER}]
"""


class Cluster:
    """The fleet of the test: its Salt commands, its files, and a server that shows a CA."""

    def __init__(
        self, master: Any, minions: list[Any], folder: Path, ca: Path, server: str
    ) -> None:
        self.master = master
        self.roots = [Path(each.config["root_dir"]) for each in (master, *minions)]
        self.cli = master.salt_cli(timeout=60)
        self.folder = folder
        self.ca = ca.read_bytes()
        self.server = server
        self.agent_token = folder / "agent-token"
        # Brings our modules to the minions: nothing of what follows works without.
        self.first = self.orchestrate(READY)

    def token(self, ca: bytes | None = None) -> str:
        digest = hashlib.sha256(self.ca if ca is None else ca).hexdigest()
        return f"K10{digest}::node:{SECRET}"

    def offer(self, token: str) -> dict[str, Any]:
        self.agent_token.write_text(token + "\n")
        return self.apply(SERVER, "offer", PROBE)

    def join(self, minion: str, deadline: int = 0) -> tuple[dict[str, Any], Path]:
        path = self.folder / f"{minion}-token"
        text = JOIN.format(token=path, server=self.server, deadline=deadline)
        return self.apply(minion, "join", text), path

    def orchestrate(self, text: str) -> dict[str, Any]:
        """Return the result of the only state of the orchestration ``text``."""
        (self.folder / "states" / "orchestration.sls").write_text(text)
        said = self.master.salt_run_cli(timeout=120).run("state.orchestrate", "orchestration")
        (states,) = said.data["data"].values()
        (result,) = states.values()
        return dict(result)

    def apply(self, minion: str, name: str, text: str) -> dict[str, Any]:
        (self.folder / "states" / f"{name}.sls").write_text(text)
        said = self.cli.run("state.apply", name, minion_tgt=minion)
        assert isinstance(said.data, dict), said
        assert SECRET not in said.stdout
        return next(iter(said.data.values()))


def _ca(folder: Path) -> Path:
    certificate, key = folder / "ca.crt", folder / "ca.key"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    command += ["-nodes", "-subj", "/CN=k3s-ca", "-days", "2"]
    command += ["-keyout", str(key), "-out", str(certificate)]
    subprocess.run(command, check=True, capture_output=True)
    return certificate


@pytest.fixture(scope="module")
def k3s_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """Answer ``/cacerts`` as K3s does."""
    certificate = _ca(tmp_path_factory.mktemp("ca"))

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == "/cacerts" else 404)
            self.end_headers()
            self.wfile.write(certificate.read_bytes())

        def log_message(self, *_: Any) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, certificate.with_suffix(".key"))
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"https://127.0.0.1:{server.server_port}", certificate
    server.shutdown()


@pytest.fixture(scope="session")
def salt_factories_config() -> Iterator[dict[str, Any]]:
    # Not pytest's folder: the names of Salt's sockets must stay below 108 characters.
    with tempfile.TemporaryDirectory(prefix="f1-") as folder:
        yield {"code_dir": None, "root_dir": folder}


@pytest.fixture(scope="module")
def cluster(
    salt_factories: Any,
    k3s_server: tuple[str, Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Cluster]:
    url, ca = k3s_server
    folder = tmp_path_factory.mktemp("fleet")
    modules = folder / "states" / "_modules"
    modules.mkdir(parents=True)
    ours = (ROOT / "salt" / "ext" / "modules" / "k3s.py").read_text()
    path = '"/var/lib/rancher/k3s/server/agent-token"'
    assert path in ours
    (modules / "k3s.py").write_text(ours.replace(path, f'"{folder}/agent-token"'))
    (folder / "pillar").mkdir()
    (folder / "pillar" / "site.sls").write_text("platform: {workers: {count: 1}}\n")
    ext = ROOT / "salt" / "ext"
    master = salt_factories.salt_master_daemon(
        "f1-salt-master",
        overrides={
            "interface": "127.0.0.1",
            "file_roots": {"base": [str(folder / "states"), str(ROOT / "salt" / "states")]},
            "pillar_roots": {"base": [str(folder / "pillar"), str(ROOT / "salt" / "pillar")]},
            "module_dirs": [str(ext / "modules")],
            "states_dirs": [str(ext / "states")],
            "utils_dirs": [str(ext / "utils")],
            "fileserver_list_cache_time": 0,
        },
    )
    settings = {"autoload_dynamic_modules": False, "mine_enabled": True}
    forged = {"grains": {"id": WORKER, "host": WORKER, "nodename": WORKER, "role": "agent"}}
    minions = [
        master.salt_minion_daemon(SERVER, overrides=settings),
        master.salt_minion_daemon(WORKER, overrides=settings),
        master.salt_minion_daemon(INTRUDER, overrides={**settings, **forged}),
    ]
    with master.started(), minions[0].started(), minions[1].started(), minions[2].started():
        yield Cluster(master, minions, folder, ca, url)


def test_fleet_ready_syncs_once_then_changes_nothing(cluster: Cluster) -> None:
    first, second = cluster.first, cluster.orchestrate(READY)
    assert first["result"] is True, first["comment"]
    assert set(first["changes"]) == {SERVER, WORKER, INTRUDER}
    assert "modules.k3s" in first["changes"][WORKER]
    assert second["result"] is True
    assert second["changes"] == {}


def test_fleet_ready_names_who_is_silent(cluster: Cluster) -> None:
    said = cluster.orchestrate(READY.replace(WORKER, "f1-worker-9") + "    - deadline: 0\n")
    assert said["result"] is False
    assert "silent: f1-worker-9, f1-worker-90." in said["comment"]


def test_nothing_offered_is_explained(cluster: Cluster) -> None:
    said, path = cluster.join(WORKER)
    assert said["result"] is False
    for word in ("k3s_agent_token", SERVER, "mine.update", "offers nothing"):
        assert word in said["comment"]
    assert not path.exists()


def test_an_unwritten_token_is_not_offered(cluster: Cluster) -> None:
    cluster.agent_token.unlink(missing_ok=True)
    said = cluster.apply(SERVER, "offer", PROBE)
    assert said["result"] is False
    assert "is k3s.service up?" in said["comment"]


def test_worker_gets_the_token_and_the_intruder_nothing(cluster: Cluster) -> None:
    assert cluster.offer(cluster.token())["result"] is True
    said, path = cluster.join(WORKER, deadline=20)
    assert said["result"] is True, said["comment"]
    assert said["changes"] == {str(path): "written"}
    assert path.read_text().strip() == cluster.token()
    assert path.stat().st_mode & 0o777 == 0o600

    again, _ = cluster.join(WORKER)
    assert again["result"] is True
    assert again["changes"] == {}

    refused, none = cluster.join(INTRUDER)
    assert refused["result"] is False
    assert not none.exists()
    for arguments in ((SERVER, "k3s_agent_token"), ("*", "k3s_agent_token")):
        raw = cluster.cli.run("mine.get", *arguments, minion_tgt=INTRUDER)
        assert raw.data == {}
        assert SECRET not in raw.stdout


def test_a_token_of_another_cluster_is_stale(cluster: Cluster) -> None:
    cluster.offer(cluster.token(ca=b"another"))
    said, _ = cluster.join(WORKER)
    assert said["result"] is False
    assert "stale" in said["comment"]


def test_no_secret_in_any_cache_but_the_mine(cluster: Cluster) -> None:
    cluster.offer(cluster.token())
    cluster.join(WORKER, deadline=20)
    holders = {
        path.relative_to(root)
        for root in cluster.roots
        for path in root.rglob("*")
        if path.is_file() and _holds_secret(path)
    }
    assert holders == {Path("cache/mine") / f"{SERVER}.p"}


def _holds_secret(path: Path) -> bool:
    """Say whether the secret is in ``path``; the plugin of the tests logs every event, as debug."""
    lines = path.read_bytes().splitlines()
    return any(SECRET.encode() in line and b"pytest_engine" not in line for line in lines)
