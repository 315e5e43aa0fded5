"""
Images of our machines, images that may be used, sizes and places.

An image is ours by the tag ``f1:platform``. Requests and answers: EC2 API reference; the public
parameters: Systems Manager user guide, "Calling AMI public parameters", and the Debian wiki.
"""

import time
from typing import Any

import aws
import ec2
import leftovers
import machine
import prices
import storage
import vpc

IMAGE_SECONDS = 1800
# How many of the images that a search finds are told, the newest first.
FOUND = 20

# Where the current images of a system are named, whatever their ids in a region.
PARAMETERS = (
    "/aws/service/debian/release/12/latest/amd64",
    "/aws/service/debian/release/12/latest/arm64",
    "/aws/service/ami-amazon-linux-latest/al2023-ami-kernel-default-x86_64",
)

_NO_PARAMETERS = "this account or region has no such public parameter"


# Of our machines --------------------------------------------------------------------------------


def _image(platform: dict[str, Any], ident: str) -> dict[str, Any] | None:
    filters = [{"Name": "image-id", "Values": [ident]}]
    found = aws.call(platform, "ec2", "describe_images", Owners=["self"], Filters=filters)["Images"]
    return found[0] if found else None


def _picture(platform: dict[str, Any], item: dict[str, Any]) -> dict[str, Any]:
    parts = leftovers.snapshots_of(item)
    return {
        "id": item["ImageId"],
        "name": item.get("Name"),
        "machine": ec2.tag(item, leftovers.MACHINE_TAG),
        "state": item["State"],
        "arch": item.get("Architecture"),
        "created": item.get("CreationDate"),
        "snapshots": sorted(parts),
        "usd_month_at_most": prices.shown(prices.snapshot(platform, sum(parts.values()))),
    }


def create(platform: dict[str, Any], name: str, title: str | None, reboot: bool) -> dict[str, Any]:
    """
    Make an image of the machine and wait until it can be used; its snapshots have our tags, too.

    ``title`` is its name (machine and time if None); one of ours with that name is not made again,
    only finished. Without ``reboot`` it is as if the machine had lost its power at that moment.
    """
    item = machine.find(platform, name)
    called = ec2.name_of(item)
    title = title or f"{called}-{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}"
    there = [image for image in leftovers.images(platform) if image.get("Name") == title]
    if there:
        ident = there[0]["ImageId"]
    else:
        tags = leftovers.tags_of(platform, title, called)
        ident = aws.call(
            platform,
            "ec2",
            "create_image",
            InstanceId=item["InstanceId"],
            Name=title,
            Description=f"made of {called}",
            NoReboot=not reboot,
            TagSpecifications=[
                {"ResourceType": kind, "Tags": tags} for kind in ("image", "snapshot")
            ],
        )["ImageId"]
    image = storage.until(
        f"image {ident}", "available", IMAGE_SECONDS, lambda: _image(platform, ident)
    )
    return {**_picture(platform, image), "changed": not there}


def made(platform: dict[str, Any]) -> dict[str, Any]:
    """Return the images that were made of our machines, by id."""
    return {image["ImageId"]: _picture(platform, image) for image in leftovers.images(platform)}


def delete(platform: dict[str, Any], ident: str) -> dict[str, Any]:
    """Delete an image of ours and then its snapshots; one that is not there is no error."""
    image = _image(platform, ident)
    if image is None:
        return {"id": ident, "changed": False, "note": "no such image of this account is there"}
    vpc.refuse_strangers(platform, image, ident)
    parts = sorted(leftovers.snapshots_of(image))
    aws.call(platform, "ec2", "deregister_image", ImageId=ident)
    # An account may make images of snapshots that it did not make.
    ours = {snapshot["SnapshotId"] for snapshot in leftovers.snapshots(platform)}
    gone = [part for part in parts if part in ours]
    for part in gone:
        # For a moment they are still said to be in use by the image.
        machine.gone(platform, "delete_snapshot", "InvalidSnapshot.InUse", SnapshotId=part)
    kept = [part for part in parts if part not in ours]
    return {"id": ident, "changed": True, "removed": [ident, *gone], "kept": kept}


# To be used -------------------------------------------------------------------------------------


def _told(item: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": item.get("Name"),
        "arch": item.get("Architecture"),
        "created": item.get("CreationDate"),
        "owner": item.get("OwnerId"),
    }


def available(
    platform: dict[str, Any], owner: str | None, name: str | None, arch: str | None
) -> dict[str, Any]:
    """
    Return images by id: the newest of a search by ``owner``, ``name`` (a pattern) and ``arch``.

    Without any: the account's own, the one that the knob ``platform.image`` means, and the current
    ones of the public parameters; what cannot be had is said under its name.
    """
    if owner or name or arch:
        filters = [{"Name": "state", "Values": ["available"]}]
        filters += [{"Name": "name", "Values": [name]}] if name else []
        filters += [{"Name": "architecture", "Values": [arch]}] if arch else []
        found = aws.pages(
            platform,
            "ec2",
            "describe_images",
            "Images",
            Owners=[owner or platform["image"]["owner"]],
            Filters=filters,
        )
        newest = sorted(found, key=lambda item: str(item.get("CreationDate", "")), reverse=True)
        return {item["ImageId"]: _told(item) for item in newest[:FOUND]}
    mine = aws.call(platform, "ec2", "describe_images", Owners=["self"])["Images"]
    shown = {item["ImageId"]: _told(item) for item in mine}
    try:
        item = ec2.image(platform)
        shown[item["ImageId"]] = {**_told(item), "used": "platform.image"}
    except aws.CloudError as error:
        shown["platform.image"] = {"missing": str(error)}
    return {**shown, **_current(platform)}


def _current(platform: dict[str, Any]) -> dict[str, Any]:
    """Return the images of the public parameters by id, or why there is none by parameter."""
    try:
        answer = aws.call(platform, "ssm", "get_parameters", Names=list(PARAMETERS))
    except aws.CloudError as error:
        return {parameter: {"missing": str(error)} for parameter in PARAMETERS}
    ids = {item["Name"]: item["Value"] for item in answer["Parameters"]}
    filters = [{"Name": "image-id", "Values": sorted(set(ids.values()))}]
    found = aws.call(platform, "ec2", "describe_images", Filters=filters)["Images"] if ids else []
    images = {item["ImageId"]: item for item in found}
    shown: dict[str, Any] = {}
    for parameter in PARAMETERS:
        if parameter not in ids:
            shown[parameter] = {"missing": _NO_PARAMETERS}
        else:
            ident = ids[parameter]
            shown[ident] = {**_told(images.get(ident, {})), "used": f"ssm:{parameter}"}
    return shown


def sizes(platform: dict[str, Any]) -> dict[str, Any]:
    """Return the sizes of the region by name: CPUs, MiB, architectures, burstable, price."""
    found = aws.pages(platform, "ec2", "describe_instance_types", "InstanceTypes")
    return {
        item["InstanceType"]: {
            "cpus": item.get("VCpuInfo", {}).get("DefaultVCpus"),
            "memory": item.get("MemoryInfo", {}).get("SizeInMiB"),
            "arch": item.get("ProcessorInfo", {}).get("SupportedArchitectures", []),
            "burstable": item.get("BurstablePerformanceSupported", False),
            "usd_month": prices.shown(prices.size(platform, item["InstanceType"])),
        }
        for item in found
    }


def locations(platform: dict[str, Any]) -> dict[str, Any]:
    """Return the account's regions by name; of the platform's own also the zones."""
    regions = aws.call(platform, "ec2", "describe_regions")["Regions"]
    found: dict[str, Any] = {item["RegionName"]: {"endpoint": item["Endpoint"]} for item in regions}
    zones = aws.call(platform, "ec2", "describe_availability_zones")["AvailabilityZones"]
    used = platform["aws"]["zones"]
    found.setdefault(platform["aws"]["region"], {})["zones"] = {
        item["ZoneName"]: {"state": item["State"], "used": item["ZoneName"] in used}
        for item in zones
    }
    return found


def spot_prices(
    platform: dict[str, Any], size: str | None, zone: str | None, hours: int
) -> dict[str, Any]:
    """
    Return what spot machines cost, by size and zone: now, and the extremes of the last ``hours``.

    ``size`` None: the sizes of the platform; ``zone`` None: every zone of the region.
    """
    wanted = [size] if size else sorted({platform["master"]["size"], platform["workers"]["size"]})
    filters = [{"Name": "availability-zone", "Values": [zone]}] if zone else []
    history = aws.pages(
        platform,
        "ec2",
        "describe_spot_price_history",
        "SpotPriceHistory",
        InstanceTypes=wanted,
        ProductDescriptions=["Linux/UNIX"],
        StartTime=time.time() - hours * 3600,
        Filters=filters,
    )
    found: dict[str, Any] = {}
    for each in wanted:
        hour = prices.size_hour(platform, each)
        found[each] = {"on-demand": {"usd_hour": prices.UNKNOWN if hour is None else hour}}
        told = [item for item in history if item["InstanceType"] == each]
        for place in sorted({item["AvailabilityZone"] for item in told}):
            here = [item for item in told if item["AvailabilityZone"] == place]
            usd = [float(item["SpotPrice"]) for item in here]
            newest = max(here, key=lambda item: str(item["Timestamp"]))
            found[each][place] = {
                "usd_hour": float(newest["SpotPrice"]),
                "since": str(newest["Timestamp"]),
                "lowest": min(usd),
                "highest": max(usd),
            }
        if not told:
            found[each]["note"] = f"no spot prices in {zone or platform['aws']['region']}"
    return found
