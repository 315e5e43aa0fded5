"""
A registry of images, asked directly: what it holds is what was pushed.

Protocol: OCI Distribution Specification 1.1; tokens: Distribution, "Token Authentication
Specification". Credentials are Docker's own (``docker login``).
"""

import base64
import hashlib
import json
import re
import urllib.error
import urllib.parse
import urllib.request
from typing import Any

import docker.auth
from salt.exceptions import SaltException

MANIFESTS = ", ".join(
    [
        "application/vnd.oci.image.index.v1+json",
        "application/vnd.oci.image.manifest.v1+json",
        "application/vnd.docker.distribution.manifest.list.v2+json",
        "application/vnd.docker.distribution.manifest.v2+json",
    ]
)
SECONDS = 15
HUB = "docker.io"


def split(repository: str) -> tuple[str, str]:
    """
    Return host and path of ``repository`` (``ghcr.io/me/f1vote``), as Docker reads it: a first
    part without dot, colon or ``localhost`` belongs to Docker Hub.
    """
    host, slash, path = repository.partition("/")
    if slash and ("." in host or ":" in host or host == "localhost"):
        return host, path
    return HUB, repository if slash else f"library/{repository}"


def digest(repository: str, reference: str) -> str | None:
    """
    Return the digest that the registry gives for ``reference`` (a tag or digest) in
    ``repository``; None if it has no such image. Raises SaltException with the fix.
    """
    host, path = split(repository)
    server = "registry-1.docker.io" if host == HUB else host
    url = f"{'http' if _local(host) else 'https'}://{server}/v2/{path}/manifests/{reference}"
    try:
        status, headers, body = _get(url, "HEAD", host)
        if status == 200 and "docker-content-digest" not in headers:
            status, headers, body = _get(url, "GET", host)
    except OSError as error:
        cause = getattr(error, "reason", error)
        raise SaltException(
            f"the registry {host} does not answer: {cause}; "
            "check the network and platform.registry.push"
        ) from error
    if status == 404:
        return None
    if status in (401, 403):
        raise SaltException(f"the registry {host} refuses {path}: run `docker login {host}`")
    if status != 200:
        raise SaltException(f"the registry {host} answered HTTP {status} for {path}:{reference}")
    return headers.get("docker-content-digest") or f"sha256:{hashlib.sha256(body).hexdigest()}"


def _local(host: str) -> bool:
    """Docker speaks plain HTTP to loopback, and so do we; to nobody else."""
    return re.match(r"(localhost|127\.[0-9.]+|\[::1\])(:|$)", host) is not None


def _get(url: str, method: str, host: str) -> tuple[int, dict[str, str], bytes]:
    """Ask once, and once more with what the registry asks for."""
    answer = _ask(url, method, {"Accept": MANIFESTS})
    challenge = answer[1].get("www-authenticate", "")
    if answer[0] != 401 or not challenge:
        return answer
    authorization = _authorization(challenge, host)
    if not authorization:
        return answer
    return _ask(url, method, {"Accept": MANIFESTS, "Authorization": authorization})


def _authorization(challenge: str, host: str) -> str | None:
    scheme, _, rest = challenge.partition(" ")
    login = _login(host)
    basic = None
    if login.get("username"):
        pair = f"{login['username']}:{login.get('password') or ''}"
        basic = "Basic " + base64.b64encode(pair.encode()).decode()
    if scheme.lower() == "basic":
        return basic
    fields = dict(re.findall(r'(\w+)="([^"]*)"', rest))
    realm = fields.get("realm", "")
    if scheme.lower() != "bearer" or not realm.startswith("http" if _local(host) else "https://"):
        return None
    asked = {name: fields[name] for name in ("service", "scope") if name in fields}
    if login.get("identitytoken"):
        form = {
            **asked, "grant_type": "refresh_token", "client_id": "f1-vote",
            "refresh_token": login["identitytoken"],
        }  # fmt: skip
        status, _, body = _ask(realm, "POST", {}, urllib.parse.urlencode(form).encode())
    else:
        url = f"{realm}?{urllib.parse.urlencode(asked)}"
        status, _, body = _ask(url, "GET", {"Authorization": basic} if basic else {})
    if status != 200:
        return None
    token = json.loads(body)
    return f"Bearer {token.get('token') or token['access_token']}"


def _login(host: str) -> dict[str, Any]:
    """What ``docker login`` has kept for ``host``, from its file or its credential helper."""
    try:
        found = docker.auth.resolve_authconfig(docker.auth.load_config(), host)
    except docker.errors.DockerException as error:
        raise SaltException(
            f"Docker's credentials for {host} cannot be read: {error}; run `docker login {host}`"
        ) from error
    # A file gives `username`, a credential helper `Username`.
    return {name.lower(): value for name, value in (found or {}).items()}


def _ask(
    url: str, method: str, headers: dict[str, str], data: bytes | None = None
) -> tuple[int, dict[str, str], bytes]:
    request = urllib.request.Request(url, method=method, headers=headers, data=data)  # noqa: S310
    try:
        with urllib.request.urlopen(request, timeout=SECONDS) as answer:  # noqa: S310
            return answer.status, _lower(answer.headers), answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, _lower(error.headers), error.read()


def _lower(headers: Any) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}
