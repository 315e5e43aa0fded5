"""Creation: what is asked of EC2, once, and what becomes of a creation that fails."""

import base64
import gzip
import json
import logging
from pathlib import Path
from typing import Any

import aws
import boto3
import drift
import ec2
import environment
import firstcontact
import launch
import profiles
import pytest
import userdata
import vpc
import yaml
from botocore.exceptions import ClientError, ConnectionClosedError
from salt.exceptions import SaltCloudException

from tests.conftest import ROOT, load_ext
from tests.unit.cloud_driver import machines as helper
from tests.unit.cloud_driver.conftest import IMAGE
from tests.unit.cloud_driver.test_driver import PROFILES, vm

WORKER = "f1-worker-1"


@pytest.fixture
def driver(opts, platform, monkeypatch, tmp_path) -> Any:
    archive = tmp_path / "salt.tar.gz"
    archive.write_bytes(b"an environment")
    built = environment.Built(archive, "ab" * 32)
    monkeypatch.setattr(environment, "build", lambda: built)
    opts["profiles"] = PROFILES
    made: Any = load_ext("clouds/ec2.py")
    made.__opts__ = opts
    helper.network(platform)
    return made


@pytest.fixture
def alone(driver, monkeypatch) -> Any:
    """The driver, with machines that are known as soon as they run."""

    def introduce(platform: dict[str, Any], name: str, role: str, ident: str) -> None:
        pair = {"Key": firstcontact.INTRODUCED, "Value": ident}
        aws.call(platform, "ec2", "create_tags", Resources=[ident], Tags=[pair])

    monkeypatch.setattr(firstcontact, "introduce", introduce)
    return driver


def refusing(monkeypatch: Any, request: str, code: str, when: Any = lambda given: True) -> None:
    """Make the API refuse ``request`` where ``when`` its arguments say so."""
    real = aws.call

    def call(platform: dict[str, Any], service: str, asked: str, **given: Any) -> Any:
        if asked == request and when(given):
            said = {"Error": {"Code": code, "Message": "no"}}
            cause = ClientError(said, asked)  # type: ignore[arg-type]
            raise aws.explain(cause, f"{service} {asked}") from cause
        return real(platform, service, asked, **given)

    monkeypatch.setattr(aws, "call", call)


def request_of(platform: dict[str, Any], name: str = WORKER, **options: Any) -> dict[str, Any]:
    spec = profiles.spec(platform, name, vm(name, **options))
    return launch.request(platform, spec, launch.resolve(platform, spec), "text")


def test_a_worker_by_the_knobs_alone(driver, platform):
    made = request_of(platform, "f1-worker-2")
    (interface,) = made["NetworkInterfaces"]
    assert interface["SubnetId"] == vpc.subnet_id(platform, "f1-worker-2")
    assert interface["Groups"] == vpc.group_ids(platform, ["f1-worker"])
    assert interface["AssociatePublicIpAddress"] is False
    assert "PrivateIpAddress" not in interface
    assert made["MetadataOptions"] == {
        "HttpEndpoint": "enabled",
        "HttpTokens": "required",
        "HttpPutResponseHopLimit": 1,
    }
    (root,) = made["BlockDeviceMappings"]
    assert root["Ebs"] == {
        "VolumeType": "gp3",
        "VolumeSize": 15,  # the image's
        "Encrypted": True,
        "DeleteOnTermination": True,
    }
    platform["network"]["egress"] = "public"
    made = request_of(platform, "f1-worker-2")
    assert made["NetworkInterfaces"][0]["AssociatePublicIpAddress"] is True


def test_every_option_reaches_the_request(driver, platform):
    subnet = vpc.subnet_id(platform, "f1-worker-2")
    made = request_of(
        platform,
        image="ami-12c6146b",
        size="t3a.large",
        subnet="f1-workers-b",
        groups=["worker", "sg-0123456789abcdef0"],
        private_address="10.20.3.40",
        public_address=True,
        block_devices=[
            {"device": "root", "size": 30, "iops": 4000, "throughput": 250},
            {
                "device": "/dev/sdf",
                "size": 100,
                "type": "io2",
                "iops": 5000,
                "kms_key": "alias/x",
                "delete_on_termination": False,
            },
        ],
        iam_profile="arn:aws:iam::123456789012:instance-profile/x",
        metadata={"tokens": "optional", "hop_limit": 2},
        tags={"team": "red"},
        spot={"max_price": 0.02},
        placement={"group": "near", "tenancy": "dedicated"},
        credit_mode="unlimited",
        monitoring=True,
        ebs_optimized=True,
    )
    (interface,) = made["NetworkInterfaces"]
    assert interface["SubnetId"] == subnet
    assert interface["Groups"][1] == "sg-0123456789abcdef0"
    assert interface["PrivateIpAddress"] == "10.20.3.40"
    assert interface["AssociatePublicIpAddress"] is True
    root, data = made["BlockDeviceMappings"]
    assert (root["Ebs"]["VolumeSize"], root["Ebs"]["Iops"], root["Ebs"]["Throughput"]) == (
        30,
        4000,
        250,
    )
    assert data["DeviceName"] == "/dev/sdf"
    assert data["Ebs"]["KmsKeyId"] == "alias/x"
    assert data["Ebs"]["Encrypted"] is True
    assert data["Ebs"]["DeleteOnTermination"] is False
    assert made["IamInstanceProfile"]["Arn"].endswith("/x")
    assert made["MetadataOptions"]["HttpTokens"] == "optional"
    assert made["InstanceMarketOptions"]["SpotOptions"]["MaxPrice"] == "0.02"
    assert made["Placement"] == {"GroupName": "near", "Tenancy": "dedicated"}
    assert made["CreditSpecification"] == {"CpuCredits": "unlimited"}
    assert made["Monitoring"] == {"Enabled": True}
    assert made["EbsOptimized"] is True
    assert {spec["ResourceType"] for spec in made["TagSpecifications"]} == {
        "instance",
        "volume",
        "network-interface",
        "spot-instances-request",
    }
    for tags in made["TagSpecifications"]:
        assert {"Key": "team", "Value": "red"} in tags["Tags"]
        assert {"Key": "f1:platform", "Value": "f1"} in tags["Tags"]
    reserved = request_of(
        platform, capacity_reservation="cr-0123456789abcdef0", termination_protection=True
    )
    assert reserved["DisableApiTermination"] is True
    assert reserved["CreditSpecification"] == {"CpuCredits": "standard"}
    target = reserved["CapacityReservationSpecification"]["CapacityReservationTarget"]
    assert target == {"CapacityReservationId": "cr-0123456789abcdef0"}


def test_another_zone_moves_a_worker(driver, platform):
    made = request_of(platform, placement={"zone": "eu-west-3b"})
    assert made["NetworkInterfaces"][0]["SubnetId"] == vpc.subnet_id(platform, "f1-worker-2")
    assert made["Placement"] == {"AvailabilityZone": "eu-west-3b"}


def test_an_image_by_name_and_by_public_parameter(driver, platform):
    images = aws.call(platform, "ec2", "describe_images", Owners=["amazon"])["Images"]
    known = next(i for i in images if i.get("Architecture") == "x86_64" and i.get("Name"))
    same = [i for i in images if i.get("Name") == known["Name"]]
    newest = max(same, key=lambda item: str(item.get("CreationDate")))
    assert request_of(platform, image={"name": known["Name"]})["ImageId"] == newest["ImageId"]
    aws.call(
        platform,
        "ssm",
        "put_parameter",
        Name="/images/debian-12",
        Value=IMAGE,
        Type="String",
    )
    assert request_of(platform, image="ssm:/images/debian-12")["ImageId"] == IMAGE
    with pytest.raises(aws.CloudError, match=r"image: ssm get_parameter failed: ParameterNotFound"):
        request_of(platform, image="ssm:/images/nothing")
    with pytest.raises(aws.CloudError, match=r"image: no image nothing-\* in eu-west-3"):
        request_of(platform, image={"name": "nothing-*"})


def test_the_token_is_the_identity_whatever_the_tags_say(alone, platform):
    made = alone.create(vm(WORKER))
    item = ec2.by_id(platform, made["id"])
    assert ec2._TOKEN.fullmatch(item["ClientToken"])
    assert item["ClientToken"].startswith("f1-worker-1.")
    for key in ("Name", "f1:platform"):
        aws.call(
            platform,
            "ec2",
            "create_tags",
            Resources=[made["id"]],
            Tags=[{"Key": key, "Value": "f1-master"}],
        )
    assert alone.list_nodes()[WORKER]["id"] == made["id"]
    assert ec2.instance(platform, "f1-master") is None


def test_what_lies_in_the_vpc_and_is_not_ours_is_not_seen(alone, platform):
    subnet = vpc.subnet_id(platform, WORKER)
    tags = [{"Key": "Name", "Value": WORKER}]
    for token, more in (("theirs", []), ("g2-worker-1.0123456789ab", aws.tags(platform, WORKER))):
        aws.call(
            platform,
            "ec2",
            "run_instances",
            ImageId=IMAGE,
            MinCount=1,
            MaxCount=1,
            SubnetId=subnet,
            ClientToken=token,
            TagSpecifications=[{"ResourceType": "instance", "Tags": more or tags}],
        )
    assert alone.list_nodes() == {}


def test_an_answer_that_was_lost_makes_no_second_machine(alone, platform, monkeypatch):
    """The request is obeyed, its answer never comes: boto3 repeats it with the same token."""
    client = aws.client(platform, "ec2")
    send = client._endpoint.http_session.send
    lost: list[Any] = []

    def loses(request: Any) -> Any:
        answer = send(request)
        if "RunInstances" in str(request.body) and not lost:
            lost.append(answer)
            raise ConnectionClosedError(endpoint_url=request.url)
        return answer

    monkeypatch.setattr(client._endpoint.http_session, "send", loses)
    made = alone.create(vm(WORKER))
    assert len(lost) == 1
    assert made["state"] == "running"
    assert list(alone.list_nodes()) == [WORKER]


def test_each_creation_has_a_token_of_its_own(alone, platform):
    first = alone.create(vm(WORKER))
    aws.call(platform, "ec2", "terminate_instances", InstanceIds=[first["id"]])
    second = alone.create(vm(WORKER))
    assert first["id"] != second["id"]
    assert second["existed"] is False


def test_what_differs_of_an_existing_machine_is_told_and_left(
    alone, platform, requests_seen, caplog
):
    made = alone.create(vm(WORKER))
    pair = {"Key": "Name", "Value": "mine"}
    aws.call(platform, "ec2", "create_tags", Resources=[made["id"]], Tags=[pair])
    requests_seen.clear()
    with caplog.at_level(logging.WARNING):
        again = alone.create(vm(WORKER, size="t3.large"))
    assert again["existed"] is True
    assert again["differences"] == {
        "tag Name": {"old": "mine", "new": WORKER},
        "size": {"old": "t3.small", "new": "t3.large"},
    }
    assert "f1-worker-1 differs from its profile" in caplog.text
    assert all(request.startswith(("describe_", "get_")) for request in requests_seen)
    assert "differences" not in made


def test_a_machine_that_is_stopping_is_waited_for_and_started(alone, platform, monkeypatch):
    made = alone.create(vm(WORKER))
    aws.call(platform, "ec2", "stop_instances", InstanceIds=[made["id"]])
    real = ec2.instances
    seen: list[str] = []

    def stopping(*given: Any) -> Any:
        found = real(*given)
        if not seen:
            seen.append(found[0]["State"]["Name"])
            found[0]["State"]["Name"] = "stopping"
        return found

    monkeypatch.setattr(ec2, "instances", stopping)
    assert alone.create(vm(WORKER))["state"] == "running"
    assert seen == ["stopped"]


def test_two_of_a_name_are_named_both(alone, platform):
    first = alone.create(vm(WORKER))
    aws.call(
        platform,
        "ec2",
        "run_instances",
        ImageId=IMAGE,
        MinCount=1,
        MaxCount=1,
        SubnetId=first["subnet"],
        ClientToken=ec2.token(WORKER),
    )
    with pytest.raises(SaltCloudException) as error:
        alone.create(vm(WORKER))
    ids = [item["InstanceId"] for item in ec2.instances(platform, WORKER)]
    assert len(ids) == 2
    assert all(ident in str(error.value) for ident in ids)


def test_what_is_not_found_for_a_moment_is_waited_for(alone, platform, monkeypatch):
    real = aws.call
    hidden: list[Any] = []

    def late(platform: dict[str, Any], service: str, asked: str, **given: Any) -> Any:
        if asked == "describe_instances" and len(hidden) < 3:
            hidden.append(given)
            said = {"Error": {"Code": "InvalidInstanceID.NotFound", "Message": "not yet"}}
            cause = ClientError(said, asked)  # type: ignore[arg-type]
            raise aws.explain(cause, "ec2 describe_instances") from cause
        return real(platform, service, asked, **given)

    monkeypatch.setattr(aws, "call", late)
    assert alone.create(vm(WORKER))["state"] == "running"
    assert len(hidden) == 3


def test_a_failed_creation_leaves_nothing(driver, platform, machines):
    machines.fails = "no memory"
    disk = {"device": "/dev/sdf", "size": 5, "delete_on_termination": False}
    with pytest.raises(SaltCloudException) as error:
        driver.create(
            vm("f1-master", block_devices=[disk], termination_protection=True, tags={"a": "b"})
        )
    said = str(error.value)
    assert "was terminated again (removed: i-" in said
    assert "vol-" in said
    assert "no memory" in said
    left = {
        key: aws.call(platform, "ec2", request)[key]
        for request, key in {
            "describe_volumes": "Volumes",
            "describe_network_interfaces": "NetworkInterfaces",
        }.items()
    }
    assert left == {"Volumes": [], "NetworkInterfaces": []}
    assert ec2.present(platform) == []
    (address,) = aws.call(platform, "ec2", "describe_addresses")["Addresses"]
    assert not address.get("InstanceId")


def test_a_failed_creation_may_be_kept(driver, machines):
    machines.fails = "no memory"
    with pytest.raises(SaltCloudException, match="is kept; remove it with salt-cloud -d f1-master"):
        driver.create(vm("f1-master", keep_failed=True))
    assert driver.list_nodes()["f1-master"]["state"] == "running"


def test_what_cannot_be_removed_is_told(driver, machines, monkeypatch):
    machines.fails = "no memory"
    refusing(monkeypatch, "terminate_instances", "UnauthorizedOperation")
    with pytest.raises(SaltCloudException) as error:
        driver.create(vm("f1-master"))
    for words in ("no memory", "still costs", "UnauthorizedOperation", "salt-cloud -d f1-master"):
        assert words in str(error.value)


def test_no_capacity_is_told_with_the_way_out(alone, monkeypatch):
    refusing(monkeypatch, "run_instances", "InsufficientInstanceCapacity")
    with pytest.raises(SaltCloudException) as error:
        alone.create(vm(WORKER))
    said = str(error.value)
    assert "InsufficientInstanceCapacity" in said
    assert "eu-west-3a has no t3.small left for f1-worker-1" in said
    assert "another zone of platform.aws.zones (eu-west-3b)" in said
    assert "platform.workers.size" in said
    assert aws.code(error.value) == "InsufficientInstanceCapacity"


@pytest.mark.parametrize(
    "code",
    ["InsufficientInstanceCapacity", "SpotMaxPriceTooLow", "MaxSpotInstanceCountExceeded"],
)
def test_no_spot_falls_back_if_it_may(alone, monkeypatch, code):
    # EC2 refuses a tag for a spot request that is none, too.
    refusing(monkeypatch, "run_instances", code, lambda given: "spot" in str(given))
    made = alone.create(vm(WORKER, spot={"fallback": True}))
    assert made["note"] == f"on demand instead of spot: {code}"
    with pytest.raises(SaltCloudException, match=code):
        alone.create(vm("f1-worker-2", spot={}))


@pytest.mark.parametrize("code", ["InvalidGroup.NotFound", "InvalidSubnetID.NotFound"])
def test_what_was_made_a_moment_ago_is_waited_for(alone, monkeypatch, code):
    tokens = []

    def at_first(given):
        tokens.append(given["ClientToken"])
        return len(tokens) < 3

    refusing(monkeypatch, "run_instances", code, at_first)
    assert alone.create(vm(WORKER))["state"] == "running"
    assert len(tokens) == 3
    assert len(set(tokens)) == 1


def test_a_dry_run_launches_nothing(driver, platform, requests_seen):
    asked = driver.dry_run({"profile": "k3s-worker", "name": "f1-worker-9"}, call="function")
    assert asked["InstanceType"] == "t3.small"
    assert "UserData" not in asked
    assert driver.list_nodes() == {}
    changing = {r for r in requests_seen if not r.startswith(("describe_", "get_"))}
    assert changing == {"run_instances"}
    with pytest.raises(SaltCloudException, match="size: 'big'"):
        driver.dry_run({"profile": "k3s-worker", "name": "f1-worker-9", "size": "big"})
    with pytest.raises(SaltCloudException, match="no profile k4s"):
        driver.dry_run({"profile": "k4s", "name": "f1-worker-9"})
    with pytest.raises(SaltCloudException, match="name=f1-worker-9"):
        driver.dry_run()


def user_data(platform: dict[str, Any], ident: str) -> bytes:
    answer = aws.call(
        platform, "ec2", "describe_instance_attribute", InstanceId=ident, Attribute="userData"
    )
    return base64.b64decode(answer["UserData"]["Value"])


def test_a_template_of_its_own(alone, platform, monkeypatch, tmp_path: Path):
    text = "#!/bin/sh\n# {{ id }} {{ role }} {{ platform.domain }} {{ job.environment.sha256 }}\n"
    made = alone.create(vm(WORKER, user_data=text))
    said = user_data(platform, made["id"]).decode()
    assert said == f"#!/bin/sh\n# f1-worker-1 worker vote.example.org {'ab' * 32}\n"
    file = tmp_path / "mine"
    file.write_text("{{ first_boot }}")
    made = alone.create(vm("f1-worker-2", user_data_file=str(file)))
    source = (ROOT / "salt/cloud/first-boot.py").read_text()
    assert user_data(platform, made["id"]).decode() == source
    with pytest.raises(SaltCloudException, match="user-data of f1-worker-3 does not render: 'no"):
        alone.create(vm("f1-worker-3", user_data="{{ nothing }}"))
    assert "f1-worker-3" not in alone.list_nodes()


def test_what_does_not_fit_is_packed_and_what_still_does_not_is_refused(alone, platform):
    long = "#!/bin/sh\n" + "# a word\n" * 4000
    made = alone.create(vm(WORKER, user_data=long))
    data = user_data(platform, made["id"])
    assert len(data) < userdata.LIMIT < len(long)
    assert gzip.decompress(data).decode() == long
    noise = "".join(chr(0x4E00 + n * 7919 % 20000) for n in range(20000))
    with pytest.raises(SaltCloudException, match=r"bytes, \d+ gzipped; EC2 takes 16384"):
        alone.create(vm("f1-worker-2", user_data=noise))


def test_a_long_session_token_still_fits(alone, platform, monkeypatch):
    monkeypatch.setenv("AWS_SESSION_TOKEN", "".join(f"{n * 7919 % 65536:04x}" for n in range(500)))
    monkeypatch.setattr(aws, "_clients", {})
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)
    made = alone.create(vm(WORKER))
    data = user_data(platform, made["id"])
    assert len(data) <= userdata.LIMIT
    text = (gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data).decode()
    files = {item["path"]: item for item in yaml.safe_load(text)["write_files"]}
    job = json.loads(files["/var/lib/f1/first-boot.json"]["content"])
    assert "X-Amz-Security-Token" in job["announce_url"]


def test_no_signature_is_logged_or_returned(driver, platform, machines, caplog):
    with caplog.at_level(logging.DEBUG):
        made = driver.create(vm("f1-master"))
    data = user_data(platform, made["id"])
    assert b"X-Amz-Signature" in data
    logged = "\n".join(r.getMessage() for r in caplog.records if r.name != "werkzeug")
    for secret in ("X-Amz-Signature", base64.b64encode(data).decode()[:200]):
        assert secret not in logged
        assert secret not in json.dumps(made, default=str)


def test_a_worker_that_waits_asks_ec2_seldom(driver, platform, machines, monkeypatch):
    monkeypatch.setattr(firstcontact, "ALONE_SECONDS", 4)
    machines.patience = 6
    seen: list[str] = []
    events = aws.client(platform, "ec2").meta.events
    events.register("before-call.ec2.DescribeInstances", lambda model, **_: seen.append(model))
    with pytest.raises(SaltCloudException, match="f1-worker-1 has no master"):
        driver.create(vm(WORKER))
    # Once each: who has the name, running, differences; two of the master; what is to be removed.
    assert len(seen) <= 8


def test_a_machine_more_costs_no_more_than_the_one_before(alone, platform, monkeypatch):
    """Requests a machine, by the client's own count, for maps of 3, 10 and 30 machines."""
    seen: list[str] = []
    events = aws.client(platform, "ec2").meta.events
    events.register("before-call.ec2", lambda model, **_: seen.append(model.name))
    have = 0
    each = []
    for count in (3, 10, 30):
        seen.clear()
        for number in range(have + 1, count + 1):
            alone.create(vm(f"f1-worker-{number}"))
        each.append(len(seen) / (count - have))
        have = count
    assert seen.count("RunInstances") == 20
    assert each[1] <= each[0]
    assert each[2] <= each[1]
    assert each[2] <= 10

    # And looking at all of them is one description, however many there are.
    seen.clear()
    machines = ec2.instances(platform)
    look = launch.Lookup(platform, machines)
    for item in machines:
        spec = profiles.spec(platform, ec2.name_of(item), vm(ec2.name_of(item)))
        assert drift.differences(platform, spec, item, look) == []
    assert seen.count("DescribeInstances") == 1
    assert len(seen) <= 10
