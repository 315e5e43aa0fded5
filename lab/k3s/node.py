"""The node's own programs: kubelet, kube-proxy and netagent (flannel, NetworkPolicy)."""

import hashlib
import json
import secrets
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from .api import Api, ApiError, Unreachable
from .containerd import SOCKET
from .host import cgroup_v2, resolv_conf, write
from .settings import Settings
from .supervisor import Supervisor

KUBELET_PKI = Path("/var/lib/kubelet/pki")
CLIENT_PEM = KUBELET_PKI / "kubelet-client-current.pem"
PASSWORD = Path("/etc/rancher/node/password")
PASSWORD_MARK = "k3s-stand-in/node-password-sha256"  # noqa: S105
DEADLINE = 120  # seconds for the kubelet to get credentials, or to register


class NodeRefused(Exception):
    """The cluster knows a node of this name that is another machine."""


def arguments(defaults: Mapping[str, str], extra: Iterable[str]) -> list[str]:
    """``--name=value`` for a component; an extra argument replaces the default of its name."""
    given = [argument.removeprefix("--") for argument in extra]
    names = {argument.partition("=")[0] for argument in given}
    kept = [f"--{name}={value}" for name, value in defaults.items() if name not in names]
    return kept + [f"--{argument}" for argument in given]


def verbosity(settings: Settings) -> dict[str, str]:
    """The log level that ``debug`` stands for."""
    return {"v": "4"} if settings.debug else {}


def kubelet_config(
    settings: Settings, network: Mapping[str, Any], ca: Path, resolv: Path, systemd: bool
) -> dict[str, Any]:
    """The kubelet's configuration, without what the user adds to ``kubelet.conf.d``."""
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": str(ca)},
        },
        "authorization": {"mode": "Webhook"},
        "cgroupDriver": "systemd" if systemd else "cgroupfs",
        "clusterDNS": [network["cluster_dns"]],
        "clusterDomain": network["cluster_domain"],
        "containerRuntimeEndpoint": f"unix://{SOCKET}",
        "failCgroupV1": False,
        "healthzBindAddress": "127.0.0.1",
        "protectKernelDefaults": settings.protect_kernel_defaults,
        "resolvConf": str(resolv),
        "rotateCertificates": True,
        "serializeImagePulls": False,
        "staticPodPath": str(settings.data_dir / "agent/pod-manifests"),
    }


def kubelet_argv(settings: Settings, kubeconfig: Path, bootstrap: Path | None) -> list[str]:
    """The kubelet's command line, without its name."""
    defaults = {
        "config-dir": str(settings.data_dir / "agent/etc/kubelet.conf.d"),
        "kubeconfig": str(kubeconfig),
        "hostname-override": settings.node_name,
        "node-ip": settings.node_ip,
        **verbosity(settings),
    }
    if bootstrap is not None:
        defaults["bootstrap-kubeconfig"] = str(bootstrap)
    labels = list(settings.labels)
    if settings.node_external_ip:
        labels.append(f"k3s.io/external-ip={settings.node_external_ip}")
    if labels:
        defaults["node-labels"] = ",".join(labels)
    if settings.taints:
        defaults["register-with-taints"] = ",".join(settings.taints)
    return arguments(defaults, settings.arguments["kubelet"])


def proxy_argv(settings: Settings, network: Mapping[str, Any], kubeconfig: Path) -> list[str]:
    """kube-proxy's command line; conntrack limits are the host's, as with K3s."""
    defaults = {
        "kubeconfig": str(kubeconfig),
        "proxy-mode": "iptables",
        "cluster-cidr": network["cluster_cidr"],
        "hostname-override": settings.node_name,
        "conntrack-max-per-core": "0",
        "conntrack-min": "0",
        "conntrack-tcp-timeout-established": "0s",
        "conntrack-tcp-timeout-close-wait": "0s",
        "healthz-bind-address": "127.0.0.1",
        **verbosity(settings),
    }
    return arguments(defaults, settings.arguments["kube-proxy"])


def netagent_argv(settings: Settings, network: Mapping[str, Any], kubeconfig: Path) -> list[str]:
    """netagent's command line."""
    conflist = settings.data_dir / "agent/etc/cni/net.d/10-flannel.conflist"
    defaults = {
        "kubeconfig": str(kubeconfig),
        "node": settings.node_name,
        "node-ip": settings.node_ip,
        "cluster-cidr": network["cluster_cidr"],
        "service-cidr": network["service_cidr"],
        "backend": network["backend"],
        "cni-conf": str(conflist),
        "netpol": str(network["network_policy"]).lower(),
        **verbosity(settings),
    }
    return arguments(defaults, ())


def start(
    supervisor: Supervisor,
    settings: Settings,
    components: Path,
    network: Mapping[str, Any],
    ca: Path,
    kubeconfig: Path,
    bootstrap: Path | None = None,
) -> None:
    """Start the node's programs.

    With ``bootstrap`` the kubelet first exchanges the join token for a certificate of its own,
    and writes ``kubeconfig`` a moment before the certificate which that names.
    """
    agent_dir = settings.data_dir / "agent"
    resolv = settings.resolv_conf or resolv_conf(settings.data_dir)
    (agent_dir / "pod-manifests").mkdir(parents=True, exist_ok=True)
    config = kubelet_config(settings, network, ca, resolv, cgroup_v2())
    defaults = agent_dir / "etc/kubelet.conf.d/00-k3s-defaults.conf"
    write(defaults, json.dumps(config, indent=1))
    supervisor.spawn(
        "kubelet", [components / "kubelet", *kubelet_argv(settings, kubeconfig, bootstrap)]
    )

    def credentials() -> str | None:
        missing = [str(path) for path in (kubeconfig, CLIENT_PEM) if not path.exists()]
        return f"{', '.join(missing)} does not exist yet" if missing else None

    if bootstrap is not None:
        supervisor.wait("the kubelet's credentials", credentials, DEADLINE)
    programs: dict[str, Sequence[str]] = {
        "kube-proxy": proxy_argv(settings, network, kubeconfig),
        "netagent": netagent_argv(settings, network, kubeconfig),
    }
    for name, argv in programs.items():
        supervisor.spawn(name, [components / name, *argv])


def node_path(settings: Settings) -> str:
    """The API's path of this node."""
    return f"/api/v1/nodes/{settings.node_name}"


def register(
    supervisor: Supervisor, settings: Settings, api: Api, labels: Mapping[str, str]
) -> None:
    """Wait for the node to appear, then mark and label it as this machine's.

    Raises:
        TimedOut: with what the API said last.
    """
    mark = {PASSWORD_MARK: password_hash()}
    patch = {"metadata": {"annotations": mark, **({"labels": dict(labels)} if labels else {})}}

    def probe() -> str | None:
        try:
            api.merge(node_path(settings), patch)
        except (ApiError, Unreachable) as error:
            return str(error)
        return None

    supervisor.wait(f"node {settings.node_name} to register", probe, DEADLINE)


def password_hash(path: Path = PASSWORD) -> str:
    """SHA-256 of this machine's node password, which is made once."""
    if not path.exists():
        write(path, secrets.token_hex(16) + "\n")
    return hashlib.sha256(path.read_bytes()).hexdigest()


def refuse_stranger(settings: Settings, api: Api) -> None:
    """Refuse to pose as a node that is another machine, as K3s's server does.

    Raises:
        NodeRefused: with the way out.
        ApiError, Unreachable: the API did not say.
    """
    try:
        node = api.get(node_path(settings))
    except ApiError as error:
        if error.status == 404:
            return
        raise
    mark = (node.get("metadata", {}).get("annotations") or {}).get(PASSWORD_MARK)
    if mark not in (None, password_hash()):
        raise NodeRefused(
            f"Node password rejected, duplicate hostname or contents of '{PASSWORD}' may not "
            f"match server node-passwd entry: the cluster has a node {settings.node_name} that "
            f"is another machine; `kubectl delete node {settings.node_name}` if that one is gone"
        )
