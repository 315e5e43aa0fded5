"""
`orch.down`: cut off at any kind of request it is finished by the next; what is ours is known by
what cannot be changed; waits end with a word.
"""

from typing import Any

import aws
import belongings
import ec2
import launch as launch_util
import pytest
import vpc

from tests.unit.cloud_driver import acting, walks

CHANGING = ("change_", "delete_", "detach_", "disassociate_", "release_", "revoke_", "terminate_")

# Every kind of request that a removal sends, the way out being a NAT gateway.
REQUESTS = {
    "change_resource_record_sets",
    "delete_bucket",
    "delete_internet_gateway",
    "delete_key_pair",
    "delete_nat_gateway",
    "delete_network_interface",
    "delete_objects",
    "delete_route_table",
    "delete_security_group",
    "delete_subnet",
    "delete_vpc",
    "delete_vpc_endpoints",
    "detach_internet_gateway",
    "disassociate_address",
    "disassociate_route_table",
    "release_address",
    "revoke_security_group_ingress",
    "terminate_instances",
}


@pytest.fixture
def walk(opts, platform):
    """Run a SLS's states in their order until one fails; return their results by id."""
    modules = walks.load()

    def run(sls: str, confirm: str = "f1", test: bool = False) -> dict[str, dict[str, Any]]:
        results = {}
        for ident, result in walks.states(modules, sls, {**opts, "test": test}, platform, confirm):
            results[ident] = result
            if result["result"] is False:
                break
        return results

    return run


def launch(platform: dict[str, Any]) -> str:
    """Make the master at its address, with an interface that it will leave; fill the bucket."""
    ident = acting.launch(platform, "f1-master")
    ec2.associate(platform, "f1-master", ident)
    tags = [{"ResourceType": "network-interface", "Tags": aws.tags(platform, "f1-master")}]
    subnet = vpc.subnet_id(platform, "f1-master")
    made = ec2_call(platform, "create_network_interface", SubnetId=subnet, TagSpecifications=tags)[
        "NetworkInterface"
    ]
    ec2_call(
        platform,
        "attach_network_interface",
        NetworkInterfaceId=made["NetworkInterfaceId"],
        InstanceId=ident,
        DeviceIndex=1,
    )
    aws.call(platform, "s3", "put_object", Bucket=aws.bucket(platform), Key="a", Body=b"1")
    return ident


def ec2_call(platform: dict[str, Any], request: str, **arguments: Any) -> dict[str, Any]:
    return aws.call(platform, "ec2", request, **arguments)


def left(platform: dict[str, Any]) -> dict[str, int]:
    kinds = {
        "describe_vpcs": "Vpcs",
        "describe_subnets": "Subnets",
        "describe_internet_gateways": "InternetGateways",
        "describe_route_tables": "RouteTables",
        "describe_security_groups": "SecurityGroups",
        "describe_key_pairs": "KeyPairs",
        "describe_addresses": "Addresses",
        "describe_network_interfaces": "NetworkInterfaces",
        "describe_vpc_endpoints": "VpcEndpoints",
    }
    found = {key: len(ec2_call(platform, request)[key]) for request, key in kinds.items()}
    found["Machines"] = len(ec2.present(platform, []))
    nats = ec2_call(platform, "describe_nat_gateways")["NatGateways"]
    found["NatGateways"] = len([item for item in nats if item["State"] != "deleted"])
    found["Buckets"] = len(aws.call(platform, "s3", "list_buckets")["Buckets"])
    return found


def test_cut_off_anywhere_it_is_finished_by_the_next(walk, platform, monkeypatch):
    platform["network"]["egress"] = "nat-gateway"
    platform["dns"]["zone"] = "example.org"
    aws.call(platform, "route53", "create_hosted_zone", Name="example.org", CallerReference="1")
    empty = left(platform)
    call, done = aws.call, set()

    def cut(platform: dict[str, Any], service: str, request: str, **arguments: Any) -> Any:
        if request.startswith(CHANGING) and request not in done:
            done.add(request)
            raise aws.CloudError("the line is cut")
        return call(platform, service, request, **arguments)

    # Each kind of request is where it stops once, with everything before it done.
    while True:
        before = len(done)
        assert all(each["result"] for each in walk("network").values())
        launch(platform)
        with monkeypatch.context() as patch:
            patch.setattr(aws, "call", cut)
            first = walk("down")
        if len(done) == before:
            break
        assert "the line is cut" in list(first.values())[-1]["comment"]
        second = walk("down")
        assert [each for each in second.values() if each["result"] is not True] == [], done
        assert left(platform) == empty, done
    assert done == REQUESTS
    assert {each["result"] for each in first.values()} == {True}
    assert left(platform) == empty
    assert not any(each["changes"] for each in walk("down").values())
    assert belongings.left(platform) == ["nothing of f1 besides its machines costs money"]


@pytest.mark.parametrize("egress", ["master", "nat-gateway"])
def test_a_plan_is_exact_and_removes_nothing(walk, platform, egress):
    platform["network"]["egress"] = egress
    walk("network")
    launch(platform)
    there = left(platform)
    plan = walk("down", test=True)
    assert left(platform) == there
    done = walk("down")
    for ident, planned in plan.items():
        assert planned["changes"] == done[ident]["changes"]
    assert len(plan["interfaces"]["changes"]) == 1


def test_what_lost_its_tags_is_still_ours(walk, platform):
    """The address is known by its master, which must therefore go after it."""
    empty = left(platform)
    walk("network")
    interface = {
        "DeviceIndex": 0,
        "SubnetId": vpc.subnet_id(platform, "f1-master"),
        "Groups": vpc.group_ids(platform, ["f1-master"]),
        "DeleteOnTermination": True,
        "PrivateIpAddress": platform["network"]["master_ip"],
    }
    ident = acting.launch(platform, "f1-master", NetworkInterfaces=[interface])
    ec2.associate(platform, "f1-master", ident)
    view = vpc.View(platform)
    address = str((view.address("f1-master") or {})["AllocationId"])
    found = [ident, address, view.needed_id()]
    found += [group["GroupId"] for group in view.groups().values()]
    for kind, key in {
        "subnets": "SubnetId",
        "tables": "RouteTableId",
        "gateways": "InternetGatewayId",
        "endpoints": "VpcEndpointId",
    }.items():
        found += [item[key] for item in view.inside(kind)]
    ec2_call(
        platform,
        "delete_tags",
        Resources=found,
        Tags=[{"Key": key} for key in ("Name", aws.PLATFORM_TAG)],
    )
    _, theirs = belongings.inside(platform)
    assert theirs == []
    done = walk("down")
    assert {each["result"] for each in done.values()} == {True}, done
    assert left(platform) == empty


def test_strangers_are_named_each_and_nothing_goes(walk, platform):
    walk("network")
    launch(platform)
    home = vpc.id_of(platform)
    subnet = vpc.subnet_id(platform, "f1-worker-1")
    theirs = [
        ec2_call(platform, "create_subnet", VpcId=home, CidrBlock="10.20.99.0/24")["Subnet"][
            "SubnetId"
        ],
        ec2_call(platform, "create_route_table", VpcId=home)["RouteTable"]["RouteTableId"],
        ec2_call(platform, "create_security_group", GroupName="x", Description="x", VpcId=home)[
            "GroupId"
        ],
        ec2_call(platform, "create_network_interface", SubnetId=subnet)["NetworkInterface"][
            "NetworkInterfaceId"
        ],
        ec2_call(
            platform,
            "create_vpc_endpoint",
            VpcId=home,
            ServiceName="com.amazonaws.eu-west-3.dynamodb",
            VpcEndpointType="Gateway",
        )["VpcEndpoint"]["VpcEndpointId"],
        ec2_call(
            platform,
            "run_instances",
            ImageId=platform["image"]["id"],
            MinCount=1,
            MaxCount=1,
            SubnetId=subnet,
        )["Instances"][0]["InstanceId"],
    ]
    there = left(platform)
    for test in (True, False):
        said = walk("down", test=test)["may be removed"]
        assert said["result"] is False
        assert "nothing was removed" in said["comment"]
        for ident in theirs:
            assert ident in said["comment"]
        assert vpc.subnet_id(platform, "f1-worker-1") not in said["comment"]
    assert left(platform) == there
    lines = "\n".join(belongings.left(platform))
    for ident in theirs:
        assert ident in lines


def test_a_protected_machine_stops_it_with_the_command(walk, platform):
    walk("network")
    ident = launch(platform)
    ec2_call(
        platform,
        "modify_instance_attribute",
        InstanceId=ident,
        DisableApiTermination={"Value": True},
    )
    there = left(platform)
    said = walk("down")["may be removed"]
    assert said["result"] is False
    assert "nothing was removed" in said["comment"]
    assert said["comment"].endswith("salt-cloud -a disable_term_protect f1-master")
    assert left(platform) == there


@pytest.mark.parametrize("confirm", ["", "f2", "F1"])
def test_another_name_removes_nothing_and_all_is_listed(walk, platform, confirm):
    walk("network")
    ident = launch(platform)
    there = left(platform)
    result = walk("down", confirm=confirm)
    assert list(result) == ["may be removed"]
    said = result["may be removed"]["comment"]
    assert said.endswith("make down CLOUD=aws CONFIRM=f1")
    address = vpc.address(platform, "f1-master")
    assert address is not None
    for word in (ident, address["PublicIp"], vpc.id_of(platform), "gateway igw-", "key pair key-"):
        assert word in said
    assert left(platform) == there


def test_orphans_are_told_with_their_price_and_left(walk, platform):
    walk("network")
    launch(platform)
    volume = acting.volume(platform, "f1-master-data")
    assert {each["result"] for each in walk("down").values()} == {True}
    lines = belongings.left(platform)
    assert lines[0] == (
        f"ours and still paid: volume {volume} f1-master-data (10 GB gp3): 0.93 USD a month"
    )
    assert lines[1].startswith("together 0.93 USD a month")


def test_a_machine_that_does_not_end_is_named_with_its_state(walk, platform, monkeypatch):
    walk("network")
    instance_id = launch(platform)
    call = aws.call

    def deaf(platform: dict[str, Any], service: str, request: str, **arguments: Any) -> Any:
        return (
            {}
            if request == "terminate_instances"
            else call(platform, service, request, **arguments)
        )

    monkeypatch.setattr(aws, "call", deaf)
    monkeypatch.setattr(launch_util, "TERMINATED_SECONDS", 0)
    result = walk("down")["machines"]
    assert result["result"] is False
    assert (
        f"for f1-master ({instance_id}) to be terminated; last seen: it is running"
        in (result["comment"])
    )


def test_what_stays_in_use_is_waited_for_and_named(walk, platform, monkeypatch):
    walk("network")
    call, seen = aws.call, []

    def busy(platform: dict[str, Any], service: str, request: str, **arguments: Any) -> Any:
        if request == "delete_subnet" and not seen:
            seen.append(request)
            said = {"Error": {"Code": "DependencyViolation", "Message": "has dependencies"}}
            error = aws.ClientError(said, request)
            raise aws.explain(error, request) from error
        return call(platform, service, request, **arguments)

    monkeypatch.setattr(aws, "call", busy)
    with monkeypatch.context() as patch:
        patch.setattr(vpc, "REMOVED_SECONDS", 0)
        said = walk("down")["subnets"]
    assert said["result"] is False
    assert "DependencyViolation: has dependencies" in said["comment"]
    seen.clear()
    assert walk("down")["vpc"]["result"] is True
