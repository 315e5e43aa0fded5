"""
Volumes and snapshots of our machines.

A volume or a snapshot is ours by the tag ``f1:platform``, a volume also while one of our machines
holds it; nothing else is touched. Everything waits with a deadline, and what is so already is said
and left alone. Requests and answers: EC2 API reference.
"""

import secrets
import time
from collections.abc import Callable
from typing import Any

import aws
import ec2
import leftovers
import machine
import prices
import vpc

ATTACH_SECONDS = 120
# The first snapshot of a volume is as long as the volume is full.
SNAPSHOT_SECONDS = 1800
SEEN_SECONDS = 60

# What EC2 recommends for volumes of Linux machines ("Device names on Linux instances").
_DEVICES = [f"/dev/sd{letter}" for letter in "fghijklmnop"]


def until(
    what: str, state: str, seconds: float, look: Callable[[], dict[str, Any] | None]
) -> dict[str, Any]:
    """
    Wait until ``look`` returns something in ``state``, and return it.

    Raises CloudError when that failed, is gone, or does not come within ``seconds``. EC2 describes
    what it has just made a little later: so long it is not gone.
    """
    gone_after = time.monotonic() + SEEN_SECONDS

    def probe() -> tuple[dict[str, Any] | None, str]:
        nonlocal gone_after
        item = look()
        if item is None:
            if time.monotonic() > gone_after:
                raise aws.CloudError(f"{what} is gone instead of {state}")
            return None, "EC2 does not describe it"
        gone_after = 0
        if item["State"] in {"error", "failed"}:
            reason = item.get("StateMessage") or item.get("StateReason") or "EC2 does not say why"
            raise aws.CloudError(f"{what} is {item['State']} instead of {state}: {reason}")
        return (item if item["State"] == state else None), f"it is {item['State']}"

    return aws.wait(f"{what} to be {state}", seconds, probe)


# Volumes ----------------------------------------------------------------------------------------


def _volume(platform: dict[str, Any], ident: str) -> dict[str, Any] | None:
    """Return the volume of that id, None if there is none."""
    filters = [{"Name": "volume-id", "Values": [ident]}]
    found = aws.pages(platform, "ec2", "describe_volumes", "Volumes", Filters=filters)
    return found[0] if found else None


def _holder(volume: dict[str, Any]) -> dict[str, Any] | None:
    """Return the attachment of the volume (instance and device), None if it has none."""
    there = [each for each in volume.get("Attachments", []) if each.get("State") != "detached"]
    return there[0] if there else None


def _shown(platform: dict[str, Any], volume: dict[str, Any]) -> dict[str, Any]:
    holder = _holder(volume) or {}
    kind, size = volume.get("VolumeType", ""), volume["Size"]
    return {
        "id": volume["VolumeId"],
        "name": ec2.tag(volume, "Name"),
        "state": volume["State"],
        "size": size,
        "type": kind,
        "zone": volume["AvailabilityZone"],
        "encrypted": volume.get("Encrypted", False),
        "machine": holder.get("InstanceId"),
        "device": holder.get("Device"),
        "goes_with_machine": holder.get("DeleteOnTermination", False),
        "usd_month": prices.shown(prices.volume(platform, kind, size)),
    }


def of_machine(platform: dict[str, Any], name: str) -> dict[str, Any]:
    """Return the volumes that the machine holds, by id."""
    item = machine.find(platform, name)
    found = leftovers.attached(platform, item["InstanceId"])
    return {volume["VolumeId"]: _shown(platform, volume) for volume in found}


def volumes(platform: dict[str, Any]) -> dict[str, Any]:
    """Return all volumes of ours by id: those with our tag and those of our machines."""
    found = {volume["VolumeId"]: volume for volume in leftovers.volumes(platform)}
    ours = [item["InstanceId"] for item in ec2.instances(platform)]
    if ours:
        filters = [{"Name": "attachment.instance-id", "Values": ours}]
        held = aws.pages(platform, "ec2", "describe_volumes", "Volumes", Filters=filters)
        found.update({volume["VolumeId"]: volume for volume in held})
    return {ident: _shown(platform, volume) for ident, volume in found.items()}


def _ours(platform: dict[str, Any], ident: str, volume: dict[str, Any] | None) -> dict[str, Any]:
    """Return the ``volume`` that was found under ``ident`` if there is one and it is ours."""
    if volume is None:
        raise aws.CloudError(f"no volume {ident} is there; salt-cloud -f list_volumes aws")
    vpc.refuse_strangers(platform, volume, ident)
    return volume


def _held(ident: str, holder: dict[str, Any]) -> aws.CloudError:
    return aws.CloudError(
        f"{ident} is held by {holder['InstanceId']}; take it from there first: "
        f"salt-cloud -a detach_volume {holder['InstanceId']} volume={ident}"
    )


def create(
    platform: dict[str, Any],
    name: str,
    size: int | None,
    label: str,
    kind: str,
    snapshot: str | None,
    iops: int | None,
    encrypted: bool,
    device: str | None,
) -> dict[str, Any]:
    """
    Make sure that the machine holds the volume ``<machine>-<label>``, made if there is none.

    It has ``size`` GB, or that of the ``snapshot`` of ours. One that exists keeps its size; what
    was cut off between making and attaching is finished. It does not go with the machine.
    """
    item = machine.find(platform, name)
    called = ec2.name_of(item)
    title = f"{called}-{label}"
    if size is None and snapshot is None:
        raise aws.CloudError(f"{title} needs a size in GB, or a snapshot to be made from")
    if snapshot is not None:
        source = _snapshot(platform, snapshot)
        if source is None:
            raise aws.CloudError(
                f"no snapshot {snapshot} is there; salt-cloud -f list_snapshots aws"
            )
        vpc.refuse_strangers(platform, source, snapshot)
    found = aws.pages(
        platform, "ec2", "describe_volumes", "Volumes", Filters=aws.mine(platform, title)
    )
    volume = aws.one(found, "VolumeId", title)
    made = volume is None
    if volume is None:
        tags = leftovers.tags_of(platform, title, called)
        given = {"Size": size, "SnapshotId": snapshot, "Iops": iops}
        volume = aws.call(
            platform,
            "ec2",
            "create_volume",
            AvailabilityZone=item["Placement"]["AvailabilityZone"],
            VolumeType=kind,
            Encrypted=encrypted,
            ClientToken=f"{title}.{secrets.token_hex(6)}",
            TagSpecifications=[{"ResourceType": "volume", "Tags": tags}],
            **{key: value for key, value in given.items() if value is not None},
        )
    ident = volume["VolumeId"]
    held = _holder(volume)
    if held is None:
        until(f"volume {ident}", "available", ATTACH_SECONDS, lambda: _volume(platform, ident))
    return {**attach(platform, name, ident, device), "made": made}


def attach(platform: dict[str, Any], name: str, ident: str, device: str | None) -> dict[str, Any]:
    """Give the volume ``ident`` of ours to the machine, at the first free device or ``device``."""
    item = machine.find(platform, name)
    called, instance_id = ec2.name_of(item), item["InstanceId"]
    volume = _ours(platform, ident, _volume(platform, ident))
    holder = _holder(volume)
    if holder and holder["InstanceId"] == instance_id:
        if device and holder.get("Device") != device:
            raise aws.CloudError(
                f"{ident} is at {holder.get('Device')} of {called} already; to move it: "
                f"salt-cloud -a detach_volume {called} volume={ident}"
            )
        return {**_shown(platform, volume), "changed": False}
    if holder:
        raise _held(ident, holder)
    zone = item["Placement"]["AvailabilityZone"]
    if volume["AvailabilityZone"] != zone:
        raise aws.CloudError(
            f"{ident} lies in {volume['AvailabilityZone']} and {called} in {zone}: a volume cannot "
            "leave its zone; make a snapshot of it, and of that a volume (create_volume snapshot=…)"
        )
    used = {each.get("DeviceName") for each in item.get("BlockDeviceMappings", [])}
    if device in used:
        raise aws.CloudError(f"{device} of {called} is in use; free are: {_free(used)}")
    chosen = device or _free(used).split(", ")[0]
    if not chosen:
        raise aws.CloudError(f"{called} has no free device left")
    aws.call(
        platform, "ec2", "attach_volume", VolumeId=ident, InstanceId=instance_id, Device=chosen
    )
    now = _until_held(platform, ident, True)
    return {**_shown(platform, now), "changed": True}


def _free(used: set[str | None]) -> str:
    return ", ".join(each for each in _DEVICES if each not in used)


def _until_held(platform: dict[str, Any], ident: str, is_held: bool) -> dict[str, Any]:
    """Wait until the volume is attached (or is free), which takes longer than being in use."""

    def probe() -> tuple[dict[str, Any] | None, str]:
        volume = _volume(platform, ident)
        if volume is None:
            raise aws.CloudError(f"volume {ident} is gone")
        holder = _holder(volume)
        state = holder["State"] if holder else volume["State"]
        return (volume if state == ("attached" if is_held else "available") else None), (
            f"it is {state}"
        )

    wanted = "attached" if is_held else "available"
    return aws.wait(f"volume {ident} to be {wanted}", ATTACH_SECONDS, probe)


def detach(platform: dict[str, Any], name: str, ident: str) -> dict[str, Any]:
    """Take the volume from the machine, its root volume never; one it has not is left alone."""
    item = machine.find(platform, name)
    called, instance_id = ec2.name_of(item), item["InstanceId"]
    volume = _volume(platform, ident)
    holder = _holder(volume) if volume else None
    if volume is None or holder is None or holder["InstanceId"] != instance_id:
        # Whose it is matters here only if it is not this machine's.
        volume = _ours(platform, ident, volume)
        if holder is not None:
            raise aws.CloudError(
                f"{ident} is not held by {called}, but by {holder['InstanceId']}: not touched"
            )
        return {
            **_shown(platform, volume),
            "changed": False,
            "note": f"{ident} is detached already",
        }
    if holder.get("Device") == item.get("RootDeviceName"):
        raise aws.CloudError(f"{ident} is the root volume of {called}: refused")
    if holder["State"] != "detaching":
        aws.call(platform, "ec2", "detach_volume", VolumeId=ident, InstanceId=instance_id)
    now = _until_held(platform, ident, False)
    return {**_shown(platform, now), "changed": True}


def delete(platform: dict[str, Any], ident: str) -> dict[str, Any]:
    """Delete a volume of ours that nothing holds; one that is not there is no error."""
    volume = _volume(platform, ident)
    if volume is None:
        return {"id": ident, "changed": False, "note": "no such volume is there"}
    holder = _holder(_ours(platform, ident, volume))
    if holder:
        raise _held(ident, holder)
    aws.call(platform, "ec2", "delete_volume", VolumeId=ident)
    return {"id": ident, "changed": True}


# Snapshots --------------------------------------------------------------------------------------


def _snapshot(platform: dict[str, Any], ident: str) -> dict[str, Any] | None:
    filters = [{"Name": "snapshot-id", "Values": [ident]}]
    found = aws.pages(platform, "ec2", "describe_snapshots", "Snapshots", Filters=filters)
    return found[0] if found else None


def _picture(platform: dict[str, Any], item: dict[str, Any]) -> dict[str, Any]:
    return {
        "id": item["SnapshotId"],
        "machine": ec2.tag(item, leftovers.MACHINE_TAG),
        "text": item.get("Description", ""),
        "state": item["State"],
        "volume": item["VolumeId"],
        "size": item["VolumeSize"],
        "begun": str(item.get("StartTime", "")),
        "usd_month_at_most": prices.shown(prices.snapshot(platform, item["VolumeSize"])),
    }


def create_snapshots(platform: dict[str, Any], name: str, text: str) -> dict[str, Any]:
    """Take snapshots of all volumes of the machine at one moment and wait for them; by id."""
    item = machine.find(platform, name)
    called = ec2.name_of(item)
    answer = aws.call(
        platform,
        "ec2",
        "create_snapshots",
        InstanceSpecification={"InstanceId": item["InstanceId"]},
        Description=text,
        TagSpecifications=[
            {"ResourceType": "snapshot", "Tags": leftovers.tags_of(platform, called, called)}
        ],
    )
    ids = [each["SnapshotId"] for each in answer["Snapshots"]]
    return {ident: _picture(platform, until_snapshot(platform, ident)) for ident in ids}


def until_snapshot(platform: dict[str, Any], ident: str) -> dict[str, Any]:
    """Wait until the snapshot is complete and return it, or raise CloudError."""
    return until(
        f"snapshot {ident}", "completed", SNAPSHOT_SECONDS, lambda: _snapshot(platform, ident)
    )


def snapshots(platform: dict[str, Any]) -> dict[str, Any]:
    """Return our snapshots by id."""
    return {s["SnapshotId"]: _picture(platform, s) for s in leftovers.snapshots(platform)}


def delete_snapshot(platform: dict[str, Any], ident: str) -> dict[str, Any]:
    """Delete a snapshot of ours that no image needs; one that is not there is no error."""
    snapshot = _snapshot(platform, ident)
    if snapshot is None:
        return {"id": ident, "changed": False, "note": "no such snapshot is there"}
    vpc.refuse_strangers(platform, snapshot, ident)
    for image in leftovers.images(platform):
        if ident in leftovers.snapshots_of(image):
            raise aws.CloudError(
                f"{ident} is part of the image {image['ImageId']}; they go together: "
                f"salt-cloud -f delete_image aws image={image['ImageId']}"
            )
    aws.call(platform, "ec2", "delete_snapshot", SnapshotId=ident)
    return {"id": ident, "changed": True}
