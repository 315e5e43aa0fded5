"""The public key of exports, for whoever wants to check one."""

from typing import Any

from sanic import HTTPResponse, Request, Sanic, text

from f1vote.export import public_pem, signing_key
from f1vote.web.context import Context
from f1vote.web.request import READ

PATH = "/export-key.pem"


def add(app: Sanic[Any, Any], context: Context) -> None:
    """Add the key to the voters' ``app``, if exports are signed."""
    if context.settings.sign_key is None:
        return
    pem = public_pem(signing_key(context.settings.sign_key))

    async def key(_: Request) -> HTTPResponse:
        return text(pem, content_type="application/x-pem-file")

    app.add_route(key, PATH, methods=READ, name="export-key")
