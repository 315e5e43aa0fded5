"""A registry in this process, as much of it as a push and a HEAD need."""

import base64
import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class FakeRegistry:
    """Holds manifests by ``repository:tag``; ``auth`` is None, "basic" or "bearer"."""

    def __init__(self, auth: str | None = None) -> None:
        self.manifests: dict[str, bytes] = {}
        self.auth = auth
        self.asked: list[str] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_HEAD(self) -> None:
                self.answer(body=False)

            def do_GET(self) -> None:
                if self.path.startswith("/token"):
                    self.token()
                else:
                    self.answer(body=True)

            def do_POST(self) -> None:
                form = self.rfile.read(int(self.headers["content-length"])).decode()
                good = "refresh_token=id-token" in form
                self.send(200 if good else 401, json.dumps({"access_token": "good"}).encode())

            def token(self) -> None:
                basic = base64.b64encode(b"me:secret").decode()
                good = self.headers.get("authorization") == f"Basic {basic}"
                good = good and "scope=repository" in self.path
                self.send(200 if good else 401, json.dumps({"token": "good"}).encode())

            def answer(self, body: bool) -> None:
                outer.asked.append(f"{self.command} {self.path}")
                allowed = {
                    None: None,
                    "basic": "Basic " + base64.b64encode(b"me:secret").decode(),
                    "bearer": "Bearer good",
                }[outer.auth]
                if allowed and self.headers.get("authorization") != allowed:
                    challenge = {
                        "basic": 'Basic realm="r"',
                        "bearer": f'Bearer realm="http://{outer.host}/token",service="s",'
                        'scope="repository:f1/vote:pull"',
                    }[outer.auth or ""]
                    self.send(401, b"", {"WWW-Authenticate": challenge})
                    return
                repository, tag = self.path.removeprefix("/v2/").split("/manifests/")
                manifest = outer.manifests.get(f"{repository}:{tag}")
                if manifest is None:
                    self.send(404, b"")
                else:
                    self.send(
                        200, manifest if body else b"", {"Docker-Content-Digest": digest(manifest)}
                    )

            def send(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
                self.send_response(status)
                for name, value in (headers or {}).items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.host = f"127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


def digest(manifest: bytes) -> str:
    return f"sha256:{hashlib.sha256(manifest).hexdigest()}"
