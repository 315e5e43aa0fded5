"""For operators and the platform, on a listener of its own: health, readiness, version, figures."""

import socket
from typing import Any

from sanic import HTTPResponse, Request, Sanic, raw, text

from f1vote.web.answers import json
from f1vote.web.context import Context
from f1vote.web.request import READ


def add(app: Sanic[Any, Any], context: Context) -> None:
    """Add the operators' routes to ``app``."""
    add_version(app, context)

    async def healthz(_: Request) -> HTTPResponse:
        return text("ok\n")

    async def readyz(_: Request) -> HTTPResponse:
        if context.draining:
            return text("asked to end\n", 503)
        problems = await context.store.problems()
        return text("\n".join(problems or ["ok"]) + "\n", 503 if problems else 200)

    async def metrics(request: Request) -> HTTPResponse:
        body, headers = await context.metrics.render(request.headers.getall("accept", []))
        return raw(body, headers=headers)

    for handler in (healthz, readyz, metrics):
        app.add_route(handler, f"/{handler.__name__}", methods=READ, name=handler.__name__)


def add_version(app: Sanic[Any, Any], context: Context) -> None:
    """Add ``/version``: which build answers, from which pod."""
    answer = {
        "version": context.settings.version,
        "image": context.settings.image,
        "pod": socket.gethostname(),
    }

    async def version(_: Request) -> HTTPResponse:
        return json(answer)

    app.add_route(version, "/version", methods=READ, name="version")
