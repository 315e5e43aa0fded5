"""
Ballots: who votes, without knowing who they are.

A ballot is 128 random bits in URL-safe base64 and, after a dot, their keyed BLAKE2b (RFC 7693) of
128 bits in hexadecimal: as hard to forge as an HMAC, in half the time. Only this app can make one;
nothing about the voter is in it. A one-time code that a browser keeps is signed in the same way,
for one poll. The first key signs, every key verifies: a key is replaced by putting a new one
before it. Whoever comes back gets the same ballot signed anew; when the old key is dropped, the
others are strangers.
"""

import hashlib
import hmac
import secrets
from collections.abc import Sequence
from functools import lru_cache

ID_BYTES = 16
ID_LENGTH = 22  # of 16 bytes in base64 without padding
SIGNATURE_BYTES = 16
SIGNATURE_LENGTH = 2 * SIGNATURE_BYTES
# Ties the signature to this use of the key.
PURPOSE = b"f1vote ballot 1\0"
CODE_PURPOSE = b"f1vote code 1\0"


def issue(keys: Sequence[bytes]) -> tuple[str, str]:
    """Return a new voter's id and the ballot (cookie value) that proves it."""
    voter = secrets.token_urlsafe(ID_BYTES)
    return voter, sign(keys, voter)


def sign(keys: Sequence[bytes], voter: str) -> str:
    """Return the ballot of ``voter`` (id)."""
    return f"{voter}.{_sign(keys[0], PURPOSE, voter)}"


def read(keys: Sequence[bytes], ballot: str | None) -> str | None:
    """Return the voter's id of ``ballot``; None if none of ``keys`` made it."""
    voter = _verified(keys, PURPOSE, ballot)
    return voter if voter and len(voter) == ID_LENGTH else None


def sign_code(keys: Sequence[bytes], poll: str, code: str) -> str:
    """Return the cookie value in which a browser keeps its one-time ``code`` of ``poll``."""
    return f"{code}.{_sign(keys[0], _code_purpose(poll), code)}"


def read_code(keys: Sequence[bytes], poll: str, value: str | None) -> str | None:
    """Return the one-time code in ``value``; None if none of ``keys`` signed it for ``poll``."""
    return _verified(keys, _code_purpose(poll), value)


def _code_purpose(poll: str) -> bytes:
    return CODE_PURPOSE + poll.encode() + b"\0"


def _verified(keys: Sequence[bytes], purpose: bytes, value: str | None) -> str | None:
    """Return the text in ``value`` (``<text>.<signature>``) if one of ``keys`` signed it."""
    if not value or not value.isascii():
        return None
    text, _, signature = value.rpartition(".")
    if len(signature) != SIGNATURE_LENGTH:
        return None
    for key in keys:
        if hmac.compare_digest(signature, _sign(key, purpose, text)):
            return text
    return None


def _sign(key: bytes, purpose: bytes, text: str) -> str:
    signed = _keyed(key, purpose).copy()
    signed.update(text.encode())
    return signed.hexdigest()


@lru_cache(maxsize=64)
def _keyed(key: bytes, purpose: bytes) -> hashlib.blake2b:
    """Return the beginning of every signature for ``purpose``."""
    # A key of BLAKE2b is 64 bytes at most.
    short = hashlib.blake2b(key).digest()
    return hashlib.blake2b(purpose, key=short, digest_size=SIGNATURE_BYTES)
