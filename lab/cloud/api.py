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

from lab.cloud import requests
from lab.cloud.moto_cloud import LOCK
from lab.cloud.state import Store

Environ = dict[str, Any]
StartResponse = Callable[..., Any]


class _Answered:
    """Stands for ``start_response`` and remembers the status line."""

    def __init__(self, start_response: StartResponse) -> None:
        self.status = "500 Internal Server Error"
        self._next = start_response

    def __call__(self, status: str, *args: Any, **kwargs: Any) -> Any:
        self.status = status
        return self._next(status, *args, **kwargs)


class Gate(DomainDispatcherApplication):
    """All of moto behind one door: one EC2 or Route 53 call at a time, each change saved
    before its answer leaves, then ``changed`` called. Every request is in the log by then."""

    def __init__(self, store: Store, changed: Callable[[], None], log: requests.Log) -> None:
        super().__init__(create_backend_app)
        self.store = store
        self.changed = changed
        self.log = log

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        app = self.get_application(environ)
        service = app.service
        if service == "s3":
            return passing(app, self.store, self.log, environ, start_response)
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        environ["wsgi.input"] = io.BytesIO(body)
        operation, change = requests.named(service, environ, body)
        answered = _Answered(start_response)
        with LOCK:
            answer = list(app(environ, answered))
            if change:
                self.store.save(service)
        if change:
            self.changed()
        self.log.write(service, operation, change, environ, answered.status)
        return answer


def passing(
    app: Any, store: Store, log: requests.Log, environ: Environ, start_response: StartResponse
) -> Iterable[bytes]:
    """Answer a call to S3, which needs no lock; a change is saved before its answer leaves."""
    operation, change = requests.named("s3", environ, b"")
    answered = _Answered(start_response)
    answer = app(environ, answered)
    if change:
        answer = list(answer)
        store.save("s3")
    log.write("s3", operation, change, environ, answered.status)
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

    def __init__(self, store: Store, log: requests.Log) -> None:
        self.app = create_backend_app("s3")
        self.store = store
        self.log = log

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        code = refusal(environ, datetime.now(UTC))
        if code:
            text = f"<?xml version='1.0'?><Error><Code>{code}</Code></Error>".encode()
            head = [("Content-Type", "application/xml"), ("Content-Length", str(len(text)))]
            operation, change = requests.named("s3", environ, b"")
            self.log.write("s3", operation, change, environ, "403 Forbidden")
            start_response("403 Forbidden", head)
            return [text]
        if environ.get("CONTENT_TYPE") == "application/x-www-form-urlencoded":
            # What curl and urllib say of any body; moto would read it as a form and keep nothing.
            environ["CONTENT_TYPE"] = "binary/octet-stream"
        return passing(self.app, self.store, self.log, environ, start_response)


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
