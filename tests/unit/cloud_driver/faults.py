"""
Faults of a cloud API, between boto3 and moto: throttled, failed, obeyed but not answered, slow,
not yet visible; and a client that dies between two requests.

``serve()`` answers on a port of its own with what is in moto, like any other server of the process.
Only requests of clients that ``label`` marks are met by faults: the operator's, not the machines'.
"""

import re
import socket
import threading
import time
import xml.etree.ElementTree as ET
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import parse_qsl

import boto3
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server

HEADER = "X-F1-Operation"
READS = ("Describe", "Get", "Head", "List")
CHANGING = rf"\w+\.(?!{'|'.join(READS)})\w+"

_ERROR = (
    "<Response><Errors><Error><Code>{code}</Code><Message>{text}</Message></Error></Errors>"
    "<RequestID>1</RequestID></Response>"
)
# S3 and Route 53 have no list of errors around theirs.
_REST_ERROR = {
    "s3": "<Error><Code>{code}</Code><Message>{text}</Message></Error>",
    "route53": "<ErrorResponse><Error><Type>Sender</Type><Code>{code}</Code>"
    "<Message>{text}</Message></Error></ErrorResponse>",
}
# Request that lists things → the element that holds a thing's own id, and what a wrong id gets.
_LISTS = {
    "DescribeAddresses": ("allocationId", "InvalidAllocationID.NotFound"),
    "DescribeInstances": ("instanceId", "InvalidInstanceID.NotFound"),
    "DescribeInternetGateways": ("internetGatewayId", "InvalidInternetGatewayID.NotFound"),
    "DescribeKeyPairs": ("keyPairId", "InvalidKeyPair.NotFound"),
    "DescribeNatGateways": ("natGatewayId", "NatGatewayNotFound"),
    "DescribeRouteTables": ("routeTableId", "InvalidRouteTableID.NotFound"),
    "DescribeSecurityGroups": ("groupId", "InvalidGroup.NotFound"),
    "DescribeSubnets": ("subnetId", "InvalidSubnetID.NotFound"),
    "DescribeVpcEndpoints": ("vpcEndpointId", "InvalidVpcEndpointId.NotFound"),
    "DescribeVpcs": ("vpcId", "InvalidVpcID.NotFound"),
}
_OWN = {own for own, _ in _LISTS.values()}


class Crash(BaseException):
    """The client's process is gone: nothing of it runs after this, as far as Python allows."""


class Rule:
    """
    What happens to requests ``operation``, a pattern such as ``ec2\\.CreateVpc``: to the next
    ``times`` of them, or, if ``attempts`` is given, to the first attempts of each.
    """

    def __init__(self, operation: str, times: int, attempts: int, **what: Any) -> None:
        self.operation, self.times, self.attempts, self.what = operation, times, attempts, what

    def meets(self, operation: str, attempt: int) -> bool:
        if not re.fullmatch(self.operation, operation):
            return False
        if self.attempts:
            return attempt <= self.attempts
        self.times -= 1
        return self.times >= 0


class Faults:
    """The WSGI application: moto, and what goes wrong on the way to it and back."""

    def __init__(self) -> None:
        self._app = DomainDispatcherApplication(create_backend_app)
        self._lock = threading.Lock()
        self._rules: list[Rule] = []
        self._hidden: dict[str, int] = {}
        self._untagged: dict[str, int] = {}
        self._hides = self._hides_tags = self._crash_in = 0
        self.seen: list[str] = []  # every labelled request that arrived
        self.met: list[str] = []  # those that met a fault
        self.released = threading.Event()  # lets slow answers go

    # What a test says.

    def clear(self) -> None:
        with self._lock:
            self._rules.clear()
            self._hidden.clear()
            self._untagged.clear()
            self._hides = self._hides_tags = self._crash_in = 0
            self.seen.clear()
            self.met.clear()

    def _rule(self, operation: str, times: int, attempts: int = 0, **what: Any) -> None:
        with self._lock:
            self._rules.append(Rule(operation, times, attempts, **what))

    def refuse(
        self,
        operation: str,
        code: str = "RequestLimitExceeded",
        status: int = 503,
        times: int = 1,
        attempts: int = 0,
    ) -> None:
        """Answer with an error; nothing is done."""
        self._rule(operation, times, attempts, code=code, status=status)

    def bare(
        self,
        operation: str,
        status: int = 502,
        times: int = 1,
        attempts: int = 0,
        body: str = "<html>Bad Gateway</html>",
    ) -> None:
        """Answer as a proxy does that has lost the API: a status and no code."""
        self._rule(operation, times, attempts, bare=status, body=body)

    def lose(self, operation: str, times: int = 1, attempts: int = 0) -> None:
        """Do it, and cut the line instead of an answer."""
        self._rule(operation, times, attempts, lose=True)

    def crash(self, nth: int) -> None:
        """Let the client die right after its ``nth`` changing request from now was answered."""
        self._crash_in = nth

    def hang(self, operation: str, times: int = 1) -> None:
        """Do it, and answer only once the test is over."""
        self._rule(operation, times, hang=True)

    def delay(self, operation: str, seconds: float, times: int = 1) -> None:
        """Answer late."""
        self._rule(operation, times, delay=seconds)

    def hide(self, reads: int) -> None:
        """From now on, what is made is missing in the first ``reads`` lists it should be in."""
        self._hides = reads

    def hide_tags(self, reads: int) -> None:
        """From now on, what is made seems to have no tags in its first ``reads`` lists."""
        self._hides_tags = reads

    # What the server does.

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        operation = environ.get("HTTP_" + HEADER.upper().replace("-", "_"), "")
        if not operation:
            return self._app(environ, start_response)
        attempt = re.search(r"attempt=(\d+)", environ.get("HTTP_AMZ_SDK_REQUEST", ""))
        what = self._next(operation, int(attempt[1]) if attempt else 1)
        if what.get("bare"):
            return _answer(start_response, what["bare"], what["body"])
        if "code" in what:
            template = _REST_ERROR.get(operation.partition(".")[0], _ERROR)
            body = template.format(code=what["code"], text="as the test says")
            return _answer(start_response, what["status"], body)
        if what.get("delay"):
            time.sleep(what["delay"])
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        environ["wsgi.input"] = _Again(body)
        status, headers, answer = self._real(environ)
        if what.get("hang"):
            self.released.wait(30)
        if what.get("hang") or what.get("lose"):
            environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
            raise ConnectionResetError("the test cuts the line")
        if operation.startswith("ec2."):
            with self._lock:
                status, answer = self._consistent(operation[4:], body, status, answer)
        headers = [(k, v) for k, v in headers if k.lower() != "content-length"]
        start_response(status, [*headers, ("Content-Length", str(len(answer)))])
        return [answer]

    def answered(self, operation: str) -> None:
        """Hear that the client has its answer; it dies here if it shall."""
        if re.fullmatch(CHANGING, operation):
            self._crash_in -= 1
            if self._crash_in == 0:
                raise Crash(operation)

    def _next(self, operation: str, attempt: int) -> dict[str, Any]:
        with self._lock:
            self.seen.append(operation)
            for rule in self._rules:
                if rule.meets(operation, attempt):
                    self.met.append(operation)
                    return rule.what
        return {}

    def _real(self, environ: dict[str, Any]) -> tuple[str, list[tuple[str, str]], bytes]:
        told: list[Any] = []
        parts = self._app(
            environ, lambda status, headers, info=None: told.extend((status, headers))
        )
        answer = b"".join(parts)
        return told[0], told[1], answer

    def _consistent(
        self, operation: str, body: bytes, status: str, answer: bytes
    ) -> tuple[str, bytes]:
        """Take out of ``answer`` what a reader does not see yet; remember what was made."""
        if not status.startswith("200"):
            return status, answer
        if not operation.startswith(READS):
            if operation.startswith(("Create", "Run", "Allocate", "Import")):
                for ident in _ids(answer):
                    self._hidden.setdefault(ident, self._hides)
                    self._untagged.setdefault(ident, self._hides_tags)
            return status, answer
        if operation not in _LISTS:
            return status, answer
        own, not_found = _LISTS[operation]
        asked = dict(parse_qsl(body.decode()))
        by_tag = any(k.startswith("Filter.") and v.startswith("tag:") for k, v in asked.items())
        tree = ET.fromstring(answer)
        space = tree.tag.partition("}")[0] + "}" if tree.tag.startswith("{") else ""
        ET.register_namespace("", space.strip("{}"))
        for parent in list(tree.iter()):
            for item in list(parent):
                ident = item.findtext(f"{space}{own}") or ""
                if item.tag != f"{space}item" or not ident or parent.tag == f"{space}groupSet":
                    continue
                gone = self._left(self._hidden, ident)
                bare = not gone and self._left(self._untagged, ident)
                if gone or (bare and by_tag):
                    self.met.append(f"{operation} {ident}")
                    if ident in asked.values():
                        text = _ERROR.format(code=not_found, text=f"{ident} does not exist")
                        return "400 BAD REQUEST", text.encode()
                    parent.remove(item)
                elif bare:
                    self.met.append(f"{operation} {ident}")
                    for tags in item.findall(f"{space}tagSet"):
                        item.remove(tags)
        return status, ET.tostring(tree)

    @staticmethod
    def _left(counts: dict[str, int], ident: str) -> bool:
        left = counts.get(ident, 0)
        counts[ident] = max(0, left - 1)
        return left > 0


class _Again:
    """A request's body for a second reader."""

    def __init__(self, body: bytes) -> None:
        self._rest = body

    def read(self, size: int = -1) -> bytes:
        size = len(self._rest) if size is None or size < 0 else size
        given, self._rest = self._rest[:size], self._rest[size:]
        return given

    def readline(self, size: int = -1) -> bytes:
        line, newline, _ = self._rest.partition(b"\n")
        return self.read(len(line + newline))

    def __iter__(self) -> Iterator[bytes]:
        while self._rest:
            yield self.readline()


def _ids(answer: bytes) -> set[str]:
    """Return the ids of what an answer to a making request is about: the first of each kind."""
    tree = ET.fromstring(answer)
    found: dict[str, str] = {}
    for item in tree.iter():
        tag = item.tag.rpartition("}")[2]
        if tag in _OWN and item.text:
            found.setdefault(tag, item.text)
    return set(found.values())


def _answer(start_response: Any, status: int, body: str) -> list[bytes]:
    data = body.encode()
    start_response(
        f"{status} AS THE TEST SAYS",
        [("Content-Type", "text/xml"), ("Content-Length", str(len(data)))],
    )
    return [data]


class _Quiet(WSGIRequestHandler):
    protocol_version = "HTTP/1.1"

    def log(self, *_: Any, **__: Any) -> None:
        """Requests are in ``Faults.seen``."""


@contextmanager
def serve() -> Iterator[tuple[str, Faults]]:
    """Give a URL of the API, and what can go wrong with it."""
    faults = Faults()
    server = make_server("127.0.0.1", 0, faults, threaded=True, request_handler=_Quiet)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", faults
    finally:
        faults.released.set()
        server.shutdown()
        thread.join(10)
        server.server_close()


def label(session: boto3.Session, faults: Faults) -> None:
    """Mark each request of the session's clients made from now on, so that faults meet it."""

    def mark(params: dict[str, Any], model: Any, **_: Any) -> None:
        params["headers"][HEADER] = f"{model.service_model.service_name}.{model.name}"

    def heard(http_response: Any, model: Any, **_: Any) -> None:
        if http_response.status_code < 300:
            faults.answered(f"{model.service_model.service_name}.{model.name}")

    session.events.register("before-call.*.*", mark)
    session.events.register("after-call.*.*", heard)
