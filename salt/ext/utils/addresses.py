"""
Elastic addresses: public ones that stay when machines change.

An address is ours by the tag ``f1:platform``, or because what is ours has it. The platform's
own (the master's and the NAT gateway's) belong to ``orch.network`` and are only shown here.
Requests and answers: EC2 API reference.
"""

from typing import Any

import aws
import ec2
import leftovers
import machine
import prices
import vpc

ASSOCIATED_SECONDS = 60


def _shown(platform: dict[str, Any], item: dict[str, Any]) -> dict[str, Any]:
    return {
        "address": item["PublicIp"],
        "id": item["AllocationId"],
        "name": ec2.tag(item, "Name"),
        "machine": item.get("InstanceId") or None,
        "interface": item.get("NetworkInterfaceId") or None,
        "platforms_own": leftovers.is_platforms(platform, item),
        "usd_month": prices.shown(prices.address(platform)),
    }


def addresses(platform: dict[str, Any]) -> dict[str, Any]:
    """Return our elastic addresses by address."""
    return {item["PublicIp"]: _shown(platform, item) for item in leftovers.addresses(platform)}


def _find(platform: dict[str, Any], wanted: str) -> dict[str, Any] | None:
    for item in leftovers.addresses(platform):
        if wanted in (item["PublicIp"], item["AllocationId"]):
            return item
    return None


def _changeable(platform: dict[str, Any], wanted: str) -> dict[str, Any]:
    """Return the address if it is ours to give and take by hand, or raise CloudError."""
    item = _find(platform, wanted)
    if item is None:
        have = ", ".join(addresses(platform)) or "none"
        raise aws.CloudError(f"{wanted} is no address of {platform['name']}; there are: {have}")
    if leftovers.is_platforms(platform, item):
        raise aws.CloudError(
            f"{wanted} is the platform's own ({ec2.tag(item, 'Name') or 'of the master'}): voters "
            "or workers depend on it; `make up` puts it where it belongs, `make down` gives it back"
        )
    return item


def _holder(address: dict[str, Any]) -> str | None:
    """Return what has the address: a machine, or an interface that is none's."""
    return address.get("InstanceId") or address.get("NetworkInterfaceId")


def _used(wanted: str, address: dict[str, Any], holder: str) -> aws.CloudError:
    return aws.CloudError(
        f"{wanted} is used by {holder}; take it from there first: "
        f"salt-cloud -f disassociate_address aws address={address['PublicIp']}"
    )


def allocate(platform: dict[str, Any], label: str) -> dict[str, Any]:
    """
    Make sure that there is the address ``<platform>-<label>``.

    One with the name of a machine goes when ``destroy`` removes that machine.
    """
    name = f"{platform['name']}-{label}"
    if label in ("master", "nat"):
        raise aws.CloudError(f"{name} is the platform's own: `make up` makes it")
    found = vpc.address(platform, name)
    if found:
        return {**_shown(platform, found), "changed": False}
    answer = aws.call(
        platform,
        "ec2",
        "allocate_address",
        Domain="vpc",
        TagSpecifications=[{"ResourceType": "elastic-ip", "Tags": aws.tags(platform, name)}],
    )
    item = {**answer, "Tags": aws.tags(platform, name)}
    return {**_shown(platform, item), "changed": True}


def associate(platform: dict[str, Any], name: str, wanted: str) -> dict[str, Any]:
    """Give an address of ours to the machine, which must have none; wait until both say so."""
    item = machine.find(platform, name)
    called, ident = ec2.name_of(item), item["InstanceId"]
    address = _changeable(platform, wanted)
    holder = _holder(address)
    if address.get("InstanceId") == ident:
        return {**_shown(platform, address), "changed": False}
    if holder:
        raise _used(wanted, address, holder)
    other = [a["PublicIp"] for a in leftovers.addresses(platform) if a.get("InstanceId") == ident]
    if other:
        raise aws.CloudError(f"{called} has the elastic address {other[0]} already: not replaced")
    allocation = address["AllocationId"]
    aws.call(platform, "ec2", "associate_address", AllocationId=allocation, InstanceId=ident)

    def probe() -> tuple[dict[str, Any] | None, str]:
        now = _find(platform, wanted) or {}
        machine_now = ec2.by_id(platform, ident)
        is_there = ec2.has_address(machine_now, now if now else None)
        return (now if is_there else None), f"{called} has {machine_now.get('PublicIpAddress')}"

    now = aws.wait(f"{called} to be reached at {wanted}", ASSOCIATED_SECONDS, probe)
    return {**_shown(platform, now), "changed": True}


def disassociate(platform: dict[str, Any], wanted: str) -> dict[str, Any]:
    """Take an address of ours from whatever has it; the address stays ours, and is paid."""
    address = _changeable(platform, wanted)
    if not address.get("AssociationId"):
        return {**_shown(platform, address), "changed": False, "note": "nothing has it"}
    aws.call(platform, "ec2", "disassociate_address", AssociationId=address["AssociationId"])

    def probe() -> tuple[dict[str, Any] | None, str]:
        found = aws.call(
            platform, "ec2", "describe_addresses", AllocationIds=[address["AllocationId"]]
        )["Addresses"][0]
        held = _holder(found)
        return (None if held else dict(found)), f"{held} has it"

    now = aws.wait(f"{wanted} to be free", ASSOCIATED_SECONDS, probe)
    return {**_shown(platform, now), "changed": True}


def release(platform: dict[str, Any], wanted: str) -> dict[str, Any]:
    """Give an address of ours back to AWS, for good; one that something has is refused."""
    address = _changeable(platform, wanted)
    holder = _holder(address)
    if holder:
        raise _used(wanted, address, holder)
    aws.call(platform, "ec2", "release_address", AllocationId=address["AllocationId"])
    return {"address": address["PublicIp"], "id": address["AllocationId"], "changed": True}
