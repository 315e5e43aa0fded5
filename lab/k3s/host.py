"""What the machine has to offer, and what is set on it."""

import fcntl
import os
import shutil
import socket
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import IO

from .config import ConfigError
from .supervisor import say

LOCK = Path("/run/k3s/k3s.lock")
CNI_PLUGINS = Path("/usr/lib/cni")
RESOLV_CONFS = (Path("/etc/resolv.conf"), Path("/run/systemd/resolve/resolv.conf"))
SERVER_COMPONENTS = (
    "kine",
    "kubeadm",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kubectl",
)
NODE_COMPONENTS = ("kubelet", "kube-proxy", "netagent")
PROGRAMS = {
    "containerd": "containerd",
    "ctr": "containerd",
    "runc": "runc",
    "iptables": "iptables",
    "nft": "nftables",
    "ipset": "ipset",
    "ip": "iproute2",
    "mount": "mount",
    "openssl": "openssl",
    "setpriv": "util-linux",
    "unshare": "util-linux",
}
# As K3s's agent does; best effort, since a container may not set all of them.
MODULES = ("overlay", "nf_conntrack", "br_netfilter", "vxlan")
SYSCTLS = {
    "net/ipv4/ip_forward": "1",
    "net/ipv4/conf/all/forwarding": "1",
    "net/ipv4/conf/default/forwarding": "1",
    "net/bridge/bridge-nf-call-iptables": "1",
}
# What the kubelet wants of the kernel (k8s.io/component-helpers node/util/sysctl).
KERNEL_DEFAULTS = {
    "vm/overcommit_memory": "1",
    "vm/panic_on_oom": "0",
    "kernel/panic": "10",
    "kernel/panic_on_oops": "1",
    "kernel/keys/root_maxkeys": "1000000",
    "kernel/keys/root_maxbytes": "25000000",
}
CONTAINER_MARKS = (Path("/.dockerenv"), Path("/run/systemd/container"))


class Locked(Exception):
    """Another k3s runs on this machine."""


def lock(path: Path = LOCK, who: str = "k3s") -> IO[str]:
    """Take the machine's only place for a k3s; it is free again when the process ends.

    Two of them would fight over containerd's socket and the pods' network.

    Raises:
        Locked: it is taken, by whom.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    file = path.open("a+")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.seek(0)
        owner = file.read().strip() or "another k3s"
        file.close()
        raise Locked(f"{owner} already runs on this machine (lock {path})") from None
    file.truncate(0)
    file.write(f"{who} (pid {os.getpid()})\n")
    file.flush()
    return file


def check(components: Path, names: Iterable[str]) -> None:
    """See that every program needed is there.

    Raises:
        ConfigError: with everything that is missing, and where it should come from.
    """
    problems = []
    if os.geteuid() != 0:
        problems.append("k3s must run as root")
    if not components.is_dir():
        problems.append(
            f"the Kubernetes programs are missing: {components} does not exist; the machine "
            "image this k3s was packed for mounts them there"
        )
    else:
        problems += [
            f"{components / name} is missing or not executable"
            for name in names
            if not os.access(components / name, os.X_OK)
        ]
    problems += [
        f"{program} is not installed: apt-get install {package}"
        for program, package in PROGRAMS.items()
        if shutil.which(program) is None
    ]
    if not (CNI_PLUGINS / "bridge").exists():
        problems.append(
            f"{CNI_PLUGINS}/bridge is missing: apt-get install containernetworking-plugins"
        )
    try:
        socket.gethostbyname("localhost")
    except OSError:
        problems.append("`localhost` does not resolve: /etc/hosts needs `127.0.0.1 localhost`")
    if problems:
        raise ConfigError(problems)


def address() -> str:
    """The IPv4 address this machine speaks to the world from; empty if it has no route."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # no packet is sent (RFC 5737)
        except OSError:
            return ""
        return str(probe.getsockname()[0])


def tune() -> None:
    """Load modules and set sysctls that pods need; say what could not be done."""
    for module in MODULES:
        if not Path("/sys/module", module).exists():
            subprocess.run(["modprobe", module], capture_output=True, check=False)
    for name, value in SYSCTLS.items():
        path = Path("/proc/sys", name)
        try:
            if path.read_text().strip() != value:
                path.write_text(value)
        except OSError as error:
            say(f"cannot set {name.replace('/', '.')}={value}: {error.strerror}")


def in_container() -> bool:
    """Whether this machine shares its kernel with a host that is not its own."""
    return any(mark.exists() for mark in CONTAINER_MARKS)


def kernel_differences(root: Path = Path("/proc/sys")) -> dict[str, str]:
    """The kernel's settings that the kubelet would not accept, with the values it wants."""
    return {
        name: value
        for name, value in KERNEL_DEFAULTS.items()
        if (root / name).read_text().strip() != value
    }


def with_kernel_defaults(folder: Path, wanted: Mapping[str, str]) -> list[str]:
    """A prefix for a command that is to see other values in /proc/sys, and change none.

    In a mount namespace whose /proc alone is private: all other mounts still reach everybody.
    """
    script = ["mount --make-private /proc"]
    for name, value in wanted.items():
        path = folder / name.replace("/", ".")
        write(path, f"{value}\n", 0o444)
        script.append(f"mount --bind {path} /proc/sys/{name}")
    script.append('exec "$@"')
    return ["unshare", "--mount", "--propagation=unchanged", "sh", "-ec", "\n".join(script), "sh"]


def resolv_conf(data_dir: Path, candidates: Iterable[Path] = RESOLV_CONFS) -> Path:
    """The resolv.conf that pods can use, chosen as K3s does.

    The first whose name servers are not loopback; else one with a public server is written.
    """
    for path in candidates:
        try:
            words = [line.split() for line in path.read_text().splitlines()]
        except OSError:
            continue
        servers = [line[1] for line in words if len(line) > 1 and line[0] == "nameserver"]
        if servers and not any(server.startswith(("127.", "::1")) for server in servers):
            return path
    made = data_dir / "agent/etc/resolv.conf"
    say("no resolv.conf without loopback name servers: pods get 8.8.8.8")
    write(made, "nameserver 8.8.8.8\n", 0o644)
    return made


def cgroup_v2() -> bool:
    """Whether the machine has the unified hierarchy."""
    return Path("/sys/fs/cgroup/cgroup.controllers").exists()


def write(path: Path, text: str, mode: int = 0o600) -> None:
    """Write a file so that nobody ever sees half of it, or a secret in a wider mode."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    part.unlink(missing_ok=True)
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
        os.fchmod(file.fileno(), mode)
    part.replace(path)
