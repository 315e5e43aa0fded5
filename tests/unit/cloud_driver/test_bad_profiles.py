"""Every wrong option of a profile is named, with what to write instead; all of them at once."""

from typing import Any

import aws
import launch
import profiles
import pytest
import yaml

from tests.conftest import ROOT

PROFILES = yaml.safe_load((ROOT / "salt/cloud/profiles.conf").read_text())
GP3 = {"device": "/dev/sdf", "size": 10}

# Options of a worker's profile → what is said of them.
BAD: list[tuple[dict[str, Any], str]] = [
    ({"sise": "t3.small"}, "k3s-worker.sise: unknown; write size; known are role, image, size"),
    ({"colour": "red"}, "k3s-worker.colour: unknown; known are role, image, size"),
    ({"role": "boss"}, "k3s-worker.role: 'boss': write master or worker"),
    ({"role": "master"}, "f1-worker-1 cannot be made by the profile k3s-worker (role 'master')"),
    ({"role": None}, "f1-worker-1 cannot be made by the profile k3s-worker (role None)"),
    ({"size": "small"}, "k3s-worker.size: 'small': write an instance type, such as t3.small"),
    ({"size": 3}, "k3s-worker.size: 3: write an instance type"),
    ({"image": "debian-12"}, "k3s-worker.image: 'debian-12': id 'debian-12': write ami-… or ssm:"),
    ({"image": {"owner": "self"}}, "write ami-…, ssm:/… (a public parameter), or {name"),
    (
        {"image": {"id": "ami-12c6146b", "name": "x"}},
        "write ami-…, ssm:/… (a public parameter), or {name",
    ),
    ({"image": {"nam": "x"}}, "k3s-worker.image: {'nam': 'x'}: nam is unknown; known are id"),
    ({"subnet": ""}, "k3s-worker.subnet: '': write a name or an id"),
    ({"groups": "worker"}, "k3s-worker.groups: 'worker': write a list of 1 to 16 groups"),
    ({"groups": []}, "k3s-worker.groups: []: write a list of 1 to 16 groups"),
    ({"groups": [7]}, "k3s-worker.groups: [7]: write a name or an id"),
    ({"key": ["f1"]}, "k3s-worker.key: ['f1']: write a name or an id"),
    ({"private_address": "10.20.2"}, "k3s-worker.private_address: '10.20.2': write an IPv4"),
    (
        {"private_address": "10.9.9.9"},
        "k3s-worker.private_address: 10.9.9.9 is none of 10.20.2.0/24; write one from 10.20.2.4 "
        "to 10.20.2.254",
    ),
    ({"private_address": "10.20.2.3"}, "10.20.2.3 is none of 10.20.2.0/24"),
    ({"public_address": "yes"}, "k3s-worker.public_address: 'yes': write true or false"),
    ({"address": 4}, "k3s-worker.address: 4: write a name or an id"),
    ({"block_devices": {}}, "k3s-worker.block_devices: {}: write a list of {device, size"),
    ({"block_devices": [{"size": 8}]}, "device is missing: write root or /dev/…"),
    ({"block_devices": [{"device": "/dev/sdf"}]}, "size of /dev/sdf is missing"),
    ({"block_devices": [GP3, GP3]}, "/dev/sdf is there more than once"),
    ({"block_devices": [{**GP3, "size": 0}]}, "size 0: write a whole number from 1 to 65536"),
    ({"block_devices": [{**GP3, "size": "10G"}]}, "size '10G': write a whole number"),
    ({"block_devices": [{**GP3, "type": "ssd"}]}, "type 'ssd': write gp3 or gp2"),
    ({"block_devices": [{**GP3, "type": "gp2", "iops": 3000}]}, "gp2 takes no iops"),
    ({"block_devices": [{**GP3, "type": "io2"}]}, "io2 needs iops"),
    ({"block_devices": [{**GP3, "type": "gp2", "throughput": 250}]}, "gp2 takes no throughput"),
    ({"block_devices": [{**GP3, "type": "st1"}]}, "st1 is for further volumes of 125 GiB"),
    (
        {"block_devices": [{**GP3, "encrypted": False, "kms_key": "alias/x"}]},
        "kms_key without encryption",
    ),
    ({"block_devices": [{**GP3, "speed": 1}]}, "speed is unknown; known are device, size"),
    ({"iam_profile": "a b"}, "write the name or the ARN of an instance profile"),
    ({"iam_profile": "arn:aws:iam::1:role/x"}, "write the name or the ARN of an instance profile"),
    ({"metadata": "required"}, "write a mapping of tokens, hop_limit"),
    ({"metadata": {"tokens": "none"}}, "tokens 'none': write required or optional"),
    ({"metadata": {"hop_limit": 0}}, "hop_limit 0: write a whole number from 1 to 64"),
    ({"user_data": "{% if %}"}, "k3s-worker.user_data: line 1 is not Jinja"),
    ({"user_data": ""}, "k3s-worker.user_data: write the text of a template"),
    ({"user_data_file": "no/such"}, "k3s-worker.user_data_file: 'no/such': is not a file"),
    (
        {"user_data": "#!/bin/sh", "user_data_file": "salt/cloud/user-data.yaml"},
        "k3s-worker.user_data_file: there is user_data as well",
    ),
    ({"tags": {"f1:platform": "x"}}, "the tag f1:platform is not yours to give"),
    ({"tags": {"aws:x": "x"}}, "the tag aws:x is not yours to give"),
    ({"tags": {"Name": "x"}}, "the tag Name is not yours to give"),
    ({"tags": {"cost": 7}}, "write a mapping of texts; a number or a yes in quotes"),
    ({"tags": {"x": "y" * 257}}, "the tag x is too long"),
    ({"spot": True}, "k3s-worker.spot: True: write a mapping of max_price, fallback"),
    ({"spot": {"max_price": -1}}, "max_price -1: write a price in USD an hour"),
    ({"spot": {"fallback": "yes"}}, "fallback 'yes': write true or false"),
    (
        {"spot": {}, "capacity_reservation": "cr-0123456789abcdef0"},
        "k3s-worker.spot: a spot machine takes no capacity_reservation",
    ),
    (
        {"spot": {}, "termination_protection": True},
        "k3s-worker.spot: a spot machine cannot be protected",
    ),
    ({"spot": {}, "placement": {"tenancy": "host"}}, "no spot machine lies on a host of its own"),
    ({"placement": {"tenancy": "alone"}}, "tenancy 'alone': write default or dedicated or host"),
    (
        {"placement": {"zone": "eu-west-3c"}},
        "k3s-worker.placement: zone 'eu-west-3c' has no subnet; write one of platform.aws.zones "
        "(eu-west-3a, eu-west-3b), or add it there",
    ),
    ({"placement": {"zone": "eu-west-3b"}, "subnet": "x"}, "the subnet decides the zone"),
    ({"capacity_reservation": "r-1"}, "k3s-worker.capacity_reservation: 'r-1': write cr-…"),
    ({"termination_protection": 1}, "k3s-worker.termination_protection: 1: write true or false"),
    ({"source_dest_check": "off"}, "k3s-worker.source_dest_check: 'off': write true or false"),
    ({"credit_mode": "fast"}, "k3s-worker.credit_mode: 'fast': write standard or unlimited"),
    (
        {"size": "m5.large", "credit_mode": "standard"},
        "k3s-worker.credit_mode: m5.large has no credits (sizes t… have); leave it out",
    ),
    ({"keep_failed": "no"}, "k3s-worker.keep_failed: 'no': write true or false"),
    ({"monitoring": {}}, "k3s-worker.monitoring: {}: write true or false"),
    ({"ebs_optimized": 0}, "k3s-worker.ebs_optimized: 0: write true or false"),
]


def profile(**more: Any) -> dict[str, Any]:
    return {"profile": "k3s-worker", "name": "f1-worker-1", **PROFILES["k3s-worker"], **more}


def test_the_table_is_whole():
    assert len(BAD) == 65
    assert {key for given, _ in BAD for key in given} >= set(profiles.OPTIONS)


@pytest.mark.parametrize(("given", "words"), BAD)
def test_a_wrong_value_is_named_with_its_fix(platform, requests_seen, given, words):
    with pytest.raises(aws.CloudError) as error:
        profiles.spec(platform, "f1-worker-1", profile(**given))
    said = str(error.value)
    assert words in said
    assert len(said.splitlines()) == 1
    assert requests_seen == []


def test_all_wrong_values_are_named_at_once(platform):
    given = {"size": "big", "monitoring": 1, "sise": 1, "tags": {"Name": "x"}, "image": 4}
    with pytest.raises(aws.CloudError) as error:
        profiles.spec(platform, "f1-worker-1", profile(**given))
    lines = str(error.value).splitlines()
    assert len(lines) == len(given)
    for key in given:
        assert any(line.startswith(f"k3s-worker.{key}: ") for line in lines)


def test_what_a_machine_is_given_to_run_is_not_shown(platform):
    with pytest.raises(aws.CloudError) as error:
        profiles.spec(platform, "f1-worker-1", profile(user_data="secret {% endif %}"))
    assert "secret" not in str(error.value)


def test_null_is_as_if_left_out(platform):
    nothing = dict.fromkeys(set(profiles.OPTIONS) - {"role", "groups"})
    empty = profiles.spec(platform, "f1-worker-1", profile(**nothing))
    assert empty == profiles.spec(platform, "f1-worker-1", profile())


def test_all_that_a_profile_names_and_is_not_there_is_named(platform):
    from tests.unit.cloud_driver import machines as helper

    helper.network(platform)
    given = profile(
        image="ami-0000000000000000a",
        subnet="nowhere",
        groups=["worker", "strangers"],
        key="key-0123456789abcdef0",
        address="f1-none",
    )
    spec = profiles.spec(platform, "f1-worker-1", given)
    with pytest.raises(aws.CloudError) as error:
        launch.resolve(platform, spec)
    said = str(error.value)
    for words in (
        "k3s-worker.image: ec2 describe_images failed: InvalidAMIID.NotFound",
        "k3s-worker.subnet: no subnet nowhere in vpc-",
        "there are: f1-public, f1-workers-a, f1-workers-b",
        "k3s-worker.groups: no security group named f1-strangers",
        "k3s-worker.key: no key pair key-0123456789abcdef0 in eu-west-3",
        "k3s-worker.address: no elastic address named f1-none",
    ):
        assert words in said
