"""Answers whose headers are written once, because a vote's answer is on the hot path."""

from collections.abc import Iterator
from typing import Any

import orjson
from sanic import HTTPResponse

# The pages hold no script and no style of their own, and load nothing from elsewhere.
PAGE_HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; font-src 'self'; "
        "img-src 'self' data:; connect-src 'self'; form-action 'self'; base-uri 'none'; "
        "frame-ancestors 'none'"
    ),
    # `no-referrer` would make browsers send `Origin: null` with a form.
    "referrer-policy": "same-origin",
    "x-content-type-options": "nosniff",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
    "cache-control": "no-store",
}
# What JSON needs of them. Sanic formats header by header, so they are one header to it.
_JSON_HEADERS = (
    b"content-type",
    b"application/json\r\n"
    b"content-security-policy: default-src 'none'; frame-ancestors 'none'\r\n"
    b"x-content-type-options: nosniff\r\n"
    b"cache-control: no-store",
)


class Json(HTTPResponse):
    """An answer to a program."""

    __slots__ = ()

    @property
    def processed_headers(self) -> Iterator[tuple[bytes, bytes]]:
        """The headers as they are sent."""
        yield _JSON_HEADERS
        for name, value in self.headers.items():
            yield name.encode(), str(value).encode()


def json(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> Json:
    """Return the answer that says ``value``; names and values of ``headers`` must be our own."""
    return Json(orjson.dumps(value), status, headers, "application/json")
