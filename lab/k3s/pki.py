"""Keys, certificates and kubeconfigs of the server, made by kubeadm's phases."""

import base64
import json
import secrets
import shutil
from pathlib import Path
from typing import Any

import yaml

from . import tokens
from .config import ConfigError
from .host import write
from .settings import Settings
from .supervisor import run, say

KINE = "http://127.0.0.1:2379"


class Pki:
    """Where things lie under ``<data-dir>/server``.

    Args:
        settings: the server's.
        components: folder of the Kubernetes programs.
        version: Kubernetes' version, such as ``v1.36.3``.
    """

    def __init__(self, settings: Settings, components: Path, version: str) -> None:
        self.settings = settings
        self.server_dir = settings.data_dir / "server"
        self.tls = self.server_dir / "tls"
        self.cred = self.server_dir / "cred"
        self.ca = self.tls / "ca.crt"
        self._kubeadm = components / "kubeadm"
        self._version = version
        self._config = self.server_dir / "etc/kubeadm.json"

    @property
    def local_url(self) -> str:
        """How programs on this machine reach the API server."""
        bind = self.settings.bind_address
        return f"https://{'127.0.0.1' if bind == '0.0.0.0' else bind}:{self.settings.port}"  # noqa: S104

    def names(self) -> list[str]:
        """The names in the API server's certificate, besides those of the service."""
        s = self.settings
        more = (s.bind_address, s.node_ip, s.advertise_address, s.node_external_ip, *s.tls_san)
        ignored = {"", "0.0.0.0"}  # noqa: S104
        found = dict.fromkeys(["127.0.0.1", "localhost", s.node_name, *more])
        return [name for name in found if name not in ignored]

    def certificates(self) -> None:
        """Make what is missing; the API server's certificate follows its names.

        Raises:
            CommandFailed: kubeadm did.
        """
        s = self.settings
        self.server_dir.mkdir(parents=True, exist_ok=True)
        self.server_dir.chmod(0o700)
        names = self.tls / "apiserver-names.json"
        wanted = json.dumps(self.names())
        if names.exists() and names.read_text() != wanted:
            say(f"the API server's certificate is made anew for {', '.join(self.names())}")
            for name in ("apiserver.crt", "apiserver.key"):
                (self.tls / name).unlink(missing_ok=True)
        documents = [
            {
                "apiVersion": "kubeadm.k8s.io/v1beta4",
                "kind": "InitConfiguration",
                "localAPIEndpoint": {"advertiseAddress": s.node_ip, "bindPort": s.port},
                "nodeRegistration": {
                    "name": s.node_name,
                    "criSocket": "unix:///run/k3s/containerd/containerd.sock",
                },
            },
            {
                "apiVersion": "kubeadm.k8s.io/v1beta4",
                "kind": "ClusterConfiguration",
                "kubernetesVersion": self._version,
                "certificatesDir": str(self.tls),
                "encryptionAlgorithm": "ECDSA-P256",
                "etcd": {"external": {"endpoints": [KINE]}},
                "networking": {
                    "podSubnet": s.cluster_cidr,
                    "serviceSubnet": s.service_cidr,
                    "dnsDomain": s.cluster_domain,
                },
                "apiServer": {"certSANs": self.names()},
            },
        ]
        write(self._config, "\n---\n".join(json.dumps(document) for document in documents))
        if not (self.tls / "apiserver.crt").exists():
            run([self._kubeadm, "init", "phase", "certs", "all", "--config", self._config])
            write(names, wanted)
            link = self.tls / "server-ca.crt"  # the name that K3s's documentation uses
            if not link.is_symlink():
                link.symlink_to("ca.crt")

    def kubeconfigs(self) -> None:
        """Write the credentials of the components and the admin.

        Raises:
            CommandFailed: kubeadm did.
        """
        admin_file = self.cred / "super-admin.conf"
        if not admin_file.exists():
            part = self.server_dir / "cred.part"
            shutil.rmtree(part, ignore_errors=True)
            phase = ["init", "phase", "kubeconfig", "all", f"--kubeconfig-dir={part}"]
            run([self._kubeadm, *phase, f"--config={self._config}"])
            self.cred.mkdir(exist_ok=True)
            # The one that is looked for goes last.
            for path in sorted(part.glob("*.conf"), key=lambda path: path.name == admin_file.name):
                path.rename(self.cred / path.name)
            part.rmdir()
        for path in self.cred.glob("*.conf"):
            data = yaml.safe_load(path.read_text())
            if data["clusters"][0]["cluster"]["server"] != self.local_url:
                data["clusters"][0]["cluster"]["server"] = self.local_url
                write(path, yaml.safe_dump(data))
        data = yaml.safe_load(admin_file.read_text())
        user = data["users"][0]["user"]
        for kind, suffix in (("certificate", "crt"), ("key", "key")):
            pem = base64.b64decode(user[f"client-{kind}-data"]).decode()
            write(self.admin_pem(suffix), pem)
        cluster = data["clusters"][0]["cluster"]
        self._write_admin(cluster, user)

    def admin_pem(self, suffix: str) -> Path:
        """The admin's client certificate (``crt``) or key (``key``)."""
        return self.tls / f"client-admin.{suffix}"

    def _write_admin(self, cluster: dict[str, Any], user: dict[str, Any]) -> None:
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "preferences": {},
            "current-context": "default",
            "clusters": [{"name": "default", "cluster": cluster}],
            "users": [{"name": "default", "user": user}],
            "contexts": [{"name": "default", "context": {"cluster": "default", "user": "default"}}],
        }
        s = self.settings
        write(s.kubeconfig, yaml.safe_dump(config), s.kubeconfig_mode)

    def secrets(self) -> tuple[str, str]:
        """The server's secret and the agents' (the same unless given), kept from run to run.

        Raises:
            ConfigError: a token is malformed, or for another cluster.
            TokenError: a token file does not appear.
        """
        s = self.settings
        server = self._secret("token", s.token, s.token_file)
        agent = self._secret("agent-token", s.agent_token, s.agent_token_file)
        if server is None:
            kept = self.server_dir / "token"
            server = tokens.parse(kept.read_text()).secret if kept.exists() else None
        server = server or secrets.token_hex(16)
        return server, agent or server

    def _secret(self, option: str, text: str | None, path: Path | None) -> str | None:
        if text is None and path is not None:
            text = tokens.read_file(path, say)
        if text is None:
            return None
        try:
            token = tokens.parse(text)
        except tokens.TokenError as error:
            raise ConfigError([f"{option}: {error}"]) from None
        if token.ca_hash is not None:
            if not self.ca.exists():
                raise ConfigError(
                    [
                        f"{option}: the first server of a cluster takes the short form only: "
                        "its CA, whose hash the full form holds, does not exist yet"
                    ]
                )
            if token.ca_hash != tokens.ca_hash(self.ca.read_bytes()):
                raise ConfigError(
                    [
                        f"{option}: token CA hash does not match the Cluster CA certificate "
                        "hash: it is the token of another cluster"
                    ]
                )
        return token.secret

    def write_tokens(self, server: str, agent: str) -> None:
        """Write ``token``, ``node-token`` and ``agent-token`` as K3s does (mode 0600)."""
        ca = self.ca.read_bytes()
        write(self.server_dir / "token", tokens.full(ca, "server", server) + "\n")
        _link(self.server_dir / "node-token", "token")
        agent_file = self.server_dir / "agent-token"
        if agent == server:
            _link(agent_file, "token")
        else:
            write(agent_file, tokens.full(ca, "node", agent) + "\n")

    def encryption(self) -> Path | None:
        """The encryption configuration, if Secrets are to be encrypted at rest.

        Once made it stays in use, decrypting only, when the option is taken back: else what
        was encrypted could no longer be read.
        """
        path = self.cred / "encryption-config.json"
        on = self.settings.secrets_encryption
        if not on and not path.exists():
            return None
        if path.exists():
            kept = json.loads(path.read_text())
            providers = kept["resources"][0]["providers"]
            key = next(p["aescbc"] for p in providers if "aescbc" in p)
        else:
            value = base64.b64encode(secrets.token_bytes(32)).decode()
            key = {"keys": [{"name": "aescbckey", "secret": value}]}
        providers = [{"aescbc": key}, {"identity": {}}]
        config = {
            "apiVersion": "apiserver.config.k8s.io/v1",
            "kind": "EncryptionConfiguration",
            "resources": [
                {"resources": ["secrets"], "providers": providers if on else providers[::-1]}
            ],
        }
        write(path, json.dumps(config, indent=1))
        return path


def _link(path: Path, target: str) -> None:
    part = path.with_name(f".{path.name}.part")
    part.unlink(missing_ok=True)
    part.symlink_to(target)
    part.replace(path)
