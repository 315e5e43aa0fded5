"""``k3s server``: the control plane, and a node beside it."""

import json
import threading
from pathlib import Path
from typing import Any

from . import containerd, deploy, node, objects, tokens
from .api import Api, ApiError, Unreachable
from .host import write
from .pki import KINE, Pki
from .settings import Settings
from .supervisor import Supervisor

API_DEADLINE = 180  # seconds from its start to ready
LAST = ("kube-apiserver", "kine", "containerd")  # ended after those who use them


def kine_argv(server_dir: Path) -> list[str]:
    """kine over SQLite, with K3s's own settings."""
    query = "_journal=WAL&cache=shared&_busy_timeout=30000&_txlock=immediate"
    return [
        f"--endpoint=sqlite://{server_dir}/db/state.db?{query}",
        "--listen-address=127.0.0.1:2379",
        "--metrics-bind-address=0",
    ]


def apiserver_argv(settings: Settings, pki: Pki, authentication: Path) -> list[str]:
    """kube-apiserver's command line; paths only, no secret."""
    tls, s = pki.tls, settings
    defaults = {
        "advertise-address": s.advertise_address,
        "allow-privileged": "true",
        "authentication-config": str(authentication),
        "authorization-mode": "Node,RBAC",
        "bind-address": s.bind_address,
        "client-ca-file": str(pki.ca),
        "enable-admission-plugins": "NodeRestriction",
        "enable-aggregator-routing": "true",
        "enable-bootstrap-token-auth": "true",
        "etcd-servers": KINE,
        "kubelet-client-certificate": f"{tls}/apiserver-kubelet-client.crt",
        "kubelet-client-key": f"{tls}/apiserver-kubelet-client.key",
        "kubelet-preferred-address-types": "InternalIP,ExternalIP,Hostname",
        "profiling": "false",
        "proxy-client-cert-file": f"{tls}/front-proxy-client.crt",
        "proxy-client-key-file": f"{tls}/front-proxy-client.key",
        "requestheader-allowed-names": "front-proxy-client",
        "requestheader-client-ca-file": f"{tls}/front-proxy-ca.crt",
        "requestheader-extra-headers-prefix": "X-Remote-Extra-",
        "requestheader-group-headers": "X-Remote-Group",
        "requestheader-username-headers": "X-Remote-User",
        "secure-port": str(s.port),
        "service-account-issuer": f"https://kubernetes.default.svc.{s.cluster_domain}",
        "service-account-key-file": f"{tls}/sa.pub",
        "service-account-signing-key-file": f"{tls}/sa.key",
        "service-cluster-ip-range": s.service_cidr,
        "tls-cert-file": f"{tls}/apiserver.crt",
        "tls-private-key-file": f"{tls}/apiserver.key",
        **node.verbosity(s),
    }
    encryption = pki.encryption()
    if encryption is not None:
        defaults["encryption-provider-config"] = str(encryption)
    return node.arguments(defaults, s.arguments["kube-apiserver"])


def authentication_config() -> dict[str, Any]:
    """Strangers may ask for health, and read the ConfigMap that nodes join by; nothing else."""
    return {
        "apiVersion": "apiserver.config.k8s.io/v1",
        "kind": "AuthenticationConfiguration",
        "anonymous": {
            "enabled": True,
            "conditions": [{"path": path} for path in objects.LISTEN_PATHS],
        },
    }


def manager_argv(settings: Settings, pki: Pki) -> list[str]:
    """kube-controller-manager's command line."""
    conf = f"{pki.cred}/controller-manager.conf"
    defaults = {
        "allocate-node-cidrs": "true",
        "authentication-kubeconfig": conf,
        "authorization-kubeconfig": conf,
        "bind-address": "127.0.0.1",
        "client-ca-file": str(pki.ca),
        "cluster-cidr": settings.cluster_cidr,
        "cluster-signing-cert-file": str(pki.ca),
        "cluster-signing-key-file": f"{pki.tls}/ca.key",
        "kubeconfig": conf,
        "leader-elect": "false",
        "profiling": "false",
        "requestheader-client-ca-file": f"{pki.tls}/front-proxy-ca.crt",
        "root-ca-file": str(pki.ca),
        "service-account-private-key-file": f"{pki.tls}/sa.key",
        "service-cluster-ip-range": settings.service_cidr,
        "use-service-account-credentials": "true",
        **node.verbosity(settings),
    }
    return node.arguments(defaults, settings.arguments["kube-controller-manager"])


def scheduler_argv(settings: Settings, pki: Pki) -> list[str]:
    """kube-scheduler's command line."""
    conf = f"{pki.cred}/scheduler.conf"
    defaults = {
        "authentication-kubeconfig": conf,
        "authorization-kubeconfig": conf,
        "bind-address": "127.0.0.1",
        "kubeconfig": conf,
        "leader-elect": "false",
        "profiling": "false",
        **node.verbosity(settings),
    }
    return node.arguments(defaults, settings.arguments["kube-scheduler"])


def forget_old_tokens(api: Api, secrets: tuple[str, ...]) -> None:
    """Take away bootstrap tokens of secrets that no longer hold."""
    path = "/api/v1/namespaces/kube-system/secrets"
    valid = {tokens.bootstrap(secret)[0] for secret in secrets}
    for item in api.get(f"{path}?labelSelector={objects.TOKEN_LABEL}").get("items", []):
        meta = item["metadata"]
        if meta["labels"][objects.TOKEN_LABEL] not in valid:
            api.delete(f"{path}/{meta['name']}")


def start(supervisor: Supervisor, settings: Settings, components: Path, kubernetes: str) -> None:
    """Bring up the server; it returns when the node is registered and manifests are watched.

    Args:
        supervisor: takes the children.
        settings: the options.
        components: folder of the Kubernetes programs.
        kubernetes: their version, such as ``v1.36.3``.

    Raises:
        ConfigError, TokenError, CommandFailed: something given is wrong, or a helper failed.
        TimedOut, ChildDied, Stopped: see `Supervisor`.
    """
    pki = Pki(settings, components, kubernetes)
    server_secret, agent_secret = pki.secrets()
    (pki.server_dir / "db").mkdir(parents=True, exist_ok=True)
    pki.server_dir.chmod(0o700)
    supervisor.spawn("kine", [components / "kine", *kine_argv(pki.server_dir)])
    containerd.start(supervisor, settings)
    images = containerd.Images(supervisor, settings.data_dir / "agent")

    pki.certificates()
    pki.write_tokens(server_secret, agent_secret)
    authentication = pki.server_dir / "etc/authentication.json"
    write(authentication, json.dumps(authentication_config()))
    supervisor.spawn(
        "kube-apiserver",
        [components / "kube-apiserver", *apiserver_argv(settings, pki, authentication)],
    )
    pki.kubeconfigs()  # while the API server starts
    ca = pki.ca.read_bytes()
    api = Api(pki.local_url, ca.decode(), pki.admin_pem("crt"), pki.admin_pem("key"))

    def ready() -> str | None:
        try:
            api.get("/readyz")
        except (ApiError, Unreachable) as error:
            failing = [line for line in str(error).splitlines() if line.startswith("[-]")]
            return ", ".join(failing) or str(error).splitlines()[0]
        return None

    supervisor.wait("kube-apiserver", ready, API_DEADLINE)
    for name, argv in (
        ("kube-controller-manager", manager_argv(settings, pki)),
        ("kube-scheduler", scheduler_argv(settings, pki)),
    ):
        supervisor.spawn(name, [components / name, *argv])
    api.apply(objects.joinable(settings, ca, (server_secret, agent_secret)))

    images.wait_small()
    node.start(
        supervisor,
        settings,
        components,
        objects.network_of(settings),
        pki.ca,
        pki.cred / "kubelet.conf",
    )
    forget_old_tokens(api, (server_secret, agent_secret))
    role = {"node-role.kubernetes.io/control-plane": "true"}
    node.register(supervisor, settings, api, role)

    images.wait_all()  # before anything here asks for a pod
    call = deploy.kubectl(components / "kubectl", pki.cred / "super-admin.conf")
    deployer = deploy.Deployer(pki.server_dir, call, f"deploy@{settings.node_name}")
    deployer.place(deploy.packaged(settings), settings.disable)
    threading.Thread(target=deployer.serve, args=(supervisor,), daemon=True).start()
