"""
Drift of machines: a plan names it and changes nothing, a run repairs exactly that, the next run
finds nothing. The table is of everything that somebody can do to a machine by hand.
"""

import re
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import aws
import ec2
import environment
import firstcontact
import pytest
import salt.cloud
import vpc

from tests.conftest import ROOT, load_ext
from tests.unit.cloud_driver import machines as helper
from tests.unit.cloud_driver.conftest import IMAGE
from tests.unit.cloud_driver.test_driver import PROFILES

READS = re.compile(r"describe_|get_|head_|list_")
MASTER, WORKER = "f1-master", "f1-worker-1"


class Client:
    """salt-cloud's client with this process's driver: parallel, an error is in the answer."""

    driver: Any

    def __init__(self, path: str) -> None:
        assert path.endswith("/cloud")

    def action(self, fun: str, names: list[str]) -> dict[str, Any]:
        return {"aws": {"ec2": {name: self._try(fun, name, call="action") for name in names}}}

    def map_run(self, map_data: dict[str, dict[str, Any]], parallel: bool) -> dict[str, Any]:
        assert parallel
        profiles = self.driver.__opts__["profiles"]
        with ThreadPoolExecutor() as pool:
            asked = {
                name: pool.submit(
                    self._try,
                    "create",
                    {"name": name, "profile": profile, **profiles[profile], **values},
                )
                for profile, machines in map_data.items()
                for name, values in machines.items()
            }
            return {name: answer.result() for name, answer in asked.items()}

    def _try(self, function: str, *given: Any, **named: Any) -> Any:
        try:
            return getattr(self.driver, function)(*given, **named)
        except aws.CloudError as error:
            return {"Error": str(error)}


@pytest.fixture
def state(opts, platform, machines, monkeypatch, tmp_path) -> Any:
    """The state, of a platform with one worker."""
    archive = tmp_path / "salt.tar.gz"
    archive.write_bytes(b"an environment")
    built = environment.Built(archive, "ab" * 32)
    monkeypatch.setattr(environment, "build", lambda: built)
    platform["workers"]["count"] = 1
    helper.network(platform)
    opts["profiles"] = {name: dict(profile) for name, profile in PROFILES.items()}
    monkeypatch.setattr(Client, "driver", load_ext("clouds/ec2.py"), raising=False)
    Client.driver.__opts__ = opts
    monkeypatch.setattr(salt.cloud, "CloudClient", Client)
    module: Any = load_ext("states/cloud_machines.py")
    module.__opts__ = {**opts, "config_dir": str(ROOT / "salt/config")}
    module.__pillar__ = {"platform": platform}
    monkeypatch.setattr(
        module.salt.config, "cloud_config", lambda path: {"profiles": opts["profiles"]}
    )
    return module


def run(state: Any, test: bool = False) -> dict[str, Any]:
    state.__opts__["test"] = test
    result: dict[str, Any] = state.present("machines")
    return result


def ident(platform: dict[str, Any], name: str) -> str:
    item = ec2.instance(platform, name)
    assert item is not None
    return str(item["InstanceId"])


def call(platform: dict[str, Any], request: str, **arguments: Any) -> dict[str, Any]:
    return aws.call(platform, "ec2", request, **arguments)


def modify(platform: dict[str, Any], name: str, **attribute: Any) -> None:
    call(
        platform,
        "modify_instance_attribute",
        InstanceId=ident(platform, name),
        **attribute,
    )


def tag(platform: dict[str, Any], name: str, key: str, value: str | None) -> None:
    pair = {"Key": key} | ({} if value is None else {"Value": value})
    request = "delete_tags" if value is None else "create_tags"
    call(platform, request, Resources=[ident(platform, name)], Tags=[pair])


def group(platform: dict[str, Any], name: str) -> str:
    filters = [{"Name": "group-name", "Values": [name]}]
    found = call(platform, "describe_security_groups", Filters=filters)["SecurityGroups"]
    return str(found[0]["GroupId"])


def metadata(platform: dict[str, Any], name: str, **options: Any) -> None:
    call(
        platform,
        "modify_instance_metadata_options",
        InstanceId=ident(platform, name),
        **options,
    )


def terminated(name: str) -> Any:
    return lambda p: call(p, "terminate_instances", InstanceIds=[ident(p, name)])


def stopped(name: str) -> Any:
    return lambda p: call(p, "stop_instances", InstanceIds=[ident(p, name)])


def disassociate(platform: dict[str, Any]) -> None:
    (address,) = call(platform, "describe_addresses")["Addresses"]
    call(platform, "disassociate_address", AssociationId=address["AssociationId"])


def given_away(platform: dict[str, Any]) -> None:
    """The master's address is at a worker."""
    (address,) = call(platform, "describe_addresses")["Addresses"]
    call(
        platform,
        "associate_address",
        AllocationId=address["AllocationId"],
        InstanceId=ident(platform, WORKER),
        AllowReassociation=True,
    )


def unlimited(platform: dict[str, Any]) -> None:
    wanted = {"InstanceId": ident(platform, WORKER), "CpuCredits": "unlimited"}
    call(platform, "modify_instance_credit_specification", InstanceCreditSpecifications=[wanted])


def several(platform: dict[str, Any]) -> None:
    tag(platform, MASTER, "Name", "x")
    metadata(platform, WORKER, HttpTokens="optional")
    stopped(WORKER)(platform)


ON, OFF = {"Value": True}, {"Value": False}
# What is done by hand, and what the plan calls it.
DRIFT: dict[str, tuple[Any, list[str]]] = {
    "worker terminated": (terminated(WORKER), [WORKER]),
    "master terminated": (terminated(MASTER), [MASTER]),
    "worker stopped": (stopped(WORKER), [WORKER]),
    "master stopped": (stopped(MASTER), [MASTER]),
    "never introduced": (lambda p: tag(p, WORKER, firstcontact.INTRODUCED, None), [WORKER]),
    "introduced as another": (
        lambda p: tag(p, WORKER, firstcontact.INTRODUCED, "i-0123456789abcdef0"),
        [WORKER],
    ),
    "name changed": (lambda p: tag(p, WORKER, "Name", "mine"), [f"{WORKER} tag Name"]),
    "name of another": (lambda p: tag(p, WORKER, "Name", MASTER), [f"{WORKER} tag Name"]),
    "name removed": (lambda p: tag(p, MASTER, "Name", None), [f"{MASTER} tag Name"]),
    "platform changed": (
        lambda p: tag(p, WORKER, aws.PLATFORM_TAG, "g2"),
        [f"{WORKER} tag f1:platform"],
    ),
    "platform removed": (
        lambda p: tag(p, MASTER, aws.PLATFORM_TAG, None),
        [f"{MASTER} tag f1:platform"],
    ),
    "own tag changed": (lambda p: tag(p, WORKER, "team", "blue"), [f"{WORKER} tag team"]),
    "another group": (
        lambda p: modify(p, WORKER, Groups=[group(p, "f1-master")]),
        [f"{WORKER} groups"],
    ),
    "a group more": (
        lambda p: modify(p, MASTER, Groups=[group(p, "f1-master"), group(p, "f1-worker")]),
        [f"{MASTER} groups"],
    ),
    "the master forwards no more": (
        lambda p: modify(p, MASTER, SourceDestCheck=ON),
        [f"{MASTER} source/destination check"],
    ),
    "a worker may forward": (
        lambda p: modify(p, WORKER, SourceDestCheck=OFF),
        [f"{WORKER} source/destination check"],
    ),
    "protection removed": (
        lambda p: modify(p, WORKER, DisableApiTermination=OFF),
        [f"{WORKER} termination protection"],
    ),
    "tokens optional": (
        lambda p: metadata(p, MASTER, HttpTokens="optional"),
        [f"{MASTER} metadata tokens"],
    ),
    "hop limit": (
        lambda p: metadata(p, WORKER, HttpPutResponseHopLimit=3),
        [f"{WORKER} metadata hop limit"],
    ),
    "metadata off": (
        lambda p: metadata(p, WORKER, HttpEndpoint="disabled"),
        [f"{WORKER} metadata service"],
    ),
    "address taken away": (disassociate, [f"{MASTER} address"]),
    "address given to another": (given_away, [f"{MASTER} address"]),
    "credits unlimited": (unlimited, [f"{WORKER} credit mode"]),
    "several at once": (
        several,
        [f"{MASTER} tag Name", f"{WORKER} metadata tokens", WORKER],
    ),
}


def test_the_table_is_whole():
    assert len(DRIFT) == 24


@pytest.mark.parametrize("drift", DRIFT)
def test_drift_is_planned_repaired_and_gone(state, platform, opts, requests_seen, drift):
    protected = drift == "protection removed"
    opts["profiles"]["k3s-worker"].update(
        tags={"team": "red"}, credit_mode="standard", termination_protection=protected
    )
    assert run(state)["result"] is True
    assert run(state)["changes"] == {}
    act, whats = DRIFT[drift]
    act(platform)

    requests_seen.clear()
    plan = run(state, test=True)
    assert plan["result"] is None
    assert set(plan["changes"]) == set(whats)
    for what in whats:
        assert what in plan["comment"]
    assert [request for request in requests_seen if not READS.match(request)] == []

    repaired = run(state)
    assert repaired["result"] is True, repaired["comment"]
    assert repaired["changes"] == plan["changes"]
    for test in (True, False):
        requests_seen.clear()
        again = run(state, test=test)
        assert again["result"] is True, again["comment"]
        assert again["changes"] == {}
        assert [request for request in requests_seen if not READS.match(request)] == []
    assert set(ec2.machines(platform)) == {MASTER, WORKER}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda p, w: p["workers"].update(size="t3.large"), "size is t3.small, not t3.large"),
        (lambda p, w: w.update(key="another"), "key is f1, not another"),
        (lambda p, w: w.update(placement={"zone": "eu-west-3b"}), "subnet is subnet-"),
        (lambda p, w: w.update(private_address="10.20.2.99"), "private address is 10.20.2."),
        (lambda p, w: w.update(public_address=True), "public address is False, not True"),
    ],
)
def test_what_only_a_new_machine_can_have_is_told(
    state, platform, opts, requests_seen, change, words
):
    run(state)
    change(platform, opts["profiles"]["k3s-worker"])
    requests_seen.clear()
    for test in (True, False):
        told = run(state, test=test)
        assert told["result"] is True
        assert told["changes"] == {}
        assert f"{WORKER}: {words}" in told["comment"]
        assert "only a new machine can have it otherwise" in told["comment"]
    assert all(READS.match(request) for request in requests_seen)


def test_a_newer_image_is_no_drift(state, platform):
    run(state)
    other = next(
        image["ImageId"]
        for image in call(platform, "describe_images")["Images"]
        if image["ImageId"] != IMAGE
    )
    platform["image"]["id"] = other
    told = run(state)
    assert told["changes"] == {}
    assert told["comment"] == "2 machines run"


def test_machines_that_are_not_of_the_map_are_named(state, platform):
    platform["workers"]["count"] = 2
    run(state)
    platform["workers"]["count"] = 1
    told = run(state)
    assert told["changes"] == {}
    assert told["comment"] == "2 machines run; not of the map: f1-worker-2"


def test_two_of_one_name_are_named_both(state, platform):
    run(state)
    item = ec2.instance(platform, WORKER)
    assert item is not None
    twin = call(
        platform,
        "run_instances",
        ImageId=IMAGE,
        MinCount=1,
        MaxCount=1,
        ClientToken=ec2.token(WORKER),
        SubnetId=item["SubnetId"],
    )["Instances"][0]["InstanceId"]
    told = run(state)
    assert told["result"] is False
    for one in (twin, item["InstanceId"]):
        assert one in told["comment"]
    assert "2 machines are named f1-worker-1" in told["comment"]


def test_a_wrong_profile_is_told_whole_before_anything_is_done(state, opts, requests_seen):
    opts["profiles"]["k3s-worker"].update(size="big", colour="red")
    told = run(state)
    assert told["result"] is False
    assert "k3s-worker.size: 'big'" in told["comment"]
    assert "k3s-worker.colour: unknown" in told["comment"]
    assert requests_seen == []


def test_one_refusal_is_told_and_the_others_go_on(state, platform, monkeypatch):
    run(state)
    tag(platform, WORKER, "Name", "mine")
    metadata(platform, MASTER, HttpTokens="optional")
    real = aws.call

    def refuses(platform: dict[str, Any], service: str, request: str, **arguments: Any) -> Any:
        if request == "create_tags":
            raise aws.CloudError("ec2 create_tags failed: UnauthorizedOperation")
        return real(platform, service, request, **arguments)

    with monkeypatch.context() as patch:
        patch.setattr(aws, "call", refuses)
        told = run(state)
    assert told["result"] is False
    assert set(told["changes"]) == {f"{MASTER} metadata tokens"}
    assert "f1-worker-1 tag Name: ec2 create_tags failed: UnauthorizedOperation" in told["comment"]


def test_a_stopped_master_is_started_before_it_gets_its_address(state, platform, monkeypatch):
    run(state)
    stopped(MASTER)(platform)
    disassociate(platform)
    real = ec2.associate

    def only_running(platform: dict[str, Any], name: str, instance_id: str) -> str:
        state = ec2.by_id(platform, instance_id)["State"]["Name"]
        if state != "running":
            raise aws.CloudError(f"IncorrectInstanceState: {state}")
        return real(platform, name, instance_id)

    monkeypatch.setattr(ec2, "associate", only_running)
    told = run(state)
    assert told["result"] is True, told["comment"]
    assert f"{MASTER} address" in told["changes"]
    address = vpc.address(platform, MASTER)
    assert address is not None
    assert address["InstanceId"] == ident(platform, MASTER)


def test_what_differs_of_a_machine_that_failed_is_not_tried(
    state, platform, requests_seen, monkeypatch
):
    run(state)
    stopped(MASTER)(platform)
    tag(platform, MASTER, "Name", "mine")
    requests_seen.clear()
    real = Client._try

    def refused(client: Client, function: str, *given: Any, **named: Any) -> Any:
        if function == "introduce":
            return {"Error": "no capacity"}
        return real(client, function, *given, **named)

    monkeypatch.setattr(Client, "_try", refused)
    told = run(state)
    assert told["result"] is False
    assert told["changes"] == {}
    assert told["comment"] == f"{MASTER}: no capacity"
    assert "create_tags" not in requests_seen


def test_a_failed_machine_of_the_map_fails_the_state(state, machines):
    machines.fails = "salt-minion did not start: no memory"
    started = time.monotonic()
    told = run(state)
    assert told["result"] is False
    assert told["changes"] == {}
    for name in (MASTER, WORKER):
        assert f"{name}: {name} (i-" in told["comment"]
    assert "no memory" in told["comment"]
    assert time.monotonic() - started < firstcontact.MASTER_SECONDS / 2
