"""
Serve until SIGTERM, whenever it comes, and end with 0.

Sanic's own runner loses a signal that comes while it starts, and gives up its handler before it
drains; so the two listeners run in a loop of ours.
"""

import asyncio
import contextlib
import gc
import logging
import resource
import signal
from collections.abc import Awaitable
from typing import Any

import uvloop
from sanic.application.state import ApplicationServerInfo
from sanic.http.constants import HTTP
from sanic.server import AsyncioServer

from f1vote import web
from f1vote.settings import Settings
from f1vote.web import App, Site

logger = logging.getLogger("f1vote")

# Requests under way when the listeners close have so long (s).
GRACE = 10.0
# What each part has to open or close (s); Redis may be gone.
PART = 3.0
BACKLOG = 1024
# Objects between two looks for cycles: Python's 700 would mean one every few votes.
GC_THRESHOLD = 20_000


def run(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT; raise Problems if polls or texts are wrong."""
    _raise_descriptors()
    site = web.create(settings)
    try:
        uvloop.run(_serve(site))
    finally:
        site.context.answers.flush()


def _raise_descriptors() -> None:
    """Allow us all the files and connections that we may have (getrlimit(2))."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


async def _serve(site: Site) -> None:
    context = site.context
    await _open(site)
    loop, stop = asyncio.get_running_loop(), asyncio.Event()

    def terminate(*_: Any) -> None:
        if not loop.is_closed():
            loop.call_soon_threadsafe(stop.set)

    # Until here a signal ended the process at once (see __main__): nothing was served yet. Not the
    # loop's own handlers: closing the loop would take them away, and a second signal would kill.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, terminate)
    # What lives as long as the process is not looked through again; requests make few cycles.
    gc.freeze()
    gc.set_threshold(GC_THRESHOLD)
    voters = await _listen(site.voters, context.settings.port)
    operators = await _listen(site.operators, context.settings.ops_port)
    logger.info("version %s serves", context.settings.version)
    await stop.wait()

    logger.info("asked to end; serving for %d s more", context.settings.drain)
    context.draining = True
    # Each answer closes its connection, so that the proxies' idle ones are gone when we are.
    site.voters.config.KEEP_ALIVE = False
    await _within("live results", context.hub.close())
    await asyncio.sleep(context.settings.drain)
    await _finish(voters)
    await _finish(operators)
    await _within("recount", site.recounter.close())
    await _within("guard", context.guard.close(context.store, context.polls))
    await _within("metrics", context.metrics.close())
    await _within("redis", context.store.close())


async def _open(site: Site) -> None:
    context = site.context
    # Sanic compiles its own classes anew for one app of a process, and fails at a second.
    site.operators.state.primary = False
    for app in (site.voters, site.operators):
        # Who serves nothing yet is given an empty Alt-Svc header in every answer.
        app.state.server_info.append(ApplicationServerInfo({"version": HTTP.VERSION_1}))
        await app._startup()
    await context.metrics.start(context.store)
    await context.guard.start(context.store, context.polls)
    await context.hub.start()
    await site.recounter.start()


async def _listen(app: App, port: int) -> AsyncioServer:
    server = await app.create_server(
        host="0.0.0.0",  # noqa: S104 - a pod is reached from outside itself
        port=port,
        backlog=BACKLOG,
    )
    assert server is not None  # noqa: S101 - told to return one
    return server


async def _finish(server: AsyncioServer) -> None:
    """Stop listening, let the requests under way finish, and cut off those that do not."""
    server.close()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(GRACE):
            while server.connections:
                for connection in list(server.connections):
                    connection.close_if_idle()
                await asyncio.sleep(0.02)
    for connection in list(server.connections):
        connection.abort()


async def _within(what: str, work: Awaitable[None]) -> None:
    """Wait for ``work``, at most PART; what goes wrong with it is logged and no more."""
    try:
        async with asyncio.timeout(PART):
            await work
    except Exception as error:
        logger.warning("%s: %s: %s", what, type(error).__name__, error)
