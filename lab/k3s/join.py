"""An agent's first contact with its server.

The steps are K3s's (k3s-io/docs ``docs/cli/token.md``, "TLS bootstrapping"): fetch the CA without
trust, compare its hash with the token's, then show the secret only to a server with a
certificate of that CA. A short token trusts the CA it is shown.
"""

import base64
import json
import time
from dataclasses import dataclass
from typing import Any

from . import tokens
from .api import Api, ApiError, Unreachable
from .objects import CLUSTER_INFO
from .supervisor import Supervisor

SERVER_DEADLINE = 600  # seconds; systemd tries again after that
WRONG_AFTER = 5  # seconds of refusal that are no mere delay of the server


class JoinRefused(Exception):
    """Waiting will not help: the token or the certificate is wrong."""


@dataclass(frozen=True)
class Cluster:
    """What an agent learned of its cluster; ``network`` see `objects.network_of`."""

    ca: bytes
    network: dict[str, Any]


def read_cluster_info(answer: dict[str, Any]) -> Cluster:
    """Take CA and network out of the ``cluster-info`` ConfigMap.

    Raises:
        JoinRefused: it is not one that a stand-in server wrote.
    """
    try:
        data = answer["data"]
        cluster = json.loads(data["kubeconfig"])["clusters"][0]["cluster"]
        ca = base64.b64decode(cluster["certificate-authority-data"], validate=True)
        return Cluster(ca, json.loads(data["k3s"]))
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise JoinRefused(
            f"the server's cluster-info is not that of a k3s stand-in ({error!r})"
        ) from None


def verify(supervisor: Supervisor, url: str, token: tokens.Token) -> Cluster:
    """Wait for the server, check it against the token and the token against it.

    Raises:
        JoinRefused: the CA is not the token's, the certificate does not fit, or the secret is
            wrong.
        TimedOut, Stopped, ChildDied: see `Supervisor.wait`.
    """
    found: list[Cluster] = []
    refused_since: list[float] = []

    def first() -> str | None:
        try:
            found.append(read_cluster_info(Api(url, ca=None).get(CLUSTER_INFO)))
        except (ApiError, Unreachable) as error:
            return str(error)
        return None

    supervisor.wait(f"the server {url}", first, SERVER_DEADLINE)
    ca = found.pop().ca
    if token.ca_hash is not None and tokens.ca_hash(ca) != token.ca_hash:
        raise JoinRefused(
            "token CA hash does not match the Cluster CA certificate hash: "
            f"{token.ca_hash} != {tokens.ca_hash(ca)}"
        )
    bearer = ".".join(tokens.bootstrap(token.secret))
    api = Api(url, ca.decode(), token=bearer)

    def second() -> str | None:
        try:
            found.append(read_cluster_info(api.get(CLUSTER_INFO)))
        except Unreachable as error:
            if "not trusted" in str(error):
                raise JoinRefused(
                    f"{error}; is {url} the right server, and its name among tls-san?"
                ) from None
            return str(error)
        except ApiError as error:
            if error.status == 401:
                refused_since.append(time.monotonic())
                if time.monotonic() - refused_since[0] >= WRONG_AFTER:
                    raise JoinRefused(
                        f"the server {url} does not know this token: its secret is wrong"
                    ) from None
            return str(error)
        return None

    supervisor.wait(f"the server {url} to accept the token", second, SERVER_DEADLINE)
    return found.pop()
