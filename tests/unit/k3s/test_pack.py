"""The one file that machines install."""

import subprocess

import pytest

from lab.k3s.pack import pack

PYTHON = "/usr/bin/python3"
AGENT = ("agent", "--server=https://127.0.0.1:1", "--token=x", "--node-ip=127.0.0.1")


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    path = tmp_path_factory.mktemp("k3s") / "k3s"
    path.write_bytes(pack("v1.36.3+k3s1", path.parent / "components"))
    path.chmod(0o755)
    return path


def run(packed, *argv, **environ):
    return subprocess.run(
        [PYTHON, packed, *argv],
        capture_output=True,
        text=True,
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", **environ},
        timeout=60,
    )


def test_same_input_same_bytes():
    assert pack("v1.36.3+k3s1", "/opt/x") == pack("v1.36.3+k3s1", "/opt/x")
    assert pack("v1.36.3+k3s1", "/opt/y") != pack("v1.36.3+k3s1", "/opt/x")


def test_two_versions_are_bound_to_programs_of_their_own(tmp_path):
    for version in ("v1.36.2", "v1.36.3"):
        path = tmp_path / version
        path.write_bytes(pack(f"{version}+k3s1", tmp_path / f"programs-{version}"))
        assert run(path, "--version").stdout.startswith(f"k3s version {version}+k3s1 (")
        assert f"programs-{version} does not exist" in run(path, *AGENT).stderr


def test_version(packed):
    done = run(packed, "--version")
    first, second = done.stdout.splitlines()
    assert first.startswith("k3s version v1.36.3+k3s1 (")
    assert "stand-in" in second
    assert "v1.36.3 " in second


def test_it_is_a_program_by_itself(packed):
    assert packed.read_bytes().startswith(b"#!/usr/bin/python3\n")
    assert b"pack.py" not in packed.read_bytes()


@pytest.mark.parametrize(
    ("command", "why"),
    [("crictl", "K3s has it, the stand-in does not"), ("srver", "unknown command")],
)
def test_commands_that_are_not_there(packed, command, why):
    done = run(packed, command)
    assert done.returncode == 1
    assert why in done.stderr


def test_options_are_refused_before_anything_is_touched(packed, tmp_path):
    config = tmp_path / "config.yaml"
    config.write_text("servr: x\n")
    done = run(packed, "agent", K3S_CONFIG_FILE=str(config))
    assert done.returncode == 1
    assert f"{config}:1: servr: unknown to K3s; did you mean server?" in done.stderr


def test_missing_components_are_a_clear_error(packed, tmp_path):
    done = run(
        packed,
        "agent",
        f"--data-dir={tmp_path}/data",
        "--server=https://127.0.0.1:1",
        "--node-ip=127.0.0.1",
        K3S_TOKEN="hidden",
    )
    assert done.returncode == 1
    assert f"{packed.parent / 'components'} does not exist" in done.stderr
    assert "hidden" not in done.stderr
    assert not (tmp_path / "data").exists()


def test_kubectl_without_a_kubeconfig(packed):
    done = run(packed, "kubectl", "get", "nodes", KUBECONFIG="/none")
    assert done.returncode == 1
    assert "kubectl: No such file" in done.stderr
