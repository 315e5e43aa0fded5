"""An agent's first contact with its server.

The steps are K3s's (k3s-io/docs ``docs/cli/token.md``, "TLS bootstrapping"): fetch the CA from
``/cacerts`` without trust, compare its hash with the token's, then show the secret only to a
server with a certificate of that CA, at ``/v1-k3s/config``. A short token trusts the CA it is
shown.
"""

import time
from dataclasses import dataclass
from typing import Any

from . import tokens
from .api import Api, ApiError, Unreachable
from .supervisor import Supervisor

CACERTS, CONFIG = "/cacerts", "/v1-k3s/config"
USER = "node"  # as whom every agent shows its secret
SERVER_DEADLINE = 600  # seconds; systemd tries again after that
WRONG_AFTER = 5  # seconds of refusal that are no mere delay of the server


class JoinRefused(Exception):
    """Waiting will not help: the token or the certificate is wrong."""


@dataclass(frozen=True)
class Cluster:
    """What an agent learned of its cluster; ``network`` see `objects.network_of`."""

    ca: bytes
    network: dict[str, Any]


def verify(supervisor: Supervisor, url: str, token: tokens.Token) -> Cluster:
    """Wait for the server, check it against the token and the token against it.

    Raises:
        JoinRefused: the CA is not the token's, the certificate does not fit, or the secret is
            wrong.
        TimedOut, Stopped, ChildDied: see `Supervisor.wait`.
    """
    shown: list[str] = []
    found: list[Cluster] = []
    refused_since: list[float] = []

    def first() -> str | None:
        try:
            text = str(Api(url, ca=None).get(CACERTS).get("text"))
        except (ApiError, Unreachable) as error:
            return str(error)
        if "BEGIN CERTIFICATE" not in text:
            return f"{CACERTS} shows no certificate"
        shown.append(text)
        return None

    supervisor.wait(f"the server {url}", first, SERVER_DEADLINE)
    ca = shown.pop().encode()
    if token.ca_hash is not None and tokens.ca_hash(ca) != token.ca_hash:
        raise JoinRefused(
            "token CA hash does not match the Cluster CA certificate hash: "
            f"{token.ca_hash} != {tokens.ca_hash(ca)}"
        )
    api = Api(url, ca.decode(), basic=(USER, token.secret))

    def second() -> str | None:
        try:
            found.append(Cluster(ca, api.get(CONFIG)))
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
                        "failed to retrieve configuration from server: "
                        f"{url}{CONFIG}: 401 Unauthorized: its secret is not, or no longer, the "
                        "agent token"
                    ) from None
            return str(error)
        return None

    supervisor.wait(f"the server {url} to accept the token", second, SERVER_DEADLINE)
    return found.pop()
