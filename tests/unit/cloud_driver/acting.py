"""A small platform whose machines boot nothing, asked as salt-cloud asks it."""

from typing import Any

import aws
import ec2
import pytest
import vpc
import yaml

from tests.conftest import ROOT, load_ext
from tests.unit.cloud_driver import machines as helper

PROFILES = yaml.safe_load((ROOT / "salt/cloud/profiles.conf").read_text())
USER_DATA = "a presigned URL?X-Amz-Signature=not-to-be-shown"
STATES = ("describe_", "get_", "list_", "head_")


def launch(platform: dict[str, Any], name: str, **more: Any) -> str:
    """Run an instance of ours as a launch does; return its id."""
    role = "master" if name.endswith("master") else "worker"
    tags = aws.tags(platform, name)
    answer = aws.call(
        platform,
        "ec2",
        "run_instances",
        **{
            "ImageId": platform["image"]["id"],
            "InstanceType": "t3.small",
            "MinCount": 1,
            "MaxCount": 1,
            "ClientToken": ec2.token(name),
            "UserData": USER_DATA,
            "NetworkInterfaces": [
                {
                    "DeviceIndex": 0,
                    "SubnetId": vpc.subnet_id(platform, name),
                    "Groups": vpc.group_ids(platform, [f"{platform['name']}-{role}"]),
                    "DeleteOnTermination": True,
                }
            ],
            "TagSpecifications": [
                {"ResourceType": kind, "Tags": tags}
                for kind in ("instance", "volume", "network-interface")
            ],
            **more,
        },
    )
    return str(answer["Instances"][0]["InstanceId"])


def stranger(platform: dict[str, Any]) -> str:
    """Run an instance that is not ours, in a network of its own; return its id."""
    answer = aws.call(
        platform,
        "ec2",
        "run_instances",
        ImageId=platform["image"]["id"],
        InstanceType="t3.small",
        MinCount=1,
        MaxCount=1,
    )
    return str(answer["Instances"][0]["InstanceId"])


def volume(platform: dict[str, Any], name: str | None, zone: str = "eu-west-3a") -> str:
    """Make a volume, tagged as ours if it has a name; return its id."""
    tags = [{"ResourceType": "volume", "Tags": aws.tags(platform, name)}] if name else []
    made = aws.call(
        platform,
        "ec2",
        "create_volume",
        AvailabilityZone=zone,
        Size=10,
        VolumeType="gp3",
        TagSpecifications=tags,
    )
    return str(made["VolumeId"])


class Cloud:
    """The driver as salt-cloud calls it (salt.cloud, do_action and do_function)."""

    def __init__(self, driver: Any) -> None:
        self.driver = driver

    def act(self, what: str, name: str, /, **kwargs: str) -> Any:
        function = getattr(self.driver, what)
        return function(name, kwargs, call="action") if kwargs else function(name, call="action")

    def ask(self, what: str, /, **kwargs: str) -> Any:
        function = getattr(self.driver, what)
        return function(call="function", kwargs=kwargs) if kwargs else function(call="function")


@pytest.fixture
def cloud(opts, platform) -> Cloud:
    """The driver with an empty network."""
    made = load_ext("clouds/ec2.py")
    made.__opts__ = {**opts, "profiles": PROFILES}
    helper.network(platform)
    return Cloud(made)


@pytest.fixture
def fleet(cloud, platform) -> dict[str, str]:
    """A master and a worker: name → instance id."""
    return {name: launch(platform, name) for name in ("f1-master", "f1-worker-1")}


def changing(requests: list[str]) -> list[str]:
    """Return the requests that may have changed something."""
    return [request for request in requests if not request.startswith(STATES)]
