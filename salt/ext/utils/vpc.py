"""
The platform's VPC and what is in it, found by what cannot be changed (docs/architecture.md,
"Identity"): a tag may be changed by anybody, so none alone decides whether a thing is ours.

The VPC is the one that holds our security groups, whose names and descriptions are for good; one
too young to have any is found by its tag. Requests and answers: EC2 API reference.
"""

import re
import time
from collections.abc import Callable, MutableMapping
from functools import partial
from typing import Any, TypeVar

import aws
from steps import Steps

T = TypeVar("T")

# Role → description of its group, which EC2 never lets anybody change.
GROUPS = {
    "master": "the master, which voters reach",
    "worker": "workers, which nobody reaches from the internet",
}
# What was described this short a time ago is not asked for again within one run.
FRESH_SECONDS = 2
# EC2 describes what it has just made, and lets go of what was just removed, a little later.
SEEN_SECONDS = 60
REMOVED_SECONDS = 120

# What there is inside a VPC → request, key of its answer, its filter by VPC.
_KINDS = {
    "subnets": ("describe_subnets", "Subnets", "vpc-id"),
    "tables": ("describe_route_tables", "RouteTables", "vpc-id"),
    "gateways": ("describe_internet_gateways", "InternetGateways", "attachment.vpc-id"),
    "endpoints": ("describe_vpc_endpoints", "VpcEndpoints", "vpc-id"),
    "nats": ("describe_nat_gateways", "NatGateways", "vpc-id"),
}


def find(platform: dict[str, Any]) -> dict[str, Any] | None:
    """Return the VPC of the platform as EC2 describes it, or None. Two are a CloudError."""
    return View(platform).vpc()


def id_of(platform: dict[str, Any]) -> str:
    """Return the id of the platform's VPC, or raise CloudError."""
    return View(platform).needed_id()


def subnet_name(platform: dict[str, Any], machine: str) -> str:
    """Return the name of the subnet in which ``machine`` lies, such as ``f1-workers-a``."""
    return _place(platform, machine)[0]


def subnet_cidr(platform: dict[str, Any], machine: str) -> str:
    """Return the addresses of the subnet in which ``machine`` lies."""
    return _place(platform, machine)[1]


def subnet_id(platform: dict[str, Any], machine: str, view: "View | None" = None) -> str:
    """Return the id of the subnet in which ``machine`` lies, or raise CloudError."""
    name, cidr = _place(platform, machine)
    found = (view or View(platform)).subnet(cidr)
    if found is None:
        raise _absent("subnet", f"{name} ({cidr})")
    return str(found["SubnetId"])


def group_ids(platform: dict[str, Any], names: list[str], view: "View | None" = None) -> list[str]:
    """Return the ids of the security groups ``names``, in their order, or raise CloudError."""
    groups = (view or View(platform)).groups()
    for name in names:
        if name not in groups:
            raise _absent("security group", name)
    return [str(groups[name]["GroupId"]) for name in names]


def address(platform: dict[str, Any], name: str) -> dict[str, Any] | None:
    """Return the elastic address ``name`` as EC2 describes it, or None. Two are a CloudError."""
    return View(platform).address(name)


def subnets(platform: dict[str, Any]) -> dict[str, tuple[str, str]]:
    """Return all subnets that there shall be: name → (addresses, zone), the master's first."""
    name, network, zones = platform["name"], platform["network"], platform["aws"]["zones"]
    made = {f"{name}-public": (network["master_cidr"], zones[0])}
    for cidr, zone in zip(network["worker_cidrs"], zones, strict=True):
        made[f"{name}-workers-{zone[-1]}"] = (cidr, zone)
    return made


def shared(context: MutableMapping[str, Any], platform: dict[str, Any]) -> "View":
    """Return the one View of a run of states; ``context`` is their ``__context__``."""
    view: View = context.setdefault("f1_network", View(platform))
    return view


def is_ours(platform: dict[str, Any], item: dict[str, Any]) -> bool:
    """Say whether ``item`` carries the platform's tag."""
    tags = {pair["Key"]: pair["Value"] for pair in item.get("Tags", [])}
    return tags.get(aws.PLATFORM_TAG) == platform["name"]


def refuse_strangers(platform: dict[str, Any], item: dict[str, Any], ident: str) -> None:
    """Raise CloudError unless ``item``, called ``ident``, carries the platform's tag."""
    if not is_ours(platform, item):
        raise aws.CloudError(
            f"{ident} is not of {platform['name']} (it has not the tag {aws.PLATFORM_TAG}): refused"
        )


def _place(platform: dict[str, Any], machine: str) -> tuple[str, str]:
    """Return name and addresses of the machine's subnet: worker N lies in zone (N-1) mod zones."""
    public, *others = [(name, cidr) for name, (cidr, _) in subnets(platform).items()]
    if machine == f"{platform['name']}-master":
        return public
    number = re.fullmatch(rf"{re.escape(platform['name'])}-worker-([1-9][0-9]*)", machine)
    if number is None:
        raise aws.CloudError(
            f"{machine} is no machine of {platform['name']}: use {platform['name']}-master or "
            f"{platform['name']}-worker-<number>"
        )
    return others[(int(number[1]) - 1) % len(others)]


def _absent(kind: str, name: str) -> aws.CloudError:
    return aws.CloudError(
        f"no {kind} named {name}; run `salt-run state.orchestrate orch.network` first"
    )


class View:
    """
    What EC2 says of the platform's network. Answers are kept for ``FRESH_SECONDS`` and forgotten
    at every change made through it, so that a run asks little and acts on nothing stale.
    """

    def __init__(self, platform: dict[str, Any]) -> None:
        self.platform = platform
        self._answers: dict[tuple[str, str], tuple[float, list[dict[str, Any]]]] = {}

    # What there is

    def describe(self, request: str, key: str, **arguments: Any) -> list[dict[str, Any]]:
        """Return the items under ``key`` of a describing ``request``, asked a moment ago or now."""
        asked = (request, repr(arguments))
        kept = self._answers.get(asked)
        if kept is None or time.monotonic() - kept[0] > FRESH_SECONDS:
            kept = (time.monotonic(), aws.pages(self.platform, "ec2", request, key, **arguments))
            self._answers[asked] = kept
        return kept[1]

    def vpc(self) -> dict[str, Any] | None:
        """Return the VPC, or None. Two are a CloudError."""
        homes = self._homes()
        filters = _by("vpc-id", homes) if homes else aws.mine(self.platform)
        found = self.describe("describe_vpcs", "Vpcs", Filters=filters)
        if len(found) > 1:
            # Only now does a tag decide: somebody else has groups like ours.
            found = [item for item in found if is_ours(self.platform, item)] or found
        return aws.one(found, "VpcId", self.platform["name"])

    def vpc_id(self) -> str | None:
        """Return the id of the VPC, or None."""
        homes = self._homes()
        if len(homes) == 1:
            return homes[0]
        found = self.vpc()
        return str(found["VpcId"]) if found else None

    def needed_id(self) -> str:
        """Return the id of the VPC, or raise CloudError."""
        found = self.vpc_id()
        if found is None:
            raise _absent("VPC", self.platform["name"])
        return found

    def inside(self, kind: str) -> list[dict[str, Any]]:
        """Return what the VPC holds of ``kind``: subnets tables gateways endpoints nats."""
        ident = self.vpc_id()
        if ident is None:
            return []
        request, key, by = _KINDS[kind]
        # The one request of EC2 that has this argument in the singular.
        argument = "Filter" if kind == "nats" else "Filters"
        return self.describe(request, key, **{argument: _by(by, [ident])})

    def groups(self) -> dict[str, dict[str, Any]]:
        """Return our security groups by name."""
        ident = self.vpc_id()
        return {g["GroupName"]: g for g in self._groups() if g["VpcId"] == ident}

    def stranger(self, name: str) -> dict[str, Any] | None:
        """Return the VPC's group that is named like our ``name`` and described otherwise."""
        ident, ours = self.vpc_id(), self.groups()
        for group in self._named_groups():
            if group["VpcId"] == ident and group["GroupName"] == name and name not in ours:
                return group
        return None

    def subnet(self, cidr: str) -> dict[str, Any] | None:
        """Return the subnet with the addresses ``cidr``, or None."""
        return next((item for item in self.inside("subnets") if item["CidrBlock"] == cidr), None)

    def gateway(self, name: str) -> dict[str, Any] | None:
        """Return the internet gateway: the attached one, else the one with our tags."""
        attached = self.inside("gateways")
        if attached:
            return attached[0]
        request, key, _ = _KINDS["gateways"]
        found = self.describe(request, key, Filters=aws.mine(self.platform, name))
        return aws.one(found, "InternetGatewayId", name)

    def table(self, name: str, cidrs: list[str]) -> dict[str, Any] | None:
        """
        Return the route table ``name`` of the subnets with the addresses ``cidrs``, or None.

        It is the one that these subnets use and no other of ours does. If that one has not our
        tag, somebody may have put it there in place of ours: then the one of our name, if any.
        """
        others = [cidr for cidr, _ in subnets(self.platform).values() if cidr not in cidrs]
        mine, theirs = self._ids(cidrs), self._ids(others)
        tables = sorted(self.inside("tables"), key=lambda item: str(item["RouteTableId"]))
        named = [t for t in tables if is_ours(self.platform, t) and _name(t) == name]
        used = [
            t for t in tables if mine & associated(t).keys() and not theirs & associated(t).keys()
        ]
        tagged = [t for t in used if is_ours(self.platform, t)]
        both = [t for t in tagged if t in named]
        unknown = [t for t in used if not is_main(t)]
        return next(iter([*both, *tagged, *named, *unknown]), None)

    def endpoint(self, service: str) -> dict[str, Any] | None:
        """Return the gateway endpoint of ``service``, such as ``com.amazonaws.eu-west-3.s3``."""
        for item in self.inside("endpoints"):
            # An interface endpoint of the same service is another thing.
            is_gateway = item.get("VpcEndpointType", "Gateway") == "Gateway"
            if item["ServiceName"] == service and is_gateway and not is_gone(item):
                return item
        return None

    def nats(self, *states: str) -> list[dict[str, Any]]:
        """Return the NAT gateways of the public subnet that are in one of ``states``."""
        ids = self._ids([self.platform["network"]["master_cidr"]])
        return [n for n in self.inside("nats") if n["SubnetId"] in ids and n["State"] in states]

    def nat_allocations(self) -> list[str]:
        """Return the allocation ids of the elastic addresses that our NAT gateways hold."""
        return [
            str(used["AllocationId"])
            for item in self.nats("pending", "available")
            for used in item.get("NatGatewayAddresses", [])
            if used.get("AllocationId")
        ]

    def address(self, name: str) -> dict[str, Any] | None:
        """
        Return the elastic address ``name``, or None: by its tags, else by what has it, which of
        ``f1-nat`` is the NAT gateway, of ``f1-master`` the machine at the fixed private address.
        """
        ours = self.platform["name"]
        found = self._addresses(aws.mine(self.platform, name))
        if not found and name == f"{ours}-nat":
            held = self.nat_allocations()
            found = self._addresses(_by("allocation-id", held[:1])) if held else []
        elif not found and name == f"{ours}-master" and self.vpc_id():
            filters = [
                *_by("vpc-id", [self.needed_id()]),
                *_by("private-ip-address", [self.platform["network"]["master_ip"]]),
            ]
            there = self.describe("describe_instances", "Reservations", Filters=filters)
            ids = [str(i["InstanceId"]) for each in there for i in each["Instances"]]
            found = self._addresses(_by("instance-id", ids)) if ids else []
        return aws.one(found, "PublicIp", name)

    # What is done about it

    def forget(self) -> None:
        """Keep no answer."""
        self._answers.clear()

    def change(self, request: str, **arguments: Any) -> dict[str, Any]:
        """
        Send a changing ``request``; again while EC2 does not know yet what it has just made.

        Raises CloudError, after ``SEEN_SECONDS`` with the last thing that EC2 said.
        """

        def probe() -> tuple[dict[str, Any] | None, str]:
            try:
                return aws.call(self.platform, "ec2", request, **arguments), ""
            except aws.CloudError as error:
                if not aws.code(error).endswith("NotFound"):
                    raise
                return None, str(error)

        self.forget()
        try:
            return aws.wait(f"ec2 {request}", SEEN_SECONDS, probe)
        finally:
            self.forget()

    def remove(self, request: str, **arguments: Any) -> None:
        """
        Send a removing ``request``; again while EC2 says that what was just removed still holds it.

        What is gone already is removed. Raises CloudError.
        """

        def probe() -> tuple[bool | None, str]:
            try:
                aws.call(self.platform, "ec2", request, **arguments)
            except aws.CloudError as error:
                code = aws.code(error)
                if code.endswith("NotFound") or code == "Gateway.NotAttached":
                    return True, "gone"
                if code != "DependencyViolation":
                    raise
                return None, str(error)
            return True, "removed"

        what = f"{request} of {', '.join(map(str, arguments.values()))}"
        try:
            aws.wait(what, REMOVED_SECONDS, probe)
        finally:
            self.forget()

    def retag(self, steps: Steps, item: dict[str, Any], ident: str, name: str) -> None:
        """Note which of our tags ``item`` (its id: ``ident``) has lost; others' tags stay."""
        there = {pair["Key"]: pair["Value"] for pair in item.get("Tags", [])}
        for tag in aws.tags(self.platform, name):
            if there.get(tag["Key"]) != tag["Value"]:
                act = partial(self.change, "create_tags", Resources=[ident], Tags=[tag])
                steps.differs(f"tag {tag['Key']}", there.get(tag["Key"]), tag["Value"], act)

    def until(self, what: str, look: Callable[[], T | None], seconds: float = SEEN_SECONDS) -> T:
        """Ask EC2 anew until ``look`` finds something, or raise CloudError after ``seconds``."""

        def probe() -> tuple[T | None, str]:
            self.forget()
            return look(), "EC2 does not describe it"

        return aws.wait(what, seconds, probe)

    def _descriptions(self) -> dict[str, str]:
        return {f"{self.platform['name']}-{role}": text for role, text in GROUPS.items()}

    def _named_groups(self) -> list[dict[str, Any]]:
        """Return every group of the region that has one of our names."""
        filters = _by("group-name", sorted(self._descriptions()))
        return self.describe("describe_security_groups", "SecurityGroups", Filters=filters)

    def _groups(self) -> list[dict[str, Any]]:
        """Return those of our names and with their descriptions, in any VPC."""
        texts = self._descriptions()
        return [g for g in self._named_groups() if g["Description"] == texts[g["GroupName"]]]

    def _addresses(self, filters: list[dict[str, Any]]) -> list[dict[str, Any]]:
        answer = aws.call(self.platform, "ec2", "describe_addresses", Filters=filters)
        return list(answer["Addresses"])

    def _homes(self) -> list[str]:
        return sorted({str(group["VpcId"]) for group in self._groups()})

    def _ids(self, cidrs: list[str]) -> set[str]:
        found = [self.subnet(cidr) for cidr in cidrs]
        return {str(item["SubnetId"]) for item in found if item}


def associated(table: dict[str, Any]) -> dict[str, str]:
    """Return the subnets that use the route ``table`` by name: subnet id → association id."""
    return {
        item["SubnetId"]: item["RouteTableAssociationId"]
        for item in table.get("Associations", [])
        if item.get("SubnetId")
    }


def is_main(table: dict[str, Any]) -> bool:
    """Say whether the route ``table`` is the one that EC2 made with the VPC."""
    return any(item.get("Main") for item in table.get("Associations", []))


def _name(item: dict[str, Any]) -> str:
    return next((pair["Value"] for pair in item.get("Tags", []) if pair["Key"] == "Name"), "")


def _by(name: str, values: list[str]) -> list[dict[str, Any]]:
    return [{"Name": name, "Values": values}]


def is_gone(endpoint: dict[str, Any]) -> bool:
    """Say whether a VPC endpoint is none any more, though EC2 still tells of it."""
    state = str(endpoint.get("State", "")).lower()
    return state in ("deleting", "deleted", "failed", "rejected", "expired")
