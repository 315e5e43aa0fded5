"""A client for the few requests k3s itself makes of the Kubernetes API."""

import base64
import http.client
import json
import socket
import ssl
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

TIMEOUT = 10  # seconds a request

Object = dict[str, Any]

# Where objects live: apiVersion and kind → plural; namespaced ones have metadata.namespace.
_PLURALS = {
    "ClusterRole": "clusterroles",
    "ClusterRoleBinding": "clusterrolebindings",
    "ConfigMap": "configmaps",
    "Node": "nodes",
    "Role": "roles",
    "RoleBinding": "rolebindings",
    "Secret": "secrets",
}


class ApiError(Exception):
    """The API refused; ``status`` is HTTP's."""

    def __init__(self, what: str, status: int, message: str) -> None:
        super().__init__(f"{what}: {status} {message}")
        self.status = status


class Unreachable(Exception):
    """The API did not answer, and why."""


def path_of(thing: Object) -> str:
    """The API's path for an object."""
    version = thing["apiVersion"]
    base = f"/api/{version}" if "/" not in version else f"/apis/{version}"
    meta = thing["metadata"]
    space = f"/namespaces/{quote(meta['namespace'])}" if "namespace" in meta else ""
    return f"{base}{space}/{_PLURALS[thing['kind']]}/{quote(meta['name'])}"


class Api:
    """One server, one identity.

    Args:
        url: ``https://<host>:<port>``.
        ca: CA certificate in PEM; None trusts any server, which only a token's CA hash or a
            short token makes right.
        certificate: file with the client's certificate, with ``key`` for its key.
        token: bearer token.
        basic: user and password.
    """

    def __init__(
        self,
        url: str,
        ca: str | None,
        certificate: Path | None = None,
        key: Path | None = None,
        token: str | None = None,
        basic: tuple[str, str] | None = None,
    ) -> None:
        parts = urlsplit(url)
        self._host = parts.hostname or ""
        self._port = parts.port or 443
        self._authorization = f"Bearer {token}" if token else None
        if basic is not None:
            encoded = base64.b64encode(":".join(basic).encode()).decode()
            self._authorization = f"Basic {encoded}"
        if ca is None:
            self._tls = ssl._create_unverified_context()  # noqa: S323
        else:
            self._tls = ssl.create_default_context(cadata=ca)
        if certificate is not None:
            self._tls.load_cert_chain(certificate, key)

    def request(
        self,
        method: str,
        path: str,
        body: Object | bytes | None = None,
        content_type: str = "application/json",
        headers: Mapping[str, str] | None = None,
    ) -> Object:
        """Make one request and give the JSON answer; a plain answer comes as ``{"text": …}``.

        Raises:
            ApiError: the API answered with an error.
            Unreachable: it did not answer.
        """
        sent = {"Accept": "application/json", "Content-Type": content_type, **(headers or {})}
        if self._authorization:
            sent["Authorization"] = self._authorization
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        connection = http.client.HTTPSConnection(
            self._host, self._port, timeout=TIMEOUT, context=self._tls
        )
        try:
            connection.request(method, path, data, sent)
            response = connection.getresponse()
            raw = response.read()
        except ssl.SSLCertVerificationError as error:
            raise Unreachable(
                f"the certificate of {self._host}:{self._port} is not trusted: "
                f"{error.verify_message}"
            ) from error
        except (OSError, http.client.HTTPException, socket.gaierror) as error:
            raise Unreachable(f"{self._host}:{self._port}: {error}") from error
        finally:
            connection.close()
        try:
            answer = json.loads(raw)
        except ValueError:
            answer = {"text": raw.decode(errors="replace")}
        if not isinstance(answer, dict):
            answer = {"text": str(answer)}
        if response.status >= 400:
            message = str(answer.get("message") or answer.get("text") or response.reason)
            raise ApiError(f"{method} {path}", response.status, message[:2000])
        return answer

    def get(self, path: str) -> Object:
        """Read an object or a list."""
        return self.request("GET", path)

    def apply(self, things: Iterable[Object]) -> None:
        """Make objects so (server-side apply), in order; what others set in them goes."""
        query = urlencode({"fieldManager": "k3s", "force": "true"})
        for thing in things:
            self.request(
                "PATCH", f"{path_of(thing)}?{query}", thing, "application/apply-patch+yaml"
            )

    def merge(self, path: str, patch: Mapping[str, Any]) -> Object:
        """Change some fields of an object (RFC 7386)."""
        return self.request("PATCH", path, dict(patch), "application/merge-patch+json")

    def delete(self, path: str) -> None:
        """Delete an object; one that is gone already is fine."""
        try:
            self.request("DELETE", path)
        except ApiError as error:
            if error.status != 404:
                raise
