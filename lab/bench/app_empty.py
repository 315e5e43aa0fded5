"""The yardstick: a Sanic handler that does nothing, on the port that is named."""

import sys
from typing import Any

from sanic import HTTPResponse, Request, Sanic, empty

app: Sanic[Any, Any] = Sanic("empty", configure_logging=False)


@app.post("/<path:path>")
async def answer(_: Request, path: str) -> HTTPResponse:
    """Answer, whatever was asked."""
    return empty()


if __name__ == "__main__":
    app.run(port=int(sys.argv[1]), single_process=True, access_log=False, motd=False)
