"""The options as typed, checked settings."""

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from .config import FALSE, TRUE, ConfigError, Given
from .options import OPTIONS, Option, Role, options_of

# Components of K3s that the stand-in packs, those it lacks, and those nobody here would miss.
PACKAGED = ("coredns", "local-storage")
MISSING = ("traefik", "servicelb", "metrics-server")
DISABLE_ITEMS = (*PACKAGED, *MISSING, "runtimes")
BACKENDS = ("vxlan", "host-gw")
K3S_BACKENDS = ("none", "wireguard-native", "tailscale")
NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?(\.[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?)*")
LABEL = re.compile(r"([-a-z0-9.]+/)?[A-Za-z0-9]([-\w.]{0,61}[A-Za-z0-9])?=[-\w.]{0,63}")
TAINT = re.compile(
    r"([-a-z0-9.]+/)?[A-Za-z0-9]([-\w.]*[A-Za-z0-9])?(=[-\w.]{0,63})?"
    r":(NoSchedule|PreferNoSchedule|NoExecute)"
)
ARGUMENT = re.compile(r"(--)?[a-z][-a-z0-9]*[+-]?(=.*)?", re.DOTALL)


@dataclass(frozen=True)
class Settings:
    """All that a server or an agent needs to know. Addresses are IPv4."""

    role: Role
    data_dir: Path
    debug: bool
    token: str | None
    token_file: Path | None
    agent_token: str | None
    agent_token_file: Path | None
    server: str
    bind_address: str
    port: int
    advertise_address: str
    tls_san: tuple[str, ...]
    cluster_cidr: str
    service_cidr: str
    cluster_dns: str
    cluster_domain: str
    backend: str
    network_policy: bool
    kubeconfig: Path
    kubeconfig_mode: int
    disable: frozenset[str]
    local_storage_path: str
    secrets_encryption: bool
    arguments: Mapping[str, tuple[str, ...]]
    node_name: str
    node_ip: str
    node_external_ip: str
    labels: tuple[str, ...]
    taints: tuple[str, ...]
    protect_kernel_defaults: bool
    resolv_conf: Path | None
    pause_image: str
    private_registry: Path


class _Reader:
    """Takes options one by one and gathers what is wrong with them."""

    def __init__(self, role: Role, given: Mapping[str, Given], problems: list[str]) -> None:
        self.role = role
        self.mine = options_of(role)
        self.given = given
        self.problems = problems

    def wrong(self, name: str, why: str) -> None:
        given = self.given.get(name)
        self.problems.append(f"{given.origin if given else 'options'}: {name}: {why}")

    def text(self, name: str) -> str:
        option = self._option(name)
        given = self.given.get(name)
        return given.values[-1] if given and name in self.mine else option.default

    def items(self, name: str) -> tuple[str, ...]:
        given = self.given.get(name)
        if given is None or name not in self.mine:
            return ()
        split = self._option(name).split or given.origin.startswith("$")
        parts = [p for v in given.values for p in (v.split(",") if split else [v])]
        return tuple(part.strip() for part in parts if part.strip())

    def flag(self, name: str) -> bool:
        text = self.text(name).lower()
        if text not in TRUE | FALSE | {""}:
            self.wrong(name, f"{text!r} is neither true nor false")
        return text in TRUE

    def number(self, name: str, low: int, high: int) -> int:
        text = self.text(name)
        if not text.isdecimal() or not low <= int(text) <= high:
            self.wrong(name, f"{text!r} is not a number from {low} to {high}")
            return low
        return int(text)

    def address(self, name: str, default: str = "") -> str:
        text = self.text(name) or default
        if text:
            try:
                ipaddress.IPv4Address(text)
            except ValueError:
                self.wrong(name, f"{text!r} is not an IPv4 address (the stand-in does IPv4 only)")
        return text

    def network(self, name: str) -> str:
        text = self.text(name)
        try:
            ipaddress.IPv4Network(text)
        except ValueError as error:
            self.wrong(name, f"not an IPv4 network: {error}")
            return self._option(name).default
        return text

    def matching(self, name: str, pattern: re.Pattern[str], form: str) -> tuple[str, ...]:
        items = self.items(name)
        for item in items:
            if not pattern.fullmatch(item):
                self.wrong(name, f"{item!r} is not of the form {form}")
        return items

    def path(self, name: str) -> Path | None:
        text = self.text(name)
        if text and not text.startswith("/"):
            self.wrong(name, f"{text!r} is not an absolute path")
        return Path(text) if text else None

    def required_path(self, name: str) -> Path:
        return self.path(name) or Path(self._option(name).default)

    @staticmethod
    def _option(name: str) -> Option:
        return next(option for option in OPTIONS if option.name == name)


def _token(read: _Reader, name: str) -> tuple[str | None, Path | None]:
    """A secret and the file it may lie in instead; K3s lets the former win."""
    return read.text(name) or None, read.path(f"{name}-file")


def _server_url(read: _Reader) -> str:
    url = read.text("server").rstrip("/")
    if read.role == "agent" and not url:
        read.wrong("server", "required: https://<server>:6443, or $K3S_URL")
    elif url:
        parts = urlsplit(url)
        if parts.scheme != "https" or not parts.hostname or parts.path:
            read.wrong("server", f"{url!r} is not of the form https://<server>:<port>")
    return url


def _disable(read: _Reader) -> frozenset[str]:
    items = frozenset(read.items("disable"))
    for item in sorted(items - set(DISABLE_ITEMS)):
        read.wrong("disable", f"{item!r} is not one of {', '.join(DISABLE_ITEMS)}")
    lacking = [item for item in MISSING if item not in items]
    if read.role == "server" and lacking:
        read.wrong(
            "disable",
            f"K3s would deploy {', '.join(lacking)}, the stand-in cannot: "
            f"add `disable: [{', '.join(lacking)}]`",
        )
    return items


def _backend(read: _Reader) -> str:
    backend = read.text("flannel-backend")
    if backend in K3S_BACKENDS:
        read.wrong("flannel-backend", f"{backend!r}: K3s has it, the stand-in does not")
    elif backend not in BACKENDS:
        read.wrong("flannel-backend", f"{backend!r} is not one of {', '.join(BACKENDS)}")
    return backend


def _mode(read: _Reader) -> int:
    text = read.text("write-kubeconfig-mode")
    if not re.fullmatch(r"[0-7]{3,4}", text):
        read.wrong("write-kubeconfig-mode", f"{text!r} is not an octal mode such as 0600")
        return 0o600
    return int(text, 8)


def _dns(read: _Reader, services: str) -> str:
    network = ipaddress.IPv4Network(services)
    if network.num_addresses < 16:
        read.wrong("service-cidr", f"{services} is too small for cluster-dns: /28 at least")
        return ""
    dns = read.address("cluster-dns", str(network[10]))
    try:
        if ipaddress.IPv4Address(dns) not in network:
            read.wrong("cluster-dns", f"{dns} lies outside service-cidr {services}")
    except ValueError:
        pass  # said already
    return dns


def resolve(
    role: Role,
    given: Mapping[str, Given],
    problems: list[str],
    hostname: str,
    address: str,
) -> Settings:
    """Turn texts into settings.

    Args:
        role: ``server`` or ``agent``.
        given: what `config.read` found.
        problems: what it found wrong; more is added to it.
        hostname: default of ``node-name``.
        address: default of ``node-ip``.

    Raises:
        ConfigError: with every problem there is.
    """
    read = _Reader(role, given, problems)
    token, token_file = _token(read, "token")
    agent_token, agent_token_file = _token(read, "agent-token")
    if role == "agent" and not token and not token_file:
        read.wrong("token", "required: the server's token, token-file, or $K3S_TOKEN")
    services = read.network("service-cidr")
    node_name = (read.text("node-name") or hostname).lower()
    if not NAME.fullmatch(node_name):
        read.wrong("node-name", f"{node_name!r} is not a DNS name")
    node_ip = read.address("node-ip", address)
    if not node_ip:
        read.wrong("node-ip", "this machine has no route to tell its address by; give one")
    external = read.address("node-external-ip")
    data_dir = read.required_path("data-dir")
    settings = Settings(
        role=role,
        data_dir=data_dir,
        debug=read.flag("debug"),
        token=token,
        token_file=token_file,
        agent_token=agent_token,
        agent_token_file=agent_token_file,
        server=_server_url(read),
        bind_address=read.address("bind-address"),
        port=read.number("https-listen-port", 1, 65535),
        advertise_address=read.address("advertise-address", external or node_ip),
        tls_san=read.items("tls-san"),
        cluster_cidr=read.network("cluster-cidr"),
        service_cidr=services,
        cluster_dns=_dns(read, services),
        cluster_domain=read.text("cluster-domain"),
        backend=_backend(read),
        network_policy=not read.flag("disable-network-policy"),
        kubeconfig=read.required_path("write-kubeconfig"),
        kubeconfig_mode=_mode(read),
        disable=_disable(read),
        local_storage_path=read.text("default-local-storage-path") or f"{data_dir}/storage",
        secrets_encryption=read.flag("secrets-encryption"),
        arguments={
            option.name.removesuffix("-arg"): read.matching(option.name, ARGUMENT, "name=value")
            for option in OPTIONS
            if option.name.endswith("-arg")
        },
        node_name=node_name,
        node_ip=node_ip,
        node_external_ip=external,
        labels=read.matching("node-label", LABEL, "key=value"),
        taints=read.matching("node-taint", TAINT, "key=value:NoSchedule"),
        protect_kernel_defaults=read.flag("protect-kernel-defaults"),
        resolv_conf=read.path("resolv-conf"),
        pause_image=read.text("pause-image"),
        private_registry=read.required_path("private-registry"),
    )
    if problems:
        raise ConfigError(problems)
    return settings
