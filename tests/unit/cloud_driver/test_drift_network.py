"""
Whatever is changed behind our back: the plan names it and touches nothing, a run repairs it, the
next has nothing to do, and there is one VPC.

One row a change. The rows are counted, so that none is left out unnoticed.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import aws
import ec2
import pytest
import vpc

from .test_network import changing, outcome, results_of, sent, walk  # noqa: F401

Platform = dict[str, Any]
FILES = ("network", "machines")
DOMAIN = "vote.example.org"


def call(platform: Platform, request: str, **arguments: Any) -> dict[str, Any]:
    return aws.call(platform, "ec2", request, **arguments)


def launch(platform: Platform, name: str) -> str:
    """Run the master, as the driver would; return its id."""
    answer = call(
        platform,
        "run_instances",
        ImageId=platform["image"]["id"],
        MinCount=1,
        MaxCount=1,
        ClientToken=ec2.token(name),
        SubnetId=vpc.subnet_id(platform, name),
        PrivateIpAddress=platform["network"]["master_ip"],
        TagSpecifications=[{"ResourceType": "instance", "Tags": aws.tags(platform, name)}],
    )
    return str(answer["Instances"][0]["InstanceId"])


@pytest.fixture
def up(walk, platform):  # noqa: F811
    """Everything is there, a master included: nothing is left to do."""

    def make(way: str) -> None:
        platform["network"]["egress"] = way
        platform["dns"]["zone"] = "example.org"
        aws.call(platform, "route53", "create_hosted_zone", Name="example.org", CallerReference="1")
        assert results_of(walk("network")) == {True}
        ident = launch(platform, "f1-master")
        ec2.associate(platform, "f1-master", ident)
        assert results_of(walk("machines")) == {True}
        assert outcome(walk(*FILES)) == {}

    return make


# What is there ------------------------------------------------------------------------------------


def view(platform: Platform) -> vpc.View:
    return vpc.View(platform)


def vpc_id(platform: Platform) -> str:
    return vpc.id_of(platform)


def subnet(platform: Platform, index: int) -> str:
    """Return a subnet's id: 0 is the master's, then the workers'."""
    cidr = list(vpc.subnets(platform).values())[index][0]
    return str((view(platform).subnet(cidr) or {})["SubnetId"])


def table(platform: Platform, name: str) -> dict[str, Any]:
    network = platform["network"]
    cidrs = [network["master_cidr"]] if name == "f1-public" else network["worker_cidrs"]
    return view(platform).table(name, cidrs) or {}


def table_id(platform: Platform, name: str) -> str:
    return str(table(platform, name)["RouteTableId"])


def gateway(platform: Platform) -> str:
    return str((view(platform).gateway("f1-igw") or {})["InternetGatewayId"])


def endpoint(platform: Platform) -> str:
    found = view(platform).endpoint("com.amazonaws.eu-west-3.s3") or {}
    return str(found["VpcEndpointId"])


def nat(platform: Platform) -> dict[str, Any]:
    (found,) = view(platform).nats("available")
    return found


def group(platform: Platform, name: str) -> str:
    return vpc.group_ids(platform, [name])[0]


def address(platform: Platform, name: str) -> str:
    return str((vpc.address(platform, name) or {})["AllocationId"])


def key_pair(platform: Platform) -> str:
    return str(call(platform, "describe_key_pairs", KeyNames=["f1"])["KeyPairs"][0]["KeyPairId"])


def other_table(platform: Platform) -> str:
    answer = call(platform, "create_route_table", VpcId=vpc_id(platform))
    return str(answer["RouteTable"]["RouteTableId"])


def prefix_list(platform: Platform) -> str:
    answer = call(
        platform,
        "create_managed_prefix_list",
        PrefixListName="elsewhere",
        AddressFamily="IPv4",
        MaxEntries=1,
        Entries=[{"Cidr": "198.51.100.0/24"}],
    )
    return str(answer["PrefixList"]["PrefixListId"])


# What somebody does -------------------------------------------------------------------------------

Change = Callable[[Platform], Any]
Ident = Callable[[Platform], str]


def untag(ident: Ident) -> Change:
    def change(platform: Platform) -> None:
        keys = [{"Key": "Name"}, {"Key": aws.PLATFORM_TAG}]
        call(platform, "delete_tags", Resources=[ident(platform)], Tags=keys)

    return change


def retag(ident: Ident, key: str, value: str) -> Change:
    def change(platform: Platform) -> None:
        tags = [{"Key": key, "Value": value}]
        call(platform, "create_tags", Resources=[ident(platform)], Tags=tags)

    return change


def vpc_tags_on_another(platform: Platform) -> None:
    """Ours has none any more, a new one has them all."""
    untag(vpc_id)(platform)
    other = call(platform, "create_vpc", CidrBlock="10.20.0.0/16")["Vpc"]["VpcId"]
    call(platform, "create_tags", Resources=[other], Tags=aws.tags(platform, "f1"))


def attribute(name: str) -> Change:
    def change(platform: Platform) -> None:
        call(platform, "modify_vpc_attribute", VpcId=vpc_id(platform), **{name: {"Value": False}})

    return change


def public(index: int, value: bool) -> Change:
    def change(platform: Platform) -> None:
        call(
            platform,
            "modify_subnet_attribute",
            SubnetId=subnet(platform, index),
            MapPublicIpOnLaunch={"Value": value},
        )

    return change


def subnet_gone(platform: Platform) -> None:
    ident = subnet(platform, 2)
    found = table(platform, "f1-workers")
    call(
        platform,
        "disassociate_route_table",
        AssociationId=vpc.associated(found)[ident],
    )
    call(platform, "delete_subnet", SubnetId=ident)


def gateway_detached(platform: Platform) -> None:
    call(
        platform,
        "detach_internet_gateway",
        InternetGatewayId=gateway(platform),
        VpcId=vpc_id(platform),
    )


def gateway_elsewhere(platform: Platform) -> None:
    ident = gateway(platform)
    gateway_detached(platform)
    other = call(platform, "create_vpc", CidrBlock="10.99.0.0/16")["Vpc"]["VpcId"]
    call(platform, "attach_internet_gateway", InternetGatewayId=ident, VpcId=other)


def gateway_gone(platform: Platform) -> None:
    ident = gateway(platform)
    gateway_detached(platform)
    call(platform, "delete_internet_gateway", InternetGatewayId=ident)


def routed(name: str, key: str, destination: str | Ident, way: str = "GatewayId") -> Change:
    """Add a route to the table ``name``, through the internet gateway."""

    def change(platform: Platform) -> None:
        to = destination if isinstance(destination, str) else destination(platform)
        call(
            platform,
            "create_route",
            RouteTableId=table_id(platform, name),
            **{key: to, way: gateway(platform)},
        )

    return change


def unrouted(name: str) -> Change:
    def change(platform: Platform) -> None:
        call(
            platform,
            "delete_route",
            RouteTableId=table_id(platform, name),
            DestinationCidrBlock="0.0.0.0/0",
        )

    return change


def to_gateway(platform: Platform) -> None:
    """Workers leave by the internet gateway, whatever the knob says."""
    call(
        platform,
        "replace_route",
        RouteTableId=table_id(platform, "f1-workers"),
        DestinationCidrBlock="0.0.0.0/0",
        GatewayId=gateway(platform),
    )


def to_interface(name: str) -> Change:
    def change(platform: Platform) -> None:
        made = call(platform, "create_network_interface", SubnetId=subnet(platform, 0))
        call(
            platform,
            "replace_route",
            RouteTableId=table_id(platform, name),
            DestinationCidrBlock="0.0.0.0/0",
            NetworkInterfaceId=made["NetworkInterface"]["NetworkInterfaceId"],
        )

    return change


def blackhole(platform: Platform) -> None:
    """What the workers' route led to is gone."""
    to_interface("f1-workers")(platform)
    (route,) = [
        item
        for item in table(platform, "f1-workers")["Routes"]
        if item.get("DestinationCidrBlock") == "0.0.0.0/0"
    ]
    call(platform, "delete_network_interface", NetworkInterfaceId=route["NetworkInterfaceId"])


def another_master(platform: Platform) -> None:
    """The master was replaced: its interface is another one."""
    old = ec2.instance(platform, "f1-master") or {}
    call(platform, "terminate_instances", InstanceIds=[old["InstanceId"]])
    launch(platform, "f1-master")


def other_endpoint(platform: Platform) -> None:
    call(
        platform,
        "create_vpc_endpoint",
        VpcId=vpc_id(platform),
        ServiceName="com.amazonaws.eu-west-3.dynamodb",
        RouteTableIds=[table_id(platform, "f1-workers")],
    )


def dissociated(index: int) -> Change:
    def change(platform: Platform) -> None:
        ident = subnet(platform, index)
        for name in ("f1-public", "f1-workers"):
            if found := vpc.associated(table(platform, name)).get(ident):
                call(platform, "disassociate_route_table", AssociationId=found)

    return change


def reassociated(index: int, other: Ident) -> Change:
    def change(platform: Platform) -> None:
        ident = other(platform)
        dissociated(index)(platform)
        call(
            platform, "associate_route_table", SubnetId=subnet(platform, index), RouteTableId=ident
        )

    return change


def table_gone(name: str) -> Change:
    def change(platform: Platform) -> None:
        found = table(platform, name)
        for ident in vpc.associated(found).values():
            call(platform, "disassociate_route_table", AssociationId=ident)
        call(platform, "delete_route_table", RouteTableId=found["RouteTableId"])

    return change


def names_swapped(platform: Platform) -> None:
    idents = [table_id(platform, "f1-public"), table_id(platform, "f1-workers")]
    for ident, name in zip(idents, ("f1-workers", "f1-public"), strict=True):
        tags = [{"Key": "Name", "Value": name}]
        call(platform, "create_tags", Resources=[ident], Tags=tags)


def endpoint_gone(platform: Platform) -> None:
    call(platform, "delete_vpc_endpoints", VpcEndpointIds=[endpoint(platform)])


def endpoint_with(**arguments: Ident) -> Change:
    """Change the endpoint: each argument is a list of one."""

    def change(platform: Platform) -> None:
        given = {key: [ident(platform)] for key, ident in arguments.items()}
        call(platform, "modify_vpc_endpoint", VpcEndpointId=endpoint(platform), **given)

    return change


def endpoint_closed(platform: Platform) -> None:
    call(
        platform,
        "modify_vpc_endpoint",
        VpcEndpointId=endpoint(platform),
        PolicyDocument='{"Version": "2012-10-17", "Statement": []}',
    )


def rule(name: str, protocol: str, port: int | None, **ranges: Any) -> Change:
    """Let more into the group ``name``; a range may be found first."""

    def change(platform: Platform) -> None:
        given = {k: v(platform) if callable(v) else v for k, v in ranges.items()}
        ports = {} if port is None else {"FromPort": port, "ToPort": port}
        call(
            platform,
            "authorize_security_group_ingress",
            GroupId=group(platform, name),
            IpPermissions=[{"IpProtocol": protocol, **ports, **given}],
        )

    return change


def other_group(platform: Platform) -> list[dict[str, str]]:
    made = call(
        platform,
        "create_security_group",
        GroupName="other",
        Description="somebody's",
        VpcId=vpc_id(platform),
    )
    return [{"GroupId": made["GroupId"]}]


def rule_gone(platform: Platform) -> None:
    permission = {"IpProtocol": "tcp", "FromPort": 443, "ToPort": 443}
    call(
        platform,
        "revoke_security_group_ingress",
        GroupId=group(platform, "f1-master"),
        IpPermissions=[{**permission, "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}],
    )


def egress(request: str, **permission: Any) -> Change:
    def change(platform: Platform) -> None:
        ident = group(platform, "f1-worker")
        call(platform, request, GroupId=ident, IpPermissions=[permission])

    return change


def group_gone(platform: Platform) -> None:
    for name in ("f1-master", "f1-worker"):
        ident = group(platform, name)
        answer = call(platform, "describe_security_groups", GroupIds=[ident])
        rules = answer["SecurityGroups"][0]["IpPermissions"]
        call(platform, "revoke_security_group_ingress", GroupId=ident, IpPermissions=rules)
    call(platform, "delete_security_group", GroupId=group(platform, "f1-worker"))


def key_gone(platform: Platform) -> None:
    call(platform, "delete_key_pair", KeyName="f1")


def key_replaced(platform: Platform) -> None:
    key_gone(platform)
    call(platform, "create_key_pair", KeyName="f1", KeyType="ed25519")


def address_gone(platform: Platform) -> None:
    found = vpc.address(platform, "f1-master") or {}
    call(platform, "disassociate_address", AssociationId=found["AssociationId"])
    call(platform, "release_address", AllocationId=found["AllocationId"])


def nat_gone(platform: Platform) -> None:
    call(platform, "delete_nat_gateway", NatGatewayId=nat(platform)["NatGatewayId"])


def nat_id(platform: Platform) -> str:
    return str(nat(platform)["NatGatewayId"])


def master_address(platform: Platform) -> str:
    return address(platform, "f1-master")


def nat_address(platform: Platform) -> str:
    return address(platform, "f1-nat")


def record(action: str, **given: Any) -> Change:
    def change(platform: Platform) -> None:
        zone = aws.call(platform, "route53", "list_hosted_zones")["HostedZones"][0]["Id"]
        ip = (vpc.address(platform, "f1-master") or {})["PublicIp"]
        record_set = {"Name": f"{DOMAIN}.", "Type": "A", "TTL": 60}
        record_set |= {"ResourceRecords": [{"Value": given.get("value", ip)}]}
        record_set |= {key: value for key, value in given.items() if key != "value"}
        aws.call(
            platform,
            "route53",
            "change_resource_record_sets",
            HostedZoneId=zone,
            ChangeBatch={"Changes": [{"Action": action, "ResourceRecordSet": record_set}]},
        )

    return change


def bucket_public(platform: Platform) -> None:
    aws.call(platform, "s3", "delete_public_access_block", Bucket=aws.bucket(platform))


# The table ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Drift:
    """Something changed: the state that must name it, and how, with which way out."""

    kind: str
    what: str
    change: Change
    state: str
    named: str
    egress: str = "master"

    @property
    def ident(self) -> str:
        return f"{self.kind}: {self.what}"


WORKERS = "f1-workers"
CIDR6 = "DestinationIpv6CidrBlock"
ANYWHERE = {"IpProtocol": "-1", "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}

DRIFTS = [
    Drift("VPC", "Name changed", retag(vpc_id, "Name", "x"), "vpc", "tag Name"),
    Drift("VPC", "owner changed", retag(vpc_id, "f1:platform", "x"), "vpc", "tag f1:platform"),
    Drift("VPC", "tags removed", untag(vpc_id), "vpc", "tag f1:platform"),
    Drift("VPC", "tags on another", vpc_tags_on_another, "vpc", "tag f1:platform"),
    Drift("VPC", "no names", attribute("EnableDnsHostnames"), "vpc", "enableDnsHostnames"),
    Drift("VPC", "no DNS", attribute("EnableDnsSupport"), "vpc", "enableDnsSupport"),
    Drift("subnet", "not public", public(0, False), "public subnet", "public addresses"),
    Drift("subnet", "a public", public(1, True), "worker subnet eu-west-3a", "public addresses"),
    Drift("subnet", "b public", public(2, True), "worker subnet eu-west-3b", "public addresses"),
    Drift(
        "subnet",
        "b private",
        public(2, False),
        "worker subnet eu-west-3b",
        "public addresses",
        "public",
    ),
    Drift("subnet", "untagged", untag(lambda p: subnet(p, 0)), "public subnet", "tag Name"),
    Drift(
        "subnet",
        "b renamed",
        retag(lambda p: subnet(p, 2), "Name", "f1-public"),
        "worker subnet eu-west-3b",
        "tag Name",
    ),
    Drift("subnet", "b gone", subnet_gone, "worker subnet eu-west-3b", "subnet"),
    Drift("gateway", "detached", gateway_detached, "gateway", "attached to"),
    Drift("gateway", "elsewhere", gateway_elsewhere, "gateway", "attached to"),
    Drift("gateway", "gone", gateway_gone, "public routes", "0.0.0.0/0"),
    Drift("gateway", "untagged", untag(gateway), "gateway", "tag f1:platform"),
    Drift("routes", "no way out", unrouted("f1-public"), "public routes", "0.0.0.0/0"),
    Drift("routes", "wrong way", to_interface("f1-public"), "public routes", "0.0.0.0/0"),
    Drift(
        "routes",
        "IPv4",
        routed("f1-public", "DestinationCidrBlock", "198.51.100.0/24"),
        "public routes",
        "route 198.51.100.0/24",
    ),
    Drift(
        "routes",
        "IPv4 of workers",
        routed(WORKERS, "DestinationCidrBlock", "198.51.100.0/24"),
        "worker routes",
        "route 198.51.100.0/24",
    ),
    Drift("routes", "IPv6", routed("f1-public", CIDR6, "::/0"), "public routes", "route ::/0"),
    Drift("routes", "IPv6 of workers", routed(WORKERS, CIDR6, "::/0"), "worker routes", "::/0"),
    Drift(
        "routes",
        "prefix list",
        routed(WORKERS, "DestinationPrefixListId", prefix_list),
        "worker routes",
        "route pl-",
    ),
    Drift("routes", "another endpoint", other_endpoint, "worker routes", "route pl-"),
    Drift("routes", "public left", dissociated(0), "public routes", "route table of 10.20.1.0/24"),
    Drift("routes", "b left", dissociated(2), "worker routes", "route table of 10.20.3.0/24"),
    Drift(
        "routes",
        "public by another",
        reassociated(0, other_table),
        "public routes",
        "route table of 10.20.1.0/24",
    ),
    Drift(
        "routes",
        "public by the workers'",
        reassociated(0, lambda p: table_id(p, WORKERS)),
        "public routes",
        "route table of 10.20.1.0/24",
    ),
    Drift(
        "routes",
        "a by the public",
        reassociated(1, lambda p: table_id(p, "f1-public")),
        "worker routes",
        "route table of 10.20.2.0/24",
    ),
    Drift(
        "routes",
        "untagged",
        untag(lambda p: table_id(p, "f1-public")),
        "public routes",
        "tag f1:platform",
    ),
    Drift(
        "routes",
        "workers' untagged",
        untag(lambda p: table_id(p, WORKERS)),
        "worker routes",
        "tag Name",
    ),
    Drift("routes", "names swapped", names_swapped, "worker routes", "tag Name"),
    Drift("routes", "gone", table_gone("f1-public"), "public routes", "route table"),
    Drift("routes", "workers' gone", table_gone(WORKERS), "worker routes", "route table"),
    Drift("endpoint", "gone", endpoint_gone, "endpoint", "endpoint"),
    Drift(
        "endpoint",
        "not in the table",
        endpoint_with(RemoveRouteTableIds=lambda p: table_id(p, WORKERS)),
        "endpoint",
        "in f1-workers",
    ),
    Drift(
        "endpoint",
        "in another table",
        endpoint_with(AddRouteTableIds=lambda p: table_id(p, "f1-public")),
        "endpoint",
        "in rtb-",
    ),
    Drift("endpoint", "closed", endpoint_closed, "endpoint", "policy"),
    Drift("endpoint", "untagged", untag(endpoint), "endpoint", "tag f1:platform"),
    Drift("group", "untagged", untag(lambda p: group(p, "f1-worker")), "worker group", "tag Name"),
    Drift("group", "gone", group_gone, "worker group", "group"),
    Drift(
        "rule",
        "IPv4",
        rule("f1-worker", "tcp", 30000, IpRanges=[{"CidrIp": "0.0.0.0/0"}]),
        "worker rules",
        "ingress tcp/30000 0.0.0.0/0",
    ),
    Drift(
        "rule",
        "IPv6",
        rule("f1-worker", "tcp", 22, Ipv6Ranges=[{"CidrIpv6": "::/0"}]),
        "worker rules",
        "ingress tcp/22 ::/0",
    ),
    Drift(
        "rule",
        "prefix list",
        rule("f1-worker", "tcp", 22, PrefixListIds=lambda p: [{"PrefixListId": prefix_list(p)}]),
        "worker rules",
        "ingress tcp/22 pl-",
    ),
    Drift(
        "rule",
        "another group",
        rule("f1-worker", "tcp", 22, UserIdGroupPairs=other_group),
        "worker rules",
        "ingress tcp/22 sg-",
    ),
    Drift(
        "rule",
        "ICMP",
        rule("f1-worker", "icmp", -1, IpRanges=[{"CidrIp": "0.0.0.0/0"}]),
        "worker rules",
        "ingress icmp 0.0.0.0/0",
    ),
    Drift(
        "rule",
        "all protocols",
        rule("f1-worker", "-1", None, IpRanges=[{"CidrIp": "0.0.0.0/0"}]),
        "worker rules",
        "ingress all 0.0.0.0/0",
    ),
    Drift("rule", "one gone", rule_gone, "master rules", "ingress tcp/443 0.0.0.0/0"),
    Drift(
        "rule",
        "nothing out",
        egress("revoke_security_group_egress", **ANYWHERE),
        "worker rules",
        "egress all 0.0.0.0/0",
    ),
    Drift(
        "rule",
        "more out",
        egress(
            "authorize_security_group_egress",
            IpProtocol="tcp",
            FromPort=25,
            ToPort=25,
            IpRanges=[{"CidrIp": "198.51.100.0/24"}],
        ),
        "worker rules",
        "egress tcp/25 198.51.100.0/24",
    ),
    Drift("key", "replaced", key_replaced, "key", "key pair"),
    Drift("key", "gone", key_gone, "key", "key pair"),
    Drift("key", "untagged", untag(key_pair), "key", "tag f1:platform"),
    Drift("address", "released", address_gone, "address", "address"),
    Drift(
        "address", "renamed", retag(nat_address, "Name", "x"), "NAT address", "tag", "nat-gateway"
    ),
    Drift("address", "untagged", untag(master_address), "address", "tag f1:platform"),
    Drift("address", "NAT's untagged", untag(nat_address), "NAT address", "tag", "nat-gateway"),
    Drift("NAT", "gone", nat_gone, "NAT gateway", "NAT gateway", "nat-gateway"),
    Drift("NAT", "untagged", untag(nat_id), "NAT gateway", "tag f1:platform", "nat-gateway"),
    Drift("way out", "none", unrouted(WORKERS), "egress", "0.0.0.0/0"),
    Drift("way out", "gateway", to_gateway, "egress", "0.0.0.0/0"),
    Drift("way out", "blackhole", blackhole, "egress", "0.0.0.0/0"),
    Drift("way out", "new master", another_master, "egress", "0.0.0.0/0"),
    Drift("way out", "gateway, not NAT", to_gateway, "egress", "0.0.0.0/0", "nat-gateway"),
    Drift("way out", "interface", to_interface(WORKERS), "egress", "0.0.0.0/0", "public"),
    Drift("record", "elsewhere", record("UPSERT", value="198.51.100.9"), "record", DOMAIN),
    Drift("record", "gone", record("DELETE"), "record", DOMAIN),
    Drift("record", "long TTL", record("UPSERT", TTL=86400), "record", f"TTL of {DOMAIN}"),
    Drift("bucket", "may be public", bucket_public, "bucket", "public access"),
]

COUNTS = {
    "VPC": 6,
    "subnet": 7,
    "gateway": 4,
    "routes": 18,
    "endpoint": 5,
    "group": 2,
    "rule": 9,
    "key": 3,
    "address": 4,
    "NAT": 2,
    "way out": 6,
    "record": 3,
    "bucket": 1,
}

repaired_drifts: set[str] = set()


def our_vpcs(platform: Platform) -> list[str]:
    """Return the VPCs in which there is anything that we make."""
    found = call(platform, "describe_security_groups")["SecurityGroups"]
    return sorted({g["VpcId"] for g in found if g["GroupName"].startswith("f1-")})


@pytest.mark.parametrize("drift", DRIFTS, ids=lambda drift: drift.ident)
def test_drift_is_planned_and_repaired(up, walk, sent, platform, drift):  # noqa: F811
    up(drift.egress)
    home = vpc_id(platform)
    there = len(call(platform, "describe_vpcs")["Vpcs"])
    drift.change(platform)
    strangers = len(call(platform, "describe_vpcs")["Vpcs"]) - there

    plan = walk(*FILES, test=True)
    assert plan[drift.state]["result"] is None, plan[drift.state]
    assert any(drift.named in what for what in plan[drift.state]["changes"]), plan[drift.state]
    assert drift.named in plan[drift.state]["comment"]
    assert results_of(plan) <= {None, True}
    assert sent
    assert changing(sent) == []

    repaired = walk(*FILES)
    assert results_of(repaired) == {True}
    assert outcome(repaired).keys() == outcome(plan).keys()
    assert repaired[drift.state]["changes"].keys() == plan[drift.state]["changes"].keys()
    assert changing(sent)

    again = walk(*FILES)
    assert outcome(again) == {}
    assert results_of(again) == {True}
    assert changing(sent) == []
    assert our_vpcs(platform) == [home]
    assert vpc_id(platform) == home
    assert len(call(platform, "describe_vpcs")["Vpcs"]) == there + strangers
    repaired_drifts.add(drift.ident)


def test_every_drift_was_repaired():
    assert len(DRIFTS) == sum(COUNTS.values()) == len({drift.ident for drift in DRIFTS})
    assert Counter(drift.kind for drift in DRIFTS) == COUNTS
    assert repaired_drifts == {drift.ident for drift in DRIFTS}


def default_route(platform: Platform) -> dict[str, Any]:
    (found,) = [
        item
        for item in table(platform, WORKERS)["Routes"]
        if item.get("DestinationCidrBlock") == "0.0.0.0/0"
    ]
    assert found["State"] == "active"
    return found


def test_the_way_out_is_switched_and_switched_back(up, walk, sent, platform):  # noqa: F811
    up("master")
    master = default_route(platform)["NetworkInterfaceId"]
    for way, key, begins in (
        ("nat-gateway", "NatGatewayId", "nat-"),
        ("public", "GatewayId", "igw-"),
        ("nat-gateway", "NatGatewayId", "nat-"),
        ("master", "NetworkInterfaceId", master),
        ("public", "GatewayId", "igw-"),
        ("master", "NetworkInterfaceId", master),
    ):
        platform["network"]["egress"] = way
        plan = walk(*FILES, test=True)
        assert plan["egress"]["result"] is None
        assert changing(sent) == []
        assert results_of(walk(*FILES)) == {True}
        assert outcome(walk(*FILES)) == {}
        assert default_route(platform)[key].startswith(begins)
        # Nothing that costs stays behind.
        is_nat = way == "nat-gateway"
        assert len(view(platform).nats("available", "pending")) == is_nat
        assert len(call(platform, "describe_addresses")["Addresses"]) == 1 + is_nat
        for index in (1, 2):
            cidr = platform["network"]["worker_cidrs"][index - 1]
            is_public = (view(platform).subnet(cidr) or {})["MapPublicIpOnLaunch"]
            assert is_public is (way == "public")


def test_a_plan_without_a_master_says_what_will_come(walk, sent, platform):  # noqa: F811
    for result in (walk(*FILES, test=True), (walk("network"), walk(*FILES, test=True))[1]):
        assert result["egress"]["result"] is None
        assert result["egress"]["changes"] == {
            "0.0.0.0/0": {"old": None, "new": "interface of f1-master"}
        }
        assert changing(sent) == []
    failed = walk("machines")["egress"]
    assert failed["result"] is False
    assert failed["comment"] == "0.0.0.0/0: there is no interface of f1-master to lead to"


def test_a_group_of_our_name_that_is_not_ours_is_not_taken(up, walk, platform):  # noqa: F811
    up("master")
    group_gone(platform)
    call(
        platform,
        "create_security_group",
        GroupName="f1-worker",
        Description="mine now",
        VpcId=vpc_id(platform),
    )
    result = walk()["worker group"]
    assert result["result"] is False
    assert "is described as 'mine now', so it is not the platform's; remove it" in result["comment"]
