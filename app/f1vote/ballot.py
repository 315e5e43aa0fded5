"""
Ballots: who votes, without knowing who they are.

A ballot is 128 random bits and their HMAC-SHA256 (RFC 2104), both in URL-safe base64, joined by
a dot. Only this app can make one; nothing about the voter is in it.
"""

import hashlib
import hmac
import secrets
from base64 import urlsafe_b64encode

ID_BYTES = 16
ID_LENGTH = 22  # of 16 bytes in base64 without padding
# Ties the signature to this use of the key.
PURPOSE = b"f1vote ballot 1\0"


def issue(key: bytes) -> tuple[str, str]:
    """Return a new voter's id and the ballot (cookie value) that proves it."""
    voter = secrets.token_urlsafe(ID_BYTES)
    return voter, f"{voter}.{_sign(key, voter)}"


def read(key: bytes, ballot: str | None) -> str | None:
    """Return the voter's id of ``ballot``; None if ``key`` did not make it."""
    voter, dot, signature = (ballot or "").partition(".")
    if not dot or len(voter) != ID_LENGTH or not ballot or not ballot.isascii():
        return None
    return voter if hmac.compare_digest(signature, _sign(key, voter)) else None


def _sign(key: bytes, voter: str) -> str:
    digest = hmac.digest(key, PURPOSE + voter.encode(), hashlib.sha256)
    return urlsafe_b64encode(digest).rstrip(b"=").decode()
