"""registries.yaml → containerd, and the air-gap images."""

import tomllib
from pathlib import Path

import pytest

from lab.k3s import containerd, registries
from lab.k3s.config import ConfigError
from lab.k3s.supervisor import CommandFailed


@pytest.fixture
def load(tmp_path):
    def read(text):
        path = tmp_path / "registries.yaml"
        path.write_text(text)
        return registries.load(path)

    return read


def test_no_file_no_registries(tmp_path):
    assert registries.hosts(registries.load(tmp_path / "none")) == {}


def test_mirrors_with_tls_and_credentials(load, tmp_path):
    ca = tmp_path / "ca.pem"
    ca.write_text("x")
    known = load(
        f"""
mirrors:
  docker.io:
    endpoint: ["https://reg.test:5000", "http://10.0.0.1:5000/cache"]
  "*":
    endpoint: ["http://10.0.0.1:5000"]
configs:
  reg.test:5000:
    auth: {{username: u, password: 'p"w'}}
    tls: {{ca_file: {ca}, insecure_skip_verify: true}}
  plain.test:
"""
    )
    files = registries.hosts(known)
    assert set(files) == {"docker.io", "_default", "plain.test"} | {"reg.test:5000"}
    docker = tomllib.loads(files["docker.io"])
    assert docker["server"] == "https://registry-1.docker.io/v2"
    assert docker["host"] == {
        "https://reg.test:5000/v2": {
            "capabilities": ["pull", "resolve"],
            "ca": [str(ca)],
            "skip_verify": True,
        },
        "http://10.0.0.1:5000/cache": {
            "capabilities": ["pull", "resolve"],
            "override_path": True,
        },
    }
    assert tomllib.loads(files["reg.test:5000"])["ca"] == [str(ca)]
    assert "server" not in tomllib.loads(files["_default"])
    assert registries.credentials(known) == {"reg.test:5000": {"username": "u", "password": 'p"w'}}


def test_all_problems_at_once_and_no_password_shown(load):
    with pytest.raises(ConfigError) as caught:
        load(
            """
mirror: {}
mirrors:
  a.test: {endpoint: [ftp://x], rewrite: {a: b}}
configs:
  "*": {auth: {username: u}}
  b.test: {auth: {passwrd: hunter2}, tls: {ca_file: /none, cert_file: /none}}
"""
        )
    text = str(caught.value)
    for part in (
        "mirror: unknown",
        "'ftp://x' is not http(s)",
        "rewrite: K3s has it",
        "configs.*.auth: K3s has it",
        "passwrd: unknown; one of username",
        "ca_file: /none does not exist",
        "cert_file and key_file belong together",
    ):
        assert part in text
    assert "hunter2" not in text


def test_broken_file_shows_no_content(load):
    with pytest.raises(ConfigError) as caught:
        load("configs:\n  a: {auth: {password: hunter2}\n")
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("systemd", [True, False])
def test_containerd_configuration(load, tmp_path, systemd):
    known = load("configs: {r.test: {auth: {username: u, password: p}}}\n")
    text = containerd.config(tmp_path / "agent", "docker.io/rancher/pause:3", known, systemd)
    cri = tomllib.loads(text)["plugins"]["io.containerd.grpc.v1.cri"]
    assert cri["sandbox_image"] == "docker.io/rancher/pause:3"
    assert cri["restrict_oom_score_adj"] is True
    assert cri["containerd"]["runtimes"]["runc"]["options"] == {"SystemdCgroup": systemd}
    assert cri["cni"]["bin_dir"] == "/usr/lib/cni"
    assert cri["registry"]["config_path"] == f"{tmp_path}/agent/etc/containerd/certs.d"
    assert cri["registry"]["configs"]["r.test"]["auth"] == {"username": "u", "password": "p"}


def test_archives_small_first_others_named(tmp_path, capsys):
    for name, size in (("big.tar", 30), ("small.tar.zst", 1), ("notes.txt", 2)):
        (tmp_path / name).write_bytes(b"x" * size)
    assert [path.name for path in containerd.archives(tmp_path)] == ["small.tar.zst", "big.tar"]
    assert "notes.txt is no image archive" in capsys.readouterr().err
    assert containerd.archives(tmp_path / "none") == []


def test_archive_is_imported_once_and_again_when_changed(tmp_path):
    path = tmp_path / "a.tar"
    path.write_bytes(b"x")
    loaded: list[Path] = []
    marks = tmp_path / "marks"
    containerd.import_images([path], marks, loaded.append)
    containerd.import_images([path], marks, loaded.append)
    assert loaded == [path]
    path.write_bytes(b"xy")
    containerd.import_images([path], marks, loaded.append)
    assert loaded == [path, path]


def test_failed_import_is_told_and_tried_again(tmp_path, capsys):
    path = tmp_path / "a.tar"
    path.write_bytes(b"x")

    def fail(_):
        raise CommandFailed("ctr failed (1): no space left")

    containerd.import_images([path], tmp_path / "marks", fail)
    assert "no space left" in capsys.readouterr().err
    loaded: list[Path] = []
    containerd.import_images([path], tmp_path / "marks", loaded.append)
    assert loaded == [path]
