"""Keys, certificates and kubeconfigs of the server, made by kubeadm's phases."""

import base64
import csv
import hashlib
import io
import json
import secrets
import shutil
from pathlib import Path
from typing import Any

import yaml

from . import bootstrap, certificates, tokens
from .config import ConfigError
from .host import write
from .settings import Settings
from .supervisor import run, say

KINE = "http://127.0.0.1:2379"
KINDS = ("crt", "key")


class Pki:
    """Where things lie under ``<data-dir>/server``, under K3s's names.

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
        self.db = self.server_dir / "db/state.db"
        self.ca = self.tls / "server-ca.crt"
        self.kubelet = settings.data_dir / "agent/kubelet.kubeconfig"
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

    def restore(self, secret: str) -> None:
        """Take from the datastore what is not on disk, such as after a restore.

        Raises:
            ConfigError: it is encrypted with another token, or files on disk are newer.
        """
        for path in (self.server_dir, self.tls, self.cred, self.db.parent):
            path.mkdir(parents=True, exist_ok=True)
            path.chmod(0o700)
        written = bootstrap.restore(self.server_dir, bootstrap.load(self.db, secret) or {})
        if any(name.startswith("tls/") for name in written):
            # What another CA has signed is of no use.
            certificates.remove(self.settings.data_dir, certificates.SERVER_SERVICES)
            certificates.remove(self.settings.data_dir, ("kubelet",))

    def save(self, secret: str) -> None:
        """Keep in the datastore what a restore needs."""
        bootstrap.save(self.db, secret, self.server_dir)

    def certificates(self) -> None:
        """Make what is missing or soon ends; the API server's certificate follows its names.

        Raises:
            CommandFailed: kubeadm did.
        """
        s = self.settings
        names = self.tls / "apiserver-names.json"
        wanted = json.dumps(self.names())
        services = [*certificates.SERVER_SERVICES, "kubelet"]
        old = certificates.expiring(s.data_dir, services)
        if names.exists() and names.read_text() != wanted:
            say(f"the API server's certificate is made anew for {', '.join(self.names())}")
            old.append("api-server")
        certificates.remove(s.data_dir, old)
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
        made = [self.tls / f"{stem}.{kind}" for stem in certificates.NAMES for kind in KINDS]
        if not all(path.exists() for path in (*made, self.tls / "sa.key")):
            run([self._kubeadm, "init", "phase", "certs", "all", "--config", self._config])
            write(names, wanted)
        for stem, others in certificates.NAMES.items():
            for kind in KINDS:
                for other in others:
                    _same(self.tls / f"{stem}.{kind}", self.tls / f"{other}.{kind}")
        _same(self.tls / "sa.key", self.tls / "service.key")
        for path in self.tls.iterdir():
            if path.is_file():
                path.chmod(0o600)

    def kubeconfigs(self) -> None:
        """Write the credentials of the components and the admin.

        Raises:
            CommandFailed: kubeadm did.
        """
        wanted = {
            "super-admin.conf": (self.cred / "admin.kubeconfig", self.tls / "client-admin"),
            "controller-manager.conf": (
                self.cred / "controller.kubeconfig",
                self.tls / "client-controller",
            ),
            "scheduler.conf": (self.cred / "scheduler.kubeconfig", self.tls / "client-scheduler"),
            "kubelet.conf": (self.kubelet, self.kubelet.parent / "client-kubelet"),
        }
        if not all(path.exists() for path, _ in wanted.values()):
            part = self.server_dir / "cred.part"
            shutil.rmtree(part, ignore_errors=True)
            phase = ["init", "phase", "kubeconfig", "all", f"--kubeconfig-dir={part}"]
            run([self._kubeadm, *phase, f"--config={self._config}"])
            self.kubelet.parent.mkdir(parents=True, exist_ok=True)
            for name, (path, _) in wanted.items():
                if not path.exists():
                    write(path, (part / name).read_text())
            shutil.rmtree(part)
        for path, pem in wanted.values():
            data = yaml.safe_load(path.read_text())
            if data["clusters"][0]["cluster"]["server"] != self.local_url:
                data["clusters"][0]["cluster"]["server"] = self.local_url
                write(path, yaml.safe_dump(data))
            user = data["users"][0]["user"]
            for what, kind in (("certificate", "crt"), ("key", "key")):
                text = base64.b64decode(user[f"client-{what}-data"]).decode()
                write(pem.with_suffix(f".{kind}"), text)
        data = yaml.safe_load(self.admin.read_text())
        self._write_admin(data["clusters"][0]["cluster"], data["users"][0]["user"])

    @property
    def admin(self) -> Path:
        """The kubeconfig of k3s itself, which may do anything."""
        return self.cred / "admin.kubeconfig"

    def admin_pem(self, kind: str) -> Path:
        """The admin's client certificate (``crt``) or key (``key``)."""
        return self.tls / f"client-admin.{kind}"

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
            ConfigError: a token is malformed.
            TokenError: a token file does not appear.
        """
        s = self.settings
        server = self._token("token", s.token, s.token_file)
        agent = self._token("agent-token", s.agent_token, s.agent_token_file)
        if server is None:
            kept = self.server_dir / "token"
            server = tokens.parse(kept.read_text()) if kept.exists() else None
        first = server.secret if server else secrets.token_hex(16)
        return first, agent.secret if agent else first

    def check_tokens(self) -> None:
        """See that tokens in full form are of this cluster; what there is of it is restored.

        Raises:
            ConfigError: one is of another cluster, or there is no cluster yet.
        """
        s = self.settings
        for option, text, path in (
            ("token", s.token, s.token_file),
            ("agent-token", s.agent_token, s.agent_token_file),
        ):
            token = self._token(option, text, path)
            if token is not None and token.ca_hash is not None:
                self._check_hash(option, token.ca_hash)

    def _token(self, option: str, text: str | None, path: Path | None) -> tokens.Token | None:
        if text is None and path is not None:
            text = tokens.read_file(path, say)
        if text is None:
            return None
        try:
            return tokens.parse(text)
        except tokens.TokenError as error:
            raise ConfigError([f"{option}: {error}"]) from None

    def _check_hash(self, option: str, ca_hash: str) -> None:
        ca = self.tls / "ca.crt"
        if not ca.exists():
            raise ConfigError(
                [
                    f"{option}: the first server of a cluster takes the short form only: "
                    "its CA, whose hash the full form holds, does not exist yet"
                ]
            )
        if ca_hash != tokens.ca_hash(ca.read_bytes()):
            raise ConfigError(
                [
                    f"{option}: token CA hash does not match the Cluster CA certificate "
                    "hash: it is the token of another cluster"
                ]
            )

    def write_tokens(self, server: str, agent: str) -> None:
        """Write ``token``, ``node-token``, ``agent-token`` and ``cred/passwd`` as K3s does.

        The last is what the API server holds credentials against at ``/v1-k3s/config``.
        """
        write_logins(self.cred, server, agent)
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
        text = json.dumps(config)
        if not path.exists() or path.read_text() != text:
            write(path, text)
        state = self.cred / "encryption-state.json"
        stage = f"start-{hashlib.sha256(text.encode()).hexdigest()}"
        if not state.exists() or state.read_text() != stage:
            write(state, stage)
        return path


def write_logins(cred: Path, server: str, agent: str) -> None:
    """Write K3s's ``passwd``: password, name, uid, roles."""
    out = io.StringIO()
    rows = [(agent, "node", "node", "k3s:agent"), (server, "server", "server", "k3s:server")]
    csv.writer(out, lineterminator="\n").writerows(rows)
    write(cred / "passwd", out.getvalue())


def _same(path: Path, other: Path) -> None:
    """Make ``other`` the same file as ``path``."""
    if other.exists() and other.samefile(path):
        return
    other.unlink(missing_ok=True)
    other.hardlink_to(path)


def _link(path: Path, target: str) -> None:
    part = path.with_name(f".{path.name}.part")
    part.unlink(missing_ok=True)
    part.symlink_to(target)
    part.replace(path)
