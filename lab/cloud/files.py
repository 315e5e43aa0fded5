"""A folder of artifacts over HTTP: GET and HEAD of files, nothing else."""

import mimetypes
import shutil
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit


def locate(root: Path, url_path: str) -> Path | None:
    """The file a URL path means, or None: also for folders and for whatever leads elsewhere.

    A link within the folder is followed: the folder's owner made it.
    """
    parts = [p for p in unquote(urlsplit(url_path).path).split("/") if p]
    if any(p in (".", "..") or "\0" in p for p in parts):
        return None
    path = root.joinpath(*parts)
    return path if path.is_file() else None


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "files"
    sys_version = ""
    root: Path

    def do_GET(self) -> None:
        path = locate(self.root, self.path)
        if path is None:
            self.send_error(404)
            return
        with path.open("rb") as file:
            kind = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(path.stat().st_size))
            self.end_headers()
            if self.command == "GET":
                shutil.copyfileobj(file, self.wfile, 1 << 20)

    do_HEAD = do_GET


class Server(ThreadingHTTPServer):
    """Serves ``root`` on an address.

    Raises:
        OSError: the port is taken.
    """

    daemon_threads = True

    def __init__(self, address: str, port: int, root: Path) -> None:
        super().__init__((address, port), type("Handler", (_Handler,), {"root": root}))
