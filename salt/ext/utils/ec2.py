"""
Machines as EC2 knows them: by name, ours only, never those already terminated.

A machine's name is what its client token says, which was given at launch and which nobody can
change: ``<name>.<12 hex digits>``. Tags are shown and repaired, but decide nothing; only what lies
in the VPC without such a token is ours by the tag ``f1:platform``. EC2 filters by token only
exactly, so that one description of the VPC's instances answers any question.
"""

import re
import secrets
from typing import Any

import aws
import knobs
import vpc

# States in which a machine holds its name.
ALIVE = ["pending", "running", "stopping", "stopped"]

_TOKEN = re.compile(r"([a-z][a-z0-9-]*)\.[0-9a-f]{12}")


def token(name: str) -> str:
    """Return a fresh client token for the launch of ``name``: its identity ever after."""
    return f"{name}.{secrets.token_hex(6)}"


def machines(platform: dict[str, Any] | None = None) -> dict[str, dict[str, Any]]:
    """
    Return every machine of the platform by name: ``id state size image private_ips public_ips``.

    ``platform`` are the knobs; those of the pillar when called as ``__utils__["ec2.machines"]``.
    """
    if platform is None:
        platform = knobs.load(globals().get("__opts__"))["platform"]
    return {name_of(item): brief(item) for item in instances(platform)}


def described(platform: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return every machine of the platform by name, with all that is worth knowing of it."""
    return {name_of(item): full(item) for item in instances(platform)}


def instances(platform: dict[str, Any], name: str | None = None) -> list[dict[str, Any]]:
    """Return the living instances of the platform (those of ``name``), as EC2 describes them."""
    return [i for i in _ours(platform, ALIVE) if name is None or name_of(i) == name]


def _ours(platform: dict[str, Any], states: list[str]) -> list[dict[str, Any]]:
    """Return the platform's instances in one of ``states``, by one description of its VPC."""
    network = vpc.View(platform).vpc_id()
    if network is None:
        return []
    filters = [
        {"Name": "vpc-id", "Values": [network]},
        {"Name": "instance-state-name", "Values": states},
    ]
    found = aws.pages(platform, "ec2", "describe_instances", "Reservations", Filters=filters)
    return [i for reservation in found for i in reservation["Instances"] if is_ours(platform, i)]


def is_ours(platform: dict[str, Any], item: dict[str, Any]) -> bool:
    """Say whether an instance is a machine of the platform: by its token, else by its tag."""
    name = _told(item)
    if name is not None:
        return name.startswith(f"{platform['name']}-")
    return tag(item, aws.PLATFORM_TAG) == platform["name"]


def _told(item: dict[str, Any]) -> str | None:
    """Return the name in the instance's client token; None if the token is none of ours."""
    match = _TOKEN.fullmatch(item.get("ClientToken") or "")
    return match.group(1) if match else None


def present(
    platform: dict[str, Any], filters: list[dict[str, Any]] | None = None
) -> list[dict[str, Any]]:
    """
    Return the instances that are not terminated yet, those that are being so included:
    the platform's, or whoever's ``filters`` find.
    """
    states = [*ALIVE, "shutting-down"]
    if filters is None:
        return _ours(platform, states)
    which = [{"Name": "instance-state-name", "Values": states}, *filters]
    found = aws.pages(platform, "ec2", "describe_instances", "Reservations", Filters=which)
    return [instance for reservation in found for instance in reservation["Instances"]]


def instance(platform: dict[str, Any], name: str) -> dict[str, Any] | None:
    """Return the one living instance named ``name``, or None. Two of a name are a CloudError."""
    return single(name, instances(platform, name))


def single(name: str, found: list[dict[str, Any]]) -> dict[str, Any] | None:
    """Return the only one of the instances ``found``, None if there is none, or CloudError."""
    if len(found) > 1:
        each = ", ".join(
            f"{item['InstanceId']} ({item['State']['Name']}, launched {item.get('LaunchTime')})"
            for item in sorted(found, key=lambda item: str(item.get("LaunchTime")))
        )
        raise aws.CloudError(
            f"{len(found)} machines are named {name}: {each}; terminate all but one of them "
            f"(salt-cloud -d <id>)"
        )
    return found[0] if found else None


def by_id(platform: dict[str, Any], instance_id: str) -> dict[str, Any]:
    """Return the instance of that id, whatever its state."""
    answer = aws.call(platform, "ec2", "describe_instances", InstanceIds=[instance_id])
    found: dict[str, Any] = answer["Reservations"][0]["Instances"][0]
    return found


def tag(item: dict[str, Any], key: str) -> str:
    """Return the value of the tag ``key`` of ``item``, or ''."""
    return next((pair["Value"] for pair in item.get("Tags", []) if pair["Key"] == key), "")


def name_of(item: dict[str, Any]) -> str:
    """Return the instance's name: by its client token, else by its tag, else its id."""
    return _told(item) or tag(item, "Name") or str(item["InstanceId"])


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
        "groups": sorted({group["GroupName"] for group in groups_of(item)}),
        "key": item.get("KeyName"),
        "profile": item.get("IamInstanceProfile", {}).get("Arn"),
        "launched": str(item.get("LaunchTime", "")),
        "tags": {pair["Key"]: pair["Value"] for pair in item.get("Tags", [])},
    }


def groups_of(item: dict[str, Any]) -> list[dict[str, Any]]:
    """A machine's groups are those of its interfaces; not every API repeats them above."""
    interfaces = item.get("NetworkInterfaces", [])
    return [*item.get("SecurityGroups", []), *(g for i in interfaces for g in i.get("Groups", []))]


def image(platform: dict[str, Any], wanted: dict[str, Any] | None = None) -> dict[str, Any]:
    """
    Return the machine image that ``wanted`` (the knob ``platform.image`` if None) means.

    ``id`` is an image's id, or ``ssm:<public parameter>`` such as
    ``ssm:/aws/service/debian/release/12/latest/amd64``; without it, the newest of ``owner`` whose
    name is like ``name``. Raises CloudError that names what was looked for.
    """
    wanted = wanted or platform["image"]
    ident = wanted.get("id")
    if ident and ident.startswith("ssm:"):
        parameter = ident.removeprefix("ssm:")
        answer = aws.call(platform, "ssm", "get_parameter", Name=parameter)
        ident = answer["Parameter"]["Value"]
    if ident:
        found = aws.call(platform, "ec2", "describe_images", ImageIds=[ident])["Images"]
    else:
        owner = {"Owners": [wanted["owner"]]} if wanted.get("owner") else {}
        found = aws.pages(
            platform,
            "ec2",
            "describe_images",
            "Images",
            # Public images are deprecated after two years, and work as before.
            IncludeDeprecated=True,
            Filters=[
                {"Name": "name", "Values": [wanted["name"]]},
                {"Name": "state", "Values": ["available"]},
            ],
            **owner,
        )
    if not found:
        whose = f" of {wanted['owner']}" if wanted.get("owner") else ""
        raise aws.CloudError(
            f"no image {ident or wanted['name']}{whose} in {platform['aws']['region']}; "
            "check platform.image, or the profile's image"
        )
    newest: dict[str, Any] = max(found, key=lambda item: str(item.get("CreationDate", "")))
    return newest


def associate(platform: dict[str, Any], name: str, instance_id: str) -> str:
    """Give the elastic address ``name`` to the instance if it has not got it; return it."""
    found = vpc.address(platform, name)
    if found is None:
        raise aws.CloudError(
            f"no elastic address named {name}; run `salt-run state.orchestrate orch.network` first"
        )
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


def fleet(platform: dict[str, Any] | None = None) -> dict[str, dict[str, dict[str, Any]]]:
    """Return the salt-cloud map of the platform: profile → machine → its own values (none)."""
    if platform is None:
        platform = knobs.load(globals().get("__opts__"))["platform"]
    name, count = platform["name"], platform["workers"]["count"]
    workers: dict[str, dict[str, Any]] = {f"{name}-worker-{n}": {} for n in range(1, count + 1)}
    return {"k3s-master": {f"{name}-master": {}}, "k3s-worker": workers}
