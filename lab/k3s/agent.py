"""``k3s agent``: a node that joins a server."""

import json
from pathlib import Path

from . import containerd, join, node, tokens
from .api import Api, ApiError, Unreachable
from .certificates import KUBELET_CLIENT, KUBELET_PKI
from .config import ConfigError
from .host import write
from .settings import Settings
from .supervisor import Supervisor, say

LAST = ("containerd",)  # ended after those who use it


def _token(settings: Settings) -> tokens.Token:
    text = settings.token
    if text is None:
        assert settings.token_file is not None  # noqa: S101 - settings saw to it
        text = tokens.read_file(settings.token_file, say)
    try:
        return tokens.parse(text)
    except tokens.TokenError as error:
        raise ConfigError([f"token: {error}"]) from None


def bootstrap_kubeconfig(url: str, ca: Path, token: tokens.Token) -> str:
    """Credentials that can do nothing but ask for a node's certificate."""
    bearer = ".".join(tokens.bootstrap(token.secret))
    return json.dumps(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "join",
            "clusters": [
                {"name": "join", "cluster": {"server": url, "certificate-authority": str(ca)}}
            ],
            "users": [{"name": "join", "user": {"token": bearer}}],
            "contexts": [{"name": "join", "context": {"cluster": "join", "user": "join"}}],
        }
    )


def forget_identity(kubeconfig: Path) -> None:
    """Let the kubelet ask for a new certificate: its old one is of another cluster."""
    say("the cluster's CA is a new one: this node joins anew")
    kubeconfig.unlink(missing_ok=True)
    for path in KUBELET_PKI.glob("kubelet-client-*.pem"):
        path.unlink()


def start(supervisor: Supervisor, settings: Settings, components: Path) -> None:
    """Join the cluster; it returns when the node is registered.

    Raises:
        ConfigError, TokenError, JoinRefused, NodeRefused: the server does not want this node.
        TimedOut, ChildDied, Stopped: see `Supervisor`.
    """
    agent_dir = settings.data_dir / "agent"
    token = _token(settings)
    containerd.start(supervisor, settings)  # its start costs nothing while the server is awaited
    images = containerd.Images(supervisor, agent_dir)
    cluster = join.verify(supervisor, settings.server, token)

    ca = agent_dir / "server-ca.crt"
    kubeconfig = agent_dir / "kubelet.kubeconfig"
    if ca.exists() and ca.read_bytes() != cluster.ca:
        forget_identity(kubeconfig)
    write(ca, cluster.ca.decode())
    bearer = ".".join(tokens.bootstrap(token.secret))
    _refuse_stranger(supervisor, settings, Api(settings.server, cluster.ca.decode(), token=bearer))
    bootstrap = agent_dir / "bootstrap.kubeconfig"
    write(bootstrap, bootstrap_kubeconfig(settings.server, ca, token))

    images.wait_small()
    agent = Api(settings.server, cluster.ca.decode(), basic=(join.USER, token.secret))
    node.start(
        supervisor, settings, components, cluster.network, cluster.ca, agent, kubeconfig, bootstrap
    )
    own = Api(settings.server, cluster.ca.decode(), KUBELET_CLIENT, KUBELET_CLIENT)
    node.register(supervisor, settings, own, {})
    images.wait_all()


def _refuse_stranger(supervisor: Supervisor, settings: Settings, api: Api) -> None:
    def probe() -> str | None:
        try:
            node.refuse_stranger(settings, api)
        except (ApiError, Unreachable) as error:
            return str(error)
        return None

    supervisor.wait(f"the server's word on node {settings.node_name}", probe, node.DEADLINE)
