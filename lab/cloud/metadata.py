"""The instance metadata service: what a machine may ask about itself at 169.254.169.254.

Paths and rules as Amazon documents them (EC2 User Guide, "Instance metadata and user data"):
version 2 wants a token got by PUT with a lifetime; version 1 is refused where the instance
says so; the answer that carries the token travels no further than the instance's hop limit.
"""

import json
import secrets
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import IPv4Address
from typing import Any

from lab.cloud.config import ACCOUNT
from lab.cloud.model import Machine

MAX_TTL = 21600  # seconds a token may live
TOKEN = "X-aws-ec2-metadata-token"  # noqa: S105  the header's name
TOKEN_TTL = "X-aws-ec2-metadata-token-ttl-seconds"  # noqa: S105

Tree = dict[str, Any]


@dataclass(frozen=True)
class Answer:
    """An HTTP answer; ``hops`` limits how far it travels."""

    status: int
    body: bytes = b""
    kind: str = "text/plain"
    headers: dict[str, str] = field(default_factory=dict)
    hops: int | None = None


def tree(machine: Machine) -> Tree:
    """Everything under ``meta-data/``: folders are dicts, leaves are text."""
    subnet = str(machine.subnet)
    nic = {
        "device-number": "0",
        "local-hostname": machine.hostname,
        "local-ipv4s": str(machine.address),
        "mac": machine.mac,
        "owner-id": ACCOUNT,
        "security-group-ids": "\n".join(machine.groups),
        "subnet-ipv4-cidr-block": subnet,
        "vpc-ipv4-cidr-block": str(machine.vpc_networks[0]),
        "vpc-ipv4-cidr-blocks": "\n".join(map(str, machine.vpc_networks)),
    }
    data: Tree = {
        "ami-id": machine.image,
        "ami-launch-index": "0",
        "hostname": machine.hostname,
        "instance-action": "none",
        "instance-id": machine.id,
        "instance-life-cycle": "on-demand",
        "instance-type": machine.type,
        "local-hostname": machine.hostname,
        "local-ipv4": str(machine.address),
        "mac": machine.mac,
        "network": {"interfaces": {"macs": {machine.mac: nic}}},
        "placement": {"availability-zone": machine.zone, "region": machine.zone[:-1]},
        "reservation-id": "r-" + machine.id.removeprefix("i-"),
        "services": {"domain": "amazonaws.com", "partition": "aws"},
    }
    if machine.public:
        data["public-ipv4"] = nic["public-ipv4s"] = str(machine.public)
        data["public-hostname"] = nic["public-hostname"] = machine.public_hostname
    if machine.public_key:
        data["public-keys"] = {"0": {"openssh-key": machine.public_key}}
    if machine.tags_in_metadata is not None:
        data["tags"] = {"instance": dict(machine.tags_in_metadata)}
    return data


def identity(machine: Machine) -> str:
    """The instance identity document (unsigned here)."""
    document = {
        "accountId": ACCOUNT,
        "architecture": "x86_64",
        "availabilityZone": machine.zone,
        "imageId": machine.image,
        "instanceId": machine.id,
        "instanceType": machine.type,
        "pendingTime": machine.launched,
        "privateIp": str(machine.address),
        "region": machine.zone[:-1],
        "version": "2017-09-30",
    }
    return json.dumps(document, indent=1)


def _listing(folder: Tree, path: list[str], machine: Machine) -> str:
    if path == ["public-keys"]:
        return f"0={machine.key_name}"
    return "\n".join(f"{k}/" if isinstance(v, dict) else k for k, v in folder.items())


class Service:
    """Answers requests; knows machines by their source address.

    Args:
        find: gives the machine at an address.
        clock: monotonic seconds (for tests).
    """

    def __init__(
        self,
        find: Callable[[IPv4Address], Machine | None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.find = find
        self.clock = clock
        self.tokens: dict[str, tuple[str, float]] = {}

    def answer(self, method: str, path: str, headers: dict[str, str], source: str) -> Answer:
        """The answer to one request; header names in any case."""
        machine = self.find(IPv4Address(source))
        if machine is None or not machine.metadata_enabled:
            return Answer(403)
        given = {k.lower(): v for k, v in headers.items()}
        if method == "PUT":
            return self._token(machine, path, given)
        if method not in ("GET", "HEAD"):
            return Answer(405)
        token = given.get(TOKEN.lower())
        if token is None and machine.tokens_required:
            return Answer(401)
        if token is not None and not self._valid(token, machine):
            return Answer(401)
        return self._get(machine, [part for part in path.split("?")[0].split("/") if part])

    def _token(self, machine: Machine, path: str, headers: dict[str, str]) -> Answer:
        if path.rstrip("/") != "/latest/api/token":
            return Answer(404)
        if "x-forwarded-for" in headers:  # an open proxy on the machine: not itself
            return Answer(403)
        try:
            ttl = int(headers[TOKEN_TTL.lower()])
        except (KeyError, ValueError):
            return Answer(400)
        if not 1 <= ttl <= MAX_TTL:
            return Answer(400)
        now = self.clock()
        self.tokens = {t: v for t, v in self.tokens.items() if v[1] > now}
        token = secrets.token_urlsafe(42)
        self.tokens[token] = (machine.id, now + ttl)
        return Answer(200, token.encode(), headers={TOKEN_TTL: str(ttl)}, hops=machine.hop_limit)

    def _valid(self, token: str, machine: Machine) -> bool:
        owner, expires = self.tokens.get(token, ("", 0.0))
        return owner == machine.id and self.clock() < expires

    def _get(self, machine: Machine, path: list[str]) -> Answer:
        if not path:
            return Answer(200, b"1.0\n2009-04-04\n2021-03-23\nlatest")
        rest = path[1:]
        if not rest:
            return Answer(200, b"dynamic\nmeta-data\nuser-data")
        if rest == ["user-data"]:
            if machine.user_data is None:
                return Answer(404)
            return Answer(200, machine.user_data, "application/octet-stream")
        if rest == ["dynamic"]:
            return Answer(200, b"instance-identity/")
        if rest == ["dynamic", "instance-identity"]:
            return Answer(200, b"document")
        if rest == ["dynamic", "instance-identity", "document"]:
            return Answer(200, identity(machine).encode(), "application/json")
        if rest[0] != "meta-data":
            return Answer(404)
        node: Any = tree(machine)
        for part in rest[1:]:
            if not isinstance(node, dict) or part not in node:
                return Answer(404)
            node = node[part]
        text = _listing(node, rest[1:], machine) if isinstance(node, dict) else node
        return Answer(200, text.encode())


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "EC2ws"
    sys_version = ""
    service: Service

    def _respond(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        if length:
            self.rfile.read(min(length, 65536))
        source = self.client_address[0]
        answer = self.service.answer(self.command, self.path, dict(self.headers), source)
        if answer.hops:
            self.connection.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, answer.hops)
        self.send_response(answer.status)
        self.send_header("Content-Type", answer.kind)
        self.send_header("Content-Length", str(len(answer.body)))
        for name, value in answer.headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer.body)

    do_GET = do_HEAD = do_PUT = do_POST = _respond

    def log_message(self, format: str, *args: object) -> None:
        """Tokens travel in headers and user-data in bodies: neither is logged, nor is this."""


class Server(ThreadingHTTPServer):
    """HTTP on a socket that listens already (in another network namespace).

    Args:
        listening: the socket.
        service: what answers.
    """

    daemon_threads = True

    def __init__(self, listening: socket.socket, service: Service) -> None:
        handler = type("Handler", (_Handler,), {"service": service})
        super().__init__(("", 0), handler, bind_and_activate=False)
        self.socket.close()
        self.socket = listening
