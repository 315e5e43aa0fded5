"""The Docker engine the machines run on: the one that runs, or one of our own."""

import os
import shutil
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import docker
import docker.errors

from lab.cloud.config import cache

SOCKET = Path("/var/run/docker.sock")
START_DEADLINE = 60  # seconds
STOP_DEADLINE = 30  # seconds

# Capability names by their bit (linux/capability.h), up to the last one that every
# Docker engine since 19.03 knows.
CAPABILITIES = """
CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE
NET_BIND_SERVICE NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO
SYS_CHROOT SYS_PTRACE SYS_PACCT SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME
SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE MAC_ADMIN SYSLOG
WAKE_ALARM BLOCK_SUSPEND AUDIT_READ
""".split()  # noqa: SIM905  in the order of their bits


class EngineError(RuntimeError):
    """No Docker engine can be had; the message says what is missing."""


def connect() -> docker.DockerClient | None:
    """The running engine's client, or None."""
    try:
        client = docker.from_env(timeout=60)
        client.ping()
    except (docker.errors.DockerException, OSError):
        return None
    return client


def is_debian_root() -> bool:
    """Whether missing programs may be installed here."""
    return os.geteuid() == 0 and shutil.which("apt-get") is not None


def install(*packages: str) -> None:
    """Install Debian packages without starting their services.

    Raises:
        EngineError: apt failed; the message ends with its last words.
    """
    guard = Path("/usr/sbin/policy-rc.d")
    guarded = not guard.exists()
    if guarded:
        guard.write_text("#!/bin/sh\nexit 101\n")
        guard.chmod(0o755)
    try:
        env = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
        for command in (
            ["apt-get", "-qq", "update"],
            ["apt-get", "-qq", "install", "-y", "--no-install-recommends", *packages],
        ):
            done = subprocess.run(
                command, env=env, capture_output=True, text=True, timeout=600, check=False
            )
            if done.returncode:
                raise EngineError(f"{' '.join(command)}: {done.stderr.strip()[-400:]}")
    finally:
        if guarded:
            guard.unlink(missing_ok=True)


def _pid_of_ours(pid_file: Path) -> int | None:
    """The pid in the file if that process is indeed the dockerd we started."""
    try:
        pid = int(pid_file.read_text())
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except (OSError, ValueError):
        return None
    return pid if f"--pidfile={pid_file}".encode() in words else None


def ensure(home: Path) -> docker.DockerClient:
    """Give a client of the running engine, starting an engine of our own if none runs.

    Args:
        home: the lab's runtime folder: gets ``run/dockerd.pid`` and ``log/dockerd.log``.

    Raises:
        EngineError: no engine, and none can be started here.
    """
    client = connect()
    if client:
        return client
    if not shutil.which("dockerd"):
        if not is_debian_root():
            raise EngineError(
                "no Docker engine answers and dockerd is not installed; "
                "start Docker, or run as root on Debian"
            )
        install("docker.io")
    pid_file = home / "run" / "dockerd.pid"
    if _pid_of_ours(pid_file) is None:
        pid_file.unlink(missing_ok=True)
        SOCKET.unlink(missing_ok=True)  # nobody answered on it: the remains of a dead engine
    return _start(home, pid_file)


def _start(home: Path, pid_file: Path) -> docker.DockerClient:
    log = home / "log" / "dockerd.log"
    for folder in (pid_file.parent, log.parent, cache() / "docker"):
        folder.mkdir(parents=True, exist_ok=True)
    command = [
        "dockerd",
        f"--pidfile={pid_file}",
        f"--data-root={cache() / 'docker'}",
        f"--host=unix://{SOCKET}",
    ]
    with log.open("ab") as out:
        process = subprocess.Popen(
            command, stdout=out, stderr=out, stdin=subprocess.DEVNULL, start_new_session=True
        )
    deadline = time.monotonic() + START_DEADLINE
    while time.monotonic() < deadline:
        client = connect()
        if client:
            return client
        if process.poll() is not None:
            break
        time.sleep(0.2)
    tail = "\n".join(log.read_text(errors="replace").splitlines()[-4:])
    raise EngineError(f"dockerd did not answer within {START_DEADLINE} s; {log} ends with:\n{tail}")


def stop(home: Path) -> bool:
    """Stop the engine if we started it; tell whether there was one."""
    pid_file = home / "run" / "dockerd.pid"
    pid = _pid_of_ours(pid_file)
    if pid is None:
        return False
    os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + STOP_DEADLINE
    while Path(f"/proc/{pid}").exists() and time.monotonic() < deadline:
        with suppress(ChildProcessError):  # reap it where it is our child
            os.waitpid(pid, os.WNOHANG)
        time.sleep(0.1)
    if Path(f"/proc/{pid}").exists():
        os.kill(pid, signal.SIGKILL)
    return True


def bounding_set() -> int:
    """The capabilities any process of this machine can get, as a bit mask."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("CapBnd:"):
            return int(line.split()[1], 16)
    raise EngineError("/proc/self/status has no CapBnd line: is this Linux?")


def privileges(mask: int) -> dict[str, Any]:
    """Keys of the engine API's HostConfig that let systemd and a container runtime work.

    ``Privileged`` asks for every capability and is refused where one is withheld from the
    whole machine; there, what can be had is listed one by one.

    Args:
        mask: what `bounding_set` gives.
    """
    wanted = (1 << len(CAPABILITIES)) - 1
    if mask & wanted == wanted:
        return {"Privileged": True}
    kmsg = {"PathOnHost": "/dev/kmsg", "PathInContainer": "/dev/kmsg", "CgroupPermissions": "rwm"}
    return {
        "CapAdd": [name for bit, name in enumerate(CAPABILITIES) if mask >> bit & 1],
        "SecurityOpt": ["seccomp=unconfined", "apparmor=unconfined"],
        "MaskedPaths": [],
        "ReadonlyPaths": [],
        "Devices": [kmsg],
    }
