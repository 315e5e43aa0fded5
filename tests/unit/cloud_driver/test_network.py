"""Network, access and store: made, left alone, repaired; a plan is exact and touches nothing."""

import re
from pathlib import Path
from typing import Any

import aws
import ec2
import environment
import firstcontact
import pytest
import vpc
from botocore.client import BaseClient

from tests.conftest import ROOT
from tests.unit.cloud_driver import walks

READS = re.compile(r"(Describe|Get|List|Head)\w*")


@pytest.fixture
def sent(monkeypatch) -> list[str]:
    """The operations that any client has sent since the last walk began."""
    seen: list[str] = []
    send = BaseClient._make_api_call

    def counted(client: Any, operation: str, arguments: Any) -> Any:
        seen.append(operation)
        return send(client, operation, arguments)

    monkeypatch.setattr(BaseClient, "_make_api_call", counted)
    return seen


@pytest.fixture
def walk(opts, platform, sent):
    """Run the network's states of SLS files in their order, as Salt would; results by id."""
    modules = walks.load(("cloud_network", "cloud_access", "cloud_store"))

    def run(*files: str, test: bool = False) -> dict[str, dict[str, Any]]:
        opts["test"] = test
        sent.clear()
        results: dict[str, dict[str, Any]] = {}
        for sls in files or ("network",):
            results.update(walks.states(modules, sls, opts, platform))
        return results

    return run


def changing(sent: list[str]) -> list[str]:
    """Return those operations that are no reading ones."""
    return [operation for operation in sent if not READS.fullmatch(operation)]


def outcome(results: dict[str, dict[str, Any]]) -> dict[str, Any]:
    return {ident: result["changes"] for ident, result in results.items() if result["changes"]}


def results_of(results: dict[str, dict[str, Any]]) -> set[Any]:
    return {result["result"] for result in results.values()}


def test_from_nothing_then_nothing_to_do(walk, sent, tmp_path):
    plan = walk(test=True)
    assert results_of(plan) == {None, True}
    assert sent
    assert changing(sent) == []
    assert not (tmp_path / "state").exists()

    first = walk()
    assert results_of(first) == {True}
    assert outcome(first).keys() == outcome(plan).keys()

    second = walk()
    assert results_of(second) == {True}
    assert outcome(second) == {}
    assert changing(sent) == []
    assert len(sent) < 30, sent
    assert outcome(walk(test=True)) == {}
    private = tmp_path / "state/ssh/id_ed25519"
    assert private.stat().st_mode & 0o777 == 0o600
    assert private.parent.stat().st_mode & 0o777 == 0o700


def test_a_plan_on_an_empty_account_names_every_rule_that_a_run_makes(walk):
    plan = outcome(walk(test=True))
    assert plan["master rules"].keys() == outcome(walk())["master rules"].keys()


def test_a_lost_key_is_not_replaced_while_machines_have_it(walk, sent, platform, tmp_path):
    walk()
    private = tmp_path / "state/ssh/id_ed25519"
    lost = private.read_bytes()
    private.unlink()
    made = ec2_call(
        platform,
        "run_instances",
        ImageId=platform["image"]["id"],
        MinCount=1,
        MaxCount=1,
        SubnetId=vpc.subnet_id(platform, "f1-worker-1"),
        ClientToken=ec2.token("f1-worker-1"),
    )
    result = walk()["key"]
    assert result["result"] is False
    assert "f1-worker-1" in result["comment"]
    assert "put .state/ssh/id_ed25519 back, or remove the machines first" in result["comment"]
    assert changing(sent) == []
    assert not private.exists()

    private.write_bytes(lost)
    assert walk()["key"]["changes"] == {}
    private.unlink()
    ec2_call(platform, "terminate_instances", InstanceIds=[made["Instances"][0]["InstanceId"]])
    assert walk()["key"]["changes"].keys() == {"private key", "key pair"}


def ec2_call(platform: dict[str, Any], request: str, **arguments: Any) -> dict[str, Any]:
    return aws.call(platform, "ec2", request, **arguments)


def group_id(platform: dict[str, Any], name: str) -> str:
    return vpc.group_ids(platform, [name])[0]


def test_what_cannot_change_in_place_is_refused(walk, platform):
    walk()
    platform["network"]["vpc_cidr"] = "10.99.0.0/16"
    result = walk()["vpc"]
    assert result["result"] is False
    assert "cannot be changed to 10.99.0.0/16; put 10.20.0.0/16 back" in result["comment"]


def test_another_operator_address_replaces_the_first(walk, platform):
    walk()
    platform["operator"]["cidrs"] = ["198.51.100.1/32"]
    assert outcome(walk())["master rules"] == {
        "ingress tcp/22 198.51.100.1/32": {"old": None, "new": "allowed"},
        "ingress tcp/22 203.0.113.7/32": {"old": "allowed", "new": None},
    }


def test_workers_let_in_nothing_from_the_internet(walk, platform):
    walk()
    (worker,) = ec2_call(
        platform, "describe_security_groups", GroupIds=[group_id(platform, "f1-worker")]
    )["SecurityGroups"]
    assert worker["IpPermissions"]
    assert not any(rule["IpRanges"] or rule["Ipv6Ranges"] for rule in worker["IpPermissions"])


def test_the_master_hears_that_its_packets_are_too_large(walk, platform):
    assert outcome(walk(test=True))["master rules"]["ingress icmp/3-4 0.0.0.0/0"]
    walk()
    (master,) = ec2_call(
        platform, "describe_security_groups", GroupIds=[group_id(platform, "f1-master")]
    )["SecurityGroups"]
    (rule,) = [item for item in master["IpPermissions"] if item["IpProtocol"] == "icmp"]
    assert (rule["FromPort"], rule["ToPort"]) == (3, 4)
    assert rule["IpRanges"][0]["CidrIp"] == "0.0.0.0/0"
    assert outcome(walk()) == {}


def test_a_bucket_of_another_region_is_refused(walk, platform):
    bucket = aws.bucket(platform)
    place = {"LocationConstraint": "us-west-2"}
    aws.call(
        {**platform, "aws": {**platform["aws"], "region": "us-west-2"}},
        "s3",
        "create_bucket",
        Bucket=bucket,
        CreateBucketConfiguration=place,
    )
    result = walk()["bucket"]
    assert result["result"] is False
    assert f"{bucket} is in us-west-2, not in eu-west-3 (platform.aws.region)" in result["comment"]


def test_a_bucket_whose_making_was_interrupted_gets_its_tags(walk, platform):
    bucket = aws.bucket(platform)
    place = {"LocationConstraint": platform["aws"]["region"]}
    aws.call(platform, "s3", "create_bucket", Bucket=bucket, CreateBucketConfiguration=place)
    assert walk(test=True)["bucket"]["changes"].keys() == {"tags", "public access"}
    walk()
    tags = aws.call(platform, "s3", "get_bucket_tagging", Bucket=bucket)["TagSet"]
    assert {"Key": "f1:platform", "Value": "f1"} in tags
    assert walk()["bucket"]["changes"] == {}


def test_a_bucket_that_the_operator_names_gets_no_tags(walk, platform):
    platform["aws"]["bucket"] = "somebody-elses"
    place = {"LocationConstraint": platform["aws"]["region"]}
    aws.call(
        platform, "s3", "create_bucket", Bucket="somebody-elses", CreateBucketConfiguration=place
    )
    assert walk(test=True)["bucket"]["changes"].keys() == {"public access"}


@pytest.mark.parametrize("named", [None, "of-the-operator"])
def test_the_bucket_that_we_name_must_be_the_accounts_own(walk, platform, monkeypatch, named):
    platform["aws"]["bucket"] = named
    owners: dict[str, Any] = {}
    send = BaseClient._make_api_call

    def noted(client: Any, operation: str, arguments: dict[str, Any]) -> Any:
        if "Bucket" in arguments and operation != "CreateBucket":
            owners[operation] = arguments.get("ExpectedBucketOwner")
        return send(client, operation, arguments)

    monkeypatch.setattr(BaseClient, "_make_api_call", noted)
    walk()
    built = environment.Built(ROOT / "README.md", "ef" * 32)
    environment.publish(platform, built)
    firstcontact.forget(platform, "f1-master")
    assert firstcontact.known(platform, "f1-master") is None
    assert owners.keys() >= {"HeadBucket", "PutBucketTagging", "HeadObject", "PutObject"}
    assert owners.keys() >= {"PutPublicAccessBlock", "GetObject", "DeleteObject"}
    assert set(owners.values()) == {None if named else "123456789012"}


def test_the_record_follows_the_address(walk, platform):
    by_hand = walk()["record"]
    assert by_hand["changes"] == {}
    assert re.search(r"vote\.example\.org\. 60 IN A \d+\.", by_hand["comment"])
    platform["dns"]["zone"] = "example.org"
    assert "no public Route 53 zone example.org" in walk()["record"]["comment"]
    aws.call(platform, "route53", "create_hosted_zone", Name="example.org", CallerReference="1")
    address = vpc.address(platform, "f1-master")
    assert address is not None
    assert outcome(walk())["record"] == {
        "vote.example.org": {"old": None, "new": address["PublicIp"]}
    }
    assert outcome(walk()) == {}


def test_no_api_is_a_failed_state_that_says_so(walk, platform):
    platform["aws"]["endpoint_url"] = "http://127.0.0.1:9"
    result = walk()["vpc"]
    assert result["result"] is False
    assert "ec2 describe_security_groups failed" in result["comment"]
    assert "check the network" in result["comment"]


def test_the_environment_is_published_once(walk, platform, monkeypatch, tmp_path: Path):
    walk()
    archive = tmp_path / "salt.tar.gz"
    archive.write_bytes(b"an environment")
    built = environment.Built(archive, "cd" * 32)
    monkeypatch.setattr(environment, "build", lambda: built)
    monkeypatch.setattr(environment, "cached", lambda: None)
    assert outcome(walk("artifacts", test=True))["salt environment"].keys() == {
        "built",
        "published",
    }
    monkeypatch.setattr(environment, "cached", lambda: built)
    assert outcome(walk("artifacts"))["salt environment"]["published"]["new"] == (
        f"saltenv/{'cd' * 32}.tar.gz"
    )
    assert outcome(walk("artifacts")) == {}
