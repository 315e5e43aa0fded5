"""`orch.down` as typed: what `up` made goes, all of it, and nothing else; only when confirmed."""

import json
import os
import pty
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import aws
import belongings
import ec2
import knobs
import pytest
import results
import salt.output
import vpc

from tests.conftest import ROOT, load_ext
from tests.unit.cloud_driver.conftest import IMAGE, endpoint, machines, platform  # noqa: F401

from .test_commands import orchestrate, repository  # noqa: F401

DOWN = ("orch.down", 'pillar={"confirm": "f1"}')
KINDS = {
    "describe_addresses": "Addresses",
    "describe_key_pairs": "KeyPairs",
    "describe_network_interfaces": "NetworkInterfaces",
    "describe_security_groups": "SecurityGroups",
    "describe_route_tables": "RouteTables",
    "describe_internet_gateways": "InternetGateways",
    "describe_subnets": "Subnets",
    "describe_vpcs": "Vpcs",
    "describe_volumes": "Volumes",
}


def call(platform: dict[str, Any], request: str, **arguments: Any) -> dict[str, Any]:  # noqa: F811
    return aws.call(platform, "ec2", request, **arguments)


def account(platform: dict[str, Any]) -> dict[str, list[str]]:  # noqa: F811
    """Return everything in the account that a platform could leave, by kind."""
    found = {
        key: sorted(json.dumps(item, default=str, sort_keys=True) for item in answer[key])
        for request, key in KINDS.items()
        for answer in [call(platform, request)]
    }
    found["machines"] = [item["InstanceId"] for item in ec2.present(platform, [])]
    buckets = aws.call(platform, "s3", "list_buckets")["Buckets"]
    found["buckets"] = [item["Name"] for item in buckets]
    return found


def changed(results: dict[str, dict[str, Any]]) -> set[str]:
    return {ident for ident, result in results.items() if result["changes"]}


def records(platform: dict[str, Any], zone: str) -> list[Any]:  # noqa: F811
    answer = aws.call(platform, "route53", "list_resource_record_sets", HostedZoneId=zone)
    return [
        (item["Name"], [value["Value"] for value in item["ResourceRecords"]])
        for item in answer["ResourceRecordSets"]
        if item["Type"] == "A"
    ]


@pytest.fixture
def zone(platform, monkeypatch) -> str:  # noqa: F811
    """The domain's zone, which is the operator's own; must come before ``repository``."""
    platform["dns"]["zone"] = "example.org"
    made = aws.call(
        platform, "route53", "create_hosted_zone", Name="example.org", CallerReference="1"
    )
    return str(made["HostedZone"]["Id"])


@pytest.fixture
def tree(zone, repository, platform) -> Path:  # noqa: F811
    site = repository / ".state/pillar/site.sls"
    site.write_text(site.read_text() + "  dns: {zone: example.org}\n")
    return Path(repository)


def test_up_then_down_leaves_nothing(zone, tree, platform, machines):  # noqa: F811
    before = account(platform)
    orchestrate(tree, "orch.network")
    orchestrate(tree, "orch.machines")
    bucket = aws.bucket(platform)
    aws.call(
        platform,
        "s3",
        "put_bucket_versioning",
        Bucket=bucket,
        VersioningConfiguration={"Status": "Enabled"},
    )
    for body in (b"1", b"2"):
        aws.call(platform, "s3", "put_object", Bucket=bucket, Key="a", Body=body)
    aws.call(platform, "s3", "delete_object", Bucket=bucket, Key="a")
    made = account(platform)
    assert all(made[key] != before[key] for key in made)

    # Nothing is touched without the name, or with another.
    for words in ((), ('pillar={"confirm": ""}',), ('pillar={"confirm": "f2"}',)):
        refused = orchestrate(tree, "orch.down", *words, code=1)
        said = refused["may be removed"]["comment"]
        assert "make down CLOUD=aws CONFIRM=f1" in said
        for item in made["machines"]:
            assert item in said
        for word in ("f1-master", bucket, "VPC vpc-", "subnet subnet-", "gateway igw-"):
            assert word in said
        assert not changed(refused)
    plan = orchestrate(tree, "orch.down", "test=True")
    assert account(platform) == made
    assert (tree / ".state/ssh/id_ed25519").exists()

    first = orchestrate(tree, *DOWN)
    assert {result["result"] for result in first.values()} == {True}
    assert changed(first) == changed(plan)
    for ident, result in plan.items():
        assert result["changes"] == first[ident]["changes"]
    assert account(platform) == before
    assert records(platform, zone) == []
    assert not (tree / ".state/ssh").exists()
    assert not (tree / ".state/known_hosts").exists()

    second = orchestrate(tree, *DOWN)
    assert {result["result"] for result in second.values()} == {True}
    assert changed(second) == set()

    # And up again is possible.
    assert {s["result"] for s in orchestrate(tree, "orch.network").values()} == {True}


def in_the_vpc(platform: dict[str, Any]) -> dict[str, str]:  # noqa: F811
    return {"SubnetId": vpc.subnet_id(platform, "f1-worker-1")}


def foreign_instance(platform: dict[str, Any]) -> str:  # noqa: F811
    made = call(
        platform,
        "run_instances",
        ImageId=IMAGE,
        InstanceType="t3.small",
        MinCount=1,
        MaxCount=1,
        **in_the_vpc(platform),
    )
    return str(made["Instances"][0]["InstanceId"])


def foreign_interface(platform: dict[str, Any]) -> str:  # noqa: F811
    made = call(platform, "create_network_interface", **in_the_vpc(platform))
    return str(made["NetworkInterface"]["NetworkInterfaceId"])


def foreign_group(platform: dict[str, Any]) -> str:  # noqa: F811
    made = call(
        platform,
        "create_security_group",
        GroupName="theirs",
        Description="not ours",
        VpcId=vpc.id_of(platform),
    )
    return str(made["GroupId"])


def test_what_others_have_in_the_vpc_stops_it(repository, platform):  # noqa: F811
    orchestrate(repository, "orch.network")
    theirs = [make(platform) for make in (foreign_instance, foreign_interface, foreign_group)]
    there = account(platform)
    for words in (DOWN, ("orch.down", "test=True")):
        stopped = orchestrate(repository, *words, code=1)
        assert not changed(stopped)
        said = stopped["may be removed"]["comment"]
        assert "nothing was removed" in said
        for ident in theirs:
            assert ident in said
    assert account(platform) == there


def test_what_is_not_ours_is_left_alone(zone, tree, platform):  # noqa: F811
    """A record that points elsewhere, a bucket that was there before us, an untagged key pair."""
    bucket = aws.bucket(platform)
    region = {"LocationConstraint": platform["aws"]["region"]}
    aws.call(platform, "s3", "create_bucket", Bucket=bucket, CreateBucketConfiguration=region)
    aws.call(platform, "s3", "put_object", Bucket=bucket, Key="theirs", Body=b"1")
    orchestrate(tree, "orch.network")
    call(platform, "delete_key_pair", KeyName="f1")
    call(platform, "create_key_pair", KeyName="f1", KeyType="ed25519")
    record = {
        "Name": "vote.example.org.",
        "Type": "A",
        "TTL": 60,
        "ResourceRecords": [{"Value": "198.51.100.9"}],
    }
    aws.call(
        platform,
        "route53",
        "change_resource_record_sets",
        HostedZoneId=zone,
        ChangeBatch={"Changes": [{"Action": "UPSERT", "ResourceRecordSet": record}]},
    )
    results = orchestrate(tree, *DOWN)
    assert {result["result"] for result in results.values()} == {True}
    assert "198.51.100.9, which is not ours" in results["record"]["comment"]
    assert "left alone" in results["bucket"]["comment"]
    assert records(platform, zone) == [("vote.example.org.", ["198.51.100.9"])]
    left = aws.call(platform, "s3", "list_objects_v2", Bucket=bucket)["Contents"]
    assert [item["Key"] for item in left] == ["theirs"]
    assert [k["KeyName"] for k in call(platform, "describe_key_pairs")["KeyPairs"]] == ["f1"]


def make_down(root: Path, *words: str, typed: str | None = None) -> tuple[int, list[str]]:
    """Run `make down CLOUD=aws` in ``root``, at a terminal if something is ``typed`` there."""
    command = ["make", "-s", "-o", ".venv/lab.stamp", "down", "CLOUD=aws", *words]
    master, slave = pty.openpty()
    stdin = slave if typed is not None else subprocess.DEVNULL
    with subprocess.Popen(
        command, cwd=root, stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        os.close(slave)
        if typed is not None:
            # The terminal keeps it until somebody reads.
            os.write(master, f"{typed}\n".encode())
        output, _ = process.communicate(timeout=240)
    os.close(master)
    return process.returncode, output.splitlines()


def test_the_makefile_only_hands_the_name_over(tmp_path):
    shutil.copy(ROOT / "Makefile", tmp_path)
    bin_ = tmp_path / ".venv/bin"
    bin_.mkdir(parents=True)
    (bin_ / "salt-run").write_text('#!/bin/sh\necho "salt-run $*"\nexit "$(cat code)"\n')
    (bin_ / "salt-run").chmod(0o755)
    down = "salt-run --out=summary platform.down confirm="
    for words, name in (((), ""), (("CONFIRM=f1",), "f1"), (("CONFIRM=f1; id",), "f1; id")):
        (tmp_path / "code").write_text("0")
        assert make_down(tmp_path, *words) == (0, [down + name])
        (tmp_path / "code").write_text("1")
        assert make_down(tmp_path, *words, typed="x")[0] == 2


class Runner:
    """The runner ``platform``, orchestrating nothing; at a terminal if something is typed."""

    def __init__(self, monkeypatch, typed: str | None, *, failing: str = "") -> None:
        self.asked: list[dict[str, Any]] = []
        self.module = load_ext("runners/platform.py")
        self.module.__opts__ = {}
        self.module.__salt__ = {"state.orchestrate": self._orchestrate}
        self.module.__utils__ = {"results.walk": results.walk}
        self._failing = failing

        def read(_: str) -> str:
            if typed == "":
                raise EOFError
            return str(typed)

        self.module.input = read
        monkeypatch.setattr("sys.stdin", SimpleNamespace(isatty=lambda: typed is not None))
        monkeypatch.setattr(salt.output, "display_output", lambda *_: self.asked.append({}))
        monkeypatch.setattr(knobs, "load", lambda _: {"platform": {}})
        monkeypatch.setattr(belongings, "left", lambda _: ["ours and still paid: a volume"])

    def _orchestrate(self, sls: str, **arguments: Any) -> dict[str, Any]:
        assert sls == "orch.down"
        self.asked.append(arguments)
        is_failed = self._failing == ("plan" if arguments.get("test") else "run")
        state = {"__id__": "vpc", "result": not is_failed, "changes": {}, "comment": ""}
        return {"data": {"f1": {"a_|-vpc_|-f1_|-b": state}}, "retcode": 0}


PLAN: list[dict[str, Any]] = [{"test": True}, {}]  # made and shown


def confirmed(name: str) -> dict[str, Any]:
    return {"pillar": {"confirm": name}}


@pytest.mark.parametrize(
    ("typed", "confirm", "asked"),
    [
        (None, "f1", [confirmed("f1")]),
        ("x", "f1", [confirmed("f1")]),
        ("f1", "", [*PLAN, confirmed("f1")]),
        # Without a terminal, or when it is closed, the state refuses and says what to type.
        (None, None, [confirmed("")]),
        ("", "", [*PLAN, confirmed("")]),
    ],
)
def test_the_name_is_asked_for_only_at_a_terminal(monkeypatch, typed, confirm, asked):
    runner = Runner(monkeypatch, typed)
    data = runner.module.down(confirm)
    assert runner.asked == asked
    assert (data["notes"], data["retcode"]) == (["ours and still paid: a volume"], 0)


def test_a_failure_is_the_exit_code_and_what_is_left_is_told_all_the_same(monkeypatch):
    data = Runner(monkeypatch, None, failing="run").module.down("f1")
    assert (data["notes"], data["retcode"]) == (["ours and still paid: a volume"], 1)


def test_a_plan_that_fails_asks_for_nothing(monkeypatch):
    runner = Runner(monkeypatch, "f1", failing="plan")
    assert runner.module.down()["retcode"] == 1
    assert runner.asked == PLAN[:1]


@pytest.mark.parametrize("name", ["f1; rm -rf x", "$(id)", 'f1"}', "F1", "-f1"])
def test_what_is_no_name_is_handed_to_nobody(monkeypatch, name):
    for typed, confirm in ((name, None), (None, name)):
        runner = Runner(monkeypatch, typed)
        data = runner.module.down(confirm)
        assert data == {"notes": [f"{name!r} is no platform's name"], "retcode": 1}
        assert confirmed(name) not in runner.asked


def test_make_down_as_typed(zone, tree, platform):  # noqa: F811
    """At a terminal, to the end: the plan, the question, and last what is still paid."""
    orchestrate(tree, "orch.network")
    volume = call(
        platform,
        "create_volume",
        AvailabilityZone="eu-west-3a",
        Size=10,
        VolumeType="gp3",
        TagSpecifications=[{"ResourceType": "volume", "Tags": aws.tags(platform, "f1-data")}],
    )["VolumeId"]
    shutil.copy(ROOT / "Makefile", tree)
    (tree / ".venv").symlink_to(ROOT / ".venv")
    home = vpc.id_of(platform)

    code, lines = make_down(tree)
    assert code == 2
    assert any("make down CLOUD=aws CONFIRM=f1" in line and home in line for line in lines)
    for name, said in (("f2", "(CONFIRM is 'f2')"), ("$(id)", "'$(id)' is no platform's name")):
        code, lines = make_down(tree, typed=name)
        assert code == 2
        assert any(said in line for line in lines)
    assert vpc.id_of(platform) == home

    code, lines = make_down(tree, typed="f1")
    assert code == 0, lines
    text = "\n".join(lines)
    assert text.index("would change") < text.index("To remove all this for good")
    assert text.index("To remove all this for good") < text.index(" changed, 0 failed")
    assert f"ours and still paid: volume {volume} f1-data (10 GB gp3)" in lines[-2]
    assert "together 0.93 USD a month" in lines[-1], lines[-6:]
    assert vpc.find(platform) is None
