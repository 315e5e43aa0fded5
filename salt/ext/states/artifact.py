"""
A file from the lock: fetched once, known by its SHA-256.

Salt's ``file.managed`` would keep a second copy of each (hundreds of megabytes) in the minion's
cache, or fetch it again in every run.
"""

import hashlib
import http.client
import os
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

Result = dict[str, Any]

__opts__: dict[str, Any]

CHUNK = 1 << 20
STALL_SECONDS = 30
# No attempt begins later than this after the first: a worker's way out may come a while after it.
DEADLINE_SECONDS = 300
PAUSE_SECONDS = 2
# Answers that may be others a moment later: RFC 9110 (408, 5xx) and RFC 6585 (429).
_PASSING = {408, 429, *range(500, 600)}
# A full disk is an OSError as well, and stays full.
_UNREACHED = (urllib.error.URLError, ConnectionError, TimeoutError, http.client.IncompleteRead)


def fetched(name: str, url: str, sha256: str, mode: str = "0644") -> Result:
    """
    The file ``name`` has this SHA-256 and mode; if not, it is fetched from ``url``.

    The file is in place only once its checksum is right. What cannot be reached is tried again
    for five minutes; an attempt ends after 30 s without a byte. A query in ``url`` (a signature)
    is never shown.

    .. code-block:: yaml

        /usr/local/bin/k3s:
          artifact.fetched:
            - url: https://example.org/k3s
            - sha256: 835873f37245fc615f547a2fe2af9402a347875f13fa64a1f136de644955ea3f
            - mode: '0755'
    """
    path = Path(name)
    changes: dict[str, Any] = {}
    found = _sum(path)
    if found != sha256:
        changes["sha256"] = {"old": found, "new": sha256}
    elif path.stat().st_mode & 0o7777 != int(mode, 8):
        changes["mode"] = {"old": f"{path.stat().st_mode & 0o7777:04o}", "new": mode}
    if not changes:
        return _result(name, True, {}, "in place")
    if __opts__["test"]:
        return _result(name, None, changes, f"would come from {_bare(url)}")
    if "sha256" in changes:
        try:
            _fetch(path, url, sha256)
        except (OSError, http.client.HTTPException, ValueError) as error:
            return _result(name, False, {}, f"{_bare(url)}: {error}")
    path.chmod(int(mode, 8))
    return _result(name, True, changes, f"from {_bare(url)}")


def _fetch(path: Path, url: str, sha256: str) -> None:
    new = path.with_name(f".{path.name}.new")
    try:
        got = _persistently(url, new)
        if got != sha256:
            raise ValueError(f"has sha256 {got}, the lock says {sha256}")
        new.replace(path)
    finally:
        new.unlink(missing_ok=True)


def _persistently(url: str, path: Path) -> str:
    """Download until it is done; raise the last error, with how often and how long it was tried."""
    began = time.monotonic()
    attempts = 0
    while True:
        attempts += 1
        try:
            return _download(url, path)
        except _UNREACHED as error:
            if isinstance(error, urllib.error.HTTPError) and error.code not in _PASSING:
                raise
            passed = time.monotonic() - began
            if passed + PAUSE_SECONDS > DEADLINE_SECONDS:
                raise OSError(
                    f"given up after {attempts} attempts in {passed:.0f} s; last seen: {error}"
                ) from error
            time.sleep(PAUSE_SECONDS)


def _download(url: str, path: Path) -> str:
    digest = hashlib.sha256()
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with (
        os.fdopen(descriptor, "wb") as file,
        urllib.request.urlopen(url, timeout=STALL_SECONDS) as body,  # noqa: S310 - from the lock
    ):
        while chunk := body.read(CHUNK):
            digest.update(chunk)
            file.write(chunk)
        # A connection that ends early looks like the end of the body.
        length, whole = file.tell(), body.headers.get("Content-Length")
        if whole and length < int(whole):
            raise ConnectionError(f"the body ended after {length} of {whole} bytes")
    return digest.hexdigest()


def _sum(path: Path) -> str | None:
    if not path.is_file():
        return None
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _bare(url: str) -> str:
    return url.partition("?")[0]


def _result(name: str, result: bool | None, changes: dict[str, Any], comment: str) -> Result:
    return {"name": name, "result": result, "changes": changes, "comment": comment}
