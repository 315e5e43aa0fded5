"""
The network of the platform: VPC, subnet, gateway, routes and the elastic address.

Resources are found by their tags (``Name`` and ``f1:platform``), described, and brought back
to what is declared. ``test=True`` reports the same differences and sends no changing request.
Security groups and keys: ``cloud_access``. Requests and answers: EC2 API reference.

.. code-block:: yaml

    vpc:
      cloud_network.vpc:
        - name: f1
        - cidr: 10.20.0.0/16
"""

from functools import partial
from typing import Any

import aws
import ec2
from steps import Steps, guarded

__opts__: dict[str, Any]
__pillar__: dict[str, Any]


def _find(request: str, key: str, identifier: str, name: str) -> dict[str, Any] | None:
    platform = __pillar__["platform"]
    found = aws.pages(platform, "ec2", request, key, Filters=aws.mine(platform, name))
    return aws.one(found, identifier, name)


def _ec2(request: str, **arguments: Any) -> dict[str, Any]:
    return aws.call(__pillar__["platform"], "ec2", request, **arguments)


def _tagged(kind: str, name: str) -> list[dict[str, Any]]:
    return [{"ResourceType": kind, "Tags": aws.tags(__pillar__["platform"], name)}]


def _vpc_id(name: str) -> str | None:
    found = _find("describe_vpcs", "Vpcs", "VpcId", name)
    return found["VpcId"] if found else None


def _same(kind: str, key: str, is_: Any, wanted: Any) -> None:
    """Refuse what EC2 cannot change in place: to replace it would take all that is in it."""
    if is_ != wanted:
        raise aws.CloudError(
            f"the {kind} has {key} {is_} and cannot be changed to {wanted}; "
            f"put {is_} back in the pillar, or remove the platform first"
        )


@guarded
def vpc(name: str, cidr: str) -> dict[str, Any]:
    """Make sure that the VPC ``name`` has the addresses ``cidr`` and answers DNS."""
    steps = Steps(name, __opts__["test"])
    found = _find("describe_vpcs", "Vpcs", "VpcId", name)
    made: dict[str, str] = {"id": found["VpcId"]} if found else {}

    def create() -> None:
        answer = _ec2("create_vpc", CidrBlock=cidr, TagSpecifications=_tagged("vpc", name))
        made["id"] = answer["Vpc"]["VpcId"]
        aws.client(__pillar__["platform"], "ec2").get_waiter("vpc_available").wait(
            VpcIds=[made["id"]], WaiterConfig={"Delay": 1, "MaxAttempts": 60}
        )

    def enable(attribute: str) -> None:
        _ec2("modify_vpc_attribute", VpcId=made["id"], **{attribute: {"Value": True}})

    if found:
        _same("VPC", "addresses", found["CidrBlock"], cidr)
    else:
        steps.differs("vpc", None, cidr, create)
    # Support must be on before names can be.
    for attribute in ("EnableDnsSupport", "EnableDnsHostnames"):
        key = attribute[0].lower() + attribute[1:]
        is_on = attribute == "EnableDnsSupport"  # what a new VPC has
        if found:
            answer = _ec2("describe_vpc_attribute", VpcId=made["id"], Attribute=key)
            is_on = answer[attribute]["Value"]
        if not is_on:
            steps.differs(key, is_on, True, partial(enable, attribute))
    return steps.finish(f"{cidr} is there")


@guarded
def subnet(name: str, vpc: str, cidr: str, zone: str) -> dict[str, Any]:
    """Make sure that the VPC has the subnet ``name`` in ``zone``, public addresses by default."""
    steps = Steps(name, __opts__["test"])
    found = _find("describe_subnets", "Subnets", "SubnetId", name)
    made: dict[str, str] = {"id": found["SubnetId"]} if found else {}

    def create() -> None:
        answer = _ec2(
            "create_subnet",
            VpcId=_vpc_id(vpc),
            CidrBlock=cidr,
            AvailabilityZone=zone,
            TagSpecifications=_tagged("subnet", name),
        )
        made["id"] = answer["Subnet"]["SubnetId"]

    def publish() -> None:
        _ec2("modify_subnet_attribute", SubnetId=made["id"], MapPublicIpOnLaunch={"Value": True})

    if found:
        _same("subnet", "addresses", found["CidrBlock"], cidr)
        _same("subnet", "zone", found["AvailabilityZone"], zone)
    else:
        steps.differs("subnet", None, f"{cidr} in {zone}", create)
    is_public = bool(found and found["MapPublicIpOnLaunch"])
    if not is_public:
        steps.differs("public addresses", is_public, True, publish)
    return steps.finish(f"{cidr} in {zone} is there")


@guarded
def gateway(name: str, vpc: str) -> dict[str, Any]:
    """Make sure that the internet gateway ``name`` exists and is attached to the VPC."""
    steps = Steps(name, __opts__["test"])
    found = _find("describe_internet_gateways", "InternetGateways", "InternetGatewayId", name)
    made: dict[str, str] = {"id": found["InternetGatewayId"]} if found else {}
    vpc_id = _vpc_id(vpc)

    def create() -> None:
        answer = _ec2(
            "create_internet_gateway", TagSpecifications=_tagged("internet-gateway", name)
        )
        made["id"] = answer["InternetGateway"]["InternetGatewayId"]

    def detach(other: str) -> None:
        _ec2("detach_internet_gateway", InternetGatewayId=made["id"], VpcId=other)

    def attach() -> None:
        _ec2("attach_internet_gateway", InternetGatewayId=made["id"], VpcId=vpc_id)

    if not found:
        steps.differs("gateway", None, name, create)
    attached = [item["VpcId"] for item in found.get("Attachments", [])] if found else []
    for other in attached:
        if other != vpc_id:
            steps.differs(f"attached to {other}", True, False, partial(detach, other))
    if not attached or vpc_id not in attached:
        steps.differs("attached to", None, vpc, attach)
    return steps.finish(f"attached to {vpc}")


@guarded
def routes(name: str, vpc: str, gateway: str, subnet: str) -> dict[str, Any]:
    """Make sure that the subnet's route table ``name`` leads the internet through the gateway."""
    steps = Steps(name, __opts__["test"])
    found = _find("describe_route_tables", "RouteTables", "RouteTableId", name)
    made: dict[str, str] = {"id": found["RouteTableId"]} if found else {}
    igw = _find("describe_internet_gateways", "InternetGateways", "InternetGatewayId", gateway)
    net = _find("describe_subnets", "Subnets", "SubnetId", subnet)
    igw_id = igw["InternetGatewayId"] if igw else None
    net_id = net["SubnetId"] if net else None

    def create() -> None:
        answer = _ec2(
            "create_route_table",
            VpcId=_vpc_id(vpc),
            TagSpecifications=_tagged("route-table", name),
        )
        made["id"] = answer["RouteTable"]["RouteTableId"]

    def route(request: str) -> None:
        _ec2(
            request,
            RouteTableId=made["id"],
            DestinationCidrBlock="0.0.0.0/0",
            GatewayId=igw_id,
        )

    def unroute(destination: str) -> None:
        _ec2("delete_route", RouteTableId=made["id"], DestinationCidrBlock=destination)

    def associate(other: str | None) -> None:
        if other:
            _ec2("replace_route_table_association", AssociationId=other, RouteTableId=made["id"])
        else:
            _ec2("associate_route_table", SubnetId=net_id, RouteTableId=made["id"])

    if not found:
        steps.differs("route table", None, name, create)
    ours = found.get("Routes", []) if found else []
    there = {item["DestinationCidrBlock"]: item for item in ours if "DestinationCidrBlock" in item}
    default = there.get("0.0.0.0/0")
    if default is None:
        steps.differs("0.0.0.0/0", None, gateway, lambda: route("create_route"))
    elif default.get("GatewayId") != igw_id or default.get("State") == "blackhole":
        steps.differs(
            "0.0.0.0/0", default.get("GatewayId"), gateway, lambda: route("replace_route")
        )
    for destination, item in there.items():
        if destination != "0.0.0.0/0" and item.get("GatewayId") != "local":
            steps.differs(destination, "routed", None, partial(unroute, destination))
    if net_id is None or found is None or not _associated(found, net_id):
        other = _association(net_id)
        steps.differs("route table of", other, subnet, lambda: associate(other))
    return steps.finish(f"{subnet} reaches the internet through {gateway}")


def _associated(table: dict[str, Any], subnet_id: str) -> bool:
    return any(item.get("SubnetId") == subnet_id for item in table.get("Associations", []))


def _association(subnet_id: str | None) -> str | None:
    """Return the id of the subnet's association with whatever table it has, or None."""
    if subnet_id is None:
        return None
    filters = [{"Name": "association.subnet-id", "Values": [subnet_id]}]
    for table in _ec2("describe_route_tables", Filters=filters)["RouteTables"]:
        for item in table["Associations"]:
            if item.get("SubnetId") == subnet_id:
                return str(item["RouteTableAssociationId"])
    return None


@guarded
def address(name: str) -> dict[str, Any]:
    """Make sure that the elastic address ``name`` is ours; the driver gives it to the machine."""
    steps = Steps(name, __opts__["test"])
    found = ec2.address(__pillar__["platform"], name)
    if found is None:

        def allocate() -> None:
            _ec2("allocate_address", Domain="vpc", TagSpecifications=_tagged("elastic-ip", name))

        steps.differs("address", None, "allocated", allocate)
    return steps.finish(f"{found['PublicIp']} is ours" if found else "")


# The reverse, in the order in which EC2 allows it -------------------------------------------------


def _remove(request: str, **arguments: Any) -> None:
    ec2.remove(__pillar__["platform"], request, **arguments)


@guarded
def address_absent(name: str) -> dict[str, Any]:
    """Give the elastic address ``name`` back."""
    steps = Steps(name, __opts__["test"])
    found = ec2.address(__pillar__["platform"], name)
    if found:
        ip = found["PublicIp"]
        if found.get("AssociationId"):
            take = partial(_ec2, "disassociate_address", AssociationId=found["AssociationId"])
            steps.differs(f"{ip} of", found.get("InstanceId", "an interface"), None, take)
        release = partial(_ec2, "release_address", AllocationId=found["AllocationId"])
        steps.differs("address", ip, None, release)
    return steps.finish("no address is ours")


@guarded
def routes_absent(name: str) -> dict[str, Any]:
    """Remove the route table ``name``; its subnets fall back to the VPC's own."""
    steps = Steps(name, __opts__["test"])
    found = _find("describe_route_tables", "RouteTables", "RouteTableId", name)
    if found:
        for item in found.get("Associations", []):
            if item.get("SubnetId"):
                ident = item["RouteTableAssociationId"]
                leave = partial(_ec2, "disassociate_route_table", AssociationId=ident)
                steps.differs(f"route table of {item['SubnetId']}", name, None, leave)
        table = found["RouteTableId"]
        steps.differs(
            "route table", table, None, partial(_remove, "delete_route_table", RouteTableId=table)
        )
    return steps.finish(f"no route table {name} is there")


@guarded
def gateway_absent(name: str) -> dict[str, Any]:
    """Detach the internet gateway ``name`` and remove it."""
    steps = Steps(name, __opts__["test"])
    found = _find("describe_internet_gateways", "InternetGateways", "InternetGatewayId", name)
    if found:
        igw = {"InternetGatewayId": found["InternetGatewayId"]}
        for item in found.get("Attachments", []):
            vpc_id = item["VpcId"]
            detach = partial(_remove, "detach_internet_gateway", VpcId=vpc_id, **igw)
            steps.differs(f"attached to {vpc_id}", True, False, detach)
        delete = partial(_remove, "delete_internet_gateway", **igw)
        steps.differs("gateway", found["InternetGatewayId"], None, delete)
    return steps.finish(f"no gateway {name} is there")


@guarded
def subnet_absent(name: str) -> dict[str, Any]:
    """Remove the subnet ``name``."""
    steps = Steps(name, __opts__["test"])
    found = _find("describe_subnets", "Subnets", "SubnetId", name)
    if found:
        ident = found["SubnetId"]
        steps.differs("subnet", ident, None, partial(_remove, "delete_subnet", SubnetId=ident))
    return steps.finish(f"no subnet {name} is there")


@guarded
def vpc_absent(name: str) -> dict[str, Any]:
    """Remove the VPC ``name``, which must be empty by now."""
    steps = Steps(name, __opts__["test"])
    found = _find("describe_vpcs", "Vpcs", "VpcId", name)
    if found:
        ident = found["VpcId"]
        steps.differs("vpc", ident, None, partial(_remove, "delete_vpc", VpcId=ident))
    return steps.finish(f"no VPC {name} is there")
