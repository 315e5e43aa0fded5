"""The small parts: privileges, artifacts over HTTP, supervised services, busy ports."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from lab.cloud import checks, config, engine, files
from lab.cloud.processes import ProcessError, Supervisor
from lab.machine import image

ALL = (1 << 41) - 1


def test_privileged_only_where_nothing_is_withheld():
    assert engine.privileges(ALL) == {"Privileged": True}
    listed = engine.privileges(ALL & ~(1 << 24))  # CAP_SYS_RESOURCE
    assert "SYS_RESOURCE" not in listed["CapAdd"]
    assert {"SYS_ADMIN", "NET_ADMIN", "AUDIT_READ", "CHOWN"} <= set(listed["CapAdd"])
    assert listed["MaskedPaths"] == listed["ReadonlyPaths"] == []


def test_a_stale_or_foreign_pid_file_stops_nobody(tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    for content in ("", "rubbish", "999999999", str(os.getpid())):
        (run / "dockerd.pid").write_text(content)
        assert engine.stop(tmp_path) is False


@pytest.fixture
def shelf(tmp_path):
    (tmp_path / "shelf" / "k3s").mkdir(parents=True)
    (tmp_path / "shelf" / "k3s" / "k3s bin").write_bytes(b"\0elf")
    (tmp_path / "secret").write_text("x")
    server = files.Server("127.0.0.1", 0, tmp_path / "shelf")
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


def test_artifacts_are_read_and_nothing_else(shelf):
    with urllib.request.urlopen(f"{shelf}/k3s/k3s%20bin", timeout=5) as answer:
        assert answer.read() == b"\0elf"
    head = urllib.request.Request(f"{shelf}/k3s/k3s%20bin", method="HEAD")
    with urllib.request.urlopen(head, timeout=5) as answer:
        assert (answer.headers["Content-Length"], answer.read()) == ("4", b"")
    put = urllib.request.Request(f"{shelf}/k3s/new", method="PUT", data=b"x")
    for wrong in (f"{shelf}/", f"{shelf}/k3s/", f"{shelf}/%2e%2e/secret", f"{shelf}/none", put):
        with pytest.raises(urllib.error.HTTPError):
            urllib.request.urlopen(wrong, timeout=5)


def until(true, what, seconds=10):
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, f"waited {seconds} s for {what}"
        time.sleep(0.05)


def test_a_service_that_dies_comes_back_and_is_stopped(tmp_path):
    process = config.Process("sleeper", ["sleep", "60"])
    supervisor = Supervisor([process], tmp_path)
    supervisor.start()
    first = supervisor.running["sleeper"].pid
    os.kill(first, signal.SIGKILL)
    until(lambda: supervisor.running["sleeper"].pid != first, "a new process")
    second = supervisor.running["sleeper"].pid
    supervisor.stop()
    assert not Path(f"/proc/{second}").exists()


def test_a_service_that_never_answers_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr("lab.cloud.processes.READY_DEADLINE", 0.3)
    process = config.Process("registry", ["sleep", "60"], ready_url="http://127.0.0.1:9/")
    supervisor = Supervisor([process], tmp_path)
    with pytest.raises(ProcessError, match=r"registry: .*last: .*refused.*registry.log"):
        supervisor.start()
    supervisor.stop()


def test_services_do_not_outlive_a_killed_lab(tmp_path):
    script = (
        "import sys, time\nfrom pathlib import Path\n"
        "from lab.cloud.config import Process\nfrom lab.cloud.processes import Supervisor\n"
        "s = Supervisor([Process('sleeper', ['sleep', '60'])], Path(sys.argv[1]))\n"
        "s.start()\nprint(s.running['sleeper'].pid, flush=True)\ntime.sleep(60)\n"
    )
    lab = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert lab.stdout is not None
    child = int(lab.stdout.readline())
    lab.kill()
    lab.wait()
    until(lambda: not Path(f"/proc/{child}").exists(), "the service to die with the lab")


def test_a_busy_port_is_named_before_anything_starts(monkeypatch):
    monkeypatch.setattr("lab.cloud.lifecycle.stopped", lambda: True)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        wanted = config.Config(
            api_port=port, publish=[config.Publish("127.0.0.1:1", "f1-master", 443)]
        )
        problems = checks.preflight(wanted)
    assert any(p.startswith(f"api_port: 127.0.0.1:{port} is in use") for p in problems)
    assert not any("publish" in p for p in problems)


def test_no_root_and_a_full_disk_are_said_together(monkeypatch):
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 3 * 10**9})())
    said = " ".join(checks.preflight(config.Config()))
    assert "run as root" in said
    assert "3 GB free" in said


def test_the_image_name_follows_its_recipe(monkeypatch, tmp_path):
    before = image.recipe_hash()
    assert before == image.recipe_hash()
    monkeypatch.setattr(image, "PACKAGES", [*image.PACKAGES, "vim"])
    assert image.recipe_hash() != before
    monkeypatch.undo()
    monkeypatch.setattr(image, "ROOTFS", tmp_path)
    assert image.recipe_hash() != before
