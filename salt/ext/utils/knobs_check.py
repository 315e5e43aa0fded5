"""
Is the pillar fit to build from? Everything wrong is said at once, each with its key and fix.

The schema (``platform.schema.json``, JSON Schema 2020-12) says what one knob may be; the
functions below say what knobs must be to each other. Its keyword ``fix`` is ours: the sentence
shown to whoever typed the wrong thing.
"""

import ipaddress
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import jsonschema

SCHEMA = Path(__file__).resolve().parents[2] / "pillar" / "platform.schema.json"

_FORMATS = jsonschema.FormatChecker(formats=())


@_FORMATS.checks("ipv4", raises=ValueError)
def _is_ipv4(value: object) -> bool:
    return not isinstance(value, str) or bool(ipaddress.IPv4Address(value))


@_FORMATS.checks("cidr", raises=ValueError)
def _is_cidr(value: object) -> bool:
    return not isinstance(value, str) or bool(ipaddress.IPv4Network(value))


def problems(pillar: dict[str, Any]) -> list[str]:
    """
    Return one line per wrong knob of ``pillar`` (the compiled pillar: ``platform`` and
    ``versions``), sorted by key; an empty list means that it can be built from.
    """
    platform = pillar.get("platform") or {}
    schema = json.loads(SCHEMA.read_text())
    validator = jsonschema.Draft202012Validator(schema, format_checker=_FORMATS)
    found = [line for error in validator.iter_errors(platform) for line in _lines(error)]
    if not found:
        # Only knobs that are well formed can be held against each other.
        for rule in (_network, _zones, _domain, _registry, _lock):
            found += rule(pillar)
    return sorted(set(found))


def _lines(error: jsonschema.ValidationError) -> Iterator[str]:
    where = ".".join(["platform", *(str(part) for part in error.absolute_path)])
    # In a schema of ours these are what they are said to be here; the library allows for more.
    schema: dict[str, Any] = cast(dict[str, Any], error.schema)
    instance: Any = error.instance
    asked: Any = error.validator_value
    if error.validator == "additionalProperties":
        known = schema.get("properties", {})
        for key in sorted(set(instance) - set(known)):
            yield f"{where}.{key}: no such knob; known here: {', '.join(sorted(known))}"
    elif error.validator == "required":
        for key in sorted(set(asked) - set(instance)):
            yield f"{where}.{key}: missing; see salt/pillar/platform.sls for its default"
    else:
        fix = schema.get("fix") or schema.get("description") or error.message
        yield f"{where}: {json.dumps(instance)} is not right; use {fix}"


def _network(pillar: dict[str, Any]) -> list[str]:
    platform = pillar["platform"]
    net, zones = platform["network"], platform["aws"]["zones"]
    key = "platform.network"
    vpc = ipaddress.IPv4Network(net["vpc_cidr"])
    master = ipaddress.IPv4Network(net["master_cidr"])
    workers = [ipaddress.IPv4Network(cidr) for cidr in net["worker_cidrs"]]
    subnets = {f"{key}.master_cidr": master}
    subnets |= {f"{key}.worker_cidrs.{index}": one for index, one in enumerate(workers)}
    found = []
    for where, one in {f"{key}.vpc_cidr": vpc, **subnets}.items():
        if not 16 <= one.prefixlen <= 28:
            found.append(f"{where}: {one} is no size that EC2 knows; use one from /16 to /28")
    if len(workers) != len(zones):
        found.append(
            f"{key}.worker_cidrs: {len(workers)} for {len(zones)} zones; "
            "use one network for each of platform.aws.zones"
        )
    for index, (where, one) in enumerate(subnets.items()):
        if not one.subnet_of(vpc):
            found.append(f"{where}: {one} is outside the VPC; use a part of {key}.vpc_cidr ({vpc})")
        for other, before in list(subnets.items())[:index]:
            if one.overlaps(before):
                found.append(f"{where}: {one} overlaps {other} ({before}); use another part of it")
    if found:
        # Addresses are counted only in a network that can be made.
        return found
    address = ipaddress.IPv4Address(net["master_ip"])
    if address not in master or address in _reserved(master):
        found.append(
            f"{key}.master_ip: {address} cannot be a machine's; use an address of "
            f"{master} other than its first four and its last"
        )
    count = platform["workers"]["count"]
    for index, one in enumerate(workers):
        # Worker N lies in zone (N-1) mod zones.
        wanted = len(range(index, count, len(zones)))
        room = one.num_addresses - len(_reserved(one))
        if wanted > room:
            found.append(
                f"platform.workers.count: {one} has room for {room} workers, not {wanted}; "
                f"use fewer workers, or larger {key}.worker_cidrs"
            )
    return found


def _reserved(subnet: ipaddress.IPv4Network) -> set[ipaddress.IPv4Address]:
    """AWS keeps the first four addresses of a subnet and the last one for itself."""
    return {subnet[0], subnet[1], subnet[2], subnet[3], subnet[-1]}


def _zones(pillar: dict[str, Any]) -> list[str]:
    aws = pillar["platform"]["aws"]
    region = aws["region"]
    return [
        f"platform.aws.zones.{index}: {zone} is not in {region}; use a zone such as {region}a"
        for index, zone in enumerate(aws["zones"])
        if zone[:-1] != region
    ]


def _domain(pillar: dict[str, Any]) -> list[str]:
    domain, zone = pillar["platform"]["domain"], pillar["platform"]["dns"]["zone"]
    if zone is None or domain == zone or domain.endswith("." + zone):
        return []
    return [
        f"platform.domain: {domain} is not in the zone {zone}; use a name that ends in .{zone}, "
        "or another platform.dns.zone"
    ]


def _registry(pillar: dict[str, Any]) -> list[str]:
    registry = pillar["platform"]["registry"]
    return [
        f"platform.registry.{key}: missing; use the repository of your app image, "
        "such as ghcr.io/me/f1vote"
        for key in ("push", "pull")
        if registry[key] is None
    ]


def _lock(pillar: dict[str, Any]) -> list[str]:
    versions = pillar.get("versions") or {}
    wanted: dict[str, Callable[[], Any]] = {
        "versions.k3s.version": lambda: versions["k3s"]["version"],
        "versions.k3s.amd64.sha256": lambda: versions["k3s"]["amd64"]["sha256"],
        "versions.images.traefik.digest": lambda: versions["images"]["traefik"]["digest"],
        "versions.images.redis.digest": lambda: versions["images"]["redis"]["digest"],
        "versions.images.python.digest": lambda: versions["images"]["python"]["digest"],
    }
    found = []
    for key, read in wanted.items():
        try:
            value = read()
        except (KeyError, TypeError):
            value = None
        if not value:
            found.append(f"{key}: missing in the lock; run `make lock`")
    return found
