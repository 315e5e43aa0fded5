"""Which way a machine's packets go: the VPC's route tables as the router's policy rules.

Every machine's address is in one table, asked first: private addresses of a VPC reach each other
whatever the subnet. Each machine also has a table of its own that leads everything to it (both
made, and unmade, with its cable: `network.plug`). What is here are the rules that choose:

    100  all                      the machines' addresses
    200  from a machine, to S3    the uplink, if its subnet has S3's gateway endpoint
    300  from a machine, to VPC   nowhere: nobody there has that address
    400  from a machine           the table of the machine that it goes through
    500  from a machine           nowhere
    main from others              the uplink: what goes by an internet or NAT gateway

`rules` is a pure function of plain data; `apply` makes the kernel have exactly these.
"""

from dataclasses import dataclass
from ipaddress import IPv4Network
from typing import Any

from pyroute2 import NetNS

from lab.cloud.config import HOST_ADDRESS
from lab.cloud.model import Igw, Machine, Nat, Through, View
from lab.cloud.names import ROUTER

MACHINES = 100  # the table of all machines' addresses
_MAIN = 254
_TCP = 6
_IPV4 = 2  # AF_INET
_BLACKHOLE = 6  # FR_ACT_BLACKHOLE
_FIRST, _S3, _VPC, _THROUGH, _NOWHERE = 100, 200, 300, 400, 500


@dataclass(frozen=True, order=True)
class Rule:
    """A policy rule; ``table`` None = what matches is dropped."""

    priority: int
    link: str = ""
    to: str = ""
    port: int = 0
    table: int | None = None

    def arguments(self) -> dict[str, Any]:
        """The rule as pyroute2 takes it."""
        made: dict[str, Any] = {"priority": self.priority}
        if self.link:
            made["iifname"] = self.link
        if self.to:
            network = IPv4Network(self.to)
            made |= {"dst": str(network.network_address), "dst_len": network.prefixlen}
        if self.port:
            made |= {"ip_proto": _TCP, "dport_range": f"{self.port}:{self.port}"}
        return made | ({"table": self.table} if self.table else {"action": "blackhole"})


def table(instance_id: str) -> int:
    """The number of the table that leads everything to a machine."""
    return (1 << 28) + int(instance_id[-7:], 16)


def _through(machine: Machine, machines: dict[str, Machine]) -> Machine | None:
    """The machine that it goes through, if that forwards at all: one that checks whether packets
    are its own does not take others'."""
    if not isinstance(machine.way, Through):
        return None
    target = machines.get(machine.way.machine)
    usable = target is not None and not target.source_check and target is not machine
    return target if usable else None


def rules(view: View, s3_port: int) -> frozenset[Rule]:
    """All rules of the router.

    Args:
        view: what the API says.
        s3_port: the TCP port at which the machines reach S3.
    """
    machines = {m.id: m for m in view.machines if m.running}
    made = {Rule(_FIRST, table=MACHINES)}
    for machine in machines.values():
        if isinstance(machine.way, Igw | Nat):
            continue
        link = machine.link
        if machine.s3:
            made.add(Rule(_S3, link, f"{HOST_ADDRESS}/32", s3_port, _MAIN))
        made |= {Rule(_VPC, link, str(network)) for network in machine.vpc_networks}
        target = _through(machine, machines)
        if target:
            made.add(Rule(_THROUGH, link, table=table(target.id)))
        made.add(Rule(_NOWHERE, link))
    return frozenset(made)


def _read(message: Any) -> Rule:
    to = message.get_attr("FRA_DST")
    ports = message.get_attr("FRA_DPORT_RANGE")
    return Rule(
        priority=message.get_attr("FRA_PRIORITY") or 0,
        link=message.get_attr("FRA_IIFNAME") or "",
        to=f"{to}/{message['dst_len']}" if to else "",
        port=int(str(ports).split(":")[0]) if ports else 0,
        table=None if message["action"] == _BLACKHOLE else message.get_attr("FRA_TABLE"),
    )


def apply(wanted: frozenset[Rule]) -> None:
    """Make the router have these rules; what is there already stays untouched.

    Raises:
        OSError, pyroute2 NetlinkError: the kernel refused one.
    """
    with NetNS(ROUTER) as router:
        found = {_read(message) for message in router.get_rules(family=_IPV4)}
        present = {rule for rule in found if _FIRST <= rule.priority <= _NOWHERE}
        for rule in sorted(wanted - present):  # first those to add: never less than is allowed
            router.rule("add", **rule.arguments())
        for rule in sorted(present - wanted):
            router.rule("del", **rule.arguments())
