"""What was asked of the API: one JSON line a request, without parameters.

``{"time", "service", "operation", "source", "address", "mutating", "status"}``: seconds since
1970; names as in the API's reference (``ec2``, ``RunInstances``); ``source`` is ``operator``,
``machine`` or ``outside``; whether it could change something; the HTTP status.
"""

import functools
import json
import re
import threading
import time
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import botocore.session

from lab.cloud.config import HOST_ADDRESS, PUBLIC, ROUTER_ADDRESS

FILE = Path("log") / "requests.jsonl"  # in the lab's home
MAX_BYTES = 8 << 20  # a longer file is put aside when the lab starts
_READS = ("Describe", "Get", "List", "Search", "Head")
_QUERY = "application/x-www-form-urlencoded"

Environ = dict[str, Any]


@dataclass(frozen=True)
class Operation:
    """A REST operation: what a request must have to be it."""

    name: str
    method: str
    path: re.Pattern[str]
    query: frozenset[str]
    headers: frozenset[str]


@functools.cache
def _operations(service: str) -> list[Operation]:
    """The REST operations of botocore's model of a service, those that ask for most first."""
    model = botocore.session.get_session().get_service_model(service)
    found = []
    for name in model.operation_names:
        operation = model.operation_model(name)
        path, _, query = operation.http["requestUri"].partition("?")
        pattern = re.sub(r"\\{\w+\\\+\\}", ".+", re.escape(path.rstrip("/")))
        pattern = re.sub(r"\\{\w+\\}", "[^/]+", pattern)
        shape = operation.input_shape
        wanted: dict[str, set[str]] = {"querystring": set(), "header": set()}
        members = shape.members if shape else {}
        for member in shape.required_members if shape else ():
            place = members[member].serialization
            if place.get("location") in wanted:
                wanted[place["location"]].add(place["name"].lower())
        found.append(
            Operation(
                name,
                operation.http["method"],
                re.compile(f"{pattern}/?"),
                frozenset(q.lower() for q in query.split("&") if q) | wanted["querystring"],
                frozenset(wanted["header"]),
            )
        )
    return sorted(found, key=lambda o: -len(o.query) - len(o.headers))


def _rest(service: str, environ: Environ) -> str:
    """The operation of a REST request; ``<method>`` if the model knows none like it."""
    query = {
        text
        for key, values in parse_qs(environ.get("QUERY_STRING", ""), keep_blank_values=True).items()
        for text in (key.lower(), *(f"{key}={value}".lower() for value in values))
    }
    for operation in _operations(service):
        if (
            operation.method == environ["REQUEST_METHOD"]
            and operation.path.fullmatch(environ["PATH_INFO"])
            and operation.query <= query
            and all(f"HTTP_{h.upper().replace('-', '_')}" in environ for h in operation.headers)
        ):
            return operation.name
    return str(environ["REQUEST_METHOD"])


def named(service: str, environ: Environ, body: bytes) -> tuple[str, bool]:
    """Name a request's operation and tell whether it may change something.

    Args:
        service: as botocore names it.
        environ: the request as WSGI has it.
        body: its body if that holds the parameters (EC2, STS), else empty.
    """
    if environ.get("CONTENT_TYPE", "").startswith(_QUERY) and service != "s3":
        given = parse_qs(body.decode("latin-1"))
        action = given.get("Action", [""])[0]
        dry = given.get("DryRun", ["false"])[0].lower() == "true"
        return action, not dry and not action.startswith(_READS)
    return _rest(service, environ), environ["REQUEST_METHOD"] not in ("GET", "HEAD", "OPTIONS")


def source(address: str) -> str:
    """Who calls from an address: the operator's machine, one of the cloud's, or anybody."""
    caller = IPv4Address(address)
    if caller.is_loopback or caller == HOST_ADDRESS:
        return "operator"
    return "machine" if caller in PUBLIC or caller == ROUTER_ADDRESS else "outside"


class Log:
    """The file, appended to by every thread.

    Args:
        file: it stays over a restart; a long one is put aside as ``requests.1.jsonl``.
    """

    def __init__(self, file: Path) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        if file.exists() and file.stat().st_size > MAX_BYTES:
            file.replace(file.with_suffix(".1.jsonl"))
        self._out = file.open("a", buffering=1)
        self._lock = threading.Lock()

    def write(
        self, service: str, operation: str, mutating: bool, environ: Environ, status: str
    ) -> None:
        """Note one request; ``status`` is the line that was answered (``200 OK``)."""
        address = environ.get("REMOTE_ADDR", "127.0.0.1")
        line = {
            "time": round(time.time(), 6),
            "service": service,
            "operation": operation,
            "source": source(address),
            "address": address,
            "mutating": mutating,
            "status": int(status.split()[0]),
        }
        with self._lock:
            self._out.write(json.dumps(line) + "\n")


def read(home: Path, since: float = 0.0) -> list[dict[str, Any]]:
    """The requests noted after ``since`` (seconds since 1970), oldest first."""
    file = home / FILE
    lines = file.read_text().splitlines() if file.exists() else []
    return [line for line in map(json.loads, lines) if line["time"] > since]
