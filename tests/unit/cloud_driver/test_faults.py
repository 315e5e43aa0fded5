"""
The cloud fails in every way it can, at every request: what is wanted comes about all the same or
an error says why; nothing is there twice, and the next run arrives.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import aws
import boto3
import environment
import pytest
import retries
import yaml
from salt.exceptions import SaltCloudException

from tests.conftest import ROOT, load_ext
from tests.unit.cloud_driver import faults as injection
from tests.unit.cloud_driver import walks
from tests.unit.cloud_driver.faults import CHANGING, Crash, Faults

PROFILES = yaml.safe_load((ROOT / "salt/cloud/profiles.conf").read_text())

# Everything that costs or blocks something, by the request that lists it.
KINDS = {
    "describe_addresses": "Addresses",
    "describe_internet_gateways": "InternetGateways",
    "describe_key_pairs": "KeyPairs",
    "describe_network_interfaces": "NetworkInterfaces",
    "describe_route_tables": "RouteTables",
    "describe_security_groups": "SecurityGroups",
    "describe_subnets": "Subnets",
    "describe_volumes": "Volumes",
    "describe_vpc_endpoints": "VpcEndpoints",
    "describe_vpcs": "Vpcs",
}
# What orch.network makes, over what an empty account has: one table and one group come with a VPC.
NETWORK = {
    "Addresses": 1,
    "InternetGateways": 1,
    "KeyPairs": 1,
    "NetworkInterfaces": 0,
    "RouteTables": 1 + 2,
    "SecurityGroups": 1 + 2,
    "Subnets": 1 + 2,
    "Volumes": 0,
    "VpcEndpoints": 1,
    "Vpcs": 1,
    "machines": 0,
    "buckets": 1,
}
NOTHING = dict.fromkeys(NETWORK, 0)
MASTER = {**NETWORK, "machines": 1, "NetworkInterfaces": 1, "Volumes": 1}


class World:
    """An operator who starts anew for each command, and an account to count in."""

    def __init__(
        self, opts: dict[str, Any], platform: dict[str, Any], api: Faults, session: boto3.Session
    ) -> None:
        self.opts, self.platform, self.api, self.session = opts, platform, api, session
        self._quiet = {**platform, "aws": {**platform["aws"]}}
        self._before = self._count()

    def walk(self, *files: str) -> list[str]:
        """Run the SLS files' states in a process of its own; return what failed (one, or none)."""
        modules = walks.load()
        for sls in files:
            for ident, result in walks.states(modules, sls, self.opts, self.platform, "f1"):
                if result["result"] is False:
                    return [f"{ident}: {result['comment']}"]
        return []

    def driver(self) -> Any:
        """Return the driver as a new process has it."""
        made: Any = load_ext("clouds/ec2.py")
        made.__opts__ = self.opts
        return made

    def create(self, name: str) -> dict[str, Any]:
        profile = "k3s-master" if name.endswith("master") else "k3s-worker"
        made: dict[str, Any] = self.driver().create(
            {"name": name, "profile": profile, **PROFILES[profile]}
        )
        return made

    def _count(self) -> dict[str, int]:
        client = boto3.Session().client(
            "ec2",
            endpoint_url=self._quiet["aws"]["endpoint_url"],
            region_name=self._quiet["aws"]["region"],
        )
        found = {key: len(getattr(client, request)()[key]) for request, key in KINDS.items()}
        found["machines"] = sum(
            item["State"]["Name"] != "terminated"
            for each in client.describe_instances()["Reservations"]
            for item in each["Instances"]
        )
        store = boto3.Session().client("s3", endpoint_url=self._quiet["aws"]["endpoint_url"])
        found["buckets"] = len(store.list_buckets()["Buckets"])
        return found

    def made(self) -> dict[str, int]:
        """Return how many of each kind there are more than in the beginning."""
        return {kind: count - self._before[kind] for kind, count in self._count().items()}

    def until_it_survives(self, run: Callable[[], Any], step: int) -> int:
        """
        Let ``run`` die after its first changing request, the next time after ``step`` more, and so
        on, until it comes to its end; return how often it died.
        """
        for died in range(200):
            self.api.crash(1 + died * step)
            try:
                run()
            except Crash:
                continue
            self.api.crash(0)
            return died
        raise AssertionError("it never came to its end")


@pytest.fixture
def world(opts, platform, monkeypatch, tmp_path: Path) -> Iterator[World]:
    monkeypatch.setattr(retries, "BACKOFF_SECONDS", 0.001)
    monkeypatch.setattr(retries, "LONGEST_SECONDS", 0.01)
    monkeypatch.setattr(aws, "_clients", {})
    wait = aws.wait
    monkeypatch.setattr(
        aws, "wait", lambda what, seconds, probe, pause=0.0: wait(what, seconds, probe, 0.05)
    )
    archive = tmp_path / "salt.tar.gz"
    archive.write_bytes(b"an environment")
    built = environment.Built(archive, "ab" * 32)
    monkeypatch.setattr(environment, "build", lambda: built)
    opts["profiles"] = PROFILES
    session = boto3.Session()
    monkeypatch.setattr(aws, "boto3", SimpleNamespace(client=session.client))
    with injection.serve() as (url, api):
        platform["aws"].update(endpoint_url=url, s3_endpoint_url=url)
        made = World(opts, platform, api, session)
        injection.label(session, api)
        yield made


# The network --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "status", "times"), [("RequestLimitExceeded", 503, 1), ("SlowDown", 503, 4)]
)
def test_a_network_whose_every_request_is_refused_at_first(world, code, status, times):
    world.api.refuse(".*", code, status, attempts=times)
    assert world.walk("network") == []
    assert len(world.api.met) >= times * 40
    assert world.made() == NETWORK


def test_an_api_that_refuses_for_long_is_an_error_and_leaves_nothing_half(world, monkeypatch):
    monkeypatch.setattr(retries, "THROTTLED_SECONDS", 0)
    world.api.refuse("ec2.CreateSubnet", "RequestLimitExceeded", times=1000)
    (failed,) = world.walk("network")
    assert "ec2 create_subnet failed: RequestLimitExceeded" in failed
    assert "given up after 1 attempts" in failed
    world.api.clear()
    assert world.walk("network") == []
    assert world.made() == NETWORK


@pytest.mark.parametrize("fault", ["lose", "bare"])
def test_a_network_that_loses_every_first_answer(world, fault):
    """What may be repeated is; what may not ends the run, and the next finds what was made."""
    runs = 0
    while runs < 40:
        runs += 1
        getattr(world.api, fault)(CHANGING, attempts=1)
        failed = world.walk("network")
        if not failed:
            break
        assert "may now exist; run it again" in failed[0]
        if fault == "bare":
            # Nothing was done: it must be let through once, or it never would be.
            world.api.clear()
            assert world.walk("network") == []
    assert failed == []
    assert runs > 1
    assert world.made() == NETWORK


def test_a_network_whose_maker_dies_after_each_request(world):
    died = world.until_it_survives(lambda: world.walk("network"), step=0)
    assert died > 20
    assert world.walk("network") == []
    assert world.made() == NETWORK


def test_a_network_of_a_slow_api_is_asked_for_once(world):
    world.api.delay(CHANGING, 0.02, times=1000)
    assert world.walk("network") == []
    assert len(world.api.met) > 20
    assert len(set(world.api.met)) > 10
    assert world.made() == NETWORK


@pytest.mark.parametrize("reads", [1, 3])
def test_a_network_that_is_not_seen_at_once(world, reads):
    world.api.hide(reads)
    failed = world.walk("network")
    assert world.api.met
    assert failed == []
    world.api.clear()
    assert world.walk("network") == []
    assert world.made() == NETWORK


@pytest.mark.parametrize("reads", [1, 3])
def test_a_network_whose_tags_are_not_seen_at_once(world, reads):
    world.api.hide_tags(reads)
    assert world.walk("network") == []
    assert world.api.met
    world.api.clear()
    assert world.walk("network") == []
    assert world.made() == NETWORK


# A machine ----------------------------------------------------------------------------------------


def test_a_machine_whose_every_request_is_refused_at_first(world, machines):
    assert world.walk("network") == []
    world.api.refuse(".*", "RequestLimitExceeded", attempts=4)
    assert world.create("f1-master")["state"] == "running"
    assert world.made() == MASTER


@pytest.mark.parametrize("fault", ["lose", "bare"])
def test_a_machine_whose_every_first_answer_is_lost(world, machines, fault):
    """Everything that a creation asks for may be repeated: the launch has its token."""
    assert world.walk("network") == []
    getattr(world.api, fault)(".*", attempts=1)
    assert world.create("f1-master")["state"] == "running"
    assert "ec2.RunInstances" in world.api.met
    assert world.made() == MASTER


def test_a_launch_that_is_not_answered_in_time_is_one_machine(world, machines, monkeypatch):
    assert world.walk("network") == []
    monkeypatch.setattr(aws, "_clients", {})
    monkeypatch.setattr(aws, "READ_SECONDS", 1.0)
    world.api.hang("ec2.RunInstances")
    assert world.create("f1-master")["state"] == "running"
    assert world.api.seen.count("ec2.RunInstances") == 2
    assert world.made() == MASTER


def test_a_machine_whose_maker_dies_after_each_request(world, machines):
    assert world.walk("network") == []
    died = world.until_it_survives(lambda: world.create("f1-master"), step=1)
    assert died >= 3
    assert world.create("f1-master")["existed"] is True
    assert world.made() == MASTER


@pytest.mark.parametrize(
    ("operation", "code", "status"),
    [
        ("ec2.RunInstances", "InsufficientInstanceCapacity", 500),
        ("ec2.RunInstances", "VcpuLimitExceeded", 400),
        ("ec2.AssociateAddress", "InvalidAllocationID.NotFound", 400),
        ("ec2.CreateTags", "UnauthorizedOperation", 403),
        ("s3.PutObject", "AccessDenied", 403),
    ],
)
def test_a_creation_that_is_refused_leaves_nothing(world, machines, operation, code, status):
    assert world.walk("network") == []
    world.api.refuse(operation, code, status, times=1000)
    with pytest.raises(SaltCloudException) as error:
        world.create("f1-master")
    assert f"{code}: as the test says" in str(error.value)
    assert operation in world.api.met
    assert world.made() == NETWORK
    world.api.clear()
    assert world.create("f1-master")["existed"] is False
    assert world.made() == MASTER


@pytest.mark.parametrize("hide", ["hide", "hide_tags"])
def test_a_machine_that_is_not_seen_at_once(world, machines, hide):
    assert world.walk("network") == []
    getattr(world.api, hide)(3)
    assert world.create("f1-master")["state"] == "running"
    assert world.api.met
    world.api.clear()
    assert world.create("f1-master")["existed"] is True
    assert world.made() == MASTER


# Their end ----------------------------------------------------------------------------------------


@pytest.fixture
def full(world, machines) -> World:
    """A network, its master in it."""
    assert world.walk("network") == []
    world.create("f1-master")
    world.api.clear()
    return world


def test_a_machine_is_destroyed_through_lost_answers(full):
    full.api.lose(".*", attempts=2)
    full.driver().destroy("f1-master", call="action")
    assert full.api.met
    assert full.made() == NETWORK


def test_a_destroyer_that_dies_after_each_request(full):
    def destroy() -> None:
        driver = full.driver()
        if "f1-master" in driver.list_nodes():
            driver.destroy("f1-master", call="action")

    assert full.until_it_survives(destroy, step=1) >= 1
    assert full.made() == NETWORK
    assert full.create("f1-master")["existed"] is False
    assert full.made() == MASTER


@pytest.mark.parametrize("fault", ["refuse", "lose", "bare"])
def test_everything_is_removed_through_faults(full, fault):
    getattr(full.api, fault)(".*", attempts=2)
    assert full.walk("down") == []
    assert full.api.met
    assert full.made() == NOTHING


def test_a_remover_that_dies_after_each_request(full):
    assert full.until_it_survives(lambda: full.walk("down"), step=0) > 20
    assert full.made() == NOTHING
    assert full.walk("down") == []
    assert full.walk("network") == []
    assert full.made() == NETWORK
