#!/usr/bin/python3
"""
First boot of a machine: its keys, its announcement, its Salt.

Runs once, from user-data, on the machine's own Python (standard library only). The job file holds
``{"id", "role": "master" | "worker", "announce_url", "environment": {"url", "sha256"},
"master_pub"?, "known_url"?}``. Nothing secret is written to the log: URLs lose their query.
Log: /var/log/f1-first-boot.log and the console. On failure the cause is announced as ``error``.
"""

import hashlib
import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TextIO

PYTHON = (3, 11)
FETCH_SECONDS = 180
MASTER_SECONDS = 300
START_SECONDS = 120
ATTEMPT_SECONDS = 30
KEY_BITS = 3072

ROOT = Path("/")
LOG: list[TextIO] = []


def log(text: str) -> None:
    """Write ``text`` with the seconds since boot to every log."""
    line = f"f1-first-boot {time.clock_gettime(time.CLOCK_BOOTTIME):.1f} {text}\n"
    for file in LOG:
        file.write(line)
        file.flush()


def bare(url: str) -> str:
    """Return ``url`` without its query, which is a signature."""
    return url.partition("?")[0]


def until(what: str, seconds: float, attempt: Callable[[], Any], pause: float = 0.25) -> Any:
    """Call ``attempt`` until it raises no OSError; if late, name ``what`` and the last error."""
    end = time.monotonic() + seconds
    while True:
        try:
            return attempt()
        except OSError as error:
            if time.monotonic() >= end:
                raise TimeoutError(f"waited {seconds:g} s for {what}; last seen: {error}") from None
        time.sleep(pause)


def make_key(folder: Path, name: str) -> str:
    """Make an RSA key ``<name>.pem`` and ``<name>.pub`` as Salt stores them; return the latter."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    private, public = folder / f"{name}.pem", folder / f"{name}.pub"
    if not private.exists():
        new = folder / f".{name}.new"
        bits = str(KEY_BITS)
        run("ssh-keygen", "-q", "-t", "rsa", "-b", bits, "-m", "PEM", "-N", "", "-f", str(new))
        openssh = new.with_name(new.name + ".pub")
        public.write_text(run("ssh-keygen", "-e", "-m", "PKCS8", "-f", str(openssh)))
        openssh.unlink()
        new.rename(private)
    return public.read_text()


def run(*command: str, seconds: float = 60) -> str:
    """Run ``command``; return what it says, raise RuntimeError with its complaint if it fails."""
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=seconds, stdin=subprocess.DEVNULL
    )
    if done.returncode:
        complaint = (done.stderr or done.stdout).strip()[-500:]
        raise RuntimeError(f"{' '.join(command[:3])} failed ({done.returncode}): {complaint}")
    return done.stdout


def identity(job: dict[str, Any]) -> dict[str, Any]:
    """Make this machine's keys and return its announcement."""
    pki = ROOT / "etc/salt/pki"
    with ThreadPoolExecutor() as pool:
        minion = pool.submit(make_key, pki / "minion", "minion")
        master = pool.submit(make_key, pki / "master", "master") if is_master(job) else None
    told = {
        "id": job["id"],
        "instance_id": (ROOT / "var/lib/cloud/data/instance-id").read_text().strip(),
        "minion_pub": minion.result(),
        "ssh_host_keys": [
            " ".join(file.read_text().split()[:2])
            for file in sorted((ROOT / "etc/ssh").glob("ssh_host_*_key.pub"))
        ],
    }
    if master:
        told["master_pub"] = master.result()
        accepted = pki / "master" / "minions"
        accepted.mkdir(mode=0o700, exist_ok=True)
        (accepted / job["id"]).write_text(told["minion_pub"])
        pin(told["master_pub"])
    return told


def is_master(job: dict[str, Any]) -> bool:
    """Say whether this machine carries the Salt master."""
    return bool(job["role"] == "master")


def pin(master_pub: str) -> None:
    """Make the minion know its master before it first speaks to it."""
    if "-----BEGIN PUBLIC KEY-----" not in master_pub:
        raise RuntimeError("the master's announcement holds no public key")
    (ROOT / "etc/salt/pki/minion/minion_master.pub").write_text(master_pub)


def announce(job: dict[str, Any], told: dict[str, Any]) -> None:
    """PUT ``told`` where the operator looks for it."""
    request = urllib.request.Request(  # noqa: S310 - presigned by the operator
        job["announce_url"],
        data=json.dumps(told).encode(),
        method="PUT",
        headers={"Content-Type": "application/json"},
    )

    def put() -> None:
        with urllib.request.urlopen(request, timeout=ATTEMPT_SECONDS) as answer:  # noqa: S310
            answer.read()

    until(f"PUT {bare(job['announce_url'])}", FETCH_SECONDS, put)


def fetch(url: str) -> bytes:
    """Return the body of ``url``."""
    with urllib.request.urlopen(url, timeout=ATTEMPT_SECONDS) as answer:  # noqa: S310
        return bytes(answer.read())


def unpack(job: dict[str, Any]) -> None:
    """Download the Salt environment, verify it, and put it at /opt/salt."""
    if sys.version_info[:2] != PYTHON:
        raise RuntimeError(
            f"this image has Python {sys.version.split()[0]}, the Salt environment needs "
            f"{'.'.join(map(str, PYTHON))}: use a Debian 12 image"
        )
    wanted = job["environment"]
    where = ROOT / "opt/salt"
    if where.exists():
        return
    body = until(f"GET {bare(wanted['url'])}", FETCH_SECONDS, lambda: fetch(wanted["url"]))
    sha256 = hashlib.sha256(body).hexdigest()
    if sha256 != wanted["sha256"]:
        raise RuntimeError(f"the Salt environment has sha256 {sha256}, not {wanted['sha256']}")
    new = where.with_name("salt.new")
    new.mkdir(parents=True, exist_ok=True)
    subprocess.run(
        ["tar", "-xzf", "-", "-C", str(new), "--no-same-owner"], input=body, check=True, timeout=120
    )
    new.rename(where)
    # By hand, `salt` and its like are found without a path, by sudo as well.
    commands = ROOT / "usr/local/bin"
    commands.mkdir(parents=True, exist_ok=True)
    for program in (where / "bin").iterdir():
        link = commands / program.name
        link.unlink(missing_ok=True)
        link.symlink_to(f"/opt/salt/bin/{program.name}")


def know_master(job: dict[str, Any]) -> None:
    """Pin the master's key: given by the operator, or as the operator came to know it."""
    key = job.get("master_pub")
    if not key:
        url = job["known_url"]
        body = until(f"the master's key at {bare(url)}", MASTER_SECONDS, lambda: fetch(url))
        key = json.loads(body)["master_pub"]
    pin(key)


def start(job: dict[str, Any]) -> None:
    """Start the services and wait until they say that they run."""
    units = ["salt-master", "salt-minion"] if is_master(job) else ["salt-minion"]
    run("systemctl", "daemon-reload")
    run("systemctl", "enable", "--quiet", *units)
    for unit in units:
        try:
            run("systemctl", "start", unit, seconds=START_SECONDS)
        except (RuntimeError, subprocess.TimeoutExpired) as error:
            last = run("journalctl", "-q", "-o", "cat", "-n", "5", "-u", unit)
            raise RuntimeError(f"{unit} did not start: {error}; last logged: {last}") from error


def boot(job: dict[str, Any]) -> None:
    """Do all of it, in the order that lets the operator and the other machines go on early."""
    told: dict[str, Any] = {"id": job["id"]}
    try:
        told = identity(job)
        announce(job, told)
        log(f"announced as {job['id']}")
        unpack(job)
        log("the Salt environment is at /opt/salt")
        if not is_master(job):
            know_master(job)
            log("the master's key is pinned")
        start(job)
        log("Salt runs")
        announce(job, {**told, "ready": True})
    except Exception as error:
        cause = f"{type(error).__name__}: {error}"
        log(f"failed: {cause}")
        announce(job, {**told, "error": cause})
        raise


if __name__ == "__main__":
    for name in ("/var/log/f1-first-boot.log", "/dev/console"):
        try:
            LOG.append(Path(name).open("a"))  # noqa: SIM115 - open until the end
        except OSError as refused:
            log(f"{name}: {refused}")
    os.umask(0o077)
    boot(json.loads(Path(sys.argv[1]).read_text()))
