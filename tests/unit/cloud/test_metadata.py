"""The metadata service: tokens, version 1, the paths cloud-init asks."""

import gzip
import json
from ipaddress import IPv4Address

import pytest

from lab.cloud.metadata import Service
from tests.unit.cloud.builders import machine

TTL = {"X-aws-ec2-metadata-token-ttl-seconds": "60"}


class World:
    def __init__(self, **values):
        self.now = 0.0
        self.machines = {m.address: m for m in (machine(1, **values), machine(2))}
        self.service = Service(self.machines.get, lambda: self.now)

    def ask(self, path, method="GET", headers=None, source="10.20.1.11"):
        return self.service.answer(method, path, headers or {}, source)

    def token(self, **kwargs):
        answer = self.ask("/latest/api/token", "PUT", TTL, **kwargs)
        return {"X-aws-ec2-metadata-token": answer.body.decode()}


def test_version_1_is_refused_where_the_machine_says_so():
    strict, open_ = World(tokens_required=True), World()
    assert strict.ask("/latest/meta-data/instance-id").status == 401
    assert open_.ask("/latest/meta-data/instance-id").status == 200
    assert strict.ask("/latest/meta-data/instance-id", headers=strict.token()).status == 200


def test_a_token_expires_and_serves_only_its_machine():
    world = World(tokens_required=True)
    token = world.token()
    assert world.ask("/latest/user-data", headers=token, source="10.20.1.12").status == 401
    world.now = 59
    assert world.ask("/latest/meta-data/mac", headers=token).status == 200
    world.now = 60
    assert world.ask("/latest/meta-data/mac", headers=token).status == 401


def test_a_wrong_token_is_refused_even_where_none_is_needed():
    assert (
        World().ask("/latest/meta-data/", headers={"x-aws-ec2-metadata-token": "x"}).status == 401
    )


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"X-aws-ec2-metadata-token-ttl-seconds": "0"},
        {"X-aws-ec2-metadata-token-ttl-seconds": "21601"},
        {"X-aws-ec2-metadata-token-ttl-seconds": "x"},
    ],
)
def test_a_token_needs_a_sound_lifetime(headers):
    assert World().ask("/latest/api/token", "PUT", headers).status == 400


def test_no_token_through_a_proxy():
    headers = TTL | {"X-Forwarded-For": "10.42.0.3"}
    assert World().ask("/latest/api/token", "PUT", headers).status == 403


def test_the_token_travels_no_further_than_the_hop_limit():
    world = World(hop_limit=2)
    assert world.ask("/latest/api/token", "PUT", TTL).hops == 2
    assert world.ask("/latest/meta-data/mac").hops is None


def test_strangers_and_switched_off_endpoints_get_nothing():
    assert World().ask("/latest/meta-data/", source="10.20.1.99").status == 403
    assert World(metadata_enabled=False).ask("/latest/meta-data/").status == 403


def test_user_data_comes_byte_by_byte():
    data = gzip.compress(b"#cloud-config\n") + b"\0\xff"
    assert World(user_data=data).ask("/2021-03-23/user-data").body == data
    assert World().ask("/latest/user-data").status == 404


def test_every_listed_path_answers():
    world = World(
        public=IPv4Address("198.19.0.10"),
        public_key="ssh-ed25519 AAAA",
        key_name="f1",
        tags_in_metadata=(("Name", "f1-1"),),
    )

    def walk(path):
        answer = world.ask(path)
        assert answer.status == 200, path
        if path.endswith("/"):
            for name in answer.body.decode().splitlines():
                walk(path + (name.split("=")[0] + "/" if "=" in name else name))

    walk("/2009-04-04/meta-data/")
    assert world.ask("/latest/meta-data/public-keys/").body == b"0=f1"
    assert world.ask("/latest/meta-data/public-keys/0/openssh-key").body == b"ssh-ed25519 AAAA"
    assert world.ask("/latest/meta-data/public-ipv4").body == b"198.19.0.10"
    assert world.ask("/latest/meta-data/tags/instance/Name").body == b"f1-1"
    assert world.ask("/latest/meta-data/iam/").status == 404


def test_the_identity_document_is_the_machines():
    document = json.loads(World().ask("/latest/dynamic/instance-identity/document").body)
    assert document["instanceId"] == machine(1).id
    assert document["region"] == "eu-west-3"
