"""
May the platform be removed? Asked before anything is: removal cannot be undone.

.. code-block:: yaml

    may be removed:
      cloud_removal.allowed:
        - name: f1
        - confirm: {{ pillar.get('confirm') | json }}
"""

from typing import Any

import aws
import ec2
from steps import failed, guarded

__opts__: dict[str, Any]
__pillar__: dict[str, Any]

# Kind, request, where its answer has the items, their id, and the filter by VPC if it has one.
_KINDS = (
    ("address", "describe_addresses", "Addresses", "PublicIp", None),
    ("key pair", "describe_key_pairs", "KeyPairs", "KeyPairId", None),
    ("network interface", "describe_network_interfaces", "NetworkInterfaces",
     "NetworkInterfaceId", "vpc-id"),
    ("security group", "describe_security_groups", "SecurityGroups", "GroupId", "vpc-id"),
    ("route table", "describe_route_tables", "RouteTables", "RouteTableId", "vpc-id"),
    ("gateway", "describe_internet_gateways", "InternetGateways", "InternetGatewayId",
     "attachment.vpc-id"),
    ("subnet", "describe_subnets", "Subnets", "SubnetId", "vpc-id"),
    ("VPC", "describe_vpcs", "Vpcs", "VpcId", None),
)  # fmt: skip


@guarded
def allowed(name: str, confirm: str | None) -> dict[str, Any]:
    """
    Fail unless ``confirm`` is the platform's ``name`` and nobody else's things are in its VPC.

    A plan needs no confirmation. What would be removed, or what is in the way, is named by id.
    """
    strangers = _strangers()
    if strangers:
        raise aws.CloudError(
            f"in the VPC of {name} there is what it did not make: {', '.join(strangers)}; "
            "nothing was removed; remove these or move them, then run it again"
        )
    if confirm != name and not __opts__["test"]:
        listed = ", ".join([*_machines(), *_ours(), f"bucket {aws.bucket(_platform())}"])
        said = f" (CONFIRM is {confirm!r})" if confirm else ""
        words = (
            f"this would remove for good, if it is there: {listed}, the DNS record, the operator's "
            f"key; nothing was removed{said}; to do so type: make down CLOUD=aws CONFIRM={name}"
        )
        return failed(name, aws.CloudError(words))
    comment = f"nothing in the VPC of {name} belongs to anybody else"
    return {"name": name, "result": True, "changes": {}, "comment": comment}


def _platform() -> dict[str, Any]:
    platform: dict[str, Any] = __pillar__["platform"]
    return platform


def _machines() -> list[str]:
    return [f"machine {ec2.name_of(i)} ({i['InstanceId']})" for i in ec2.present(_platform())]


def _ours() -> list[str]:
    platform = _platform()
    found = []
    for kind, request, key, identifier, _ in _KINDS:
        for item in aws.call(platform, "ec2", request, Filters=aws.mine(platform))[key]:
            found.append(f"{kind} {item[identifier]}")
    return found


def _strangers() -> list[str]:
    """Return what is inside our VPC and is neither tagged as ours nor part of what is."""
    platform = _platform()
    filters = aws.mine(platform, platform["name"])
    vpcs = [
        v["VpcId"] for v in aws.pages(platform, "ec2", "describe_vpcs", "Vpcs", Filters=filters)
    ]
    if not vpcs:
        return []
    inside = ec2.present(platform, [{"Name": "vpc-id", "Values": vpcs}])
    found = [
        f"instance {item['InstanceId']} ({ec2.name_of(item)})"
        for item in inside
        if not _is_ours(item)
    ]
    ours = {item["InstanceId"] for item in inside if _is_ours(item)}
    for kind, request, key, identifier, by_vpc in _KINDS:
        if by_vpc is None:
            continue
        for item in aws.pages(
            platform, "ec2", request, key, Filters=[{"Name": by_vpc, "Values": vpcs}]
        ):
            holder = item.get("Attachment", {}).get("InstanceId")
            # AWS makes these two with the VPC and removes them with it.
            is_vpcs = item.get("GroupName") == "default" or any(
                one.get("Main") for one in item.get("Associations", [])
            )
            if not (_is_ours(item) or holder in ours or is_vpcs):
                found.append(f"{kind} {item[identifier]}")
    return found


def _is_ours(item: dict[str, Any]) -> bool:
    # Interfaces have their tags under a name of their own (EC2 API, NetworkInterface).
    tags = [*item.get("Tags", []), *item.get("TagSet", [])]
    return ec2.tag({"Tags": tags}, aws.PLATFORM_TAG) == _platform()["name"]
