"""The wires: namespaces, cables and routes, made with pyroute2.

    host  f1-host 198.18.0.1 ──┐
    voters       198.18.0.10,11 ┼─ switch f1-net (in f1-outside) ── f1-up 198.18.0.254
    DNS              198.18.0.53 ┘                                   f1-cloud, the VPC router
                                                                        ├─ m<id> ── eth0 machine
                                                                        └─ m<id> ── eth0 machine

Between machines there is no shared wire, as in a VPC: each hangs on the router by its own
cable, the router answers ARP for every other, and so every packet passes its firewall.
On the host itself only one cable and one route are added.
"""

import ctypes
import os
import shutil
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from pyroute2 import IPRoute, NetNS, netns
from pyroute2.netlink.exceptions import NetlinkError

from lab.cloud import ways
from lab.cloud.config import (
    DNS_ADDRESS,
    HOST_ADDRESS,
    INTERNET,
    METADATA_ADDRESS,
    OUTSIDE_ADDRESSES,
    PUBLIC,
    RESOLVER_ADDRESS,
    ROUTER_ADDRESS,
)
from lab.cloud.model import Machine
from lab.cloud.names import BRIDGE, HOST_LINK, OUTSIDE, ROUTER, UPLINK

NETNS_DIR = Path("/run/netns")
OUTSIDE_ETC = Path("/etc/netns") / OUTSIDE
T = TypeVar("T")
_CLONE_NEWNET = 0x40000000


def inside(path: Path, call: Callable[[], T]) -> T:
    """Run ``call`` with the calling code in the network namespace at ``path``.

    A thread of its own enters it, so the rest of the process stays where it is; sockets made
    there belong to that namespace for good.

    Raises:
        OSError: the namespace cannot be entered, or whatever ``call`` raises.
    """
    result: list[T] = []
    failure: list[BaseException] = []

    def run() -> None:
        try:
            with path.open() as handle:
                libc = ctypes.CDLL(None, use_errno=True)
                if libc.setns(handle.fileno(), _CLONE_NEWNET):
                    code = ctypes.get_errno()
                    raise OSError(code, f"setns {path}: {os.strerror(code)}")
            result.append(call())
        except BaseException as error:
            failure.append(error)

    thread = threading.Thread(target=run, name=f"in-{path.name}")
    thread.start()
    thread.join()
    if failure:
        raise failure[0]
    return result[0]


def listen(namespace: str, kind: socket.SocketKind, address: tuple[str, int]) -> socket.socket:
    """A bound (and, for TCP, listening) socket in one of our namespaces."""

    def make() -> socket.socket:
        made = socket.socket(socket.AF_INET, kind)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind(address)
        if kind == socket.SOCK_STREAM:
            made.listen(128)
        return made

    return inside(NETNS_DIR / namespace, make)


def _router_sysctl(values: dict[str, int]) -> None:
    """Set ``net/<key>`` in the router's namespace."""

    def write() -> None:
        for name, value in values.items():
            Path("/proc/sys/net", name).write_text(f"{value}\n")

    inside(NETNS_DIR / ROUTER, write)


def _index(ip: IPRoute, name: str) -> int | None:
    found = list(ip.link_lookup(ifname=name))
    return found[0] if found else None


def _quiet(ip: IPRoute, what: str, *args: object, **kwargs: object) -> None:
    """Do ``ip.<what>(…)``; that it is there already is what was wanted."""
    try:
        getattr(ip, what)(*args, **kwargs)
    except NetlinkError as error:
        if error.code != 17:  # EEXIST
            raise


def _up(ip: IPRoute, name: str, *addresses: str) -> int:
    index = _index(ip, name)
    if index is None:
        raise OSError(f"network interface {name} is missing")
    for address in addresses:
        host, _, prefix = address.partition("/")
        _quiet(ip, "addr", "add", index=index, address=host, prefixlen=int(prefix))
    ip.link("set", index=index, state="up")
    return index


def _cable(ip: IPRoute, near: str, far: str, far_namespace: str) -> None:
    """A cable from ``near`` here to ``far`` on the switch in ``far_namespace``."""
    if _index(ip, near) is None:
        handle = os.open(NETNS_DIR / far_namespace, os.O_RDONLY)
        try:
            ip.link("add", ifname=near, kind="veth", peer={"ifname": far, "net_ns_fd": handle})
        finally:
            os.close(handle)


def ensure() -> None:
    """Make the internet, the router and the host's way to them; what is there stays.

    Raises:
        OSError, pyroute2 NetlinkError: the kernel refused something.
    """
    for name in (OUTSIDE, ROUTER):
        if name not in exists_names():
            netns.create(name)
    switches = {"ipv4/ip_forward": 1}  # first: it resets the others
    for which in ("all", "default"):
        switches |= {
            f"ipv4/conf/{which}/proxy_arp": 1,
            f"ipv4/conf/{which}/send_redirects": 0,
            f"ipv4/conf/{which}/rp_filter": 0,  # what goes through a machine comes back by another
            f"ipv6/conf/{which}/disable_ipv6": 1,
        }
    _router_sysctl(switches)
    with NetNS(OUTSIDE) as outside, NetNS(ROUTER) as router, IPRoute() as host:
        _up(outside, "lo", "127.0.0.1/8")
        if _index(outside, BRIDGE) is None:
            outside.link("add", ifname=BRIDGE, kind="bridge")
        size = f"/{INTERNET.prefixlen}"
        own = [f"{a}{size}" for a in (*OUTSIDE_ADDRESSES, DNS_ADDRESS)]
        switch = _up(outside, BRIDGE, *own)
        for ip, near, far in ((host, HOST_LINK, "to-host"), (router, UPLINK, "to-router")):
            _cable(ip, near, far, OUTSIDE)
            outside.link("set", index=_up(outside, far), master=switch)
        _up(host, HOST_LINK, f"{HOST_ADDRESS}{size}")
        _up(router, UPLINK, f"{ROUTER_ADDRESS}{size}")
        _up(router, "lo", "127.0.0.1/8", f"{METADATA_ADDRESS}/32", f"{RESOLVER_ADDRESS}/32")
        for ip in (outside, host):
            _quiet(ip, "route", "add", dst=str(PUBLIC), gateway=str(ROUTER_ADDRESS))
    OUTSIDE_ETC.mkdir(parents=True, exist_ok=True)
    (OUTSIDE_ETC / "resolv.conf").write_text(f"nameserver {DNS_ADDRESS}\n")


def plug(machine: Machine, pid: int) -> None:
    """Give the running container with main process ``pid`` the machine's eth0.

    Raises:
        OSError, pyroute2 NetlinkError: the container died meanwhile, or the kernel refused.
    """
    gateway = str(machine.gateway)
    with NetNS(ROUTER) as router:
        stale = _index(router, machine.link)
        if stale is not None:
            with suppress(NetlinkError):  # a dead container's cable may go by itself meanwhile
                router.link("del", index=stale)
        peer = {"ifname": "eth0", "net_ns_pid": pid, "address": machine.mac}
        router.link("add", ifname=machine.link, kind="veth", peer=peer)
        index = _up(router, machine.link, f"{gateway}/32")
        router.neigh(
            "replace", dst=str(machine.address), lladdr=machine.mac, ifindex=index, state=128
        )
        address = str(machine.address)
        router.route("replace", dst=f"{address}/32", oif=index, scope="link", table=ways.MACHINES)
        router.route(
            "replace",
            dst="default",
            gateway=address,
            oif=index,
            flags=["onlink"],
            table=ways.table(machine.id),
        )
    # ARP for the neighbours is answered at once, not after a random part of 0.8 s.
    _router_sysctl({f"ipv4/neigh/{machine.link}/proxy_delay": 0})
    with NetNS(f"/proc/{pid}/ns/net", flags=0) as own:
        _up(own, "lo")
        _up(own, "eth0", f"{machine.address}/{machine.subnet.prefixlen}")
        own.route("replace", dst="default", gateway=gateway)


def links() -> set[str]:
    """The names of the cables at the router (a container that stops takes its own with it)."""
    with NetNS(ROUTER) as router:
        return {link.get("ifname") for link in router.get_links()}


def exists_names() -> list[str]:
    """The names of all network namespaces of this host."""
    return [str(name) for name in netns.listnetns()]


def exists() -> list[str]:
    """What of the lab's network is on this host, by name."""
    found = [f"network namespace {n}" for n in (OUTSIDE, ROUTER) if (NETNS_DIR / n).exists()]
    if Path("/sys/class/net", HOST_LINK).exists():
        found.append(f"network interface {HOST_LINK}")
    if OUTSIDE_ETC.exists():
        found.append(str(OUTSIDE_ETC))
    return found


def remove() -> list[str]:
    """Remove all of it, whatever is left of it; tell what there was."""
    found = exists()
    with IPRoute() as host:
        index = _index(host, HOST_LINK)
        if index is not None:
            host.link("del", index=index)
    for name in (ROUTER, OUTSIDE):
        if (NETNS_DIR / name).exists():
            netns.remove(name)
    shutil.rmtree(OUTSIDE_ETC, ignore_errors=True)
    with suppress(OSError):  # only if nobody else keeps something there
        OUTSIDE_ETC.parent.rmdir()
    return found
