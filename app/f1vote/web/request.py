"""A request: its id, its beginning, what it claims to be."""

import secrets
from itertools import count
from time import perf_counter
from typing import Any

from sanic import Request
from sanic.exceptions import BadURL

# The methods of what is only shown.
READ = ("GET", "HEAD")
# Told apart from those of other processes; not a secret.
_PROCESS = secrets.token_hex(4)
_numbers = count(1)


class VoteRequest(Request):
    """
    A request with the time of its beginning (``began``, s of perf_counter). Its ``id`` is ours: one
    that came along may be anybody's.
    """

    __slots__ = ("began",)

    def __init__(self, *, url_bytes: bytes, method: str, **more: Any) -> None:
        try:
            super().__init__(url_bytes=url_bytes, method=method, **more)
        except BadURL:
            # Sanic answers with a request that it makes up, of the same URL: then nobody answered.
            if method != "NONE":
                raise
            super().__init__(url_bytes=b"/", method=method, **more)
        self.began = perf_counter()

    @property
    def id(self) -> str:
        """The id by which the logs and the answer name this request."""
        if self._id is None:
            self._id = f"{_PROCESS}-{next(_numbers):x}"
        return str(self._id)


def is_json(request: Request) -> bool:
    """Return whether the body says that it is JSON."""
    kind: str = request.headers.get("content-type", "")
    return kind.partition(";")[0].strip().lower() == "application/json"


def same_origin(request: Request) -> bool:
    """
    Return whether a page of ours, or no page at all, sent this request.

    As Go's net/http.CrossOriginProtection: Sec-Fetch-Site (W3C Fetch Metadata), which no page can
    set, decides; a browser without it sends ``Origin`` (RFC 6454), which must name the host that is
    asked; who sends neither is no browser of this decade, and SameSite=Lax keeps the ballot from
    the others.
    """
    site = request.headers.get("sec-fetch-site")
    if site is not None:
        return site in ("same-origin", "none")
    origin = request.headers.get("origin")
    if origin is None:
        return True
    return bool(origin.partition("://")[2] == request.headers.get("host"))
