"""`orch.down` cut off at any kind of request is finished by the next; its waits end with a word."""

from typing import Any

import aws
import ec2
import pytest
import yaml
from jinja2 import Environment

from tests.conftest import ROOT, load_ext

MODULES = ("cloud_removal", "cloud_machines", "cloud_network", "cloud_access", "cloud_store")
CHANGING = ("change_", "delete_", "detach_", "disassociate_", "release_", "revoke_", "terminate_")


@pytest.fixture
def walk(opts, platform):
    """Run a SLS's states in their order until one fails; return their results by id."""
    modules = {name: load_ext(f"states/{name}.py") for name in MODULES}
    for module in modules.values():
        module.__opts__ = opts
        module.__pillar__ = {"platform": platform}

    def run(sls: str) -> dict[str, dict[str, Any]]:
        jinja = Environment(autoescape=False)
        jinja.filters["json"] = jinja.filters["tojson"]
        text = jinja.from_string((ROOT / f"salt/states/orch/{sls}.sls").read_text())
        pillar = {"platform": platform, "confirm": "f1"}
        results = {}
        for ident, body in yaml.safe_load(text.render(pillar=pillar)).items():
            ((function, arguments),) = body.items()
            name, _, what = function.partition(".")
            if name in modules:
                given = {key: value for item in arguments for key, value in item.items()}
                given.pop("require", None)
                given.setdefault("name", ident)
                results[ident] = getattr(modules[name], what)(**given)
                if results[ident]["result"] is False:
                    break
        return results

    return run


def launch(platform: dict[str, Any]) -> str:
    """Make the master, which holds the address, its group and an interface."""
    answer = aws.call(
        platform,
        "ec2",
        "run_instances",
        ImageId=platform["image"]["id"],
        MinCount=1,
        MaxCount=1,
        NetworkInterfaces=[
            {
                "DeviceIndex": 0,
                "SubnetId": ec2.subnet(platform, "f1-public"),
                "Groups": ec2.groups(platform, ["f1-master"]),
                "DeleteOnTermination": True,
            }
        ],
        TagSpecifications=[
            {"ResourceType": kind, "Tags": aws.tags(platform, "f1-master")}
            for kind in ("instance", "network-interface")
        ],
    )
    instance_id = str(answer["Instances"][0]["InstanceId"])
    ec2.associate(platform, "f1-master", instance_id)
    aws.call(platform, "s3", "put_object", Bucket=aws.bucket(platform), Key="a", Body=b"1")
    return instance_id


def left(platform: dict[str, Any]) -> dict[str, int]:
    kinds = {
        "describe_vpcs": "Vpcs",
        "describe_subnets": "Subnets",
        "describe_internet_gateways": "InternetGateways",
        "describe_route_tables": "RouteTables",
        "describe_security_groups": "SecurityGroups",
        "describe_key_pairs": "KeyPairs",
        "describe_addresses": "Addresses",
    }
    found = {key: len(aws.call(platform, "ec2", request)[key]) for request, key in kinds.items()}
    found["Machines"] = len(ec2.present(platform))
    found["Buckets"] = len(aws.call(platform, "s3", "list_buckets")["Buckets"])
    return found


def test_cut_off_anywhere_it_is_finished_by_the_next(walk, platform, monkeypatch):
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
    assert len(done) == 15
    assert {each["result"] for each in first.values()} == {True}
    assert left(platform) == empty
    assert not any(each["changes"] for each in walk("down").values())


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
    wait = aws.wait
    monkeypatch.setattr(aws, "wait", lambda what, seconds, probe: wait(what, 0, probe))
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
    wait = aws.wait
    with monkeypatch.context() as patch:
        patch.setattr(aws, "wait", lambda what, seconds, probe: wait(what, 0, probe))
        said = walk("down")["subnet"]
    assert said["result"] is False
    assert "DependencyViolation: has dependencies" in said["comment"]
    seen.clear()
    assert walk("down")["vpc"]["result"] is True
