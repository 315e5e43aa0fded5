"""
What of an account is the platform's and what is not: asked before anything is removed, and after.

Inside the VPC a thing is ours by what cannot be changed (docs/architecture.md, "Identity"), which
is also what ``orch.down`` removes; everything else there is somebody else's, and would keep the VPC
from going. A text names each thing by kind and id.
"""

from typing import Any

import aws
import ec2
import knobs
import launch
import leftovers
import vpc


def inside(platform: dict[str, Any]) -> tuple[list[str], list[str]]:
    """Return what the VPC holds, itself included: what is ours, and what is not."""
    view = vpc.View(platform)
    home = view.vpc_id()
    if home is None:
        return [], []
    ours: list[str] = []
    theirs: list[str] = []

    def sort(kind: str, ident: str, is_ours: bool, name: str = "") -> None:
        (ours if is_ours else theirs).append(f"{kind} {ident}" + (f" ({name})" if name else ""))

    network, name = platform["network"], platform["name"]
    machines = ec2.present(platform)
    held = {item["InstanceId"] for item in machines}
    for item in machines:
        ours.append(f"machine {ec2.name_of(item)} ({item['InstanceId']})")
    anybodys = _instances(platform, home)
    for item in anybodys.values():
        if item["InstanceId"] not in held:
            sort("instance", item["InstanceId"], False, ec2.name_of(item))
    gateways = view.nats("pending", "available", "deleting")
    nats = {item["NatGatewayId"] for item in gateways}
    for item in view.inside("nats"):
        if item["State"] in ("pending", "available", "deleting"):
            sort("NAT gateway", item["NatGatewayId"], item["NatGatewayId"] in nats)
    of_nats = {
        used.get("NetworkInterfaceId")
        for item in gateways
        for used in item.get("NatGatewayAddresses", [])
    }
    for item in _interfaces(platform, home):
        if (item.get("Attachment") or {}).get("InstanceId") not in held and item[
            "NetworkInterfaceId"
        ] not in of_nats:
            is_ours = _is_left(platform, item, anybodys)
            sort("network interface", item["NetworkInterfaceId"], is_ours)
    groups = {group["GroupId"] for group in view.groups().values()}
    for item in view.describe(
        "describe_security_groups",
        "SecurityGroups",
        Filters=[{"Name": "vpc-id", "Values": [home]}],
    ):
        # EC2 makes this one with the VPC and removes it with it.
        if item["GroupName"] != "default":
            is_ours = item["GroupId"] in groups
            sort("security group", item["GroupId"], is_ours, item["GroupName"])
    tables = [
        view.table(f"{name}-public", [network["master_cidr"]]),
        view.table(f"{name}-workers", network["worker_cidrs"]),
    ]
    known = {item["RouteTableId"] for item in tables if item}
    for item in view.inside("tables"):
        if not vpc.is_main(item):
            sort("route table", item["RouteTableId"], item["RouteTableId"] in known)
    endpoint = view.endpoint(f"com.amazonaws.{platform['aws']['region']}.s3")
    for item in view.inside("endpoints"):
        if not vpc.is_gone(item):
            sort("endpoint", item["VpcEndpointId"], item == endpoint)
    for item in view.inside("gateways"):
        sort("gateway", item["InternetGatewayId"], True)
    ranges = [cidr for cidr, _ in vpc.subnets(platform).values()]
    for item in view.inside("subnets"):
        is_ours = item["CidrBlock"] in ranges or vpc.is_ours(platform, item)
        sort("subnet", item["SubnetId"], is_ours)
    return [*ours, f"VPC {home}"], theirs


def _interfaces(platform: dict[str, Any], home: str) -> list[dict[str, Any]]:
    filters = [{"Name": "vpc-id", "Values": [home]}]
    return aws.pages(
        platform, "ec2", "describe_network_interfaces", "NetworkInterfaces", Filters=filters
    )


def _instances(platform: dict[str, Any], home: str) -> dict[str, dict[str, Any]]:
    """Return the VPC's instances that are not terminated, whoever's, by id."""
    found = ec2.present(platform, [{"Name": "vpc-id", "Values": [home]}])
    return {item["InstanceId"]: item for item in found}


def _is_tagged(platform: dict[str, Any], interface: dict[str, Any]) -> bool:
    # Interfaces have their tags under a name of their own (EC2 API, NetworkInterface).
    return vpc.is_ours(platform, {"Tags": interface.get("TagSet", [])})


def _is_left(
    platform: dict[str, Any], interface: dict[str, Any], alive: dict[str, dict[str, Any]]
) -> bool:
    """Say whether an interface is ours and no instance that is ``alive`` holds it, nor AWS."""
    holder = (interface.get("Attachment") or {}).get("InstanceId")
    is_free = holder not in alive if holder else interface["Status"] == "available"
    return is_free and _is_tagged(platform, interface)


def left_by_machines(platform: dict[str, Any]) -> list[str]:
    """
    Return our interfaces that no machine's end takes along: those that none holds, and those that
    one of ours holds but would leave. In no case does a volume go that a machine would leave.
    """
    home = vpc.View(platform).vpc_id()
    if home is None:
        return []
    held = {item["InstanceId"] for item in ec2.present(platform)}
    alive = _instances(platform, home)
    found = []
    for item in _interfaces(platform, home):
        attachment = item.get("Attachment") or {}
        stays = attachment.get("InstanceId") in held and not attachment.get("DeleteOnTermination")
        if _is_left(platform, item, alive) or (stays and _is_tagged(platform, item)):
            found.append(str(item["NetworkInterfaceId"]))
    return found


def protected(platform: dict[str, Any]) -> list[str]:
    """Return the names of our machines that EC2 refuses to terminate."""
    return [
        ec2.name_of(item)
        for item in ec2.instances(platform)
        if launch.is_protected(platform, item["InstanceId"])
    ]


def around(platform: dict[str, Any]) -> list[str]:
    """Return what is ours by name outside the VPC, if it is there: addresses and key pair."""
    found = [
        f"address {item['PublicIp']}"
        for item in leftovers.addresses(platform)
        if leftovers.is_platforms(platform, item)
    ]
    pair = _key_pair(platform)
    return found + (
        [f"key pair {pair['KeyPairId']}"] if pair and _is_our_key(platform, pair) else []
    )


def _key_pair(platform: dict[str, Any]) -> dict[str, Any] | None:
    filters = [{"Name": "key-name", "Values": [platform["name"]]}]
    found = aws.call(platform, "ec2", "describe_key_pairs", Filters=filters, IncludePublicKey=True)[
        "KeyPairs"
    ]
    return found[0] if found else None


def _is_our_key(platform: dict[str, Any], pair: dict[str, Any]) -> bool:
    public = knobs.state_dir() / "ssh/id_ed25519.pub"
    has_ours = public.exists() and public.read_text(encoding="ascii").split()[1] in (
        pair.get("PublicKey") or ""
    )
    return has_ours or vpc.is_ours(platform, pair)


def foreign(platform: dict[str, Any]) -> list[str]:
    """Return what has one of our names, or lies in our VPC, and is not ours."""
    _, found = inside(platform)
    pair = _key_pair(platform)
    if pair and not _is_our_key(platform, pair):
        found.append(f"key pair {pair['KeyPairId']} ({pair['KeyName']})")
    bucket = aws.bucket(platform)
    if not _is_our_bucket(platform, bucket):
        found.append(f"bucket {bucket}")
    return found + _record(platform)


def _is_our_bucket(platform: dict[str, Any], bucket: str) -> bool:
    """Say whether the bucket has our tag; one that is not there is nobody else's."""
    try:
        tags = aws.call(platform, "s3", "get_bucket_tagging", Bucket=bucket)["TagSet"]
    except aws.CloudError as error:
        if aws.code(error) in {"404", "NoSuchBucket"}:
            return True
        if aws.code(error) != "NoSuchTagSet":
            raise
        tags = []
    return vpc.is_ours(platform, {"Tags": tags})


def _record(platform: dict[str, Any]) -> list[str]:
    """Return the A record of the domain, if it leads elsewhere than to us."""
    zone, domain = platform["dns"]["zone"], f"{platform['domain']}."
    if not zone:
        return []
    zones = aws.call(platform, "route53", "list_hosted_zones_by_name", DNSName=zone)["HostedZones"]
    ids = [z["Id"] for z in zones if z["Name"] == f"{zone}." and not z["Config"].get("PrivateZone")]
    if not ids:
        return []
    sets = aws.call(
        platform,
        "route53",
        "list_resource_record_sets",
        HostedZoneId=ids[0],
        StartRecordName=domain,
        StartRecordType="A",
        MaxItems="1",
    )["ResourceRecordSets"]
    values = [
        value["Value"]
        for item in sets
        if item["Name"] == domain and item["Type"] == "A"
        for value in item.get("ResourceRecords", [{"Value": "an alias"}])
    ]
    address = vpc.address(platform, f"{platform['name']}-master")
    if not values or (address and values == [address["PublicIp"]]):
        return []
    return [f"record {domain} ({', '.join(values)})"]


def left(platform: dict[str, Any]) -> list[str]:
    """Return what still costs money besides machines, and what is not ours, a line each."""
    rows = leftovers.of_platform(platform)
    lines = [f"ours and still paid: {leftovers.line(row)}" for row in rows]
    if rows:
        lines.append(f"together {leftovers.total(rows)} USD a month")
    lines += [f"not ours, left alone: {each}" for each in foreign(platform)]
    return lines or [f"nothing of {platform['name']} besides its machines costs money"]
