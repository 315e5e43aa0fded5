"""The stream of live results: ``GET /api/polls/<poll>/events`` (see ``live.py``)."""

import asyncio
import math
import socket
from typing import Any, cast

from sanic import Request, Sanic
from sanic.http import Http
from sanic.server import HttpProtocol

from f1vote.live import Full, Viewer, opening
from f1vote.web.context import Context
from f1vote.web.errors import Refused, asked_poll

# When it is worth to come back to a process whose seats are taken (s).
RETRY_AFTER = 10
# What the kernel keeps for a viewer who does not read (bytes), and how long (ms).
BUFFER = 16384
PATIENCE = 30_000


def add(app: Sanic[Any, Any], context: Context) -> None:
    """Add the stream's route to ``app``."""
    hub, store = context.hub, context.store

    async def events(request: Request, poll: str) -> None:
        watched = asked_poll(context, poll)
        try:
            with hub.seat(watched):
                receipt = context.receipt(request, watched) if watched.results == "voted" else None
                standing, held = await store.page(watched, receipt)
                transport = _prepare(request)
                response = await request.respond(
                    content_type="text/event-stream",
                    # For proxies that would gather the events otherwise.
                    headers={"cache-control": "no-store", "x-accel-buffering": "no"},
                )
                event = hub.present(watched, standing, bool(held))
                await response.send(opening(event, request.headers.get("last-event-id")))
                await hub.watch(Viewer(watched.id, response, transport, bool(held), event.id))
        except Full:
            raise Refused("full", retry_after=RETRY_AFTER) from None

    app.add_route(events, "/api/polls/<poll>/events", methods=["GET"], name="events")


def _prepare(request: Request) -> asyncio.Transport:
    """Make the connection one that ends with its stream, and not before unless it is dead."""
    cast(HttpProtocol, request.protocol).response_timeout = math.inf
    cast(Http, request.stream).keep_alive = False
    transport = cast(asyncio.Transport, request.transport)
    connection = transport.get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER)
    # tcp(7): also for who keeps the connection and does not read.
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, PATIENCE)
    return transport
