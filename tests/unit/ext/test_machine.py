"""A machine's kernel and clock, its own or its host's; systemd is a script here."""

import os
import stat
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import load_ext

SYSTEMCTL = """#!/bin/sh
echo "$*" >> "$F1_FAKE/calls"
case "$1" in
  is-enabled) cat "$F1_FAKE/enabled" ;;
  is-active) cat "$F1_FAKE/active" ;;
  enable) echo enabled > "$F1_FAKE/enabled" ;;
  start|restart) [ -e "$F1_FAKE/broken" ] && { echo "no such unit" >&2; exit 5; }
    echo active > "$F1_FAKE/active" ;;
esac
"""
VIRT = """#!/bin/sh
test -e "$F1_FAKE/container"
"""
WANTED = {"kernel.panic": 10, "vm.panic_on_oom": 0}


class Machine:
    """A machine whose kernel is a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.opts: dict[str, Any] = {"test": False}
        self.states = load_ext("states/machine.py")
        self.states.__dict__.update(__opts__=self.opts, PROC_SYS=folder / "sys")
        self.conf = folder / "90-kubelet.conf"
        self.has(kernel_panic="0", vm_panic_on_oom="0")
        self.unit("disabled", "inactive")

    def has(self, **values: str) -> None:
        for key, value in values.items():
            path = self.folder.joinpath("sys", *key.split("_", 1))
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"{value}\n")

    def value(self, key: str) -> str:
        return self.folder.joinpath("sys", *key.split(".")).read_text().strip()

    def unit(self, enabled: str, active: str) -> None:
        (self.folder / "enabled").write_text(f"{enabled}\n")
        (self.folder / "active").write_text(f"{active}\n")

    def container(self) -> None:
        (self.folder / "container").touch()

    def calls(self) -> list[str]:
        lines = (self.folder / "calls").read_text().splitlines()
        return [line for line in lines if not line.startswith("is-")]

    def kernel(self) -> dict[str, Any]:
        said: dict[str, Any] = self.states.kernel(str(self.conf), WANTED)
        return said

    def clock(self) -> dict[str, Any]:
        said: dict[str, Any] = self.states.clock("systemd-timesyncd")
        return said


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    for name, text in (("systemctl", SYSTEMCTL), ("systemd-detect-virt", VIRT)):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("F1_FAKE", str(tmp_path))
    (tmp_path / "calls").touch()
    return Machine(tmp_path)


def test_the_kernel_is_set_now_and_for_the_next_boot(machine: Machine) -> None:
    machine.opts["test"] = True
    planned = machine.kernel()
    assert planned["result"] is None
    assert not machine.conf.exists()
    assert machine.value("kernel.panic") == "0"
    machine.opts["test"] = False
    said = machine.kernel()
    assert said["result"] is True
    assert said["changes"] == planned["changes"]
    assert said["changes"]["kernel.panic"] == {"old": "0", "new": "10"}
    assert machine.value("kernel.panic") == "10"
    assert machine.conf.read_text() == "kernel.panic = 10\nvm.panic_on_oom = 0\n"
    assert stat.S_IMODE(machine.conf.stat().st_mode) == 0o644
    assert machine.kernel()["changes"] == {}


def test_a_containers_kernel_is_told_and_left_alone(machine: Machine) -> None:
    machine.container()
    said = machine.kernel()
    assert (said["result"], set(said["changes"])) == (True, {str(machine.conf)})
    assert "kernel.panic is 0, not 10" in said["comment"]
    assert machine.value("kernel.panic") == "0"
    again = machine.kernel()
    assert (again["result"], again["changes"]) == (True, {})
    assert "kernel.panic is 0, not 10" in again["comment"]


def test_a_container_has_a_network_of_its_own(machine: Machine) -> None:
    machine.container()
    machine.folder.joinpath("sys/net/ipv4").mkdir(parents=True)
    machine.folder.joinpath("sys/net/ipv4/ip_forward").write_text("0\n")
    wanted = {"net.ipv4.ip_forward": 1, "kernel.panic": 10}
    said = machine.states.kernel(str(machine.conf), wanted)
    assert said["changes"]["net.ipv4.ip_forward"] == {"old": "0", "new": "1"}
    assert "kernel.panic is 0, not 10" in said["comment"]
    assert machine.value("net.ipv4.ip_forward") == "1"
    assert machine.value("kernel.panic") == "0"


def test_a_setting_that_the_kernel_lacks_fails_by_name(machine: Machine) -> None:
    (machine.folder / "sys/kernel/panic").unlink()
    (machine.folder / "sys/kernel").rmdir()
    said = machine.kernel()
    assert said["result"] is False
    assert "kernel.panic cannot be set to 10" in said["comment"]


def test_the_clock_is_started_once(machine: Machine) -> None:
    machine.opts["test"] = True
    planned = machine.clock()
    assert planned["result"] is None
    assert machine.calls() == []
    machine.opts["test"] = False
    said = machine.clock()
    assert said["changes"] == planned["changes"]
    assert set(said["changes"]) == {"enabled", "running"}
    assert machine.clock()["changes"] == {}


def test_a_containers_clock_is_its_hosts(machine: Machine) -> None:
    """systemd does not start it there: to wait for it would fail on every run."""
    machine.container()
    machine.unit("enabled", "inactive")
    for _ in range(2):
        said = machine.clock()
        assert (said["result"], said["changes"]) == (True, {})
        assert "its host's" in said["comment"]
    assert machine.states.mod_watch("systemd-timesyncd", sfun="clock")["changes"] == {}
    assert machine.calls() == []


def test_a_change_restarts_the_clock_and_a_failure_is_told(machine: Machine) -> None:
    machine.unit("enabled", "active")
    machine.opts["test"] = True
    assert machine.states.mod_watch("systemd-timesyncd")["result"] is None
    machine.opts["test"] = False
    assert machine.states.mod_watch("systemd-timesyncd")["result"] is True
    assert machine.calls() == ["restart systemd-timesyncd"]
    (machine.folder / "broken").touch()
    said = machine.states.mod_watch("systemd-timesyncd")
    assert (said["result"], said["comment"]) == (
        False,
        "systemctl restart systemd-timesyncd: no such unit",
    )
