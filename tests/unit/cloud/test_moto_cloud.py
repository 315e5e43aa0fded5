"""moto as the lab's cloud: where it must behave as AWS, and that nothing is forgotten."""

import io
from ipaddress import IPv4Address

import pytest

from lab.cloud import moto_cloud, requests
from lab.cloud.api import Bucket, Gate
from lab.cloud.config import Image
from lab.cloud.model import Igw, Nat, Through
from lab.cloud.state import SERVICES, StateError, Store

REGION = "eu-west-3"
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIEwFs3F7GP+F0Au0/jx/5bXYl70wqiyBEr404jzkRoL4 f1"


def forget():
    for backends in SERVICES.values():
        backends.clear()
    SERVICES["s3"].bucket_accounts.clear()


class Raw(io.BytesIO):
    """A body as botocore reads it."""

    def stream(self, *_, **__):
        yield self.read()


class Cloud:
    """The API through its gate, without a socket."""

    def __init__(self, store):
        import boto3
        from botocore.awsrequest import AWSResponse
        from werkzeug.test import Client

        self.changes = 0
        self.gate = Client(Gate(store, self.changed, requests.Log(store.folder / requests.FILE)))

        def send(request, **_):
            answer = self.gate.open(
                request.url.split("localhost:5001", 1)[1],
                base_url="http://localhost:5001",
                method=request.method,
                data=request.body,
                headers={
                    k: v if isinstance(v, str) else v.decode() for k, v in request.headers.items()
                },
            )
            return AWSResponse(
                request.url, answer.status_code, dict(answer.headers), Raw(answer.data)
            )

        session = boto3.Session("testing", "testing", region_name=REGION)
        for name in ("ec2", "route53", "s3"):
            client = session.client(name, endpoint_url="http://localhost:5001")
            client._endpoint.http_session.send = send
            setattr(self, name, client)

    def changed(self):
        self.changes += 1

    def network(self):
        vpc = self.ec2.create_vpc(CidrBlock="10.20.0.0/16")["Vpc"]["VpcId"]
        subnet = self.ec2.create_subnet(VpcId=vpc, CidrBlock="10.20.1.0/24")["Subnet"]["SubnetId"]
        self.ec2.modify_subnet_attribute(SubnetId=subnet, MapPublicIpOnLaunch={"Value": True})
        return vpc, subnet

    def run(self, subnet, **values):
        given = {
            "ImageId": Image().ami,
            "MinCount": 1,
            "MaxCount": 1,
            "SubnetId": subnet,
            "InstanceType": "t3.small",
        }
        return self.ec2.run_instances(**(given | values))["Instances"][0]["InstanceId"]

    def machine(self, instance):
        return next(m for m in moto_cloud.view(REGION).machines if m.id == instance)


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path)


@pytest.fixture
def cloud(store):
    forget()
    moto_cloud.bind(lambda instance: f"console of {instance}")
    moto_cloud.register([Image()], REGION)
    yield Cloud(store)
    forget()


def test_the_image_is_found_as_debians_own_would_be(cloud):
    images = cloud.ec2.describe_images(
        Owners=["136693071363"], Filters=[{"Name": "name", "Values": ["debian-12-amd64-*"]}]
    )["Images"]
    assert [i["ImageId"] for i in images] == [Image().ami]


def test_an_unknown_image_or_size_is_an_error(cloud):
    from botocore.exceptions import ClientError

    _, subnet = cloud.network()
    for wrong in ({"ImageId": "ami-12345678"}, {"InstanceType": "t3.enormous"}):
        with pytest.raises(ClientError, match="Invalid"):
            cloud.run(subnet, **wrong)


def test_public_addresses_are_unique_and_ours(cloud):
    _, subnet = cloud.network()
    machines = [cloud.machine(cloud.run(subnet)) for _ in range(3)]
    elastic = [cloud.ec2.allocate_address()["PublicIp"] for _ in range(2)]
    addresses = [str(m.public) for m in machines] + elastic
    assert addresses == [f"198.19.0.{n}" for n in range(10, 15)]


def test_a_terminated_machine_gives_everything_back(cloud):
    _, subnet = cloud.network()
    first = cloud.run(subnet, PrivateIpAddress="10.20.1.10")
    elastic = cloud.ec2.allocate_address()
    cloud.ec2.associate_address(InstanceId=first, AllocationId=elastic["AllocationId"])
    assert cloud.machine(first).public == IPv4Address(elastic["PublicIp"])
    cloud.ec2.terminate_instances(InstanceIds=[first])
    cloud.ec2.terminate_instances(InstanceIds=[first])  # again: no error
    assert (
        "InstanceId" not in cloud.ec2.describe_addresses()["Addresses"][0]
        or not (cloud.ec2.describe_addresses()["Addresses"][0]["InstanceId"])
    )
    second = cloud.run(subnet, PrivateIpAddress="10.20.1.10")
    assert cloud.machine(second).address == IPv4Address("10.20.1.10")
    cloud.ec2.terminate_instances(InstanceIds=[second])
    assert cloud.ec2.describe_network_interfaces()["NetworkInterfaces"] == []


def test_the_view_says_what_the_api_was_told(cloud):
    vpc, subnet = cloud.network()
    cloud.ec2.import_key_pair(KeyName="f1", PublicKeyMaterial=KEY.encode())
    group = cloud.ec2.create_security_group(GroupName="m", Description="m", VpcId=vpc)["GroupId"]
    cloud.ec2.authorize_security_group_ingress(
        GroupId=group,
        IpPermissions=[
            {
                "IpProtocol": "tcp",
                "FromPort": 22,
                "ToPort": 22,
                "IpRanges": [{"CidrIp": "198.18.0.1/32"}],
            },
            {"IpProtocol": "-1", "UserIdGroupPairs": [{"GroupId": group}]},
        ],
    )
    name = [{"ResourceType": "instance", "Tags": [{"Key": "Name", "Value": "f1-master"}]}]
    instance = cloud.run(
        subnet,
        KeyName="f1",
        SecurityGroupIds=[group],
        UserData="#cloud-config\n",
        MetadataOptions={"HttpTokens": "required", "HttpPutResponseHopLimit": 2},
        TagSpecifications=name,
    )
    seen = cloud.machine(instance)
    assert (seen.name, seen.groups, seen.state) == ("f1-master", (group,), "running")
    assert (seen.public_key, seen.user_data) == (KEY, b"#cloud-config\n")
    assert (seen.tokens_required, seen.hop_limit) == (True, 2)
    assert "cloud-config" not in repr(seen)
    rules = next(g for g in moto_cloud.view(REGION).groups if g.id == group).ingress
    assert {(r.protocol, r.from_port, bool(r.networks), r.groups) for r in rules} == {
        ("tcp", 22, True, ()),
        ("-1", None, False, (group,)),
    }
    cloud.ec2.reboot_instances(InstanceIds=[instance])
    assert cloud.machine(instance).reboots == 1


def test_the_internet_needs_an_attached_gateway_and_a_route(cloud):
    vpc, subnet = cloud.network()
    instance = cloud.run(subnet)
    gateway = cloud.ec2.create_internet_gateway()["InternetGateway"]["InternetGatewayId"]
    table = cloud.ec2.create_route_table(VpcId=vpc)["RouteTable"]["RouteTableId"]
    steps = [
        lambda: cloud.ec2.attach_internet_gateway(InternetGatewayId=gateway, VpcId=vpc),
        lambda: cloud.ec2.create_route(
            RouteTableId=table, DestinationCidrBlock="0.0.0.0/0", GatewayId=gateway
        ),
        lambda: cloud.ec2.associate_route_table(RouteTableId=table, SubnetId=subnet),
    ]
    for step in steps:
        assert cloud.machine(instance).way is None
        step()
    assert cloud.machine(instance).way == Igw()
    cloud.ec2.detach_internet_gateway(InternetGatewayId=gateway, VpcId=vpc)
    assert cloud.machine(instance).way is None


def test_the_way_follows_the_subnets_route_table(cloud):
    ec2 = cloud.ec2
    vpc, public = cloud.network()
    inner = ec2.create_subnet(VpcId=vpc, CidrBlock="10.20.2.0/24")["Subnet"]["SubnetId"]
    router, worker = cloud.run(public), cloud.run(inner)
    out, table = (ec2.create_route_table(VpcId=vpc)["RouteTable"]["RouteTableId"] for _ in "ab")
    for each, subnet in ((out, public), (table, inner)):
        ec2.associate_route_table(RouteTableId=each, SubnetId=subnet)
    nic = ec2.describe_instances(InstanceIds=[router])["Reservations"][0]["Instances"][0][
        "NetworkInterfaces"
    ][0]["NetworkInterfaceId"]
    where = {"RouteTableId": table, "DestinationCidrBlock": "0.0.0.0/0"}
    assert cloud.machine(worker).way is None
    ec2.create_route(NetworkInterfaceId=nic, **where)
    assert cloud.machine(worker).way == Through(router)
    ec2.replace_route(InstanceId=router, **where)
    assert cloud.machine(worker).way == Through(router)

    elastic = ec2.allocate_address(Domain="vpc")
    nat = ec2.create_nat_gateway(SubnetId=public, AllocationId=elastic["AllocationId"])
    nat = nat["NatGateway"]["NatGatewayId"]
    ec2.replace_route(NatGatewayId=nat, **where)
    assert cloud.machine(worker).way is None  # the gateway itself has no way out
    gateway = ec2.create_internet_gateway()["InternetGateway"]["InternetGatewayId"]
    ec2.attach_internet_gateway(InternetGatewayId=gateway, VpcId=vpc)
    ec2.create_route(RouteTableId=out, DestinationCidrBlock="0.0.0.0/0", GatewayId=gateway)
    assert cloud.machine(worker).way == Nat(IPv4Address(elastic["PublicIp"]))
    assert cloud.machine(router).way == Igw()
    ec2.delete_nat_gateway(NatGatewayId=nat)
    assert cloud.machine(worker).way is None

    ec2.create_vpc_endpoint(
        VpcId=vpc, ServiceName=f"com.amazonaws.{REGION}.s3", RouteTableIds=[table]
    )
    assert (cloud.machine(worker).s3, cloud.machine(router).s3) == (True, False)


def test_only_changes_are_told_and_saved(cloud, store):
    before = cloud.changes
    cloud.ec2.describe_instances()
    cloud.route53.list_hosted_zones()
    assert cloud.changes == before
    cloud.ec2.create_vpc(CidrBlock="10.9.0.0/16")
    assert cloud.changes == before + 1
    assert (store.folder / "ec2.pickle").exists()
    assert store.folder.stat().st_mode & 0o77 == 0


def described(cloud):
    zone = cloud.route53.list_hosted_zones()["HostedZones"][0]["Id"]
    answers = [
        cloud.ec2.describe_instances()["Reservations"],
        cloud.ec2.describe_security_groups()["SecurityGroups"],
        cloud.ec2.describe_addresses()["Addresses"],
        cloud.ec2.describe_route_tables()["RouteTables"],
        cloud.ec2.describe_volumes()["Volumes"],
        cloud.route53.list_resource_record_sets(HostedZoneId=zone)["ResourceRecordSets"],
        cloud.s3.list_objects_v2(Bucket="f1-bucket")["Contents"],
        cloud.s3.get_object(Bucket="f1-bucket", Key="k")["Body"].read(),
    ]
    return answers, moto_cloud.view(REGION), moto_cloud.zones()


def test_a_restart_forgets_nothing(cloud, store):
    vpc, subnet = cloud.network()
    group = cloud.ec2.create_security_group(GroupName="m", Description="m", VpcId=vpc)["GroupId"]
    once = {"SecurityGroupIds": [group], "UserData": "x", "ClientToken": "f1-one.000000000001"}
    instance = cloud.run(subnet, **once)
    elastic = cloud.ec2.allocate_address()["AllocationId"]
    cloud.ec2.associate_address(InstanceId=instance, AllocationId=elastic)
    zone = cloud.route53.create_hosted_zone(Name="example.org", CallerReference="1")
    record = {
        "Name": "vote.example.org",
        "Type": "A",
        "TTL": 60,
        "ResourceRecords": [{"Value": "198.19.0.10"}],
    }
    cloud.route53.change_resource_record_sets(
        HostedZoneId=zone["HostedZone"]["Id"],
        ChangeBatch={"Changes": [{"Action": "UPSERT", "ResourceRecordSet": record}]},
    )
    cloud.s3.create_bucket(
        Bucket="f1-bucket", CreateBucketConfiguration={"LocationConstraint": REGION}
    )
    cloud.s3.put_object(Bucket="f1-bucket", Key="k", Body=b"\0\xff" * 1000)
    before = described(cloud)
    assert moto_cloud.zones()["example.org."][("vote.example.org.", "A")] == (60, ("198.19.0.10",))

    forget()
    Store(store.folder).load()
    moto_cloud.register([Image()], REGION)
    assert described(cloud) == before
    # and it is a whole cloud, not a picture of one
    assert cloud.run(subnet, **once) == instance
    cloud.ec2.terminate_instances(InstanceIds=[instance])
    assert moto_cloud.view(REGION).machines == ()


def test_a_damaged_state_says_what_to_do(tmp_path):
    (tmp_path / "ec2.pickle").write_bytes(b"rubbish")
    with pytest.raises(StateError, match=r"ec2.pickle cannot be read .* down"):
        Store(tmp_path).load()


def test_an_address_of_two_networks_is_the_older_machines(cloud):
    first, second = (cloud.run(cloud.network()[1], PrivateIpAddress="10.20.1.10") for _ in "ab")
    seen = moto_cloud.view(REGION)
    assert [m.id for m in seen.machines] == [first]
    assert [m.id for m in seen.clashing] == [second]


def test_the_console_is_the_machines(cloud):
    _, subnet = cloud.network()
    instance = cloud.run(subnet)
    assert cloud.ec2.get_console_output(InstanceId=instance)["Output"] == f"console of {instance}"


def test_every_request_is_noted_by_name_and_nothing_more(cloud, store):
    from botocore.exceptions import ClientError

    vpc, subnet = cloud.network()
    cloud.run(subnet, UserData="a secret")
    cloud.ec2.describe_instances()
    with pytest.raises(ClientError, match="DryRun"):
        cloud.ec2.delete_vpc(VpcId=vpc, DryRun=True)
    with pytest.raises(ClientError):
        cloud.ec2.delete_vpc(VpcId="vpc-0")
    mark = requests.read(store.folder)[-1]["time"]
    zone = cloud.route53.create_hosted_zone(Name="example.org", CallerReference="1")
    cloud.route53.list_resource_record_sets(HostedZoneId=zone["HostedZone"]["Id"])
    cloud.s3.create_bucket(
        Bucket="f1-bucket", CreateBucketConfiguration={"LocationConstraint": REGION}
    )
    cloud.s3.put_object(Bucket="f1-bucket", Key="a/b", Body=b"x", Tagging="a=b")
    cloud.s3.list_objects_v2(Bucket="f1-bucket")
    cloud.s3.put_bucket_tagging(Bucket="f1-bucket", Tagging={"TagSet": []})
    cloud.s3.delete_objects(Bucket="f1-bucket", Delete={"Objects": [{"Key": "a/b"}]})

    def seen(since=0.0):
        found = requests.read(store.folder, since)
        assert {line["source"] for line in found} == {"operator"}
        return [(x["service"], x["operation"], x["mutating"], x["status"]) for x in found]

    assert seen()[:6] == [
        ("ec2", "CreateVpc", True, 200),
        ("ec2", "CreateSubnet", True, 200),
        ("ec2", "ModifySubnetAttribute", True, 200),
        ("ec2", "RunInstances", True, 200),
        ("ec2", "DescribeInstances", False, 200),
        ("ec2", "DeleteVpc", False, 412),
    ]
    assert seen()[6] == ("ec2", "DeleteVpc", True, 400)
    assert [line[:3] for line in seen(mark)] == [
        ("route53", "CreateHostedZone", True),
        ("route53", "ListResourceRecordSets", False),
        ("s3", "CreateBucket", True),
        ("s3", "PutObject", True),
        ("s3", "ListObjectsV2", False),
        ("s3", "PutBucketTagging", True),
        ("s3", "DeleteObjects", True),
    ]
    text = (store.folder / requests.FILE).read_text()
    assert "secret" not in text
    assert "f1-bucket" not in text


def test_who_asks_is_told_by_the_address():
    told = [requests.source(a) for a in ("127.0.0.1", "198.18.0.1", "198.19.0.10", "198.18.0.254")]
    assert told == ["operator", "operator", "machine", "machine"]
    assert requests.source("198.18.0.10") == "outside"


def test_a_long_log_is_put_aside_at_the_start(tmp_path, monkeypatch):
    file = tmp_path / requests.FILE
    environ = {"REMOTE_ADDR": "127.0.0.1"}
    requests.Log(file).write("ec2", "RunInstances", True, environ, "200 OK")
    requests.Log(file)
    assert len(requests.read(tmp_path)) == 1
    monkeypatch.setattr(requests, "MAX_BYTES", 10)
    requests.Log(file)
    assert requests.read(tmp_path) == []
    assert file.with_suffix(".1.jsonl").exists()


def test_machines_get_s3_by_signature_and_nothing_else(cloud, store):
    from werkzeug.test import Client

    cloud.s3.create_bucket(
        Bucket="f1-bucket", CreateBucketConfiguration={"LocationConstraint": REGION}
    )
    front = Client(Bucket(store, requests.Log(store.folder / requests.FILE)))

    def path(operation, **values):
        given = {"Bucket": "f1-bucket", "Key": "announce/f1-1.json"}
        url = cloud.s3.generate_presigned_url(operation, Params=given, **values)
        return url.split("localhost:5001", 1)[1]

    host = {"base_url": "http://localhost:5001"}
    form = {"content_type": "application/x-www-form-urlencoded"}  # curl's and urllib's default
    assert front.put(path("put_object"), data=b"{}", **form, **host).status_code == 200
    assert front.get(path("get_object"), **host).data == b"{}"
    assert front.get("/f1-bucket/announce/f1-1.json", **host).status_code == 403
    assert front.get(path("get_object", ExpiresIn=-1), **host).status_code == 403
    answer = front.post("/", data={"Action": "DescribeInstances", "Version": "2016-11-15"}, **host)
    assert answer.status_code == 403
    seen = [(x["operation"], x["status"]) for x in requests.read(store.folder)]
    assert seen[1:] == [
        ("PutObject", 200),
        ("GetObject", 200),
        ("GetObject", 403),
        ("GetObject", 403),
        ("POST", 403),
    ]
    assert (store.folder / "s3.pickle").exists()
