"""
The network of the platform: VPC, subnets, gateways, routes and the elastic addresses.

Resources are found by what cannot be changed of them (utils ``vpc``), described, and brought
back to what is declared, their tags included. ``test=True`` reports the same differences and
sends no changing request. Security groups and keys: ``cloud_access``. Requests and answers: EC2
API reference.

.. code-block:: yaml

    vpc:
      cloud_network.vpc:
        - name: f1
        - cidr: 10.20.0.0/16
"""

import ipaddress
import json
from functools import partial
from typing import Any

import aws
import ec2
from steps import Steps, guarded
from vpc import View, associated, is_main, is_ours, shared, subnets

__opts__: dict[str, Any]
__pillar__: dict[str, Any]
__context__: dict[str, Any]

EVERYWHERE = "0.0.0.0/0"
NAT_SECONDS = 600
# A route has exactly one of these; each is also the argument that names it in a request.
_DESTINATIONS = ("DestinationCidrBlock", "DestinationIpv6CidrBlock", "DestinationPrefixListId")
# What an endpoint allows when nothing else is said (VPC user guide, "Endpoint policies").
_FULL_ACCESS = {
    "Version": "2008-10-17",
    "Statement": [{"Effect": "Allow", "Principal": "*", "Action": "*", "Resource": "*"}],
}


def _platform() -> dict[str, Any]:
    platform: dict[str, Any] = __pillar__["platform"]
    return platform


def _begin(name: str) -> tuple[View, Steps]:
    return shared(__context__, _platform()), Steps(name, __opts__["test"])


def _tagged(kind: str, name: str) -> list[dict[str, Any]]:
    return [{"ResourceType": kind, "Tags": aws.tags(_platform(), name)}]


def _same(kind: str, key: str, is_: Any, wanted: Any) -> None:
    """Refuse what EC2 cannot change in place: to replace it would take all that is in it."""
    if is_ != wanted:
        raise aws.CloudError(
            f"the {kind} has {key} {is_} and cannot be changed to {wanted}; "
            f"put {is_} back in the pillar, or remove the platform first"
        )


@guarded
def vpc(name: str, cidr: str) -> dict[str, Any]:
    """Make sure that the VPC ``name`` has the addresses ``cidr``, answers DNS and has its tags."""
    view, steps = _begin(name)
    found = view.vpc()
    made: dict[str, str] = {"id": found["VpcId"]} if found else {}

    def create() -> None:
        answer = view.change("create_vpc", CidrBlock=cidr, TagSpecifications=_tagged("vpc", name))
        made["id"] = answer["Vpc"]["VpcId"]
        view.until(f"{made['id']} to be available", lambda: _in_state(view.vpc(), "available"))

    def enable(attribute: str) -> None:
        view.change("modify_vpc_attribute", VpcId=made["id"], **{attribute: {"Value": True}})

    if found:
        _same("VPC", "addresses", found["CidrBlock"], cidr)
        view.retag(steps, found, found["VpcId"], name)
    else:
        steps.differs("vpc", None, cidr, create)
    # Support must be on before names can be.
    for attribute in ("EnableDnsSupport", "EnableDnsHostnames"):
        key = attribute[0].lower() + attribute[1:]
        is_on = attribute == "EnableDnsSupport"  # what a new VPC has
        if found:
            answer = aws.call(
                _platform(), "ec2", "describe_vpc_attribute", VpcId=made["id"], Attribute=key
            )
            is_on = answer[attribute]["Value"]
        if not is_on:
            steps.differs(key, is_on, True, partial(enable, attribute))
    return steps.finish(f"{cidr} is there")


def _in_state(item: dict[str, Any] | None, state: str) -> dict[str, Any] | None:
    return item if item and str(item["State"]).lower() == state else None


@guarded
def subnet(name: str, cidr: str, zone: str, public: bool) -> dict[str, Any]:
    """
    Make sure that the VPC has the subnet ``cidr`` in ``zone``.

    ``public``: whether a machine in it has a public address unless it says otherwise.
    """
    view, steps = _begin(name)
    found = view.subnet(cidr)
    made: dict[str, str] = {"id": found["SubnetId"]} if found else {}

    def create() -> None:
        answer = view.change(
            "create_subnet",
            VpcId=view.needed_id(),
            CidrBlock=cidr,
            AvailabilityZone=zone,
            TagSpecifications=_tagged("subnet", name),
        )
        made["id"] = answer["Subnet"]["SubnetId"]
        what = f"{made['id']} to be available"
        view.until(what, lambda: _in_state(view.subnet(cidr), "available"))

    def publish() -> None:
        view.change(
            "modify_subnet_attribute", SubnetId=made["id"], MapPublicIpOnLaunch={"Value": public}
        )

    if found:
        _same("subnet", "zone", found["AvailabilityZone"], zone)
        view.retag(steps, found, found["SubnetId"], name)
    else:
        for other in view.inside("subnets"):
            if is_ours(_platform(), other) and ec2.tag(other, "Name") == name:
                _same("subnet", "addresses", other["CidrBlock"], cidr)
        steps.differs("subnet", None, f"{cidr} in {zone}", create)
    is_public = bool(found and found["MapPublicIpOnLaunch"])
    if is_public != public:
        steps.differs("public addresses", is_public, public, publish)
    return steps.finish(f"{cidr} in {zone} is there")


@guarded
def gateway(name: str) -> dict[str, Any]:
    """Make sure that the internet gateway ``name`` exists and is attached to the VPC."""
    view, steps = _begin(name)
    found = view.gateway(name)
    made: dict[str, str] = {"id": found["InternetGatewayId"]} if found else {}

    def create() -> None:
        answer = view.change(
            "create_internet_gateway", TagSpecifications=_tagged("internet-gateway", name)
        )
        made["id"] = answer["InternetGateway"]["InternetGatewayId"]

    def detach(other: str) -> None:
        view.change("detach_internet_gateway", InternetGatewayId=made["id"], VpcId=other)

    def attach() -> None:
        ident = view.needed_id()
        view.change("attach_internet_gateway", InternetGatewayId=made["id"], VpcId=ident)
        view.until(f"{made['id']} to be attached", lambda: view.inside("gateways") or None)

    vpc_id = view.vpc_id()
    if found:
        view.retag(steps, found, found["InternetGatewayId"], name)
    else:
        steps.differs("gateway", None, name, create)
    attached = [item["VpcId"] for item in found.get("Attachments", [])] if found else []
    for other in attached:
        if other != vpc_id:
            steps.differs(f"attached to {other}", True, False, partial(detach, other))
    if not attached or vpc_id not in attached:
        steps.differs("attached to", None, _platform()["name"], attach)
    return steps.finish("attached to the VPC")


@guarded
def routes(name: str, cidrs: list[str], gateway: str | None = None) -> dict[str, Any]:
    """
    Make sure that the subnets ``cidrs`` use the route table ``name`` and that it leads nowhere
    else than it should: to the internet through ``gateway``, to S3 by its endpoint.

    Without ``gateway`` the way to the internet is left to ``egress``.
    """
    view, steps = _begin(name)
    found = view.table(name, cidrs)
    made: dict[str, str] = {"id": found["RouteTableId"]} if found else {}

    def create() -> None:
        answer = view.change(
            "create_route_table",
            VpcId=view.needed_id(),
            TagSpecifications=_tagged("route-table", name),
        )
        made["id"] = answer["RouteTable"]["RouteTableId"]
        view.until(f"{made['id']} to be there", lambda: view.table(name, cidrs))

    def associate(cidr: str, other: str | None) -> None:
        if other:
            view.change(
                "replace_route_table_association", AssociationId=other, RouteTableId=made["id"]
            )
        else:
            ident = (view.subnet(cidr) or {}).get("SubnetId", "")
            view.change("associate_route_table", SubnetId=ident, RouteTableId=made["id"])

    if found:
        view.retag(steps, found, found["RouteTableId"], name)
    else:
        steps.differs("route table", None, name, create)
    if gateway:
        igw = (view.gateway(gateway) or {}).get("InternetGatewayId")
        _default_route(view, steps, found, made, "GatewayId", igw, gateway)
    if found:
        _no_other_route(view, steps, found)
    for cidr in cidrs:
        ident = (view.subnet(cidr) or {}).get("SubnetId")
        if ident is None or found is None or ident not in associated(found):
            tables = view.inside("tables") if ident else []
            uses = next((t for t in tables if ident in associated(t)), None)
            other = associated(uses)[str(ident)] if uses else None
            steps.differs(
                f"route table of {cidr}",
                uses["RouteTableId"] if uses else None,
                name,
                partial(associate, cidr, other),
            )
    return steps.finish(f"leads {', '.join(cidrs)}")


def _default_route(
    view: View,
    steps: Steps,
    table: dict[str, Any] | None,
    made: dict[str, str],
    kind: str,
    target: str | None,
    words: str,
) -> None:
    """
    Note that ``table`` does not lead to the internet through ``target``.

    ``kind`` is the argument of CreateRoute for it, ``words`` what it is called when it is still
    to come; ``made["id"]`` is the table's id once there is one.
    """
    there = next(
        (r for r in (table or {}).get("Routes", []) if r.get("DestinationCidrBlock") == EVERYWHERE),
        None,
    )
    # A black hole that is the right one ends when its target works; another target is another id.
    if there and target and there.get(kind) == target:
        return

    def lead() -> None:
        if target is None:
            raise aws.CloudError(f"there is no {words} to lead to")
        request = "replace_route" if there else "create_route"
        view.change(
            request, RouteTableId=made["id"], DestinationCidrBlock=EVERYWHERE, **{kind: target}
        )

    new = f"{words} ({target})" if target else words
    steps.differs(EVERYWHERE, _way(there) if there else None, new, lead)


def _way(route: dict[str, Any]) -> str:
    """Say where ``route`` leads: a machine's route names its interface as well."""
    ids = [str(value) for key, value in sorted(route.items()) if key.endswith("Id")]
    ids = [ident for ident in ids if not ident.startswith("pl-")]
    return " ".join([*ids, "(blackhole)"] if route.get("State") == "blackhole" else ids)


def _no_other_route(view: View, steps: Steps, table: dict[str, Any]) -> None:
    """Note every route of ``table`` but those of the VPC itself, our endpoint and the internet."""
    ident = table["RouteTableId"]
    endpoint = (view.endpoint(_s3()) or {}).get("VpcEndpointId")
    for route in table.get("Routes", []):
        key = next(key for key in _DESTINATIONS if route.get(key))
        to = str(route.get("GatewayId", ""))
        if to == "local" or (endpoint and to == endpoint) or route[key] == EVERYWHERE:
            continue
        # EC2 keeps an endpoint's route for as long as the endpoint has the table.
        act = partial(view.change, "delete_route", RouteTableId=ident, **{key: route[key]})
        if to.startswith("vpce-"):
            act = partial(
                view.change, "modify_vpc_endpoint", VpcEndpointId=to, RemoveRouteTableIds=[ident]
            )
        steps.differs(f"route {route[key]}", _way(route), None, act)


def _s3() -> str:
    return f"com.amazonaws.{_platform()['aws']['region']}.s3"


@guarded
def endpoint(name: str, table: str, cidrs: list[str]) -> dict[str, Any]:
    """
    Make sure that the subnets ``cidrs`` reach S3 by a gateway endpoint in their route ``table``
    and in no other, open to all that S3 itself allows.
    """
    view, steps = _begin(name)
    found = view.endpoint(_s3())
    uses = view.table(table, cidrs)
    table_id = uses["RouteTableId"] if uses else None

    def create() -> None:
        answer = view.change(
            "create_vpc_endpoint",
            VpcId=view.needed_id(),
            VpcEndpointType="Gateway",
            ServiceName=_s3(),
            RouteTableIds=[table_id],
            TagSpecifications=_tagged("vpc-endpoint", name),
        )
        what = f"{answer['VpcEndpoint']['VpcEndpointId']} to be available"
        view.until(what, lambda: _in_state(view.endpoint(_s3()), "available"))

    if found is None:
        steps.differs("endpoint", None, _s3(), create)
        return steps.finish("")
    modify = partial(view.change, "modify_vpc_endpoint", VpcEndpointId=found["VpcEndpointId"])
    view.retag(steps, found, found["VpcEndpointId"], name)
    there = found.get("RouteTableIds", [])
    if table_id not in there:
        act = partial(modify, AddRouteTableIds=[table_id])
        steps.differs(f"in {table}", False, True, act)
    # Of a table that is gone the endpoint may know a while longer.
    known = {item["RouteTableId"] for item in view.inside("tables")}
    for other in sorted((known & set(there)) - {table_id}):
        steps.differs(f"in {other}", True, False, partial(modify, RemoveRouteTableIds=[other]))
    allowed = json.loads(found.get("PolicyDocument") or json.dumps(_FULL_ACCESS))["Statement"]
    if allowed != _FULL_ACCESS["Statement"]:
        act = partial(modify, PolicyDocument=json.dumps(_FULL_ACCESS))
        steps.differs("policy", json.dumps(allowed), "full access", act)
    return steps.finish(f"S3 is reached from {table}")


@guarded
def address(name: str) -> dict[str, Any]:
    """Make sure that the elastic address ``name`` is ours; who has it is for others to say."""
    view, steps = _begin(name)
    found = view.address(name)

    def allocate() -> None:
        view.change("allocate_address", Domain="vpc", TagSpecifications=_tagged("elastic-ip", name))
        view.until(f"address {name} to be there", lambda: view.address(name))

    if found:
        view.retag(steps, found, found["AllocationId"], name)
    else:
        steps.differs("address", None, "allocated", allocate)
    return steps.finish(f"{found['PublicIp']} is ours" if found else "")


@guarded
def nat(name: str, address: str) -> dict[str, Any]:
    """Make sure that the public subnet has a NAT gateway that works, at the elastic ``address``."""
    view, steps = _begin(name)
    found = aws.one(view.nats("pending", "available"), "NatGatewayId", name)

    def create() -> None:
        # One that is going keeps the address until it has gone.
        _until_gone(view)
        network = _platform()["network"]
        held = view.address(address)
        public = view.subnet(network["master_cidr"])
        if held is None or public is None:
            raise aws.CloudError(f"there is no address {address}, or no public subnet")
        answer = view.change(
            "create_nat_gateway",
            SubnetId=public["SubnetId"],
            AllocationId=held["AllocationId"],
            PrivateIpAddress=_nat_ip(network),
            TagSpecifications=_tagged("natgateway", name),
        )
        _until_available(view, answer["NatGateway"]["NatGatewayId"])

    if found is None:
        steps.differs("NAT gateway", None, address, create)
        return steps.finish("")
    ident = found["NatGatewayId"]
    view.retag(steps, found, ident, name)
    if found["State"] != "available":
        wait = partial(_until_available, view, ident)
        steps.differs("NAT gateway", found["State"], "available", wait)
    return steps.finish(f"{ident} is available")


def _nat_ip(network: dict[str, Any]) -> str:
    """Return a private address for the NAT gateway: EC2 might choose that of a master to come."""
    subnet = ipaddress.IPv4Network(network["master_cidr"])
    last, before = subnet[-2], subnet[-3]
    return str(before if str(last) == network["master_ip"] else last)


def _until_available(view: View, ident: str) -> None:
    def probe() -> tuple[bool | None, str]:
        view.forget()
        found = [n for n in view.inside("nats") if n["NatGatewayId"] == ident]
        state = found[0]["State"] if found else "not described"
        if state not in ("pending", "available", "not described"):
            why = found[0].get("FailureMessage", "EC2 does not say why")
            raise aws.CloudError(f"{ident} is {state}: {why}; run it again when that is put right")
        return (True if state == "available" else None), f"it is {state}"

    aws.wait(f"{ident} to be available", NAT_SECONDS, probe)


def _until_gone(view: View) -> None:
    def probe() -> tuple[bool | None, str]:
        view.forget()
        going = [n["NatGatewayId"] for n in view.nats("deleting")]
        return (None if going else True), f"{', '.join(going)} is still being deleted"

    aws.wait("NAT gateways to be deleted", NAT_SECONDS, probe)


@guarded
def egress(name: str, cidrs: list[str]) -> dict[str, Any]:
    """
    Make sure that the workers' route table ``name`` (of the subnets ``cidrs``) leads to the
    internet in the way of the knob ``network.egress``.

    It comes after the machines, since one way leads through the master.
    """
    view, steps = _begin(name)
    found = view.table(name, cidrs)
    made: dict[str, str] = {"id": found["RouteTableId"]} if found else {}
    _default_route(view, steps, found, made, *_target(view))
    if found is None and not steps.test:
        raise aws.CloudError(
            f"no route table named {name}; run `salt-run state.orchestrate orch.network` first"
        )
    return steps.finish(f"workers reach the internet by {_platform()['network']['egress']}")


def _target(view: View) -> tuple[str, str | None, str]:
    """Return the argument of CreateRoute for the way out, the id if it is there, and its name."""
    platform = _platform()
    name, way = platform["name"], platform["network"]["egress"]
    if way == "public":
        gateway = view.gateway(f"{name}-igw")
        return "GatewayId", gateway["InternetGatewayId"] if gateway else None, f"{name}-igw"
    if way == "nat-gateway":
        nats = view.nats("available")
        return "NatGatewayId", nats[0]["NatGatewayId"] if nats else None, f"{name}-nat"
    machine = ec2.instance(platform, f"{name}-master")
    interface = next(
        (
            item["NetworkInterfaceId"]
            for item in (machine or {}).get("NetworkInterfaces", [])
            if item["Attachment"]["DeviceIndex"] == 0
        ),
        None,
    )
    return "NetworkInterfaceId", interface, f"interface of {name}-master"


# The reverse, in the order in which EC2 allows it -------------------------------------------------


@guarded
def address_absent(name: str) -> dict[str, Any]:
    """
    Give the elastic address ``name`` back.

    It is taken from its machine; a NAT gateway must go first and lets go of it by itself. Its tags
    are put right before: taken from what has it, nothing else says whose it is.
    """
    view, steps = _begin(name)
    found = view.address(name)
    if found:
        ip = found["PublicIp"]
        is_taken = bool(found.get("AssociationId"))
        if is_taken and found["AllocationId"] not in view.nat_allocations():
            view.retag(steps, found, found["AllocationId"], name)
            take = partial(
                view.remove, "disassociate_address", AssociationId=found["AssociationId"]
            )
            steps.differs(f"{ip} of", found.get("InstanceId", "an interface"), None, take)
        release = partial(_release, view, found["AllocationId"])
        steps.differs("address", ip, None, release)
    return steps.finish("no address is ours")


def _release(view: View, ident: str) -> None:
    """Release an address; for a moment EC2 says that it is in use by what has just gone."""

    def probe() -> tuple[bool | None, str]:
        try:
            view.remove("release_address", AllocationId=ident)
        except aws.CloudError as error:
            if aws.code(error) != "InvalidIPAddress.InUse":
                raise
            return None, str(error)
        return True, "released"

    aws.wait(f"{ident} to be released", NAT_SECONDS, probe)


@guarded
def nat_absent(name: str) -> dict[str, Any]:
    """
    Remove the NAT gateway of the public subnet and wait until it has let go of its address.

    The address's tags are put right first: without the gateway nothing else says whose it is.
    """
    view, steps = _begin(name)
    held = view.address(name)
    if held:
        view.retag(steps, held, held["AllocationId"], name)
    for item in view.nats("pending", "available", "deleting"):
        ident = item["NatGatewayId"]
        steps.differs(f"NAT gateway {ident}", item["State"], None, partial(_end, view, item))
    return steps.finish(f"no NAT gateway {name} is there")


def _end(view: View, item: dict[str, Any]) -> None:
    if item["State"] != "deleting":
        view.remove("delete_nat_gateway", NatGatewayId=item["NatGatewayId"])
    _until_gone(view)


@guarded
def endpoint_absent(name: str) -> dict[str, Any]:
    """Remove the gateway endpoint of S3."""
    view, steps = _begin(name)
    found = view.endpoint(_s3())
    if found:
        ident = found["VpcEndpointId"]
        steps.differs("endpoint", ident, None, partial(_end_endpoint, view, ident))
    return steps.finish(f"no endpoint {name} is there")


def _end_endpoint(view: View, ident: str) -> None:
    answer = view.change("delete_vpc_endpoints", VpcEndpointIds=[ident])
    # A refusal is told inside a success.
    for item in answer.get("Unsuccessful", []):
        error = item["Error"]
        if not error.get("Code", "").endswith("NotFound"):
            raise aws.CloudError(
                f"ec2 delete_vpc_endpoints failed: {ident}: {error['Code']}: {error['Message']}"
            )
    gone = "deleted"
    view.until(f"{ident} to be deleted", lambda: None if view.endpoint(_s3()) else gone)


@guarded
def routes_absent(name: str, cidrs: list[str]) -> dict[str, Any]:
    """Remove the route table ``name``; its subnets fall back to the VPC's own."""
    view, steps = _begin(name)
    found = view.table(name, cidrs)
    # What somebody has made the VPC's own goes with the VPC, and not before.
    if found and not is_main(found):
        for subnet_id, ident in associated(found).items():
            leave = partial(view.remove, "disassociate_route_table", AssociationId=ident)
            steps.differs(f"route table of {subnet_id}", name, None, leave)
        table = found["RouteTableId"]
        delete = partial(view.remove, "delete_route_table", RouteTableId=table)
        steps.differs("route table", table, None, delete)
    return steps.finish(f"no route table {name} is there")


@guarded
def gateway_absent(name: str) -> dict[str, Any]:
    """Detach the internet gateway ``name`` and remove it."""
    view, steps = _begin(name)
    found = view.gateway(name)
    if found:
        igw = {"InternetGatewayId": found["InternetGatewayId"]}
        for item in found.get("Attachments", []):
            vpc_id = item["VpcId"]
            detach = partial(view.remove, "detach_internet_gateway", VpcId=vpc_id, **igw)
            steps.differs(f"attached to {vpc_id}", True, False, detach)
        delete = partial(view.remove, "delete_internet_gateway", **igw)
        steps.differs("gateway", found["InternetGatewayId"], None, delete)
    return steps.finish(f"no gateway {name} is there")


@guarded
def subnets_absent(name: str) -> dict[str, Any]:
    """Remove every subnet of the platform ``name``, those of zones no longer used included."""
    view, steps = _begin(name)
    ranges = [cidr for cidr, _ in subnets(_platform()).values()]
    for item in view.inside("subnets"):
        if item["CidrBlock"] in ranges or is_ours(_platform(), item):
            ident = item["SubnetId"]
            delete = partial(view.remove, "delete_subnet", SubnetId=ident)
            steps.differs(f"subnet {ident}", item["CidrBlock"], None, delete)
    return steps.finish("no subnet is there")


@guarded
def vpc_absent(name: str) -> dict[str, Any]:
    """Remove the VPC ``name``, which must be empty by now."""
    view, steps = _begin(name)
    ident = view.vpc_id()
    if ident:
        steps.differs("vpc", ident, None, partial(view.remove, "delete_vpc", VpcId=ident))
    return steps.finish(f"no VPC {name} is there")
