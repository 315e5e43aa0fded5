"""The agent token: a real master, real minions, the mine between them, and nobody else."""

import hashlib
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from .conftest import Fleet, holders

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
    """The fleet of the test, and a server that shows a CA."""

    def __init__(self, fleet: Fleet, ca: Path, server: str) -> None:
        self.fleet = fleet
        self.cli = fleet.cli
        self.folder = fleet.folder
        self.ca = ca.read_bytes()
        self.server = server
        self.agent_token = fleet.folder / "agent-token"
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
        return self.fleet.orchestrate(text)

    def apply(self, minion: str, name: str, text: str) -> dict[str, Any]:
        self.fleet.sls(name, text)
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


@pytest.fixture(scope="module")
def cluster(
    salt_factories: Any,
    k3s_server: tuple[str, Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Cluster]:
    url, ca = k3s_server
    folder = tmp_path_factory.mktemp("mine")
    forged = {"grains": {"id": WORKER, "host": WORKER, "nodename": WORKER, "role": "agent"}}
    fleet = Fleet(
        salt_factories,
        folder,
        {SERVER: {}, WORKER: {}, INTRUDER: forged},
        {
            "modules/k3s.py": {
                '"/var/lib/rancher/k3s/server/agent-token"': f'"{folder}/agent-token"'
            }
        },
        {"workers": {"count": 1}},
    )
    with fleet.running():
        yield Cluster(fleet, ca, url)


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


def test_an_empty_value_is_no_token(cluster: Cluster) -> None:
    offer = ["mine.send", "k3s_agent_token", "", "mine_function=test.echo"]
    cluster.cli.run(*offer, f"allow_tgt={WORKER}", "allow_tgt_type=list", minion_tgt=SERVER)
    said, path = cluster.join(WORKER)
    before = path.read_text() if path.exists() else None
    assert said["result"] is False
    assert "offers nothing" in said["comment"]
    assert (path.read_text() if path.exists() else None) == before, "what it had is kept"


def test_what_the_intruder_offers_is_asked_by_nobody(cluster: Cluster) -> None:
    evil = cluster.token().replace(SECRET, "evil")
    offer = ["mine.send", "k3s_agent_token", evil, "mine_function=test.echo"]
    cluster.cli.run(*offer, minion_tgt=INTRUDER)
    assert cluster.cli.run("mine.get", INTRUDER, "k3s_agent_token", minion_tgt=WORKER).data
    cluster.offer(cluster.token())
    said, path = cluster.join(WORKER, deadline=20)
    assert said["result"] is True
    assert path.read_text().strip() == cluster.token()


def test_a_worker_that_left_the_fleet_is_offered_nothing_more(cluster: Cluster) -> None:
    cluster.offer(cluster.token())
    assert cluster.join(WORKER, deadline=20)[0]["result"] is True
    cluster.fleet.site(workers={"count": 0})
    try:
        assert cluster.offer(cluster.token())["result"] is True
        raw = {WORKER: {"not yet": True}}
        end = time.monotonic() + 20
        # What is sent to the mine is stored a little later.
        while raw and time.monotonic() < end:
            raw = cluster.cli.run("mine.get", SERVER, "k3s_agent_token", minion_tgt=WORKER).data
        assert raw == {}
        assert cluster.join(WORKER)[0]["result"] is False
    finally:
        cluster.fleet.site(workers={"count": 1})


def test_no_secret_in_any_cache_but_the_mine(cluster: Cluster) -> None:
    cluster.offer(cluster.token())
    cluster.join(WORKER, deadline=20)
    found = holders(cluster.fleet.roots, SECRET)
    assert found == {Path("cache/mine") / f"{SERVER}.p"}
