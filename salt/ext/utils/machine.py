"""
What can be done with one machine: its state, tags, protection, console, spot and its end.

Machines are given by name or by id and are always the platform's own (``ec2``).
Requests and answers: EC2 API reference.
"""

import re
from typing import Any

import aws
import ec2
import firstcontact
import launch
import leftovers
import vpc
from salt.exceptions import SaltCloudNotFound

RUNNING_SECONDS = 300
STOPPED_SECONDS = 300
GONE_SECONDS = 120

# EC2 gives the last 64 KiB of a console.
CONSOLE_LINES = 50

# Tags that somebody relies on → why nobody sets them by hand.
_RESERVED = {
    "Name": "it is the machine's name, given at launch",
    aws.PLATFORM_TAG: "it says whose the machine is",
    firstcontact.INTRODUCED: "it says that the machine was introduced (docs/architecture.md)",
}

# What a machine's console may show and nobody should keep: signed URLs, keys, K3s tokens.
_BLOCK = re.compile(
    r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.S
)
# EC2 cuts the beginning off: a key of which only the end is left.
_REST = re.compile(r"\A(?:(?!-----BEGIN).)*-----END [A-Z ]*PRIVATE KEY-----", re.S)
_SECRETS = (
    (re.compile(r"(https?://[^\s?\"'<>]+)\?[^\s\"'<>]+"), r"\1?<not shown>"),
    (re.compile(r"\b(?:AKIA|ASIA)[A-Z0-9]{12,}\b"), "<access key>"),
    (re.compile(r"\bK10[0-9a-f]{64}::\S+"), "<token>"),
    (re.compile(r"(?i)\b(x-amz-(?:signature|credential|security-token)=)[^\s&]+"), r"\1…"),
)  # fmt: skip


def find(platform: dict[str, Any], name: str) -> dict[str, Any]:
    """Return the living machine of that name or id; SaltCloudNotFound says what there is."""
    if name.startswith("i-"):
        found = [item for item in ec2.instances(platform) if item["InstanceId"] == name]
        item = found[0] if found else None
    else:
        item = ec2.instance(platform, name)
    if item is None:
        have = ", ".join(sorted(ec2.machines(platform))) or "none"
        raise SaltCloudNotFound(
            f"no machine named {name} is there, or it is terminated already; there are: {have}"
        )
    return item


def until(platform: dict[str, Any], name: str, instance_id: str, state: str) -> dict[str, Any]:
    """Wait until the machine is ``running`` or ``stopped``; return its instance, or CloudError."""

    def probe() -> tuple[dict[str, Any] | None, str]:
        try:
            item = ec2.by_id(platform, instance_id)
        except aws.CloudError as error:
            # EC2 may not find for a moment what it has just made.
            if aws.code(error) != "InvalidInstanceID.NotFound":
                raise
            return None, f"{instance_id} is not found"
        now = item["State"]["Name"]
        if now in {"shutting-down", "terminated"}:
            why = item.get("StateReason", {}).get("Message") or item.get("StateTransitionReason")
            raise aws.CloudError(f"{name} ({instance_id}) is {now} instead of {state}: {why}")
        return (item if now == state else None), f"{instance_id} is {now}"

    seconds = RUNNING_SECONDS if state == "running" else STOPPED_SECONDS
    return aws.wait(f"{name} to be {state}", seconds, probe)


def start(platform: dict[str, Any], name: str) -> dict[str, Any]:
    """Start the machine if it is stopped, wait until it runs; say what it was before."""
    return _change(platform, name, "start_instances", "running")


def stop(platform: dict[str, Any], name: str, force: bool = False) -> dict[str, Any]:
    """Stop the machine (``force``: as if its plug were pulled), wait until it has stopped."""
    return _change(
        platform, name, "stop_instances", "stopped", **({"Force": True} if force else {})
    )


def _change(
    platform: dict[str, Any], name: str, request: str, state: str, **more: Any
) -> dict[str, Any]:
    item = find(platform, name)
    before, called, ident = item["State"]["Name"], ec2.name_of(item), item["InstanceId"]
    if before == "pending" and state == "stopped":
        # EC2 stops only what has come up.
        until(platform, called, ident, "running")
    if before == "stopping" and state == "running":
        until(platform, called, ident, "stopped")
    if before != state:
        aws.call(platform, "ec2", request, InstanceIds=[ident], **more)
        item = until(platform, called, ident, state)
    return {**ec2.brief(item), "before": before, "changed": before != state}


def reboot(platform: dict[str, Any], name: str) -> dict[str, Any]:
    """Reboot a running machine; EC2 answers at once and never says when it is back."""
    item = find(platform, name)
    state, called = item["State"]["Name"], ec2.name_of(item)
    if state != "running":
        raise aws.CloudError(
            f"{called} is {state}: only what runs can be rebooted; salt-cloud -a start {called}"
        )
    aws.call(platform, "ec2", "reboot_instances", InstanceIds=[item["InstanceId"]])
    note = f"asked for; EC2 does not say when it is back: ssh -F .state/ssh/config {called}"
    return {**ec2.brief(item), "rebooting": True, "note": note}


# Tags -------------------------------------------------------------------------------------------


def get_tags(platform: dict[str, Any], name: str) -> dict[str, str]:
    """Return the machine's tags."""
    return _tags(find(platform, name))


def _tags(item: dict[str, Any]) -> dict[str, str]:
    return {pair["Key"]: pair["Value"] for pair in item.get("Tags", [])}


def _refuse_reserved(keys: list[str]) -> None:
    wrong = [f"{key}: {_RESERVED[key]}" for key in keys if key in _RESERVED]
    wrong += [
        f"{key}: {key.split(':')[0]}: is a prefix that is not for you"
        for key in keys
        if key not in _RESERVED and key.lower().startswith(("aws:", "f1:"))
    ]
    wrong += [f"{key[:20]}…: a key has at most 128 characters" for key in keys if len(key) > 128]
    if wrong:
        raise aws.CloudError(f"not changed: {'; '.join(wrong)}")


def set_tags(platform: dict[str, Any], name: str, tags: dict[str, str]) -> dict[str, Any]:
    """Give the machine ``tags``; return all it has and which of them changed."""
    _refuse_reserved(list(tags))
    item = find(platform, name)
    there = _tags(item)
    wanted = {key: value for key, value in tags.items() if there.get(key) != value}
    if wanted:
        pairs = [{"Key": key, "Value": value} for key, value in wanted.items()]
        aws.call(platform, "ec2", "create_tags", Resources=[item["InstanceId"]], Tags=pairs)
    return {"tags": {**there, **wanted}, "changed": sorted(wanted)}


def del_tags(platform: dict[str, Any], name: str, keys: list[str]) -> dict[str, Any]:
    """Take the tags ``keys`` from the machine; one that it has not is no error."""
    _refuse_reserved(keys)
    item = find(platform, name)
    there = _tags(item)
    gone = [key for key in keys if key in there]
    if gone:
        pairs = [{"Key": key} for key in gone]
        aws.call(platform, "ec2", "delete_tags", Resources=[item["InstanceId"]], Tags=pairs)
    return {
        "tags": {key: value for key, value in there.items() if key not in gone},
        "changed": sorted(gone),
    }


# Protection -------------------------------------------------------------------------------------


def protection(platform: dict[str, Any], name: str, wanted: bool | None = None) -> dict[str, Any]:
    """Return whether the machine is protected from termination, after making it as ``wanted``."""
    item = find(platform, name)
    ident = item["InstanceId"]
    before = launch.is_protected(platform, ident)
    if wanted is None or wanted == before:
        return {"id": ident, "protected": before, "changed": False}
    launch.protect(platform, ident, wanted)
    return {"id": ident, "protected": wanted, "changed": True}


# Console and spot -------------------------------------------------------------------------------


def console(platform: dict[str, Any], name: str, lines: int = CONSOLE_LINES) -> dict[str, Any]:
    """
    Return the last ``lines`` lines of the machine's console, without what is secret.

    EC2 keeps 64 KiB; machines that are no Nitro ones give what it was at their last boot.
    """
    item = find(platform, name)
    ident = item["InstanceId"]
    try:
        answer = aws.call(platform, "ec2", "get_console_output", InstanceId=ident, Latest=True)
    except aws.CloudError as error:
        if aws.code(error) not in {"UnsupportedOperation", "InvalidParameterCombination"}:
            raise
        answer = aws.call(platform, "ec2", "get_console_output", InstanceId=ident)
    # botocore has decoded it.
    text = redact(answer.get("Output") or "")
    shown = text.splitlines()[-lines:]
    at = str(answer.get("Timestamp", ""))
    return {"id": ident, "at": at, "lines": shown or ["EC2 has no console output of it yet"]}


def redact(text: str) -> str:
    """Return ``text`` without signed parts of URLs, access keys, private keys and tokens."""
    text = _BLOCK.sub("<private key>", _REST.sub("<private key>", text))
    for pattern, instead in _SECRETS:
        text = pattern.sub(instead, text)
    return text


def spot(platform: dict[str, Any], name: str) -> dict[str, Any]:
    """Return whether the machine is a spot one, and how its request stands."""
    item = find(platform, name)
    request = item.get("SpotInstanceRequestId")
    shown = {"id": item["InstanceId"], "lifecycle": item.get("InstanceLifecycle") or "on-demand"}
    if not request:
        return shown
    (told,) = aws.call(
        platform, "ec2", "describe_spot_instance_requests", SpotInstanceRequestIds=[request]
    )["SpotInstanceRequests"]
    status = told.get("Status", {})
    return {
        **shown,
        "request": request,
        "state": told.get("State"),
        "status": status.get("Message") or status.get("Code"),
        "max_usd_hour": told.get("SpotPrice"),
        "when_interrupted": told.get("InstanceInterruptionBehavior"),
    }


# The end ----------------------------------------------------------------------------------------


def destroy(platform: dict[str, Any], name: str, keep: list[str]) -> dict[str, Any]:
    """
    Terminate the machine, wait for it, and remove what was made with it: interfaces, volumes of
    its launch, addresses of its name. Forget the keys by which it was known.

    Volumes at the devices ``keep`` (``root`` or ``/dev/…``) stay, as the profile says. So does the
    platform's own address. Returns ``removed``, and ``remains`` with what it costs.
    Raises CloudError; of a protected machine with the command that lifts the protection.
    """
    item = find(platform, name)
    ident, called, before = item["InstanceId"], ec2.name_of(item), item["State"]["Name"]
    if launch.is_protected(platform, ident):
        raise aws.CloudError(
            f"{called} ({ident}) is protected from termination, nothing was removed; to lift that: "
            f"salt-cloud -a disable_term_protect {called}"
        )
    volumes = leftovers.attached(platform, ident)
    interfaces = [nic["NetworkInterfaceId"] for nic in item.get("NetworkInterfaces", [])]
    addresses = [a for a in leftovers.addresses(platform) if a.get("InstanceId") == ident]
    aws.call(platform, "ec2", "terminate_instances", InstanceIds=[ident])
    firstcontact.forget(platform, called, ident)
    launch.terminated(platform, called, ident)
    removed = [f"machine {called} ({ident})"]
    kept = {item.get("RootDeviceName") if device == "root" else device for device in keep}
    launched = [
        volume["VolumeId"]
        for volume in volumes
        if leftovers.is_of_launch(platform, called, volume)
        and not kept & {each.get("Device") for each in volume["Attachments"]}
    ]
    removed += _remove_interfaces(platform, interfaces)
    removed += [
        f"volume {volume}"
        for volume in launched
        if gone(platform, "delete_volume", "VolumeInUse", VolumeId=volume)
    ]
    for address in addresses:
        removed += _remove_address(platform, called, address)
    return {
        "id": ident,
        "name": called,
        "before": before,
        "state": "terminated",
        "removed": removed,
        "remains": leftovers.of_machine(platform, called, volumes),
    }


def _remove_interfaces(platform: dict[str, Any], ids: list[str]) -> list[str]:
    """Remove the interfaces ``ids`` that EC2 left of a machine and that we made."""
    filters = [{"Name": "network-interface-id", "Values": ids}]
    found = (
        aws.pages(
            platform, "ec2", "describe_network_interfaces", "NetworkInterfaces", Filters=filters
        )
        if ids
        else []
    )
    return [
        f"interface {nic['NetworkInterfaceId']}"
        for nic in found
        if vpc.is_ours(platform, {"Tags": nic.get("TagSet", [])})
        and remove_interface(platform, nic["NetworkInterfaceId"])
    ]


def remove_interface(platform: dict[str, Any], ident: str) -> bool:
    """Remove a network interface, once what held it lets go; False if it was gone already."""
    return gone(
        platform,
        "delete_network_interface",
        "InvalidNetworkInterface.InUse",
        "InvalidParameterValue",  # "is currently in use": what EC2 says of an attached one
        NetworkInterfaceId=ident,
    )


def _remove_address(platform: dict[str, Any], name: str, address: dict[str, Any]) -> list[str]:
    """Take the address from the terminated machine; give back one that was made for it."""
    allocation = address["AllocationId"]
    held = [a for a in leftovers.addresses(platform) if a["AllocationId"] == allocation]
    for each in held:
        # Termination does this, but not in the same moment.
        if each.get("AssociationId"):
            gone(platform, "disassociate_address", AssociationId=each["AssociationId"])
    is_own = ec2.tag(address, "Name") == name and not leftovers.is_platforms(platform, address)
    if (
        held
        and is_own
        and gone(platform, "release_address", "InvalidIPAddress.InUse", AllocationId=allocation)
    ):
        return [f"address {address['PublicIp']}"]
    return []


def gone(platform: dict[str, Any], request: str, *races: str, **arguments: Any) -> bool:
    """
    Send a removing ``request``, again while EC2 says one of ``races``: that what has just been
    terminated still holds it. Returns False if there was nothing to remove. Raises CloudError.
    """

    def probe() -> tuple[bool | None, str]:
        try:
            aws.call(platform, "ec2", request, **arguments)
        except aws.CloudError as error:
            if aws.code(error).endswith("NotFound"):
                return False, "gone"
            if aws.code(error) not in races:
                raise
            return None, str(error)
        return True, "removed"

    what = f"{request} of {', '.join(map(str, arguments.values()))}"
    return aws.wait(what, GONE_SECONDS, probe)
