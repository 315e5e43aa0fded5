"""The API's listeners: all of moto for the operator on loopback, S3 alone for the machines."""

import io
import threading
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs

from moto.moto_server.werkzeug_app import (
    DomainDispatcherApplication,
    MotoRequestHandler,
    create_backend_app,
)
from werkzeug.serving import BaseWSGIServer, make_server

from lab.cloud.moto_cloud import LOCK
from lab.cloud.state import Store

Environ = dict[str, Any]
StartResponse = Callable[..., Any]
_READS = ("Describe", "Get", "List", "Search")


def mutates(service: str, method: str, body: bytes) -> bool:
    """Whether a request may change something (asked of the action for EC2's query API)."""
    if service == "ec2":
        action = parse_qs(body.decode("latin-1")).get("Action", [""])[0]
        return not action.startswith(_READS)
    return method not in ("GET", "HEAD", "OPTIONS")


class Gate(DomainDispatcherApplication):
    """All of moto behind one door: one EC2 or Route 53 call at a time, each change saved
    before its answer leaves, then ``changed`` called."""

    def __init__(self, store: Store, changed: Callable[[], None]) -> None:
        super().__init__(create_backend_app)
        self.store = store
        self.changed = changed

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        app = self.get_application(environ)
        service = app.service
        method = environ["REQUEST_METHOD"]
        if service not in ("ec2", "route53"):
            return passing(app, service, self.store, environ, start_response)
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        environ["wsgi.input"] = io.BytesIO(body)
        change = mutates(service, method, body)
        with LOCK:
            answer = list(app(environ, start_response))
            if change:
                self.store.save(service)
        if change:
            self.changed()
        return answer


def passing(
    app: Any, service: str, store: Store, environ: Environ, start_response: StartResponse
) -> Iterable[bytes]:
    """Answer a call that needs no lock; a change is saved before its answer leaves."""
    if environ["REQUEST_METHOD"] in ("GET", "HEAD", "OPTIONS"):
        return app(environ, start_response)
    answer = list(app(environ, start_response))
    store.save(service)
    return answer


def refusal(environ: Environ, now: datetime) -> str | None:
    """Why S3 would turn this request away before looking at it, or None.

    The lab does not verify the signature itself; it asks that there is one and that a
    presigned URL has not expired (AWS Signature Version 4, query parameters).
    """
    if environ.get("HTTP_AUTHORIZATION"):
        return None
    query = parse_qs(environ.get("QUERY_STRING", ""))
    if "X-Amz-Signature" not in query:
        return "AccessDenied"
    try:
        signed = datetime.strptime(query["X-Amz-Date"][0], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
        lifetime = timedelta(seconds=int(query["X-Amz-Expires"][0]))
    except (KeyError, ValueError):
        return "AuthorizationQueryParametersError"
    return "AccessDenied" if now > signed + lifetime else None


class Bucket:
    """S3 as the machines see it: nothing but S3, signed requests only."""

    def __init__(self, store: Store) -> None:
        self.app = create_backend_app("s3")
        self.store = store

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        code = refusal(environ, datetime.now(UTC))
        if code:
            text = f"<?xml version='1.0'?><Error><Code>{code}</Code></Error>".encode()
            head = [("Content-Type", "application/xml"), ("Content-Length", str(len(text)))]
            start_response("403 Forbidden", head)
            return [text]
        if environ.get("CONTENT_TYPE") == "application/x-www-form-urlencoded":
            # What curl and urllib say of any body; moto would read it as a form and keep nothing.
            environ["CONTENT_TYPE"] = "binary/octet-stream"
        return passing(self.app, "s3", self.store, environ, start_response)


class _Quiet(MotoRequestHandler):
    def log_request(self, code: object = "-", size: object = "-") -> None:
        """Query strings hold signatures: the log gets method, path and code only."""
        self.log("info", "%s %s %s", self.command, self.path.split("?")[0], code)


def serve(address: str, port: int, app: Any) -> BaseWSGIServer:
    """Answer HTTP on an address, a thread per request, until ``shutdown()``.

    Raises:
        SystemExit, OSError: the port is taken.
    """
    server = make_server(address, port, app, threaded=True, request_handler=_Quiet)
    thread = threading.Thread(target=server.serve_forever, name=f"http-{port}", daemon=True)
    thread.start()
    return server
