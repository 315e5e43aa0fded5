"""Puts an OCI layout into a registry, by the API of the OCI distribution specification."""

import json
import urllib.error
import urllib.parse
import urllib.request
from http.client import HTTPResponse
from pathlib import Path
from typing import IO

from lab.build import oci
from lab.build.errors import BuildError

TIMEOUT = 300  # seconds: a registry answers an upload when all of it is on its disk
DIGEST = "Docker-Content-Digest"


class PublishError(BuildError):
    """The registry did not take an image, or has something else under its name."""


def push(layout: Path, registry: str, repository: str, tag: str) -> str:
    """
    Push an image; blobs that the registry has are not sent again.

    Args:
        layout: an OCI layout of one image.
        registry: such as ``http://127.0.0.1:5000``.
        repository: such as ``library/redis``.

    Returns:
        The digest under which the registry has the image: asked for after the push, and the same
        as the layout's.

    Raises:
        PublishError: the registry refused something or answers with another digest.
    """
    base = f"{registry.rstrip('/')}/v2/{repository}"
    digest = oci.read_layout(layout).digest
    data = oci.blob(layout, digest).read_bytes()
    manifest = json.loads(data)
    for part in [*manifest["layers"], manifest["config"]]:
        _push_blob(layout, base, part["digest"], part["size"])
    where = f"{base}/manifests/{tag}"
    _ask("PUT", where, {201}, data, {"Content-Type": oci.MANIFEST})
    there = _ask("HEAD", where, {200}, headers={"Accept": oci.MANIFEST}).headers.get(DIGEST)
    if there != digest:
        raise PublishError(f"{where}: the registry has {there or 'no digest'}, pushed was {digest}")
    return digest


def _push_blob(layout: Path, base: str, digest: str, size: int) -> None:
    if _ask("HEAD", f"{base}/blobs/{digest}", {200, 404}).status == 200:
        return
    begun = _ask("POST", f"{base}/blobs/uploads/", {202}, b"")
    location = urllib.parse.urljoin(f"{base}/blobs/uploads/", begun.headers["Location"])
    joint = "&" if urllib.parse.urlsplit(location).query else "?"
    where = f"{location}{joint}digest={digest}"
    headers = {"Content-Type": "application/octet-stream", "Content-Length": str(size)}
    with oci.blob(layout, digest).open("rb") as file:
        there = _ask("PUT", where, {201}, file, headers).headers.get(DIGEST, digest)
    if there != digest:
        raise PublishError(f"{base}: the registry stored {there}, sent was {digest}")


def _ask(
    method: str,
    url: str,
    expected: set[int],
    data: bytes | IO[bytes] | None = None,
    headers: dict[str, str] | None = None,
) -> HTTPResponse | urllib.error.HTTPError:
    """Send a request; return the answer if its status is expected."""
    request = urllib.request.Request(  # noqa: S310  the lab's own registry
        url, data, headers or {}, method=method
    )
    answer: HTTPResponse | urllib.error.HTTPError
    try:
        answer = urllib.request.urlopen(request, timeout=TIMEOUT)  # noqa: S310
    except urllib.error.HTTPError as error:
        answer = error
    except OSError as error:
        raise PublishError(f"{method} {url}: {error}") from error
    with answer:
        if answer.status not in expected:
            said = answer.read(500).decode(errors="replace")
            raise PublishError(f"{method} {url}: {answer.status} {said}")
    return answer
