"""
Who is signed in to the organiser's area: a signed cookie, nothing is kept here.

The cookie holds the name and the end of the session; its HMAC-SHA256 (RFC 2104) is made with a key
that hangs on the cookie key and on the token: another token ends every session.
"""

import hashlib
import hmac
import time
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Sequence

from f1vote.guard import Buckets, Limit

# A day at the track (s).
SECONDS = 10 * 3600
# Attempts to sign in, of everybody together: five at once, then one in twelve seconds.
ATTEMPTS = Limit(5, 1 / 12)
# Ties the signature to this use of the key.
PURPOSE = b"f1vote admin session 1\0"


class Sessions:
    """``clock`` is Unix time (s)."""

    def __init__(
        self, token: bytes, cookie_keys: Sequence[bytes], clock: Callable[[], float] = time.time
    ) -> None:
        self._token, self._clock = token, clock
        self._keys = [hmac.digest(key, PURPOSE + token, "sha256") for key in cookie_keys]
        self._attempts: Buckets[str] = Buckets(ATTEMPTS, 1)

    def wait(self) -> int:
        """Count an attempt to sign in; return how long (s) to wait before it, 0 if it may be."""
        return -(-self._attempts.take("", time.monotonic_ns()) // 10**9)

    def right(self, token: str) -> bool:
        """Return whether ``token`` is the organiser's, in a time that does not depend on it."""
        given, right = (hashlib.sha256(text).digest() for text in (token.encode(), self._token))
        return hmac.compare_digest(given, right)

    def begin(self, who: str) -> str:
        """Return the cookie's value of a session of ``who``."""
        body = f"{int(self._clock()) + SECONDS}.{urlsafe_b64encode(who.encode()).decode()}"
        return f"{body}.{_sign(self._keys[0], body)}"

    def who(self, cookie: str | None) -> str | None:
        """Return whose session ``cookie`` is; None if it is not of ours, or over."""
        body, _, signature = (cookie or "").rpartition(".")
        if not signature.isascii() or not any(
            hmac.compare_digest(signature, _sign(key, body)) for key in self._keys
        ):
            return None
        ends, _, name = body.partition(".")
        return urlsafe_b64decode(name).decode() if self._clock() < int(ends) else None


def _sign(key: bytes, body: str) -> str:
    return hmac.new(key, body.encode(), hashlib.sha256).hexdigest()
