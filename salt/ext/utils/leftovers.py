"""
What costs money outside machines: what a machine or the platform left behind, with its price.

Such things live longer than the VPC in which their machines were known, so they are ours by the
tag ``f1:platform``, by the machine that holds them, or by our image that they belong to.
A row is ``{what, id, name, detail, usd_month}``; a price that is not known is ``unknown``.
"""

from collections.abc import Iterable
from typing import Any

import aws
import ec2
import prices
import vpc

# On what was made of a machine: its name.
MACHINE_TAG = "f1:machine"

Row = dict[str, Any]


def tags_of(platform: dict[str, Any], name: str, machine: str) -> list[dict[str, str]]:
    """Return the tags of a thing ``name`` that is made of ``machine``."""
    return [*aws.tags(platform, name), {"Key": MACHINE_TAG, "Value": machine}]


def attached(platform: dict[str, Any], instance_id: str) -> list[dict[str, Any]]:
    """Return the volumes that an instance holds, ours or not."""
    filters = [{"Name": "attachment.instance-id", "Values": [instance_id]}]
    return aws.pages(platform, "ec2", "describe_volumes", "Volumes", Filters=filters)


def is_of_launch(platform: dict[str, Any], machine: str, volume: dict[str, Any]) -> bool:
    """Say whether the volume was made by the launch of ``machine``, which gave it its name."""
    return vpc.is_ours(platform, volume) and ec2.tag(volume, "Name") == machine


def addresses(platform: dict[str, Any]) -> list[dict[str, Any]]:
    """Return our elastic addresses: by their tag, or because what is ours has them."""
    ours = {item["InstanceId"] for item in ec2.present(platform)}
    found = aws.call(platform, "ec2", "describe_addresses")["Addresses"]
    return [
        item
        for item in found
        if vpc.is_ours(platform, item)
        or item.get("InstanceId") in ours
        or (item.get("AssociationId") and is_platforms(platform, item))
    ]


def is_platforms(platform: dict[str, Any], address: dict[str, Any]) -> bool:
    """Say whether an address is the platform's own: the master's, or the NAT gateway's."""
    view = vpc.View(platform)
    own = [view.address(f"{platform['name']}-{what}") for what in ("master", "nat")]
    return address["AllocationId"] in {item["AllocationId"] for item in own if item}


def images(platform: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the images that were made of our machines."""
    answer = aws.call(
        platform, "ec2", "describe_images", Owners=["self"], Filters=aws.mine(platform)
    )
    found: list[dict[str, Any]] = answer["Images"]
    return found


def snapshots_of(image: dict[str, Any]) -> dict[str, int]:
    """Return the snapshots that an image consists of, with their sizes in GB."""
    return {
        device["Ebs"]["SnapshotId"]: device["Ebs"].get("VolumeSize", 0)
        for device in image.get("BlockDeviceMappings", [])
        if device.get("Ebs", {}).get("SnapshotId")
    }


def snapshots(platform: dict[str, Any]) -> list[dict[str, Any]]:
    """Return our snapshots, those of images included if they have our tag."""
    return aws.pages(
        platform,
        "ec2",
        "describe_snapshots",
        "Snapshots",
        OwnerIds=["self"],
        Filters=aws.mine(platform),
    )


def volumes(platform: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the volumes with our tag, whoever holds them."""
    return aws.pages(platform, "ec2", "describe_volumes", "Volumes", Filters=aws.mine(platform))


def of_platform(platform: dict[str, Any]) -> list[Row]:
    """Return everything of the platform that costs money and is no machine's, by kind."""
    held = {item["InstanceId"] for item in ec2.present(platform)}
    return [
        *_volume_rows(platform, volumes(platform), held),
        *_picture_rows(platform, None),
        *_nat_rows(platform),
        *(
            _address_row(platform, address)
            for address in addresses(platform)
            if address.get("InstanceId") not in held
        ),
    ]


def of_machine(
    platform: dict[str, Any], name: str, had: Iterable[dict[str, Any]] = ()
) -> list[Row]:
    """
    Return what costs money of the machine ``name``, or was made of it, and is not in use by it.

    ``had`` are the volumes that it held before it ended, be they ours or not.
    """
    held = {item["InstanceId"] for item in ec2.present(platform)}
    ids = [volume["VolumeId"] for volume in had]
    found = {v["VolumeId"]: v for v in volumes(platform) if _is_of(v, name)}
    if ids:
        filters = [{"Name": "volume-id", "Values": ids}]
        there = aws.pages(platform, "ec2", "describe_volumes", "Volumes", Filters=filters)
        found.update({volume["VolumeId"]: volume for volume in there})
    return [
        *_volume_rows(platform, list(found.values()), held),
        *_picture_rows(platform, name),
        *(
            _address_row(platform, address)
            for address in addresses(platform)
            if ec2.tag(address, "Name") == name and address.get("InstanceId") not in held
        ),
    ]


def total(rows: list[Row]) -> float | str:
    """Return what ``rows`` cost together, ``unknown`` if any of them is."""
    known = [row["usd_month"] for row in rows if row["usd_month"] != prices.UNKNOWN]
    return prices.shown(sum(known) if len(known) == len(rows) else None)


def line(row: Row) -> str:
    """Return a row as one line for a person."""
    named = f" {row['name']}" if row["name"] else ""
    cost = f"{row['usd_month']:.2f}" if isinstance(row["usd_month"], float) else row["usd_month"]
    return f"{row['what']} {row['id']}{named} ({row['detail']}): {cost} USD a month"


def _row(what: str, ident: str, name: str, detail: str, usd: float | None) -> Row:
    return {
        "what": what,
        "id": ident,
        "name": name,
        "detail": detail,
        "usd_month": prices.shown(usd),
    }


def _is_of(item: dict[str, Any], machine: str) -> bool:
    return machine in {ec2.tag(item, MACHINE_TAG), ec2.tag(item, "Name")}


def _volume_rows(
    platform: dict[str, Any], found: list[dict[str, Any]], held: set[str]
) -> list[Row]:
    rows = []
    for item in found:
        if any(each.get("InstanceId") in held for each in item.get("Attachments", [])):
            continue
        kind = item.get("VolumeType", "")
        detail = f"{item['Size']} GB {kind}"
        if not vpc.is_ours(platform, item):
            detail += ", not made by us"
        usd = prices.volume(platform, kind, item["Size"])
        rows.append(_row("volume", item["VolumeId"], ec2.tag(item, "Name"), detail, usd))
    return rows


def _picture_rows(platform: dict[str, Any], machine: str | None) -> list[Row]:
    """Images with all their snapshots, and snapshots that belong to no image of ours."""
    rows: list[Row] = []
    of_images: set[str] = set()
    for image in images(platform):
        parts = snapshots_of(image)
        of_images |= parts.keys()
        if machine is None or _is_of(image, machine):
            usd = prices.snapshot(platform, sum(parts.values()))
            detail = f"{len(parts)} snapshots, {sum(parts.values())} GB at most"
            rows.append(_row("image", image["ImageId"], image.get("Name", ""), detail, usd))
    for item in snapshots(platform):
        if item["SnapshotId"] in of_images or not (machine is None or _is_of(item, machine)):
            continue
        # Only what differs from earlier ones is kept and paid; newer answers say how much.
        stored = item.get("FullSnapshotSizeInBytes")
        gb = stored / 2**30 if stored else item["VolumeSize"]
        usd = prices.snapshot(platform, gb)
        detail = f"{gb:.0f} GB at most, of {item['VolumeId']}"
        rows.append(_row("snapshot", item["SnapshotId"], ec2.tag(item, "Name"), detail, usd))
    return rows


def _nat_rows(platform: dict[str, Any]) -> list[Row]:
    # Also one whose VPC is no longer known to be ours; this request has no plural argument.
    tagged = aws.pages(
        platform, "ec2", "describe_nat_gateways", "NatGateways", Filter=aws.mine(platform)
    )
    alive = [item for item in tagged if item["State"] in ("pending", "available")]
    found = {
        item["NatGatewayId"]: item
        for item in [*alive, *vpc.View(platform).nats("pending", "available")]
    }
    a_gb = prices.nat_gateway_gb(platform) or prices.UNKNOWN
    detail = f"and {a_gb} USD for each GB through it"
    return [
        _row("NAT gateway", ident, ec2.tag(item, "Name"), detail, prices.nat_gateway(platform))
        for ident, item in found.items()
    ]


def _address_row(platform: dict[str, Any], item: dict[str, Any]) -> Row:
    used = item.get("InstanceId") or item.get("NetworkInterfaceId")
    detail = f"used by {used}" if used else "used by nothing"
    name = ec2.tag(item, "Name")
    return _row("address", item["PublicIp"], name, detail, prices.address(platform))
