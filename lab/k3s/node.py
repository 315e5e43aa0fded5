"""The node's own programs: kubelet, kube-proxy and netagent (flannel, NetworkPolicy)."""

import hashlib
import json
import secrets
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from . import host
from .api import Api, ApiError, Unreachable
from .certificates import KUBELET_CLIENT
from .containerd import SOCKET
from .host import cgroup_v2, resolv_conf, write
from .settings import Settings
from .supervisor import Supervisor, run, say

PASSWORD = Path("/etc/rancher/node/password")
PASSWORD_MARK = "k3s-stand-in/node-password-sha256"  # noqa: S105
DEADLINE = 120  # seconds for the kubelet to get credentials, or to register


class NodeRefused(Exception):
    """The cluster knows a node of this name that is another machine."""


def arguments(defaults: Mapping[str, str], extra: Iterable[str]) -> list[str]:
    """``--name=value`` for a component, sorted by name: our defaults and the user's arguments.

    As K3s merges them (k3s-io/k3s ``pkg/util/args.go``): the user's replace the default of their
    name and follow each other; ``name+=value`` follows the default, ``name-=value`` precedes it.
    """
    merged = {name: [value] for name, value in defaults.items()}
    own = set(defaults)
    for argument in extra:
        key, equals, value = argument.removeprefix("--").partition("=")
        name = key.rstrip("+-")
        value = value if equals else "true"
        before = merged.get(name, [])
        if key.endswith("-"):
            merged[name] = [value, *before]
        elif key.endswith("+") or name not in own:
            merged[name] = [*before, value]
        else:
            merged[name] = [value]
        own.discard(name)
    return [f"--{name}={value}" for name in sorted(merged) for value in merged[name]]


def verbosity(settings: Settings) -> dict[str, str]:
    """The log level that ``debug`` stands for."""
    return {"v": "4"} if settings.debug else {}


def kubelet_config(
    settings: Settings, network: Mapping[str, Any], resolv: Path, systemd: bool
) -> dict[str, Any]:
    """The kubelet's configuration, without what the user adds to ``kubelet.conf.d``."""
    agent_dir = settings.data_dir / "agent"
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": str(agent_dir / "client-ca.crt")},
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
        "staticPodPath": str(agent_dir / "pod-manifests"),
        "tlsCertFile": str(agent_dir / "serving-kubelet.crt"),
        "tlsPrivateKeyFile": str(agent_dir / "serving-kubelet.key"),
    }


def kubelet_argv(settings: Settings, kubeconfig: Path, bootstrap: Path | None) -> list[str]:
    """The kubelet's command line, without its name."""
    defaults = {
        "config-dir": str(settings.data_dir / "agent/etc/kubelet.conf.d"),
        "kubeconfig": str(kubeconfig),
        "hostname-override": settings.node_name,
        "node-ip": settings.node_ip,
        "read-only-port": "0",
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
    ca: bytes,
    api: Api,
    kubeconfig: Path,
    bootstrap: Path | None = None,
) -> None:
    """Start the node's programs.

    ``api`` gives the kubelet's serving certificate. With ``bootstrap`` the kubelet first exchanges
    the join token for a certificate of its own, and writes ``kubeconfig`` a moment before the
    certificate which that names.
    """
    agent_dir = settings.data_dir / "agent"
    resolv = settings.resolv_conf or resolv_conf(settings.data_dir)
    (agent_dir / "pod-manifests").mkdir(parents=True, exist_ok=True)
    for name in ("client-ca.crt", "server-ca.crt"):
        write(agent_dir / name, ca.decode())
    serving_certificate(supervisor, settings, api)
    config = kubelet_config(settings, network, resolv, cgroup_v2())
    defaults = agent_dir / "etc/kubelet.conf.d/00-k3s-defaults.conf"
    write(defaults, json.dumps(config, indent=1))
    supervisor.spawn(
        "kubelet",
        [components / "kubelet", *kubelet_argv(settings, kubeconfig, bootstrap)],
        before=kernel_defaults(settings),
    )

    def credentials() -> str | None:
        missing = [str(path) for path in (kubeconfig, KUBELET_CLIENT) if not path.exists()]
        return f"{', '.join(missing)} does not exist yet" if missing else None

    if bootstrap is not None:
        supervisor.wait("the kubelet's credentials", credentials, DEADLINE)
    programs: dict[str, Sequence[str]] = {
        "kube-proxy": proxy_argv(settings, network, kubeconfig),
        "netagent": netagent_argv(settings, network, kubeconfig),
    }
    for name, argv in programs.items():
        supervisor.spawn(name, [components / name, *argv])


def kernel_defaults(settings: Settings) -> list[str]:
    """What must stand before the kubelet's command for ``protect-kernel-defaults``.

    A machine with a kernel of its own gets K3s's answer: the kubelet refuses to start.
    """
    differences = host.kernel_differences() if settings.protect_kernel_defaults else {}
    if not differences or not host.in_container():
        return []
    names = ", ".join(name.replace("/", ".") for name in differences)
    say(
        f"protect-kernel-defaults: not checked: {names}. This container's host has other values "
        "than the kubelet wants; it is shown what it wants, and nothing is changed"
    )
    return host.with_kernel_defaults(Path("/run/k3s/kernel"), differences)


def serving_certificate(supervisor: Supervisor, settings: Settings, api: Api) -> None:
    """Get the kubelet's serving certificate signed by the cluster, at each start as K3s does.

    Raises:
        CommandFailed: openssl made no key or request.
        TimedOut: the server signed nothing; with what it said last.
    """
    agent_dir = settings.data_dir / "agent"
    key, request = agent_dir / "serving-kubelet.key", agent_dir / "serving-kubelet.csr"
    if not key.exists():
        pem = run(["openssl", "ecparam", "-name", "prime256v1", "-genkey", "-noout"])
        write(key, pem)
    subject = f"/CN={settings.node_name}"
    make = ["openssl", "req", "-new", "-subj", subject, "-outform", "DER"]
    run([*make, "-key", str(key), "-out", str(request)])
    headers = {"K3s-Node-Name": settings.node_name, "K3s-Node-IP": settings.node_ip}

    def probe() -> str | None:
        try:
            answer = api.request(
                "POST",
                "/v1-k3s/serving-kubelet.crt",
                request.read_bytes(),
                "application/octet-stream",
                headers,
            )
        except (ApiError, Unreachable) as error:
            return str(error)
        write(agent_dir / "serving-kubelet.crt", answer["text"])
        return None

    supervisor.wait("the kubelet's serving certificate", probe, DEADLINE)
    request.unlink()


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
