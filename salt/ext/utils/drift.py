"""What of a machine is not as wanted of it (`profiles.Spec`), and the acts that make it so."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import aws
import ec2
from launch import Lookup, protect
from profiles import BURSTABLE, Spec


@dataclass(frozen=True)
class Difference:
    """``what`` is ``old`` and shall be ``new``; ``act`` makes it so, None: a new machine only."""

    what: str
    old: Any
    new: Any
    act: Callable[[], Any] | None = None


def differences(
    platform: dict[str, Any],
    spec: Spec,
    item: dict[str, Any],
    lookup: Lookup | None = None,
) -> list[Difference]:
    """
    Return what of the instance ``item`` is not as ``spec`` wants it, with the acts that make it so.

    One without an act only a new machine can have. A newer image is none: machines keep theirs.
    """
    look = lookup or Lookup(platform, [item])
    ident = item["InstanceId"]
    modify = partial(aws.call, platform, "ec2")
    found: list[Difference] = []

    def differ(what: str, old: Any, new: Any, act: Callable[[], Any] | None = None) -> None:
        if old != new:
            found.append(Difference(what, old, new, act))

    tags = {pair["Key"]: pair["Value"] for pair in item.get("Tags", [])}
    for key, value in [
        *((pair["Key"], pair["Value"]) for pair in aws.tags(platform, spec.name)),
        *spec.tags,
    ]:
        pair = {"Key": key, "Value": value}
        act = partial(modify, "create_tags", Resources=[ident], Tags=[pair])
        differ(f"tag {key}", tags.get(key), value, act)

    differ("size", item["InstanceType"], spec.size)
    differ("subnet", item.get("SubnetId"), look.subnet(spec))
    differ("key", item.get("KeyName"), look.key(spec.key))
    if spec.private_address:
        differ("private address", item.get("PrivateIpAddress"), spec.private_address)

    _groups_differ(look, spec, item, differ, modify)
    differ(
        "source/destination check",
        "on" if item.get("SourceDestCheck", True) else "off",
        "on" if spec.source_dest_check else "off",
        partial(
            modify,
            "modify_instance_attribute",
            InstanceId=ident,
            SourceDestCheck={"Value": spec.source_dest_check},
        ),
    )
    if spec.termination_protection is not None:
        differ(
            "termination protection",
            "on" if look.is_protected(ident) else "off",
            "on" if spec.termination_protection else "off",
            partial(protect, platform, ident, spec.termination_protection),
        )
    options = item.get("MetadataOptions", {})
    metadata: list[tuple[str, str, Any]] = [
        ("metadata service", "HttpEndpoint", "enabled"),
        ("metadata tokens", "HttpTokens", spec.tokens),
        ("metadata hop limit", "HttpPutResponseHopLimit", spec.hop_limit),
    ]
    for what, field, wants in metadata:
        act = partial(
            modify, "modify_instance_metadata_options", InstanceId=ident, **{field: wants}
        )
        differ(what, options.get(field), wants, act)
    if spec.credit_mode and BURSTABLE.match(item["InstanceType"]):
        wanted = {"InstanceId": ident, "CpuCredits": spec.credit_mode}
        act = partial(
            modify, "modify_instance_credit_specification", InstanceCreditSpecifications=[wanted]
        )
        differ("credit mode", look.credits(ident), spec.credit_mode, act)
    if spec.monitoring is not None:
        state = item.get("Monitoring", {}).get("State", "disabled")
        differ(
            "monitoring",
            "on" if state in ("enabled", "pending") else "off",
            "on" if spec.monitoring else "off",
            partial(
                modify,
                "monitor_instances" if spec.monitoring else "unmonitor_instances",
                InstanceIds=[ident],
            ),
        )
    _addresses_differ(platform, look, spec, item, differ)
    return found


def _groups_differ(
    look: Lookup,
    spec: Spec,
    item: dict[str, Any],
    differ: Callable[..., None],
    modify: Callable[..., Any],
) -> None:
    wanted = look.groups(spec.groups)
    has = {group["GroupId"]: group.get("GroupName", "") for group in ec2.groups_of(item)}
    names = dict(zip(wanted, spec.groups, strict=True))
    platform = look.platform["name"]
    differ(
        "groups",
        sorted(has[ident] or ident for ident in has),
        sorted(
            has.get(ident) or (ident if name == ident else f"{platform}-{name}")
            for ident, name in names.items()
        ),
        partial(
            modify,
            "modify_instance_attribute",
            InstanceId=item["InstanceId"],
            Groups=list(wanted),
        ),
    )


def _addresses_differ(
    platform: dict[str, Any],
    look: Lookup,
    spec: Spec,
    item: dict[str, Any],
    differ: Callable[..., None],
) -> None:
    has = item.get("PublicIpAddress")
    if spec.address:
        address = look.address(spec.address)
        if not ec2.has_address(item, address):
            new = address["PublicIp"] if address else spec.address
            act = partial(ec2.associate, platform, spec.address, item["InstanceId"])
            # The address may say that it is the machine's while the machine does not.
            differ("address", has if has != new else None, new, act)
    elif item["State"]["Name"] == "running":
        differ("public address", bool(has), spec.public_address)
