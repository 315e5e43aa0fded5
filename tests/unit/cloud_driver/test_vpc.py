"""Who is who in the network when tags say otherwise; what is asked, remembered and waited for."""

import types
from typing import Any

import aws
import belongings
import launch
import leftovers
import pytest
import vpc
from botocore.exceptions import ClientError

from .test_drift_network import call, up  # noqa: F401
from .test_network import changing, outcome, results_of, sent, walk  # noqa: F401

Platform = dict[str, Any]


def refusal(code: str, request: str = "CreateSubnet") -> aws.CloudError:
    cause = ClientError({"Error": {"Code": code, "Message": "says the API"}}, request)
    error = aws.explain(cause, request)
    error.__cause__ = cause
    return error


@pytest.fixture
def clock(monkeypatch) -> list[float]:
    """Waits pass at once: the seconds that they took."""
    slept: list[float] = []
    # Only for these two: the API's threads and subprocesses have the real one.
    fake = types.SimpleNamespace(sleep=slept.append, monotonic=lambda: sum(slept))
    monkeypatch.setattr(aws, "time", fake)
    monkeypatch.setattr(vpc, "time", fake)
    return slept


@pytest.mark.parametrize(
    ("machine", "name", "cidr"),
    [
        ("f1-master", "f1-public", "10.20.1.0/24"),
        ("f1-worker-1", "f1-workers-a", "10.20.2.0/24"),
        ("f1-worker-2", "f1-workers-b", "10.20.3.0/24"),
        ("f1-worker-3", "f1-workers-a", "10.20.2.0/24"),
        ("f1-worker-50", "f1-workers-b", "10.20.3.0/24"),
    ],
)
def test_where_a_machine_lies(platform, machine, name, cidr):
    assert vpc.subnet_name(platform, machine) == name
    assert vpc.subnet_cidr(platform, machine) == cidr


@pytest.mark.parametrize("machine", ["f1-worker-0", "f1-worker-", "f2-worker-1", "f1-workers-a"])
def test_who_is_no_machine_lies_nowhere(platform, machine):
    with pytest.raises(aws.CloudError, match="is no machine of f1: use f1-master or f1-worker-<n"):
        vpc.subnet_cidr(platform, machine)


def test_what_is_not_there_is_said_with_the_fix(platform):
    assert vpc.find(platform) is None
    for ask in (
        lambda: vpc.id_of(platform),
        lambda: vpc.subnet_id(platform, "f1-worker-1"),
        lambda: vpc.group_ids(platform, ["f1-master"]),
    ):
        with pytest.raises(aws.CloudError, match=r"^no .* named f1.*; run `salt-run .*network`"):
            ask()


def test_the_groups_say_whose_the_vpc_is(walk, platform):  # noqa: F811
    walk()
    ours = vpc.id_of(platform)
    other = call(platform, "create_vpc", CidrBlock="10.20.0.0/16")["Vpc"]["VpcId"]
    # Somebody's group has our name, another our description, and the VPC has all our tags.
    for name, text in (("f1-master", "mine"), ("mine", vpc.GROUPS["master"])):
        call(platform, "create_security_group", GroupName=name, Description=text, VpcId=other)
    call(platform, "create_tags", Resources=[other], Tags=aws.tags(platform, "f1"))
    keys = [{"Key": "Name"}, {"Key": aws.PLATFORM_TAG}]
    call(platform, "delete_tags", Resources=[ours], Tags=keys)
    assert vpc.id_of(platform) == ours
    assert (vpc.find(platform) or {})["VpcId"] == ours
    assert len(vpc.group_ids(platform, ["f1-worker", "f1-master"])) == 2


def test_a_vpc_without_groups_yet_is_found_by_its_tag(walk, platform):  # noqa: F811
    made = call(platform, "create_vpc", CidrBlock="10.20.0.0/16")["Vpc"]["VpcId"]
    assert vpc.find(platform) is None
    tag = {"Key": aws.PLATFORM_TAG, "Value": "f1"}
    call(platform, "create_tags", Resources=[made], Tags=[tag])
    assert vpc.id_of(platform) == made
    assert results_of(walk()) == {True}
    assert vpc.id_of(platform) == made


def test_two_with_groups_like_ours_are_told_apart_by_the_tag_or_not_at_all(walk, platform):  # noqa: F811
    walk()
    ours = vpc.id_of(platform)
    other = call(platform, "create_vpc", CidrBlock="10.20.0.0/16")["Vpc"]["VpcId"]
    text = vpc.GROUPS["master"]
    call(platform, "create_security_group", GroupName="f1-master", Description=text, VpcId=other)
    assert vpc.id_of(platform) == ours
    call(platform, "create_tags", Resources=[other], Tags=aws.tags(platform, "f1"))
    with pytest.raises(aws.CloudError, match="2 of VpcId are named f1") as caught:
        vpc.id_of(platform)
    assert ours in str(caught.value)
    assert other in str(caught.value)


def test_little_is_asked_and_nothing_stale_is_answered(walk, platform, sent, clock):  # noqa: F811
    walk()
    view = vpc.View(platform)
    sent.clear()
    for _ in range(3):
        view.inside("subnets")
    assert sent == ["DescribeSecurityGroups", "DescribeSubnets"]
    cidr = platform["network"]["master_cidr"]
    before = (view.subnet(cidr) or {})["SubnetId"]
    change = {"SubnetId": before, "MapPublicIpOnLaunch": {"Value": False}}
    view.change("modify_subnet_attribute", **change)
    assert (view.subnet(cidr) or {})["MapPublicIpOnLaunch"] is False
    # A change by others is seen once the answer is old.
    change["MapPublicIpOnLaunch"] = {"Value": True}
    call(platform, "modify_subnet_attribute", **change)
    assert (view.subnet(cidr) or {})["MapPublicIpOnLaunch"] is False
    clock.append(vpc.FRESH_SECONDS + 0.1)
    assert (view.subnet(cidr) or {})["MapPublicIpOnLaunch"] is True


def test_what_was_just_made_is_waited_for(walk, platform, monkeypatch, clock):  # noqa: F811
    """EC2 does not know for a moment what it has just made, nor describes it."""
    send, ask = aws.call, aws.pages
    refused: dict[str, int] = {}

    def late(platform: Platform, service: str, request: str, **arguments: Any) -> Any:
        made = request.startswith(("create_", "attach_", "associate_", "authorize_"))
        if service == "ec2" and made and refused.setdefault(request, 0) < 2:
            refused[request] += 1
            raise refusal("InvalidVpcID.NotFound", request)
        return send(platform, service, request, **arguments)

    hidden: dict[str, int] = {}

    def unseen(platform: Platform, service: str, request: str, key: str, **arguments: Any) -> Any:
        found = ask(platform, service, request, key, **arguments)
        idents = [v for item in found for k, v in item.items() if k.endswith("Id")]
        new = [i for i in map(str, idents) if i.startswith(("subnet-", "rtb-", "igw-", "vpce-"))]
        for ident in new:
            hidden[ident] = hidden.get(ident, 0) + 1
        # A thing is left out of the first answer that has it.
        return [i for i in found if not any(hidden.get(str(v)) == 1 for v in i.values())]

    monkeypatch.setattr(aws, "call", late)
    monkeypatch.setattr(aws, "pages", unseen)
    assert results_of(walk()) == {True}
    assert set(refused.values()) == {2}
    assert hidden
    assert 0 < sum(clock) < vpc.SEEN_SECONDS
    assert outcome(walk()) == {}
    found = [v["VpcId"] for v in call(platform, "describe_vpcs")["Vpcs"] if not v["IsDefault"]]
    assert found == [vpc.id_of(platform)]
    assert len(vpc.View(platform).inside("subnets")) == 3


def test_what_never_appears_is_given_up_with_the_last_thing_said(platform, monkeypatch, clock):
    def never(*_: Any, **__: Any) -> Any:
        raise refusal("InvalidVpcID.NotFound")

    monkeypatch.setattr(aws, "call", never)
    with pytest.raises(aws.CloudError) as caught:
        vpc.View(platform).change("create_subnet", VpcId="vpc-1")
    assert "waited 60 s for ec2 create_subnet; last seen: " in str(caught.value)
    assert "InvalidVpcID.NotFound: says the API" in str(caught.value)
    assert sum(clock) >= vpc.SEEN_SECONDS


@pytest.mark.parametrize(
    ("codes", "error", "tries"),
    [
        (["DependencyViolation", "DependencyViolation"], None, 3),
        (["InvalidSubnetID.NotFound"], None, 1),
        (["Gateway.NotAttached"], None, 1),
        (["UnauthorizedOperation"], "UnauthorizedOperation", 1),
        (["DependencyViolation"] * 9999, "waited 120 s for delete_subnet of subnet-1", None),
    ],
)
def test_only_what_something_still_holds_is_removed_again(
    platform, monkeypatch, clock, codes, error, tries
):
    asked = []
    left = iter(codes)

    def refuse(*_: Any, **__: Any) -> dict[str, Any]:
        asked.append(1)
        code = next(left, None)
        if code:
            raise refusal(code, "DeleteSubnet")
        return {}

    monkeypatch.setattr(aws, "call", refuse)
    remove = vpc.View(platform).remove
    if error is None:
        remove("delete_subnet", SubnetId="subnet-1")
    else:
        with pytest.raises(aws.CloudError, match=error):
            remove("delete_subnet", SubnetId="subnet-1")
    assert tries is None or len(asked) == tries


def left(platform: Platform) -> dict[str, int]:
    """Count what there is in the account that a network consists of."""
    home = [v["VpcId"] for v in call(platform, "describe_vpcs")["Vpcs"] if not v["IsDefault"]]
    nats = call(platform, "describe_nat_gateways")["NatGateways"]
    return {
        "VPCs": len(home),
        "subnets": sum(
            item["VpcId"] in home for item in call(platform, "describe_subnets")["Subnets"]
        ),
        "gateways": len(call(platform, "describe_internet_gateways")["InternetGateways"]),
        "tables": sum(
            item["VpcId"] in home for item in call(platform, "describe_route_tables")["RouteTables"]
        ),
        "endpoints": len(call(platform, "describe_vpc_endpoints")["VpcEndpoints"]),
        "NATs": sum(item["State"] != "deleted" for item in nats),
        "addresses": len(call(platform, "describe_addresses")["Addresses"]),
        "groups": sum(
            item["VpcId"] in home
            for item in call(platform, "describe_security_groups")["SecurityGroups"]
        ),
        "keys": len(call(platform, "describe_key_pairs")["KeyPairs"]),
    }


def untag_everything(platform: Platform) -> None:
    """Nobody knows any more by tags whose anything is."""
    found = call(platform, "describe_tags")["Tags"]
    # What has no other identity than its tags and the machine that is gone.
    kept = {(call(platform, "describe_addresses")["Addresses"] or [{}])[0].get("AllocationId")}
    for ident in {item["ResourceId"] for item in found} - kept:
        keys = [{"Key": "Name"}, {"Key": aws.PLATFORM_TAG}]
        call(platform, "delete_tags", Resources=[ident], Tags=keys)


@pytest.mark.parametrize("way", ["master", "nat-gateway", "public"])
@pytest.mark.parametrize("is_tagged", [True, False])
def test_down_leaves_nothing_of_the_network(up, walk, sent, platform, way, is_tagged):  # noqa: F811
    empty = left(platform)
    up(way)
    machine = [
        item["InstanceId"]
        for each in call(platform, "describe_instances")["Reservations"]
        for item in each["Instances"]
    ]
    call(platform, "terminate_instances", InstanceIds=machine)
    if not is_tagged:
        untag_everything(platform)
    full = left(platform)
    assert all(full[kind] > empty[kind] for kind in full if kind != "NATs")
    assert full["NATs"] == (way == "nat-gateway")

    plan = walk("down", test=True)
    assert results_of(plan) <= {None, True}
    assert changing(sent) == []
    assert left(platform) == full
    first = walk("down")
    assert results_of(first) == {True}
    assert outcome(first).keys() >= outcome(plan).keys()
    assert left(platform) == empty
    assert outcome(walk("down")) == {}
    assert changing(sent) == []


@pytest.mark.parametrize("request_", ["delete_vpc", "delete_subnet", "delete_security_group"])
def test_an_interrupted_down_goes_on(up, walk, platform, monkeypatch, request_):  # noqa: F811
    """Untagged, and refused in the middle: the next run still knows what is ours."""
    empty = left(platform)
    up("master")
    machine = [
        item["InstanceId"]
        for each in call(platform, "describe_instances")["Reservations"]
        for item in each["Instances"]
    ]
    call(platform, "terminate_instances", InstanceIds=machine)
    untag_everything(platform)
    send = aws.call

    def interrupted(platform: Platform, service: str, request: str, **arguments: Any) -> Any:
        # EC2 keeps a VPC that has something in it; this API does not.
        if request in (request_, "delete_vpc"):
            raise refusal("UnauthorizedOperation", request)
        return send(platform, service, request, **arguments)

    with monkeypatch.context() as patch:
        patch.setattr(aws, "call", interrupted)
        assert False in results_of(walk("down"))
    assert left(platform) != empty
    assert results_of(walk("down")) == {True}
    assert left(platform) == empty


def test_a_master_is_found_by_its_fixed_address(up, platform):  # noqa: F811
    """The elastic address without tags is known by the machine that has it."""
    up("master")
    view = vpc.View(platform)
    found = view.address("f1-master") or {}
    assert found["PublicIp"]
    keys = [{"Key": "Name"}, {"Key": aws.PLATFORM_TAG}]
    call(platform, "delete_tags", Resources=[found["AllocationId"]], Tags=keys)
    assert (view.address("f1-master") or {})["AllocationId"] == found["AllocationId"]
    # Everybody finds it in the same way, and takes it for no other.
    assert (launch.Lookup(platform).address("f1-master") or {})["PublicIp"] == found["PublicIp"]
    assert [item["PublicIp"] for item in leftovers.addresses(platform)] == [found["PublicIp"]]
    assert leftovers.is_platforms(platform, leftovers.addresses(platform)[0])
    assert belongings.around(platform)[0] == f"address {found['PublicIp']}"
    assert vpc.address(platform, "f1-worker-1") is None


def test_an_endpoint_that_goes_is_nobody_elses(walk, platform, monkeypatch):  # noqa: F811
    walk()
    inside = vpc.View.inside

    def going(state: str) -> list[str]:
        def told(view: vpc.View, kind: str) -> list[dict[str, Any]]:
            more = {"State": state} if kind == "endpoints" else {}
            return [{**item, **more} for item in inside(view, kind)]

        monkeypatch.setattr(vpc.View, "inside", told)
        ours, theirs = belongings.inside(platform)
        assert theirs == []
        return [text for text in ours if text.startswith("endpoint")]

    assert len(going("available")) == 1
    assert going("deleting") == []
