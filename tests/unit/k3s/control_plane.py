"""Runs a server's control plane, without its node, and prints what it answers; a test's helper.

python -m tests.unit.k3s.control_plane <programs> <data dir> <option…>, in a network namespace.
"""

import json
import sys
from pathlib import Path
from typing import Any

from lab.k3s import certificates, config, join, node, server, settings, tokens
from lab.k3s.api import Api, ApiError
from lab.k3s.pki import Pki
from lab.k3s.supervisor import Supervisor

URL = "https://127.0.0.1:6443"
SECRET: dict[str, Any] = {
    "apiVersion": "v1",
    "kind": "Secret",
    "metadata": {"name": "kept", "namespace": "default"},
    "stringData": {"word": "readable"},
}


def _status(ca: str, path: str, basic: tuple[str, str] | None) -> int:
    try:
        Api(URL, ca, basic=basic).get(path)
    except ApiError as error:
        return error.status
    return 200


def main() -> None:
    """Start, ask, end."""
    programs, data = Path(sys.argv[1]), Path(sys.argv[2])
    certificates.KUBELET_PKI = data / "kubelet-pki"  # never that of the machine the test runs on
    certificates.KUBELET_CLIENT = certificates.KUBELET_PKI / "kubelet-client-current.pem"
    fresh = not (data / "server").exists()
    own = [f"--data-dir={data}", f"--write-kubeconfig={data}/k3s.yaml", "--node-ip=10.0.0.5"]
    own.append("--disable=traefik,servicelb,metrics-server")
    given, problems = config.read("server", [*own, *sys.argv[3:]], {})
    options = settings.resolve("server", given, problems, "s1", "")
    supervisor = Supervisor(data / "logs", data / "children.json")
    try:
        pki = Pki(options, programs, "v1.36.3")
        api, agent = server.control_plane(supervisor, options, pki, programs)
        if fresh:
            api.apply([SECRET])
        full = (pki.server_dir / "agent-token").read_text()
        ca = str(Api(URL, None).get(join.CACERTS)["text"])
        node.serving_certificate(supervisor, options, Api(URL, ca, basic=(join.USER, agent)))
        version = api.get("/version")["gitVersion"]
        print(
            json.dumps(
                {
                    "version": version,
                    "uid": api.get("/api/v1/namespaces/kube-system")["metadata"]["uid"],
                    "secret": api.get("/api/v1/namespaces/default/secrets/kept")["data"]["word"],
                    "ca": tokens.ca_hash(ca.encode()) == tokens.parse(full).ca_hash,
                    "network": join.verify(supervisor, URL, tokens.parse(full)).network,
                    "statuses": {
                        name: _status(ca, path, basic)
                        for name, path, basic in (
                            ("agents", join.CONFIG, ("node", "agents")),
                            ("later", join.CONFIG, ("node", "later")),
                            ("server", join.CONFIG, ("server", "s3cret")),
                            ("nobody", join.CONFIG, None),
                            ("version", "/version", None),
                            ("readyz", "/readyz", None),
                        )
                    },
                }
            )
        )
    finally:
        supervisor.end(last=server.LAST)


main()
