"""first-boot.py, run in a folder instead of a root, against an HTTP server of the test."""

import hashlib
import http.server
import importlib.util
import io
import json
import subprocess
import tarfile
import threading
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT


class Store(http.server.BaseHTTPRequestHandler):
    """A bucket: what is PUT can be GOT; ``busy`` answers 503 that many times."""

    objects: dict[str, bytes]
    puts: list[Any]
    busy: int

    def do_GET(self) -> None:
        body = self.server.objects.get(self.path.partition("?")[0])  # type: ignore[attr-defined]
        self.send_response(200 if body is not None else 404)
        self.end_headers()
        self.wfile.write(body or b"")

    def do_PUT(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        server: Any = self.server
        server.busy -= 1
        self.send_response(503 if server.busy >= 0 else 200)
        self.end_headers()
        if server.busy < 0:
            server.puts.append(json.loads(body))

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def store():
    server: Any = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Store)
    server.objects, server.puts, server.busy = {}, [], 0
    server.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def boot(tmp_path, monkeypatch) -> Any:
    path = ROOT / "salt/cloud/first-boot.py"
    spec = importlib.util.spec_from_file_location("first_boot", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "ROOT", tmp_path)
    monkeypatch.setattr(module, "KEY_BITS", 1024)
    monkeypatch.setattr(module, "start", lambda job: None)
    module.LOG.append(io.StringIO())
    for name, body in {
        "var/lib/cloud/data/instance-id": "i-0abc\n",
        "etc/ssh/ssh_host_ed25519_key.pub": "ssh-ed25519 AAAAhost root@f1\n",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(body)
    return module


@pytest.fixture
def archive(store) -> dict[str, str]:
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w:gz") as tar:
        item = tarfile.TarInfo("bin/salt-minion")
        item.size, item.mode = 4, 0o755
        tar.addfile(item, io.BytesIO(b"salt"))
    store.objects["/env.tar.gz"] = raw.getvalue()
    sha256 = hashlib.sha256(raw.getvalue()).hexdigest()
    return {"url": f"{store.url}/env.tar.gz?X-Amz-Signature=hidden", "sha256": sha256}


def job(store: Any, archive: dict[str, str], role: str = "master", **more: Any) -> dict[str, Any]:
    return {
        "id": f"f1-{role}",
        "role": role,
        "announce_url": f"{store.url}/announce?X-Amz-Signature=hidden",
        "environment": archive,
        **more,
    }


def test_a_master_announces_first_and_reports_when_ready(boot, store, archive, tmp_path):
    boot.boot(job(store, archive))
    first, last = store.puts
    assert first["id"] == "f1-master"
    assert first["instance_id"] == "i-0abc"
    assert first["ssh_host_keys"] == ["ssh-ed25519 AAAAhost"]
    assert last == {**first, "ready": True}
    pki = tmp_path / "etc/salt/pki"
    assert (pki / "master/minions/f1-master").read_text() == first["minion_pub"]
    assert (pki / "minion/minion_master.pub").read_text() == first["master_pub"]
    assert (tmp_path / "opt/salt/bin/salt-minion").read_text() == "salt"
    command = tmp_path / "usr/local/bin/salt-minion"
    assert str(command.readlink()) == "/opt/salt/bin/salt-minion"
    log = boot.LOG[0].getvalue()
    assert "hidden" not in log
    assert "PRIVATE" not in log


def test_keys_are_as_salt_reads_them(boot, tmp_path):
    from cryptography.hazmat.primitives.serialization import (
        load_pem_private_key,
        load_pem_public_key,
    )

    public = boot.make_key(tmp_path / "pki", "minion")
    private = tmp_path / "pki/minion.pem"
    assert private.stat().st_mode & 0o777 == 0o600
    key: Any = load_pem_private_key(private.read_bytes(), password=None)
    told: Any = load_pem_public_key(public.encode())
    assert key.public_key().public_numbers() == told.public_numbers()
    assert boot.make_key(tmp_path / "pki", "minion") == public
    assert sorted(path.name for path in (tmp_path / "pki").iterdir()) == [
        "minion.pem",
        "minion.pub",
    ]


def test_a_worker_waits_for_what_the_operator_knows_of_the_master(boot, store, archive, tmp_path):
    told = {"master_pub": "-----BEGIN PUBLIC KEY-----\nthe master's\n"}
    given = job(store, archive, "worker", known_url=f"{store.url}/known?X-Amz-Signature=hidden")
    worker = threading.Thread(target=boot.boot, args=(given,))
    worker.start()
    store.objects["/known"] = json.dumps(told).encode()
    worker.join(20)
    pinned = tmp_path / "etc/salt/pki/minion/minion_master.pub"
    assert pinned.read_text() == told["master_pub"]
    assert store.puts[-1]["ready"] is True
    assert "master_pub" not in store.puts[0]
    assert not (tmp_path / "etc/salt/pki/master").exists()


def test_a_worker_that_hears_of_no_master_says_so(boot, store, archive, monkeypatch):
    monkeypatch.setattr(boot, "MASTER_SECONDS", 0.3)
    given = job(store, archive, "worker", known_url=f"{store.url}/known?X-Amz-Signature=hidden")
    with pytest.raises(TimeoutError):
        boot.boot(given)
    error = store.puts[-1]["error"]
    assert "waited 0.3 s for the master's key at" in error
    assert "404" in error
    assert "hidden" not in error


def test_a_changed_environment_is_refused(boot, store, archive, tmp_path):
    with pytest.raises(RuntimeError):
        boot.boot(job(store, {**archive, "sha256": "0" * 64}))
    assert "not 00000000" in store.puts[-1]["error"]
    assert not (tmp_path / "opt").exists()


def test_another_python_is_refused(boot, store, archive, monkeypatch):
    monkeypatch.setattr(boot, "PYTHON", (3, 2))
    with pytest.raises(RuntimeError):
        boot.boot(job(store, archive))
    assert "use a Debian 12 image" in store.puts[-1]["error"]


def test_a_busy_store_is_asked_again(boot, store, archive):
    store.busy = 2
    boot.announce(job(store, archive), {"id": "f1-master"})
    assert store.puts == [{"id": "f1-master"}]


def test_no_service_no_silence(boot, store, archive, monkeypatch):
    def start(job: dict[str, Any]) -> None:
        boot.run("sh", "-c", "echo no such unit >&2; exit 5")

    monkeypatch.setattr(boot, "start", start)
    with pytest.raises(RuntimeError):
        boot.boot(job(store, archive))
    assert store.puts[-1]["error"].endswith("failed (5): no such unit")


def test_it_needs_nothing_but_the_machines_python(tmp_path: Path):
    code = "import runpy; runpy.run_path('salt/cloud/first-boot.py', run_name='x')"
    subprocess.run(["/usr/bin/python3", "-I", "-S", "-c", code], cwd=ROOT, check=True)
