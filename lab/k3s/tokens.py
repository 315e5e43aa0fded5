"""K3s's join tokens.

Format (k3s-io/docs ``docs/cli/token.md``, k3s-io/k3s ``pkg/clientaccess/token.go``):
``K10<sha256 of the CA certificate file>::<user>:<secret>`` in full, or only the secret (or
``<user>:<secret>``) in short, which trusts whatever CA the server shows.

K3s checks the secret in its own API. The stand-in has Kubernetes check it, as a bootstrap token
that both sides derive from the secret.
"""

import base64
import hashlib
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

FILE_DEADLINE = 240  # seconds that K3s, too, waits for a token file to appear


class TokenError(Exception):
    """A token that cannot be used; the message never shows it."""


@dataclass(frozen=True)
class Token:
    """A parsed token; ``ca_hash`` is None in the short form."""

    secret: str
    user: str = ""
    ca_hash: str | None = None


def parse(text: str) -> Token:
    """Read a token in full or short form.

    Raises:
        TokenError: it has neither form.
    """
    text = text.strip()
    ca_hash: str | None = None
    if text.startswith("K10"):
        head, separator, text = text[3:].partition("::")
        if not separator:
            raise TokenError("invalid token format: K10<CA hash>::<user>:<secret> expected")
        if not re.fullmatch(r"[0-9a-f]{64}", head):
            raise TokenError("invalid token CA hash length: 64 hexadecimal digits expected")
        ca_hash = head
    user, separator, secret = text.partition(":")
    if not separator:
        user, secret = "", text
    if not secret or re.search(r"\s", secret):
        raise TokenError("invalid token format: the secret is empty or holds white space")
    return Token(secret, user, ca_hash)


def ca_hash(certificate: bytes) -> str:
    """SHA-256 of a CA certificate file as stored, in hexadecimal."""
    return hashlib.sha256(certificate).hexdigest()


def full(certificate: bytes, user: str, secret: str) -> str:
    """The full form of a token for the cluster with this CA certificate file."""
    return f"K10{ca_hash(certificate)}::{user}:{secret}"


def bootstrap(secret: str) -> tuple[str, str]:
    """The id (6 characters) and secret (16) of the bootstrap token that stands for ``secret``."""
    digest = base64.b32encode(hashlib.sha256(b"k3s-stand-in:" + secret.encode()).digest())
    text = digest.decode().lower()
    return text[:6], text[6:22]


def read_file(
    path: Path,
    say: Callable[[str], None],
    deadline: float = FILE_DEADLINE,
    pause: Callable[[float], None] = time.sleep,
) -> str:
    """The token in ``path``, waiting for the file as K3s does.

    Raises:
        TokenError: it did not appear within ``deadline`` seconds, or is empty or unreadable.
    """
    end = time.monotonic() + deadline
    said = False
    while True:
        try:
            text = path.read_text().strip()
        except FileNotFoundError:
            if time.monotonic() >= end:
                raise TokenError(
                    f"waited {deadline:.0f} s for the token file {path}: it does not exist"
                ) from None
            if not said:
                say(f"waiting for the token file {path} to be available")
                said = True
            pause(0.5)
            continue
        except (OSError, UnicodeDecodeError) as error:
            raise TokenError(f"the token file {path} cannot be read: {error}") from error
        if not text:
            raise TokenError(f"the token file {path} is empty")
        return text
