"""Machines and views made short."""

from ipaddress import IPv4Address, IPv4Network
from typing import Any

from lab.cloud.model import Group, Machine, Rule, View

ANYONE = IPv4Network("0.0.0.0/0")


def machine(number: int = 1, **values: Any) -> Machine:
    given = {
        "id": f"i-{number:017x}",
        "name": f"f1-{number}",
        "state": "running",
        "image": "ami-1",
        "type": "t3.small",
        "zone": "eu-west-3a",
        "address": IPv4Address(f"10.20.1.{10 + number}"),
        "subnet": IPv4Network("10.20.1.0/24"),
        "vpc_networks": (IPv4Network("10.20.0.0/16"),),
        "mac": f"02:00:00:00:00:{number:02x}",
        "hostname": f"ip-10-20-1-{10 + number}.eu-west-3.compute.internal",
        "groups": ("sg-1",),
    }
    return Machine(**{**given, **values})


def rule(protocol: str = "tcp", low: int | None = None, high: int | None = None, **v: Any) -> Rule:
    return Rule(protocol, low, low if high is None else high, **v)


def view(machines: list[Machine], *groups: Group) -> View:
    return View(tuple(machines), groups)
