"""The fixes to moto, each by what a caller sees; none of these holds without them."""

import urllib.request

import pytest

# First: moto reads its settings when it is imported, and this process runs the lab's.
from lab.cloud import moto_cloud  # isort: skip
from lab.cloud import moto_fixes
from lab.cloud.config import Image

REGION = "eu-west-3"
NAME = [{"Key": "Name", "Value": "f1-one"}]


@pytest.fixture
def ec2():
    import boto3
    from moto.server import ThreadedMotoServer

    moto_fixes.apply()
    moto_fixes.apply()  # again: no change
    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    url = f"http://{host}:{port}"
    urllib.request.urlopen(urllib.request.Request(f"{url}/moto-api/reset", method="POST")).close()
    moto_cloud.register([Image()], REGION)
    yield boto3.Session("testing", "testing", region_name=REGION).client("ec2", endpoint_url=url)
    urllib.request.urlopen(urllib.request.Request(f"{url}/moto-api/reset", method="POST")).close()
    server.stop()


@pytest.fixture
def vpc(ec2):
    return ec2.create_vpc(CidrBlock="10.20.0.0/16")["Vpc"]["VpcId"]


@pytest.fixture
def subnet(ec2, vpc):
    return ec2.create_subnet(VpcId=vpc, CidrBlock="10.20.1.0/24")["Subnet"]["SubnetId"]


@pytest.fixture
def groups(ec2, vpc):
    return [
        ec2.create_security_group(GroupName=n, Description=n, VpcId=vpc)["GroupId"] for n in "ab"
    ]


@pytest.fixture
def run(ec2, subnet, groups):
    def launch(**values):
        interface = {"DeviceIndex": 0, "SubnetId": subnet, "Groups": groups[:1]}
        given = {
            "ImageId": Image().ami,
            "InstanceType": "t3.small",
            "MinCount": 1,
            "MaxCount": 1,
            "NetworkInterfaces": [interface],
        }
        return ec2.run_instances(**(given | values))["Instances"][0]["InstanceId"]

    return launch


def described(ec2, instance):
    return ec2.describe_instances(InstanceIds=[instance])["Reservations"][0]["Instances"][0]


def refused(code, call, **arguments):
    from botocore.exceptions import ClientError

    with pytest.raises(ClientError) as caught:
        call(**arguments)
    assert caught.value.response["Error"]["Code"] == code


def test_a_client_token_launches_one_machine(ec2, run):
    first = run(ClientToken="f1-one.000000000001", UserData="one")
    assert run(ClientToken="f1-one.000000000001", UserData="one") == first
    assert run(ClientToken="f1-one.000000000002", UserData="one") != first
    assert len(ec2.describe_instances()["Reservations"]) == 2
    refused("IdempotentParameterMismatch", run, ClientToken="f1-one.000000000001", UserData="two")
    # also when it is terminated: the same call means the same machine
    ec2.terminate_instances(InstanceIds=[first])
    assert run(ClientToken="f1-one.000000000001", UserData="one") == first
    assert described(ec2, first)["State"]["Name"] == "terminated"


def test_client_tokens_of_other_creations_count_as_well(ec2, vpc, subnet):
    nat = {"SubnetId": subnet, "ConnectivityType": "private", "ClientToken": "f1-nat"}
    assert (
        ec2.create_nat_gateway(**nat)["NatGateway"]["NatGatewayId"]
        == ec2.create_nat_gateway(**nat)["NatGateway"]["NatGatewayId"]
    )
    s3 = {"VpcId": vpc, "ServiceName": f"com.amazonaws.{REGION}.s3", "ClientToken": "f1-s3"}
    for _ in range(2):
        ec2.create_vpc_endpoint(**s3)
    assert len(ec2.describe_vpc_endpoints()["VpcEndpoints"]) == 1


def test_a_dry_run_changes_nothing(ec2, vpc, subnet, run):
    before = ec2.describe_nat_gateways()["NatGateways"]
    refused("DryRunOperation", ec2.create_nat_gateway, SubnetId=subnet, DryRun=True)
    refused("DryRunOperation", ec2.delete_vpc, VpcId=vpc, DryRun=True)
    refused("DryRunOperation", run, ClientToken="f1-one.000000000001", DryRun=True)
    assert ec2.describe_nat_gateways()["NatGateways"] == before
    assert ec2.describe_instances()["Reservations"] == []
    run(ClientToken="f1-one.000000000001")


def test_a_protected_machine_is_not_terminated(ec2, run):
    kept, other = run(DisableApiTermination=True), run()
    refused(
        "OperationNotPermitted", ec2.terminate_instances, InstanceIds=[other, kept]
    )  # none of them
    assert {described(ec2, i)["State"]["Name"] for i in (kept, other)} == {"running"}
    asked = ec2.describe_instance_attribute(InstanceId=kept, Attribute="disableApiTermination")
    assert asked["DisableApiTermination"] == {"Value": True}
    ec2.modify_instance_attribute(InstanceId=kept, DisableApiTermination={"Value": False})
    ec2.modify_instance_attribute(InstanceId=other, DisableApiTermination={"Value": True})
    ec2.terminate_instances(InstanceIds=[kept])
    refused("OperationNotPermitted", ec2.terminate_instances, InstanceIds=[other])


def test_tags_of_the_interface_are_given_at_launch(ec2, run):
    run(
        TagSpecifications=[
            {"ResourceType": kind, "Tags": NAME} for kind in ("instance", "network-interface")
        ]
    )
    assert ec2.describe_network_interfaces()["NetworkInterfaces"][0]["TagSet"] == NAME


def test_the_groups_are_those_of_the_first_interface(ec2, run, groups, subnet):
    def seen(instance):
        item = described(ec2, instance)
        nic = item["NetworkInterfaces"][0]
        alone = ec2.describe_network_interfaces(NetworkInterfaceIds=[nic["NetworkInterfaceId"]])
        all_three = [
            [g["GroupId"] for g in where]
            for where in (
                item["SecurityGroups"],
                nic["Groups"],
                alone["NetworkInterfaces"][0]["Groups"],
            )
        ]
        assert all_three == [all_three[0]] * 3
        return all_three[0]

    one = run()
    two = ec2.run_instances(
        ImageId=Image().ami,
        MinCount=1,
        MaxCount=1,
        InstanceType="t3.small",
        SubnetId=subnet,
        SecurityGroupIds=groups[:1],
    )["Instances"][0]["InstanceId"]
    for instance in (one, two):
        assert seen(instance) == groups[:1]
        ec2.modify_instance_attribute(InstanceId=instance, Groups=groups[1:])
        assert seen(instance) == groups[1:]
        nic = described(ec2, instance)["NetworkInterfaces"][0]["NetworkInterfaceId"]
        ec2.modify_network_interface_attribute(NetworkInterfaceId=nic, Groups=groups)
        assert seen(instance) == groups


def test_the_source_check_is_shown_the_same_everywhere(ec2, run):
    instance = run()
    nic = described(ec2, instance)["NetworkInterfaces"][0]["NetworkInterfaceId"]

    def seen():
        item = described(ec2, instance)
        alone = ec2.describe_network_interfaces(NetworkInterfaceIds=[nic])["NetworkInterfaces"][0]
        return {
            item["SourceDestCheck"],
            item["NetworkInterfaces"][0]["SourceDestCheck"],
            alone["SourceDestCheck"],
        }

    assert seen() == {True}
    ec2.modify_instance_attribute(InstanceId=instance, SourceDestCheck={"Value": False})
    assert seen() == {False}
    ec2.modify_network_interface_attribute(NetworkInterfaceId=nic, SourceDestCheck={"Value": True})
    assert seen() == {True}


def test_metadata_options_that_are_not_given_stay(ec2, run):
    instance = run(
        MetadataOptions={
            "HttpTokens": "required",
            "HttpPutResponseHopLimit": 1,
            "InstanceMetadataTags": "enabled",
        }
    )
    ec2.modify_instance_metadata_options(InstanceId=instance, HttpPutResponseHopLimit=2)
    options = described(ec2, instance)["MetadataOptions"]
    assert (options["HttpTokens"], options["HttpPutResponseHopLimit"]) == ("required", 2)
    assert (options["InstanceMetadataTags"], options["HttpEndpoint"]) == ("enabled", "enabled")


def test_credits_are_as_given_or_the_types_own(ec2, run):
    def seen(instance):
        found = ec2.describe_instance_credit_specifications(InstanceIds=[instance])
        return found["InstanceCreditSpecifications"][0]["CpuCredits"]

    given, own, old = (
        run(CreditSpecification={"CpuCredits": "standard"}),
        run(),
        run(InstanceType="t2.micro"),
    )
    assert [seen(i) for i in (given, own, old)] == ["standard", "unlimited", "standard"]
    wanted = [{"InstanceId": given, "CpuCredits": "unlimited"}]
    ec2.modify_instance_credit_specification(InstanceCreditSpecifications=wanted)
    assert seen(given) == "unlimited"


def test_a_nat_gateway_lies_in_its_subnet_and_gives_everything_back(ec2, subnet):
    address = ec2.allocate_address(Domain="vpc")
    made = ec2.create_nat_gateway(SubnetId=subnet, AllocationId=address["AllocationId"])
    ident = made["NatGateway"]["NatGatewayId"]
    held = made["NatGateway"]["NatGatewayAddresses"][0]
    assert held["PublicIp"] == address["PublicIp"]
    assert held["PrivateIp"].startswith("10.20.1.")
    ec2.delete_nat_gateway(NatGatewayId=ident)
    (left,) = ec2.describe_nat_gateways()["NatGateways"]
    assert (left["NatGatewayId"], left["State"]) == (ident, "deleted")
    assert ec2.describe_network_interfaces()["NetworkInterfaces"] == []
    assert not ec2.describe_addresses()["Addresses"][0].get("AssociationId")
    ec2.release_address(AllocationId=address["AllocationId"])
    refused("NatGatewayNotFound", ec2.delete_nat_gateway, NatGatewayId="nat-0123456789abcdef0")


def test_the_routes_of_a_gateway_endpoint_follow_it(ec2, vpc):
    one, two = (ec2.create_route_table(VpcId=vpc)["RouteTable"]["RouteTableId"] for _ in "ab")

    def tables(endpoint):
        return [
            t["RouteTableId"]
            for t in ec2.describe_route_tables()["RouteTables"]
            if endpoint in [r.get("GatewayId") for r in t["Routes"]]
        ]

    made = ec2.create_vpc_endpoint(
        VpcId=vpc, ServiceName=f"com.amazonaws.{REGION}.s3", RouteTableIds=[one]
    )["VpcEndpoint"]
    ident = made["VpcEndpointId"]
    assert made["VpcEndpointType"] == "Gateway"
    assert tables(ident) == [one]
    ec2.modify_vpc_endpoint(VpcEndpointId=ident, AddRouteTableIds=[two], RemoveRouteTableIds=[one])
    assert tables(ident) == [two]
    ec2.delete_vpc_endpoints(VpcEndpointIds=[ident])
    assert tables(ident) == []
    assert ec2.describe_vpc_endpoints()["VpcEndpoints"] == []


def test_a_route_names_machine_and_interface_and_says_if_it_leads_nowhere(ec2, vpc, run):
    table = ec2.create_route_table(VpcId=vpc)["RouteTable"]["RouteTableId"]
    instance = run()
    nic = described(ec2, instance)["NetworkInterfaces"][0]["NetworkInterfaceId"]

    def route():
        routes = ec2.describe_route_tables(RouteTableIds=[table])["RouteTables"][0]["Routes"]
        return next(r for r in routes if r["DestinationCidrBlock"] == "0.0.0.0/0")

    where = {"RouteTableId": table, "DestinationCidrBlock": "0.0.0.0/0"}
    ec2.create_route(NetworkInterfaceId=nic, **where)
    assert (route()["InstanceId"], route()["NetworkInterfaceId"]) == (instance, nic)
    assert route()["State"] == "active"
    ec2.terminate_instances(InstanceIds=[instance])
    assert route()["State"] == "blackhole"
    gateway = ec2.create_internet_gateway()["InternetGateway"]["InternetGatewayId"]
    ec2.attach_internet_gateway(InternetGatewayId=gateway, VpcId=vpc)
    ec2.replace_route(GatewayId=gateway, **where)
    assert route()["State"] == "active"
    ec2.detach_internet_gateway(InternetGatewayId=gateway, VpcId=vpc)
    assert route()["State"] == "blackhole"


def test_tags_of_an_images_snapshot(ec2, run):
    specs = [{"ResourceType": kind, "Tags": NAME} for kind in ("image", "snapshot")]
    ident = ec2.create_image(InstanceId=run(), Name="one", TagSpecifications=specs)["ImageId"]
    image = ec2.describe_images(ImageIds=[ident])["Images"][0]
    part = image["BlockDeviceMappings"][0]["Ebs"]["SnapshotId"]
    assert ec2.describe_snapshots(SnapshotIds=[part])["Snapshots"][0]["Tags"] == NAME
    assert image["Tags"] == NAME
