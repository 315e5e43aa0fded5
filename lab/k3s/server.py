"""``k3s server``: the control plane, and a node beside it."""

import json
import threading
from pathlib import Path

from . import containerd, deploy, join, node, objects, tokens
from .api import Api, ApiError, Unreachable
from .host import write
from .pki import KINE, Pki
from .settings import Settings
from .supervisor import Supervisor

API_DEADLINE = 180  # seconds from its start to ready
NODE_DEADLINE = 600  # seconds for a node of this name that is another machine to be deleted
# As K3s names them unless told otherwise (k3s-io/k3s pkg/cli/server).
CIPHERS = (
    "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
    "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
    "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
    "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384",
    "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256",
)
LAST = ("kube-apiserver", "kine", "containerd")  # ended after those who use them


def kine_argv(server_dir: Path) -> list[str]:
    """kine over SQLite, with K3s's own settings."""
    query = "_journal=WAL&cache=shared&_busy_timeout=30000&_txlock=immediate"
    return [
        f"--endpoint=sqlite://{server_dir}/db/state.db?{query}",
        "--listen-address=127.0.0.1:2379",
        "--metrics-bind-address=0",
    ]


def apiserver_argv(settings: Settings, pki: Pki) -> list[str]:
    """kube-apiserver's command line; paths only, no secret."""
    tls, s = pki.tls, settings
    issuer = f"https://kubernetes.default.svc.{s.cluster_domain}"
    defaults = {
        "advertise-address": s.advertise_address,
        "allow-privileged": "true",
        "anonymous-auth": "false",
        "api-audiences": f"{issuer},k3s",
        "authorization-mode": "Node,RBAC",
        "bind-address": s.bind_address,
        "client-ca-file": f"{tls}/client-ca.crt",
        "enable-admission-plugins": "NodeRestriction",
        "enable-aggregator-routing": "true",
        "enable-bootstrap-token-auth": "true",
        "etcd-servers": KINE,
        "k3s-server-dir": str(pki.server_dir),
        "kubelet-certificate-authority": str(pki.ca),
        "kubelet-client-certificate": f"{tls}/client-kube-apiserver.crt",
        "kubelet-client-key": f"{tls}/client-kube-apiserver.key",
        "kubelet-preferred-address-types": "InternalIP,ExternalIP,Hostname",
        "profiling": "false",
        "proxy-client-cert-file": f"{tls}/client-auth-proxy.crt",
        "proxy-client-key-file": f"{tls}/client-auth-proxy.key",
        "requestheader-allowed-names": "front-proxy-client",
        "requestheader-client-ca-file": f"{tls}/request-header-ca.crt",
        "requestheader-extra-headers-prefix": "X-Remote-Extra-",
        "requestheader-group-headers": "X-Remote-Group",
        "requestheader-username-headers": "X-Remote-User",
        "secure-port": str(s.port),
        "service-account-issuer": issuer,
        "service-account-key-file": f"{tls}/service.key",
        "service-account-signing-key-file": f"{tls}/service.key",
        "service-cluster-ip-range": s.service_cidr,
        "tls-cert-file": f"{tls}/serving-kube-apiserver.crt",
        "tls-cipher-suites": ",".join(CIPHERS),
        "tls-min-version": "VersionTLS12",
        "tls-private-key-file": f"{tls}/serving-kube-apiserver.key",
        **node.verbosity(s),
    }
    encryption = pki.encryption()
    if encryption is not None:
        defaults["encryption-provider-config"] = str(encryption)
        defaults["encryption-provider-config-automatic-reload"] = "true"
    return node.arguments(defaults, s.arguments["kube-apiserver"])


def manager_argv(settings: Settings, pki: Pki) -> list[str]:
    """kube-controller-manager's command line."""
    conf = f"{pki.cred}/controller.kubeconfig"
    defaults = {
        "allocate-node-cidrs": "true",
        "authentication-kubeconfig": conf,
        "authorization-kubeconfig": conf,
        "bind-address": "127.0.0.1",
        "client-ca-file": f"{pki.tls}/client-ca.crt",
        "cluster-cidr": settings.cluster_cidr,
        "cluster-signing-cert-file": f"{pki.tls}/client-ca.crt",
        "cluster-signing-key-file": f"{pki.tls}/client-ca.key",
        "kubeconfig": conf,
        "leader-elect": "false",
        "profiling": "false",
        "requestheader-client-ca-file": f"{pki.tls}/request-header-ca.crt",
        "root-ca-file": str(pki.ca),
        "service-account-private-key-file": f"{pki.tls}/service.key",
        "service-cluster-ip-range": settings.service_cidr,
        "use-service-account-credentials": "true",
        **node.verbosity(settings),
    }
    return node.arguments(defaults, settings.arguments["kube-controller-manager"])


def scheduler_argv(settings: Settings, pki: Pki) -> list[str]:
    """kube-scheduler's command line."""
    conf = f"{pki.cred}/scheduler.kubeconfig"
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


def forget_old_tokens(api: Api, secret: str) -> None:
    """Take away bootstrap tokens of secrets that no longer hold."""
    path = "/api/v1/namespaces/kube-system/secrets"
    valid = tokens.bootstrap(secret)[0]
    for item in api.get(f"{path}?labelSelector={objects.TOKEN_LABEL}").get("items", []):
        meta = item["metadata"]
        if meta["labels"][objects.TOKEN_LABEL] != valid:
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
    containerd.start(supervisor, settings)
    images = containerd.Images(supervisor, settings.data_dir / "agent")
    pki = Pki(settings, components, kubernetes)
    api, agent_secret = control_plane(supervisor, settings, pki, components)
    supervisor.wait(
        f"the name {settings.node_name} to be this machine's",
        lambda: _taken(settings, api),
        NODE_DEADLINE,
    )
    images.wait_small()
    agent = Api(pki.local_url, pki.ca.read_text(), basic=(join.USER, agent_secret))
    node.start(
        supervisor,
        settings,
        components,
        objects.network_of(settings),
        pki.ca.read_bytes(),
        agent,
        pki.kubelet,
    )
    forget_old_tokens(api, agent_secret)
    role = {"node-role.kubernetes.io/control-plane": "true"}
    node.register(supervisor, settings, api, role)

    images.wait_all()  # before anything here asks for a pod
    call = deploy.kubectl(components / "kubectl", pki.admin)
    deployer = deploy.Deployer(pki.server_dir, call, f"deploy@{settings.node_name}")
    deployer.place(deploy.packaged(settings), settings.disable)
    threading.Thread(target=deployer.serve, args=(supervisor,), daemon=True).start()


def _taken(settings: Settings, api: Api) -> str | None:
    """Why this machine may not be the node yet. As with K3s the API serves meanwhile."""
    try:
        node.refuse_stranger(settings, api)
    except (node.NodeRefused, ApiError, Unreachable) as error:
        return str(error)
    return None


def control_plane(
    supervisor: Supervisor, settings: Settings, pki: Pki, components: Path
) -> tuple[Api, str]:
    """Bring up what needs no node, ready for agents to join.

    Returns:
        The administrator's API, and the secret that joins agents.

    Raises:
        as `start`.
    """
    server_secret, agent_secret = pki.secrets()
    pki.restore(server_secret)  # before kine has the database
    pki.check_tokens()
    joining = pki.server_dir / "etc/agent-config.json"
    joining.unlink(missing_ok=True)
    supervisor.spawn("kine", [components / "kine", *kine_argv(pki.server_dir)])
    pki.certificates()
    pki.write_tokens(server_secret, agent_secret)
    supervisor.spawn(
        "kube-apiserver", [components / "kube-apiserver", *apiserver_argv(settings, pki)]
    )
    pki.kubeconfigs()  # while the API server starts
    api = Api(pki.local_url, pki.ca.read_text(), pki.admin_pem("crt"), pki.admin_pem("key"))

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
    api.apply(objects.joinable(agent_secret))
    write(joining, json.dumps(objects.network_of(settings)))  # from now on agents may join
    pki.save(server_secret)
    return api, agent_secret
