"""
Proof of work: a puzzle that costs a browser a moment, and whoever fills ballot boxes a moment
for each ballot.

A challenge is ``<bits>.<expires>.<signature>``: how many leading zero bits each piece must have,
the Unix time until which it holds, and 128 bits of an HMAC-SHA256 (RFC 2104, section 5) over both,
the poll and the voter, in URL-safe base64. Nothing is stored: whoever holds the key can verify it.
For another poll or voter it is worthless, and the same voter who sends it twice has voted once.

An answer is ``<challenge>.<n0>-<n1>-…``: for each piece ``i`` (0 … PIECES - 1) decimal digits such
that SHA-256 of the ASCII text ``<challenge>.<i>.<ni>`` begins with ``bits`` zero bits, as in
Hashcash. Many small pieces instead of a large one: their sum varies far less, so nobody is unlucky
for long, and progress can be shown.
"""

import hashlib
import hmac
from base64 import urlsafe_b64encode
from collections.abc import Sequence

PIECES = 8
# A challenge holds so long (s): a slow phone is done in a tenth of it.
SECONDS = 300
# The longest answer that is looked at (characters): no number needs more than 16 digits.
LONGEST = 64 + PIECES * 17
SIGNATURE_BYTES = 16
# Ties the signature to this use of the key.
PURPOSE = b"f1vote work 1\0"


def issue(key: bytes, poll: str, voter: str, bits: int, now: float) -> str:
    """Return a challenge for ``voter`` in ``poll`` at the Unix time ``now`` (s)."""
    head = f"{bits}.{int(now) + SECONDS}"
    return f"{head}.{_sign(key, poll, voter, head)}"


def verify(keys: Sequence[bytes], poll: str, voter: str, answer: str | None, now: float) -> bool:
    """Return whether ``answer`` solves a challenge that one of ``keys`` signed, in time."""
    if not answer or len(answer) > LONGEST or not answer.isascii():
        return False
    challenge, _, numbers = answer.rpartition(".")
    head, _, signature = challenge.rpartition(".")
    if not any(hmac.compare_digest(signature, _sign(key, poll, voter, head)) for key in keys):
        return False
    # Signed, so written by issue().
    bits, _, expires = head.partition(".")
    pieces = numbers.split("-")
    if int(expires) < now or len(pieces) != PIECES:
        return False
    limit = 1 << (256 - int(bits))
    return all(
        int.from_bytes(hashlib.sha256(f"{challenge}.{i}.{n}".encode()).digest(), "big") < limit
        for i, n in enumerate(pieces)
    )


def _sign(key: bytes, poll: str, voter: str, head: str) -> str:
    text = b"%s%s\0%s\0%s" % (PURPOSE, poll.encode(), voter.encode(), head.encode())
    digest = hmac.digest(key, text, "sha256")[:SIGNATURE_BYTES]
    return urlsafe_b64encode(digest).rstrip(b"=").decode()
