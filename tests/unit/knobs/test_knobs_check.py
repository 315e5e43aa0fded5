"""A table of wrong knobs and what is said of each; and that right ones pass."""

import copy
from typing import Any

import pytest
import yaml

from tests.conftest import ROOT, load_ext

check = load_ext("utils/knobs_check.py")


@pytest.fixture
def pillar() -> dict[str, Any]:
    made: dict[str, Any] = {}
    for name in ("platform", "versions"):
        made.update(yaml.safe_load((ROOT / "salt/pillar" / f"{name}.sls").read_text()))
    platform = made["platform"]
    platform["app"]["digest"] = None
    platform["operator"]["cidrs"] = ["203.0.113.7/32"]
    platform["registry"].update(push="ghcr.io/me/f1vote", pull="ghcr.io/me/f1vote")
    return made


def put(pillar: dict[str, Any], key: str, value: Any) -> dict[str, Any]:
    changed = copy.deepcopy(pillar)
    *parents, last = key.split(".")
    at = changed
    for parent in parents:
        at = at[parent]
    if value is ...:
        del at[last]
    else:
        at[last] = value
    return changed


def test_the_defaults_with_an_operator_are_right(pillar):
    assert check.problems(pillar) == []


WORKERS = "platform.network.worker_cidrs"
WRONG = [
    ("platform.name", "F1_Vote", 'platform.name: "F1_Vote" is not right'),
    ("platform.domain", "localhost", 'platform.domain: "localhost" is not right; use'),
    ("platform.domain", "Vote.Example.org", "lower-case host name"),
    ("platform.aliases", "vote.example.org", "platform.aliases"),
    ("platform.aws.region", "Paris", "a region such as eu-west-3"),
    ("platform.aws.zones", ["eu-west-3a", "eu-west-1b"], "zones.1: eu-west-1b is not in eu-west-3"),
    ("platform.aws.zones", ["eu-west-3a", "eu-west-3a"], "a list of different zones"),
    ("platform.aws.zones", [], "a list of different zones"),
    ("platform.aws.zones", "eu-west-3a", "a list of different zones"),
    ("platform.aws.zones", ["a", "eu-west-3b"], 'zones.0: "a" is not right; use a zone of the'),
    ("platform.aws.zones", ["eu-west-3a"], "worker_cidrs: 2 for 1 zones; use one network for each"),
    ("platform.aws.zone", "eu-west-3a", "platform.aws.zone: no such knob"),
    ("platform.aws.endpoint_url", "10.0.0.1:80", "an http:// or https:// address, or null"),
    ("platform.aws.bucket", "A", "an S3 bucket name, or null"),
    ("platform.image.id", "debian", "ami-…, or null"),
    ("platform.image.owner", 136693071363, "in quotes"),
    ("platform.network.vpc_cidr", "10.20.0.1/16", "an IPv4 network"),
    ("platform.network.vpc_cidr", "10.20.0.0/15", "vpc_cidr: 10.20.0.0/15 is no size that EC2"),
    ("platform.network.master_cidr", "10.21.1.0/24", "master_cidr: 10.21.1.0/24 is outside the"),
    ("platform.network.master_cidr", "10.20.1.0/29", "use one from /16 to /28"),
    ("platform.network.master_cidr", ..., "platform.network.master_cidr: missing"),
    (WORKERS, ["10.20.2.0/24"], "worker_cidrs: 1 for 2 zones; use one network for each"),
    (WORKERS, ["10.20.2.0/24", "10.21.3.0/24"], "worker_cidrs.1: 10.21.3.0/24 is outside the VPC"),
    (WORKERS, ["10.20.2.0/24", "10.20.2.128/25"], "overlaps platform.network.worker_cidrs.0 (10.2"),
    (WORKERS, ["10.20.2.0/24", "10.20.1.0/25"], "overlaps platform.network.master_cidr (10.20.1.0"),
    (WORKERS, ["10.20.2.0/24", "10.20.3.1/24"], "worker_cidrs.1: "),
    (WORKERS, "10.20.2.0/24", "one for each of platform.aws.zones"),
    ("platform.network.subnet_cidr", "10.20.1.0/24", "subnet_cidr: no such knob"),
    ("platform.network.egress", "nat", 'egress: "nat" is not right; use master, nat-gateway or pu'),
    ("platform.network.egress_ports", [], "a list of different TCP ports"),
    ("platform.network.egress_ports", [443, 443], "a list of different TCP ports"),
    ("platform.network.egress_ports", [80, 0], "egress_ports.1: 0 is not right; use a TCP port"),
    ("platform.network.egress_ports", [65536], "a TCP port from 1 to 65535"),
    ("platform.network.egress_ports", ["https"], "a TCP port from 1 to 65535"),
    ("platform.network.master_ip", "10.20.1.2", "other than its first four"),
    ("platform.network.master_ip", "10.20.2.10", "cannot be a machine's"),
    ("platform.network.master_ip", "ten", "an IPv4 address"),
    ("platform.operator.cidrs", [], "your own address"),
    ("platform.operator.cidrs", ["203.0.113.7/8"], "platform.operator.cidrs.0"),
    ("platform.master.size", "big", "an EC2 instance type"),
    ("platform.workers.count", 0, "from 1 to 50"),
    ("platform.workers.count", "2", "from 1 to 50"),
    ("platform.workers.size", ..., "platform.workers.size: missing"),
    ("platform.dns.zone", "example.com", "is not in the zone example.com"),
    ("platform.registry.push", None, "platform.registry.push: missing"),
    ("platform.registry.pull", "f1vote", "host[:port]/path"),
    ("platform.registry.pull", "ghcr.io/me/f1vote:latest", "without a tag"),
    ("platform.registry.mirrors", {"docker.io": {}}, "endpoint: missing"),
    ("platform.app.replicas", 0, "from 1 to 100"),
    ("platform.app.challenge", "sometimes", "never, attack or always"),
    ("platform.app.digest", "latest", "leave it to `up`"),
    ("platform.proof.verify_tls", "yes", "true or false"),
    ("platform.wrokers", {"count": 3}, "platform.wrokers: no such knob; known here:"),
    ("versions.k3s.amd64.sha256", ..., "versions.k3s.amd64.sha256: missing in the lock"),
    ("versions.images.redis.digest", None, "versions.images.redis.digest: missing in the lock"),
]


@pytest.mark.parametrize(("key", "value", "said"), WRONG)
def test_a_wrong_knob_is_named_with_its_fix(pillar, key, value, said):
    found = check.problems(put(pillar, key, value))
    assert any(said in line for line in found), found
    assert len(found) == 1, "one mistake, one line"


def test_everything_wrong_is_said_at_once(pillar):
    wrong = [("platform.domain", "x"), ("platform.workers.count", -1), ("platform.nope", 1)]
    for key, value in wrong:
        pillar = put(pillar, key, value)
    assert len(check.problems(pillar)) == 3


def test_too_many_workers_for_a_subnet(pillar):
    """They are spread over the zones: 23 are 12 in the first, which has 11 addresses."""
    pillar = put(pillar, WORKERS, ["10.20.2.0/28", "10.20.3.0/28"])
    assert check.problems(put(pillar, "platform.workers.count", 22)) == []
    assert check.problems(put(pillar, "platform.workers.count", 23)) == [
        "platform.workers.count: 10.20.2.0/28 has room for 11 workers, not 12; "
        "use fewer workers, or larger platform.network.worker_cidrs"
    ]


def test_every_knob_has_a_default_and_a_meaning():
    import json

    schema = json.loads((ROOT / "salt/pillar/platform.schema.json").read_text())
    defaults = yaml.safe_load((ROOT / "salt/pillar/platform.sls").read_text())["platform"]
    defaults["app"]["digest"] = None

    def walk(node: dict[str, Any], value: Any, path: str) -> None:
        if "properties" in node:
            assert sorted(node["properties"]) == sorted(value), path
            assert node["additionalProperties"] is False, path
            for key, child in node["properties"].items():
                walk(child, value[key], f"{path}.{key}")
        else:
            assert node.get("description"), f"{path} says nothing of itself"

    walk(schema, defaults, "platform")
