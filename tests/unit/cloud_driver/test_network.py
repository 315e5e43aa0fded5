"""Network, access and store: made, left alone, repaired; a plan is exact and touches nothing."""

import re
from pathlib import Path
from typing import Any

import aws
import ec2
import environment
import pytest
import yaml
from jinja2 import Environment

from tests.conftest import ROOT, load_ext

READS = re.compile(r"(describe|get|list|head)_.*")


@pytest.fixture
def walk(opts, platform, requests_seen):
    """Run a SLS's states in their order, as Salt would; return their results by id."""
    modules = {
        name: load_ext(f"states/{name}.py")
        for name in ("cloud_network", "cloud_access", "cloud_store")
    }
    for module in modules.values():
        module.__opts__ = opts
        module.__pillar__ = {"platform": platform}

    def run(sls: str = "network", test: bool = False) -> dict[str, dict[str, Any]]:
        opts["test"] = test
        requests_seen.clear()
        jinja = Environment(autoescape=False)
        jinja.filters["json"] = jinja.filters["tojson"]
        text = jinja.from_string((ROOT / f"salt/states/orch/{sls}.sls").read_text())
        results = {}
        for ident, body in yaml.safe_load(text.render(pillar={"platform": platform})).items():
            ((function, arguments),) = body.items()
            name, _, what = function.partition(".")
            if name in modules:
                given = {key: value for item in arguments for key, value in item.items()}
                given.setdefault("name", ident)
                results[ident] = getattr(modules[name], what)(**given)
        return results

    return run


def outcome(results: dict[str, dict[str, Any]]) -> dict[str, Any]:
    return {ident: result["changes"] for ident, result in results.items() if result["changes"]}


def results_of(results: dict[str, dict[str, Any]]) -> set[Any]:
    return {result["result"] for result in results.values()}


def test_from_nothing_then_nothing_to_do(walk, platform, requests_seen, tmp_path):
    plan = walk(test=True)
    assert results_of(plan) == {None, True}
    assert all(READS.fullmatch(request) for request in requests_seen)
    assert not (tmp_path / "state").exists()

    first = walk()
    assert results_of(first) == {True}
    assert outcome(first).keys() == outcome(plan).keys()

    second = walk()
    assert results_of(second) == {True}
    assert outcome(second) == {}
    assert all(READS.fullmatch(request) for request in requests_seen)
    assert outcome(walk(test=True)) == {}
    private = tmp_path / "state/ssh/id_ed25519"
    assert private.stat().st_mode & 0o777 == 0o600
    assert private.parent.stat().st_mode & 0o777 == 0o700


def test_a_plan_on_an_empty_account_names_every_rule_that_a_run_makes(walk):
    plan = outcome(walk(test=True))
    assert plan["master rules"].keys() == outcome(walk())["master rules"].keys()


def ec2_call(platform: dict[str, Any], request: str, **arguments: Any) -> dict[str, Any]:
    return aws.call(platform, "ec2", request, **arguments)


def found(platform: dict[str, Any], request: str, key: str) -> dict[str, Any]:
    (item,) = ec2_call(platform, request, Filters=aws.mine(platform))[key]
    return dict(item)


def group_id(platform: dict[str, Any], name: str) -> str:
    return ec2.groups(platform, [name])[0]


def permission(port: int, **ranges: Any) -> list[dict[str, Any]]:
    return [{"IpProtocol": "tcp", "FromPort": port, "ToPort": port, **ranges}]


def open_port(platform: dict[str, Any], group: str, port: int, **ranges: Any) -> None:
    ec2_call(
        platform,
        "authorize_security_group_ingress",
        GroupId=group_id(platform, group),
        IpPermissions=permission(port, **ranges),
    )


def drift_ipv4(platform):
    open_port(platform, "f1-worker", 30000, IpRanges=[{"CidrIp": "0.0.0.0/0"}])


def drift_ipv6(platform):
    open_port(platform, "f1-worker", 22, Ipv6Ranges=[{"CidrIpv6": "::/0"}])


def drift_group(platform):
    ident = group_id(platform, "f1-master")
    open_port(platform, "f1-worker", 22, UserIdGroupPairs=[{"GroupId": ident}])


def drift_missing_rule(platform):
    ec2_call(
        platform,
        "revoke_security_group_ingress",
        GroupId=group_id(platform, "f1-master"),
        IpPermissions=permission(443, IpRanges=[{"CidrIp": "0.0.0.0/0"}]),
    )


def drift_egress(platform):
    ident = group_id(platform, "f1-worker")
    everywhere = [{"IpProtocol": "-1", "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}]
    ec2_call(platform, "revoke_security_group_egress", GroupId=ident, IpPermissions=everywhere)


def drift_gateway(platform):
    gateway = found(platform, "describe_internet_gateways", "InternetGateways")
    vpc = gateway["Attachments"][0]["VpcId"]
    ec2_call(
        platform,
        "detach_internet_gateway",
        InternetGatewayId=gateway["InternetGatewayId"],
        VpcId=vpc,
    )


def drift_route(platform):
    table = found(platform, "describe_route_tables", "RouteTables")
    ec2_call(
        platform,
        "delete_route",
        RouteTableId=table["RouteTableId"],
        DestinationCidrBlock="0.0.0.0/0",
    )


def drift_association(platform):
    table = found(platform, "describe_route_tables", "RouteTables")
    (item,) = [a for a in table["Associations"] if a.get("SubnetId")]
    ec2_call(
        platform,
        "disassociate_route_table",
        AssociationId=item["RouteTableAssociationId"],
    )


def drift_dns(platform):
    vpc = found(platform, "describe_vpcs", "Vpcs")["VpcId"]
    ec2_call(platform, "modify_vpc_attribute", VpcId=vpc, EnableDnsHostnames={"Value": False})


def drift_public(platform):
    subnet = found(platform, "describe_subnets", "Subnets")["SubnetId"]
    ec2_call(
        platform,
        "modify_subnet_attribute",
        SubnetId=subnet,
        MapPublicIpOnLaunch={"Value": False},
    )


def drift_key(platform):
    ec2_call(platform, "delete_key_pair", KeyName="f1")
    ec2_call(platform, "create_key_pair", KeyName="f1", KeyType="ed25519")


def drift_bucket(platform):
    aws.call(platform, "s3", "delete_public_access_block", Bucket=aws.bucket(platform))


def drift_address(platform):
    ident = found(platform, "describe_addresses", "Addresses")["AllocationId"]
    ec2_call(platform, "release_address", AllocationId=ident)


@pytest.mark.parametrize(
    ("drift", "state"),
    [
        (drift_ipv4, "worker rules"),
        (drift_ipv6, "worker rules"),
        (drift_group, "worker rules"),
        (drift_missing_rule, "master rules"),
        (drift_egress, "worker rules"),
        (drift_gateway, "gateway"),
        (drift_route, "routes"),
        (drift_association, "routes"),
        (drift_dns, "vpc"),
        (drift_public, "subnet"),
        (drift_key, "key"),
        (drift_bucket, "bucket"),
        (drift_address, "address"),
    ],
)
def test_drift_is_seen_by_the_plan_and_repaired(walk, platform, requests_seen, drift, state):
    walk()
    drift(platform)
    plan = walk(test=True)
    assert state in outcome(plan)
    assert plan[state]["result"] is None
    assert all(READS.fullmatch(request) for request in requests_seen)
    repaired = walk()
    assert results_of(repaired) == {True}
    assert outcome(repaired) == outcome(plan)
    assert outcome(walk()) == {}


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


def test_the_record_follows_the_address(walk, platform):
    by_hand = walk()["record"]
    assert by_hand["changes"] == {}
    assert re.search(r"vote\.example\.org\. 60 IN A \d+\.", by_hand["comment"])
    platform["dns"]["zone"] = "example.org"
    assert "no public Route 53 zone example.org" in walk()["record"]["comment"]
    aws.call(platform, "route53", "create_hosted_zone", Name="example.org", CallerReference="1")
    address = ec2.address(platform, "f1-master")
    assert address is not None
    assert outcome(walk())["record"] == {
        "vote.example.org": {"old": None, "new": address["PublicIp"]}
    }
    assert outcome(walk()) == {}


def test_no_api_is_a_failed_state_that_says_so(walk, platform):
    platform["aws"]["endpoint_url"] = "http://127.0.0.1:9"
    result = walk()["vpc"]
    assert result["result"] is False
    assert "ec2 describe_vpcs failed" in result["comment"]
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
