"""
Logs: one JSON object a line, on standard output.

``time`` (RFC 3339, UTC), ``level``, ``logger``, ``message`` and, where there is one, ``request``:
the id that the answer bore as ``X-Request-Id``. Of every answer ``route`` (the template, never the
path), ``method``, ``status``, ``ms`` (until the answer began). No address, cookie, voter, receipt.
"""

import json
import logging
import sys
import time
from asyncio import get_running_loop
from functools import lru_cache

from sanic import Request

# Lines of answers are written together: a write a line would cost as much as a vote's HTTP (s).
GATHER = 0.2
MOST_LINES = 256


class JsonFormatter(logging.Formatter):
    """A record as one line of JSON."""

    def format(self, record: logging.LogRecord) -> str:
        """Return ``record`` as JSON, with the id of the request at hand."""
        line: dict[str, str] = {
            "time": moment(record.created),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if request := Request._current.get(None):
            line["request"] = str(request.id)
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, separators=(",", ":"))


def of_use(record: logging.LogRecord) -> bool:
    """
    Return False for what Sanic takes for a fault and is none: somebody left before the answer came,
    or sent a form that is none.
    """
    if not record.name.startswith("sanic."):
        return True
    request = Request._current.get(None)
    left = request is not None and request.transport is not None and request.transport.is_closing()
    return not left and record.msg != "Failed when parsing form"


class AnswerLog:
    """The line of every answer. One object a process."""

    def __init__(self) -> None:
        self._lines: list[str] = []

    def add(self, request: str, route: str, method: str, status: int, seconds: float) -> None:
        """
        Write the line of an answer, within GATHER. All but ``status`` and ``seconds`` must be
        texts that JSON holds as they are.
        """
        lines = self._lines
        if not lines:
            get_running_loop().call_later(GATHER, self.flush)
        lines.append(
            f'{{"time":"{moment(time.time())}","level":"info","logger":"answer",'
            f'"request":"{request}","route":"{route}","method":"{method}","status":{status},'
            f'"ms":{seconds * 1000:.1f}}}\n'
        )
        if len(lines) >= MOST_LINES:
            self.flush()

    def flush(self) -> None:
        """Write what was gathered."""
        if self._lines:
            text = "".join(self._lines)
            self._lines.clear()
            sys.stdout.write(text)
            sys.stdout.flush()


def setup() -> None:
    """Make every logger of the process write JSON to standard output."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(JsonFormatter())
    handler.addFilter(of_use)
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    # Sanic's own start and stop say nothing that the platform does not know.
    logging.getLogger("sanic.server").setLevel(logging.WARNING)


def moment(at: float) -> str:
    """Return the Unix time ``at`` (s) as RFC 3339 writes it, to the millisecond, in UTC."""
    whole = int(at)
    return f"{_second(whole)}.{int((at - whole) * 1000):03}Z"


@lru_cache(1)  # of every answer, and thousands come in a second
def _second(at: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(at))
