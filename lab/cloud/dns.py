"""Names: the API's Route 53 zones answered for the world, and for the machines also their
own private names and whatever the host's resolvers know (as a VPC's resolver does)."""

import socket
import threading
from collections.abc import Callable
from pathlib import Path

from dnslib import AAAA, CNAME, MX, NS, QTYPE, RCODE, RR, TXT, A, DNSError, DNSRecord

from lab.cloud.model import View
from lab.cloud.moto_cloud import Records, Zones

FORWARD_TIMEOUT = 2.0  # seconds a host's resolver has
_MAKERS: dict[str, Callable[[str], object]] = {
    "A": A,
    "AAAA": AAAA,
    "CNAME": CNAME,
    "NS": NS,
    "TXT": lambda text: TXT(text.strip('"')),
    "MX": lambda text: MX(text.split()[1], int(text.split()[0])),
}


def private_zone(view: View) -> Zones:
    """The names a VPC's resolver gives its machines."""
    names: Records = {}
    for machine in view.machines:
        for name in (machine.hostname, machine.public_hostname):
            if name:
                names[(f"{name}.", "A")] = (60, (str(machine.address),))
    return {"internal.": names}


def host_resolvers() -> list[str]:
    """The IPv4 resolvers of the host's resolv.conf."""
    lines = Path("/etc/resolv.conf").read_text().splitlines()
    words = [line.split() for line in lines]
    return [w[1] for w in words if len(w) > 1 and w[0] == "nameserver" and "." in w[1]]


def answer(query: DNSRecord, zones: Zones) -> DNSRecord | None:
    """Answer from the zones; None when none of them is responsible for the name.

    Follows a CNAME within the zones. A name that a zone holds with other types gets an
    empty answer, a name it does not hold gets NXDOMAIN (RFC 1034, section 4.3.2).
    """
    name = str(query.q.qname).lower()
    kind = QTYPE.get(query.q.qtype)
    reply = query.reply(aa=1, ra=1)
    responsible = False
    for _ in range(8):
        in_zone = [z for z in zones if name == z or name.endswith("." + z)]
        held = [zones[z] for z in sorted(zones, key=len, reverse=True)]
        records = {t: v for z in held for (n, t), v in z.items() if n == name}
        responsible = responsible or bool(in_zone or records)
        if kind in records or "CNAME" not in records:
            break
        ttl, values = records["CNAME"]
        reply.add_answer(RR(name, QTYPE.CNAME, ttl=ttl, rdata=CNAME(values[0])))
        name = values[0].lower().rstrip(".") + "."
    if not responsible:
        return None
    ttl, values = records.get(kind, (0, ()))
    maker = _MAKERS.get(kind)
    for value in values:
        if maker is None:
            break
        reply.add_answer(RR(name, query.q.qtype, ttl=ttl, rdata=maker(value)))
    if not records:
        reply.header.rcode = RCODE.NXDOMAIN
    return reply


class Resolver:
    """Turns the bytes of a query into the bytes of an answer.

    Args:
        zones: gives the zones as they are now.
        forward: resolvers asked for every other name; none = such a name does not exist.
    """

    def __init__(self, zones: Callable[[], Zones], forward: list[str]) -> None:
        self.zones = zones
        self.forward = forward

    def resolve(self, data: bytes) -> bytes | None:
        """The answer's bytes; None for what is no query."""
        try:
            query = DNSRecord.parse(data)
        except DNSError:
            return None
        if query.header.qr or not query.questions:
            return None
        reply = answer(query, self.zones())
        if reply is not None:
            return bytes(reply.pack())
        for server in self.forward:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as ask:
                ask.settimeout(FORWARD_TIMEOUT)
                try:
                    ask.sendto(data, (server, 53))
                    return ask.recv(65535)
                except OSError:
                    continue
        reply = query.reply(ra=1)
        reply.header.rcode = RCODE.SERVFAIL if self.forward else RCODE.NXDOMAIN
        return bytes(reply.pack())


def _datagrams(listening: socket.socket, resolver: Resolver) -> None:
    def one(data: bytes, source: tuple[str, int]) -> None:
        reply = resolver.resolve(data)
        if reply:
            listening.sendto(reply, source)

    while True:
        try:
            data, source = listening.recvfrom(4096)
        except OSError:
            return
        threading.Thread(target=one, args=(data, source), daemon=True).start()


def _streams(listening: socket.socket, resolver: Resolver) -> None:
    def one(stream: socket.socket) -> None:
        with stream, stream.makefile("rwb") as file:
            stream.settimeout(5)
            while head := file.read(2):
                reply = resolver.resolve(file.read(int.from_bytes(head, "big")))
                if reply is None:
                    return
                file.write(len(reply).to_bytes(2, "big") + reply)
                file.flush()

    while True:
        try:
            stream, _ = listening.accept()
        except OSError:
            return
        threading.Thread(target=one, args=(stream,), daemon=True).start()


def serve(datagrams: socket.socket, streams: socket.socket, resolver: Resolver) -> None:
    """Answer on bound sockets until they are closed."""
    for target, listening in ((_datagrams, datagrams), (_streams, streams)):
        threading.Thread(target=target, args=(listening, resolver), daemon=True).start()
