"""What would keep the lab from starting, all at once, each with its fix."""

import os
import shutil
import subprocess
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

from lab.cloud import engine, lifecycle
from lab.cloud.config import HOST_ADDRESS, INTERNET, PUBLIC, Config, cache, home
from lab.cloud.names import HOST_LINK

TOOLS = {"ip": "iproute2", "nft": "nftables", "debootstrap": "debootstrap"}
MIN_FREE = 10  # GB


def listening() -> set[tuple[IPv4Address, int]]:
    """The TCP addresses something listens on (``/proc/net/tcp``: state 0A, little-endian hex)."""
    found = set()
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        local, state = line.split()[1], line.split()[3]
        if state == "0A":
            address, port = local.split(":")
            found.add((IPv4Address(bytes.fromhex(address)[::-1]), int(port, 16)))
    if Path("/proc/net/tcp6").exists():
        for line in Path("/proc/net/tcp6").read_text().splitlines()[1:]:
            local, state = line.split()[1], line.split()[3]
            if state == "0A" and not int(local.split(":")[0], 16):
                found.add((IPv4Address("0.0.0.0"), int(local.split(":")[1], 16)))  # noqa: S104
    return found


def _busy(config: Config) -> list[str]:
    wanted = [
        ("api_port", IPv4Address("127.0.0.1"), config.api_port),
        ("s3_port", HOST_ADDRESS, config.s3_port),
    ]
    if config.files:
        wanted.append(("files_port", HOST_ADDRESS, config.files_port))
    for i, rule in enumerate(config.publish):
        host, port = rule.address
        wanted.append((f"publish[{i}].listen", IPv4Address(host), port))
    taken = listening()
    any_address = IPv4Address("0.0.0.0")  # noqa: S104
    return [
        f"{key}: {address}:{port} is in use; see `ss -ltnp 'sport = :{port}'`, "
        "or choose another port"
        for key, address, port in wanted
        if (address, port) in taken or (any_address, port) in taken
    ]


def _routes() -> list[str]:
    done = subprocess.run(
        ["ip", "-4", "route"], capture_output=True, text=True, timeout=10, check=False
    )
    problems = []
    for line in done.stdout.splitlines():
        words = line.split()
        if words[0] == "default" or HOST_LINK in words:
            continue
        try:
            network = IPv4Network(words[0], strict=False)
        except ValueError:
            continue
        for ours in (INTERNET, PUBLIC):
            if network.overlaps(ours):
                problems.append(f"network: {ours} is the lab's, but this host has {line.strip()!r}")
    return problems


def preflight(config: Config) -> list[str]:
    """List what is wrong; empty = `start` may be called. Touches nothing."""
    problems = []
    if os.geteuid() != 0:
        problems.append("root: machines and networks need it; run as root")
    installable = engine.is_debian_root()
    missing = [tool for tool in TOOLS if not shutil.which(tool)]
    if missing:
        packages = " ".join(TOOLS[t] for t in missing)
        problems.append(f"tools: {', '.join(missing)} missing; apt-get install {packages}")
    if not engine.connect() and not shutil.which("dockerd") and not installable:
        problems.append("docker: no engine answers; start Docker, or run as root on Debian")
    place = next(p for p in (cache(), *cache().parents) if p.exists())
    free = shutil.disk_usage(place).free // 10**9
    if free < MIN_FREE:
        problems.append(f"disk: {free} GB free at {place}, {MIN_FREE} needed; make room")
    if lifecycle.stopped():
        problems += _busy(config)
        if not missing:
            problems += _routes()
    for folder in (home(), cache()):
        if len(str(folder)) > 80:
            problems.append(f"folder: {folder} is too long for a socket's path; choose another")
    return problems
