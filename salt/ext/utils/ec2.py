"""Machines as EC2 knows them: by name, ours only, never those already terminated."""

from typing import Any

import aws
import knobs

# States in which a machine holds its name.
ALIVE = ["pending", "running", "stopping", "stopped"]
REMOVED_SECONDS = 60


def machines(platform: dict[str, Any] | None = None) -> dict[str, dict[str, Any]]:
    """
    Return every machine of the platform by name: ``id state size image private_ips public_ips``.

    ``platform`` are the knobs; those of the pillar when called as ``__utils__["ec2.machines"]``.
    """
    if platform is None:
        platform = knobs.load(globals().get("__opts__"))["platform"]
    return {name_of(item): brief(item) for item in instances(platform)}


def instances(platform: dict[str, Any], name: str | None = None) -> list[dict[str, Any]]:
    """Return the living instances of the platform (those of ``name``), as EC2 describes them."""
    filters = [{"Name": "instance-state-name", "Values": ALIVE}, *aws.mine(platform, name)]
    found = aws.pages(platform, "ec2", "describe_instances", "Reservations", Filters=filters)
    return [instance for reservation in found for instance in reservation["Instances"]]


def present(
    platform: dict[str, Any], filters: list[dict[str, Any]] | None = None
) -> list[dict[str, Any]]:
    """
    Return the instances that are not terminated yet, those that are being so included:
    the platform's, or whoever's ``filters`` find.
    """
    states = {"Name": "instance-state-name", "Values": [*ALIVE, "shutting-down"]}
    which = aws.mine(platform) if filters is None else filters
    found = aws.pages(
        platform, "ec2", "describe_instances", "Reservations", Filters=[states, *which]
    )
    return [instance for reservation in found for instance in reservation["Instances"]]


def remove(platform: dict[str, Any], request: str, **arguments: Any) -> None:
    """
    Send a removing ``request``; for ``REMOVED_SECONDS`` again while something depends on it.

    EC2 says for a moment that what was just removed is still in use. Raises CloudError.
    """

    def probe() -> tuple[bool | None, str]:
        try:
            aws.call(platform, "ec2", request, **arguments)
        except aws.CloudError as error:
            if aws.code(error) != "DependencyViolation":
                raise
            return None, str(error)
        return True, "removed"

    aws.wait(f"{request} of {', '.join(map(str, arguments.values()))}", REMOVED_SECONDS, probe)


def instance(platform: dict[str, Any], name: str) -> dict[str, Any] | None:
    """Return the one living instance named ``name``, or None. Two of a name are a CloudError."""
    return aws.one(instances(platform, name), "InstanceId", name)


def by_id(platform: dict[str, Any], instance_id: str) -> dict[str, Any]:
    """Return the instance of that id, whatever its state."""
    answer = aws.call(platform, "ec2", "describe_instances", InstanceIds=[instance_id])
    found: dict[str, Any] = answer["Reservations"][0]["Instances"][0]
    return found


def tag(item: dict[str, Any], key: str) -> str:
    """Return the value of the tag ``key`` of ``item``, or ''."""
    return next((pair["Value"] for pair in item.get("Tags", []) if pair["Key"] == key), "")


def name_of(item: dict[str, Any]) -> str:
    """Return the instance's name; its id when it has none."""
    return tag(item, "Name") or str(item["InstanceId"])


def brief(item: dict[str, Any]) -> dict[str, Any]:
    """Return the fields that salt-cloud shows of every machine of every cloud (``-Q``)."""
    return {
        "id": item["InstanceId"],
        "name": name_of(item),
        "state": item["State"]["Name"],
        "size": item["InstanceType"],
        "image": item["ImageId"],
        "private_ips": [item["PrivateIpAddress"]] if item.get("PrivateIpAddress") else [],
        "public_ips": [item["PublicIpAddress"]] if item.get("PublicIpAddress") else [],
    }


def full(item: dict[str, Any]) -> dict[str, Any]:
    """Return all that is worth knowing of a machine (``-F``)."""
    return {
        **brief(item),
        "vpc": item.get("VpcId"),
        "subnet": item.get("SubnetId"),
        "zone": item.get("Placement", {}).get("AvailabilityZone"),
        "groups": sorted({group["GroupName"] for group in _groups(item)}),
        "key": item.get("KeyName"),
        "profile": item.get("IamInstanceProfile", {}).get("Arn"),
        "launched": str(item.get("LaunchTime", "")),
        "tags": {pair["Key"]: pair["Value"] for pair in item.get("Tags", [])},
    }


def _groups(item: dict[str, Any]) -> list[dict[str, Any]]:
    """A machine's groups are those of its interfaces; not every API repeats them above."""
    interfaces = item.get("NetworkInterfaces", [])
    return [*item.get("SecurityGroups", []), *(g for i in interfaces for g in i.get("Groups", []))]


def image(platform: dict[str, Any]) -> dict[str, Any]:
    """Return the machine image: the one of ``image.id``, else the newest by owner and name."""
    wanted = platform["image"]
    if wanted["id"]:
        found = aws.call(platform, "ec2", "describe_images", ImageIds=[wanted["id"]])["Images"]
    else:
        found = aws.call(
            platform,
            "ec2",
            "describe_images",
            Owners=[wanted["owner"]],
            Filters=[
                {"Name": "name", "Values": [wanted["name"]]},
                {"Name": "state", "Values": ["available"]},
            ],
        )["Images"]
    if not found:
        raise aws.CloudError(
            f"no image {wanted['id'] or wanted['name']} of {wanted['owner']} in "
            f"{platform['aws']['region']}; check platform.image"
        )
    newest: dict[str, Any] = max(found, key=lambda item: str(item.get("CreationDate", "")))
    return newest


def subnet(platform: dict[str, Any], name: str) -> str:
    """Return the id of the subnet ``name``."""
    found = aws.pages(
        platform, "ec2", "describe_subnets", "Subnets", Filters=aws.mine(platform, name)
    )
    return str(_present(aws.one(found, "SubnetId", name), "subnet", name)["SubnetId"])


def groups(platform: dict[str, Any], names: list[str]) -> list[str]:
    """Return the ids of the security groups ``names``, in their order."""
    found = aws.pages(
        platform,
        "ec2",
        "describe_security_groups",
        "SecurityGroups",
        Filters=[*aws.mine(platform), {"Name": "group-name", "Values": names}],
    )
    ids = {item["GroupName"]: str(item["GroupId"]) for item in found}
    return [_present(ids.get(name), "security group", name) for name in names]


def address(platform: dict[str, Any], name: str) -> dict[str, Any] | None:
    """Return the elastic address ``name``, or None."""
    answer = aws.call(platform, "ec2", "describe_addresses", Filters=aws.mine(platform, name))
    return aws.one(answer["Addresses"], "PublicIp", name)


def associate(platform: dict[str, Any], name: str, instance_id: str) -> str:
    """Give the elastic address ``name`` to the instance if it has not got it; return it."""
    found: dict[str, Any] = _present(address(platform, name), "elastic address", name)
    if not has_address(by_id(platform, instance_id), found):
        aws.call(
            platform,
            "ec2",
            "associate_address",
            AllocationId=found["AllocationId"],
            InstanceId=instance_id,
            AllowReassociation=True,
        )
    return str(found["PublicIp"])


def has_address(item: dict[str, Any], address: dict[str, Any] | None) -> bool:
    """Say whether the machine is reached at the elastic ``address``: both must say so."""
    return (
        address is not None
        and address.get("InstanceId") == item["InstanceId"]
        and item.get("PublicIpAddress") == address["PublicIp"]
    )


def _present(found: Any, kind: str, name: str) -> Any:
    if found is None:
        raise aws.CloudError(
            f"no {kind} named {name}; run `salt-run state.orchestrate orch.network` first"
        )
    return found


def fleet(platform: dict[str, Any] | None = None) -> dict[str, dict[str, dict[str, Any]]]:
    """Return the salt-cloud map of the platform: profile → machine → its own values (none)."""
    if platform is None:
        platform = knobs.load(globals().get("__opts__"))["platform"]
    name, count = platform["name"], platform["workers"]["count"]
    workers: dict[str, dict[str, Any]] = {f"{name}-worker-{n}": {} for n in range(1, count + 1)}
    return {"k3s-master": {f"{name}-master": {}}, "k3s-worker": workers}
