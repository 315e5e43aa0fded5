"""The operator's policy allows all that the code asks for, and nothing that it does not."""

# ruff: noqa: F811 (fixtures are imported)
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aws
import ec2
import policy as policies
import pytest
import salt.cloud
import salt.config
import vpc
from botocore.exceptions import ClientError

from tests.conftest import ROOT, load_ext
from tests.salt.orch_cloud.test_commands import repository  # noqa: F401
from tests.unit.cloud_driver import iam
from tests.unit.cloud_driver import test_drift_machines as machine_drifts
from tests.unit.cloud_driver import test_drift_network as network_drifts
from tests.unit.cloud_driver.test_faults import PROFILES, World, world  # noqa: F401

# What is in the policy although the walk below does not ask for it, and why.
UNUSED = {
    "ec2:DeleteNetworkInterface": "an interface that outlives its machine (moto lets none)",
    "ec2:DescribeSpotInstanceRequests": "`show_spot` of a spot machine (moto makes none)",
    "ec2:MonitorInstances": "a profile's option `monitoring`, which moto cannot switch",
    "ec2:UnmonitorInstances": "a profile's option `monitoring`, which moto cannot switch",
}

MASTER, WORKER = "f1-master", "f1-worker-1"


@pytest.fixture
def road(world: World, machines, monkeypatch) -> World:
    """The operator, whose salt-cloud is this process; every option of a worker is used."""
    worker = {
        **PROFILES["k3s-worker"],
        "credit_mode": "standard",
        "termination_protection": True,
        "tags": {"team": "red"},
    }
    world.opts["profiles"] = {**PROFILES, "k3s-worker": worker}
    world.opts["config_dir"] = str(ROOT / "salt/config")
    world.platform["workers"]["count"] = 1
    world.platform["dns"]["zone"] = "example.org"
    monkeypatch.setattr(machine_drifts.Client, "driver", world.driver(), raising=False)
    monkeypatch.setattr(salt.cloud, "CloudClient", machine_drifts.Client)
    monkeypatch.setattr(
        salt.config, "cloud_config", lambda path: {"profiles": world.opts["profiles"]}
    )
    return world


def by_hand(recorder: iam.Recorder, changes: list[Callable[..., Any]], *given: Any) -> None:
    """Do what somebody does with rights of his own."""
    with recorder.paused():
        for change in changes:
            change(*given)


def network_drift(*idents: str) -> list[Callable[..., Any]]:
    known = {drift.ident: drift.change for drift in network_drifts.DRIFTS}
    return [known[ident] for ident in idents]


def actions_and_functions(driver: Any, folder: Path) -> None:
    """Do everything that salt-cloud can be told to, once."""

    def act(what: str, name: str, **kwargs: str) -> Any:
        function = getattr(driver, what)
        return function(name, kwargs, call="action") if kwargs else function(name, call="action")

    def ask(what: str, **kwargs: str) -> Any:
        function = getattr(driver, what)
        return function(call="function", kwargs=kwargs) if kwargs else function(call="function")

    for what in ("stop", "start", "reboot", "show_instance", "get_tags", "show_term_protect",
                 "enable_term_protect", "disable_term_protect", "console_output", "show_spot",
                 "show_volumes"):  # fmt: skip
        act(what, WORKER)
    act("set_tags", WORKER, team="blue")
    act("del_tags", WORKER, keys="team")
    made = act("create_volume", WORKER, size="1", label="data")
    volume = made["id"]
    act("detach_volume", WORKER, volume=volume)
    act("attach_volume", WORKER, volume=volume)
    act("detach_volume", WORKER, volume=volume)
    act("create_snapshots", WORKER)
    for snapshot in ask("list_snapshots"):
        ask("delete_snapshot", snapshot=snapshot)
    ask("delete_volume", volume=volume)
    act("create_image", WORKER, image="f1-before")
    for image in ask("list_images"):
        ask("delete_image", image=image)
    ask("allocate_address", label="worker-1")
    (ip,) = [ip for ip, item in ask("list_addresses").items() if item["name"] == WORKER]
    act("associate_address", WORKER, address=ip)
    ask("disassociate_address", address=ip)
    ask("release_address", address=ip)
    public = folder / "state/ssh/id_ed25519.pub"
    ask("import_keypair", key="f1-ann", file=str(public))
    ask("show_keypair", key="f1-ann")
    ask("delete_keypair", key="f1-ann")
    ask("spot_prices", size="t3.small")
    ask("dry_run", profile="k3s-worker", name="f1-worker-9")
    for what in ("list_volumes", "avail_images", "avail_sizes", "avail_locations", "list_keypairs",
                 "left", "cost", "list_nodes", "list_nodes_min", "list_nodes_full"):  # fmt: skip
        ask(what)


def test_the_policy_is_what_the_road_needs(road, platform, tmp_path, capsys):
    recorder = iam.Recorder(road.session)
    with recorder.paused():
        for service, request, given in (
            ("route53", "create_hosted_zone", {"Name": "example.org", "CallerReference": "1"}),
            ("ssm", "put_parameter", {"Name": "/images/x", "Value": platform["image"]["id"],
                                      "Type": "String"}),
        ):  # fmt: skip
            aws.call(platform, service, request, **given)
    # From nothing; as it is; by all three ways out and back.
    for way in ("master", "master", "public", "nat-gateway", "master"):
        platform["network"]["egress"] = way
        assert road.walk("network", "machines") == []
    # What somebody changed is put back, the network's in two rounds since some exclude each other.
    for round_ in (
        network_drift("VPC: tags removed", "VPC: no names", "subnet: not public",
                      "gateway: elsewhere", "routes: wrong way", "routes: IPv4",
                      "routes: another endpoint", "routes: public by another",
                      "endpoint: closed", "endpoint: not in the table", "rule: IPv4",
                      "rule: one gone", "rule: nothing out", "rule: more out", "key: replaced",
                      "record: elsewhere", "bucket: may be public"),
        network_drift("routes: no way out", "routes: public left", "endpoint: in another table",
                      "way out: gateway"),
    ):  # fmt: skip
        by_hand(recorder, round_, platform)
        assert road.walk("network", "machines") == []
    changed = ("credits unlimited", "tokens optional", "worker stopped", "address taken away")
    by_hand(recorder, [machine_drifts.DRIFT[each][0] for each in changed], platform)
    road.opts["profiles"]["k3s-worker"]["termination_protection"] = False
    assert road.walk("network", "machines") == []
    ec2.image(platform, {"id": "ssm:/images/x"})
    driver = road.driver()
    actions_and_functions(driver, tmp_path)
    # A disk that its machine does not take with it.
    with recorder.paused():
        item = ec2.instance(platform, WORKER)
        assert item is not None
        keep = [{"DeviceName": item["BlockDeviceMappings"][0]["DeviceName"],
                 "Ebs": {"DeleteOnTermination": False}}]  # fmt: skip
        aws.call(platform, "ec2", "modify_instance_attribute",
                 InstanceId=item["InstanceId"], BlockDeviceMappings=keep)  # fmt: skip
    driver.destroy(WORKER)
    with recorder.paused():
        aws.call(platform, "s3", "put_bucket_versioning", Bucket=aws.bucket(platform),
                 VersioningConfiguration={"Status": "Enabled"})  # fmt: skip
        aws.call(platform, "s3", "put_object", Bucket=aws.bucket(platform), Key="a", Body=b"1")
    by_hand(recorder, [strangers_gone], platform)
    assert road.walk("down") == []

    policy = iam.policy()
    assert iam.outside(policy, recorder.actions) == set()
    assert recorder.untagged == set()
    unused = iam.unused(policy, recorder.actions)
    with capsys.disabled():
        for action in sorted(unused):
            print(f"\nallowed, not asked for: {action}: {UNUSED.get(action, 'no reason')}", end="")
    assert unused == set(UNUSED)


def strangers_gone(platform: dict[str, Any]) -> None:
    """Remove what the changes by hand left in the VPC and is nobody's of ours."""
    for request, key, ident, delete in (
        ("describe_vpc_endpoints", "VpcEndpoints", "VpcEndpointId", "delete_vpc_endpoints"),
        ("describe_network_interfaces", "NetworkInterfaces", "NetworkInterfaceId",
         "delete_network_interface"),
        ("describe_route_tables", "RouteTables", "RouteTableId", "delete_route_table"),
    ):  # fmt: skip
        for item in aws.call(platform, "ec2", request)[key]:
            is_ours = vpc.is_ours(platform, {"Tags": item.get("Tags", item.get("TagSet", []))})
            if not is_ours and not item.get("Attachment") and not vpc.is_main(item):
                which = [item[ident]] if delete.endswith("s") else item[ident]
                argument = f"{ident}s" if delete.endswith("s") else ident
                aws.call(platform, "ec2", delete, **{argument: which})


def load_runner(opts: dict[str, Any]) -> dict[str, Any]:
    """Return what ``salt-run iam.policy`` prints, read."""
    runner: Any = load_ext("runners/iam.py")
    runner.__opts__ = opts
    made: dict[str, Any] = json.loads(runner.policy())
    return made


# The document ------------------------------------------------------------------------------------


def test_the_policy_is_one_that_aws_takes(platform, opts):
    platform["aws"]["bucket"] = "b" * 63
    platform["domain"] = f"{'d' * 60}.{'e' * 60}.{'f' * 60}.example.org"
    platform["dns"]["zone"] = "example.org"
    made = load_runner(opts)
    assert made["Version"] == "2012-10-17"
    assert len("".join(json.dumps(made).split())) <= 6144
    sids = [statement["Sid"] for statement in made["Statement"]]
    assert len(set(sids)) == len(sids)
    for statement in made["Statement"]:
        assert set(statement) <= {"Sid", "Effect", "Action", "Resource", "Condition"}
        assert re.fullmatch(r"[A-Za-z0-9]+", statement["Sid"])
        assert statement["Effect"] == "Allow"
        for action in policies.allowed({"Statement": [statement]}):
            assert re.fullmatch(r"(ec2|s3|route53|ssm):[A-Z][A-Za-z]+", action)
    assert "$" not in json.dumps(made)
    # Nothing may change anything that no condition and no name narrows.
    for statement in made["Statement"]:
        if statement["Resource"] == "*":
            for action in policies.allowed({"Statement": [statement]}):
                assert re.fullmatch(r"\w+:(Describe|List)\w+", action)


def test_the_actions_exist(platform):
    """EC2's and Route 53's are named as their requests, which botocore knows."""
    operations = {
        service: set(aws.client(platform, service).meta.service_model.operation_names)
        for service in ("ec2", "route53", "ssm")
    }
    for action in policies.allowed(iam.policy()):
        service, _, name = action.partition(":")
        assert service == "s3" or name in operations[service], action


def test_the_placeholders_are_filled(platform, opts):
    platform["aws"]["region"] = "eu-west-3"
    made = load_runner(opts)
    text = json.dumps(made)
    assert "arn:aws:ec2:eu-west-3:*:subnet/*" in text
    assert "arn:aws:s3:::f1-123456789012/*" in text
    assert '"aws:RequestTag/f1:platform": "f1"' in text
    # Without a zone there is nothing to do in Route 53.
    assert "route53" not in text
    platform["dns"]["zone"] = "example.org"
    assert "arn:aws:route53:::hostedzone/*" in json.dumps(load_runner(opts))
    answer = aws.call(
        platform, "route53", "create_hosted_zone", Name="example.org", CallerReference="1"
    )
    ident = answer["HostedZone"]["Id"].removeprefix("/hostedzone/")
    text = json.dumps(load_runner(opts))
    assert f"arn:aws:route53:::hostedzone/{ident}" in text
    assert '["vote.example.org"]' in text


def test_it_is_printed_as_typed_ready_for_the_console(repository):
    done = subprocess.run(
        [str(Path(sys.executable).parent / "salt-run"), "--out=raw", "iam.policy"],
        cwd=repository,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(done.stdout)["Version"] == "2012-10-17"


def test_a_zone_that_may_not_be_asked_for_is_any(platform, opts, monkeypatch):
    call = aws.call

    def refused(platform: dict[str, Any], service: str, request: str, **arguments: Any) -> Any:
        if service != "route53":
            return call(platform, service, request, **arguments)
        error = ClientError({"Error": {"Code": "AccessDenied", "Message": "no"}}, "X")
        raise aws.explain(error, f"{service} {request}") from error

    monkeypatch.setattr(aws, "call", refused)
    platform["dns"]["zone"] = "example.org"
    assert "arn:aws:route53:::hostedzone/*" in json.dumps(load_runner(opts))


def test_a_policy_that_aws_would_refuse_is_refused_here(platform, opts, monkeypatch):
    monkeypatch.setattr(policies, "LONGEST", 1000)
    with pytest.raises(Exception, match=r"the policy has \d+ characters, AWS takes 1000"):
        load_runner(opts)


def test_the_readme_tells_of_every_statement():
    text = (ROOT / "salt/cloud/iam/README.md").read_text()
    for statement in iam.policy()["Statement"]:
        assert f"`{statement['Sid']}`" in text, statement["Sid"]


# The checker --------------------------------------------------------------------------------------


def test_what_is_outside_and_what_is_unused_is_told(tmp_path):
    policy = {"Statement": [{"Action": ["ec2:RunInstances"]}, {"Action": "s3:GetObject"}]}
    asked = {"ec2:RunInstances", "ec2:CreateFleet", "sts:GetCallerIdentity"}
    assert iam.outside(policy, asked) == {"ec2:CreateFleet"}
    assert iam.unused(policy, asked) == {"s3:GetObject"}
    log = tmp_path / "requests.jsonl"
    log.write_text(
        '{"service": "s3", "action": "HeadBucket"}\n\n{"service": "ec2", "action": "CreateVpc"}\n'
        '{"service": "sts", "action": "GetCallerIdentity"}\n'
    )
    assert iam.actions_of_log(log) == {"s3:ListBucket", "ec2:CreateVpc"}


def test_what_a_request_needs_beside_its_own_action():
    tagged = {"TagSpecifications": [{}], "IamInstanceProfile": {"Name": "x"}}
    assert policies.actions("ec2", "RunInstances", tagged) == {
        "ec2:RunInstances", "ec2:CreateTags", "iam:PassRole",
    }  # fmt: skip
    versions = {"Delete": {"Objects": [{"Key": "a", "VersionId": "1"}]}}
    assert policies.actions("s3", "DeleteObjects", versions) == {
        "s3:DeleteObject", "s3:DeleteObjectVersion",
    }  # fmt: skip


def test_a_thing_made_without_our_tag_is_told(platform, world):
    recorder = iam.Recorder(world.session)
    aws.call(platform, "ec2", "create_vpc", CidrBlock="10.99.0.0/16")
    assert recorder.untagged == {"ec2:CreateVpc"}
