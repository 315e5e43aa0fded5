"""Ports of the operator's loopback led to machines: plain TCP, by the machine's name."""

import asyncio
import logging
import threading
from collections.abc import Callable
from contextlib import suppress

from lab.cloud.config import Publish
from lab.cloud.model import View

log = logging.getLogger("publish")
CONNECT_DEADLINE = 10  # seconds
START_DEADLINE = 10  # seconds


async def _copy(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await source.read(65536):
            target.write(data)
            await target.drain()
    with suppress(OSError, RuntimeError):
        target.write_eof()


def _server(rule: Publish, view: Callable[[], View]) -> Callable[..., object]:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        machine = view().by_name(rule.machine)
        try:
            if machine is None or machine.public is None:
                log.info("%s: no running %s with a public address", rule.listen, rule.machine)
                return
            connect = asyncio.open_connection(str(machine.public), rule.port)
            far_reader, far_writer = await asyncio.wait_for(connect, CONNECT_DEADLINE)
            try:
                await asyncio.gather(_copy(reader, far_writer), _copy(far_reader, writer))
            finally:
                far_writer.close()
        except (OSError, TimeoutError) as error:
            log.info("%s: %s:%d: %s", rule.listen, rule.machine, rule.port, error or "timeout")
        finally:
            writer.close()

    return serve


def serve(rules: list[Publish], view: Callable[[], View]) -> None:
    """Listen on every rule's address, in a thread of its own.

    Raises:
        OSError: a port is taken.
    """
    ready = threading.Event()
    failure: list[BaseException] = []

    async def main() -> None:
        try:
            for rule in rules:
                host, port = rule.address
                await asyncio.start_server(_server(rule, view), host, port)  # type: ignore[arg-type]
        except BaseException as error:
            failure.append(error)
            raise
        finally:
            ready.set()
        await asyncio.Event().wait()

    threading.Thread(target=lambda: asyncio.run(main()), name="publish", daemon=True).start()
    if not ready.wait(START_DEADLINE):
        raise OSError(f"the published ports were not open within {START_DEADLINE} s")
    if failure:
        raise failure[0]
