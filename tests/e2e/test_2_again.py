"""A second `up` changes nothing, and soon; a plan finds nothing to do."""

import json
import time

import pytest

from tests.conftest import ROOT
from tests.e2e.conftest import make

pytestmark = pytest.mark.e2e


def test_a_second_up_changes_nothing(platform):
    before = {name: m["InstanceId"] for name, m in platform.machines().items()}
    began = time.monotonic()
    done = make("up", timeout=120)
    print(f"second up: {time.monotonic() - began:.1f} s")
    assert " 0 changed, 0 failed" in done.stdout
    assert {name: m["InstanceId"] for name, m in platform.machines().items()} == before


def test_a_plan_finds_nothing_to_do(platform):
    done = make("plan", timeout=120, ok=False)
    assert done.returncode == 0, done.stdout


def test_a_plan_says_2_when_something_differs(platform):
    group = platform.ec2.describe_security_groups(
        Filters=[{"Name": "group-name", "Values": ["f1-worker"]}]
    )["SecurityGroups"][0]["GroupId"]
    rule = {
        "IpProtocol": "tcp",
        "FromPort": 30000,
        "ToPort": 30000,
        "IpRanges": [{"CidrIp": "0.0.0.0/0"}],
    }
    platform.ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=[rule])
    done = make("plan", timeout=120, ok=False)
    assert done.returncode == 2, done.stdout
    rules = json.dumps(platform.ec2.describe_security_groups(GroupIds=[group])["SecurityGroups"])
    assert "30000" in rules, "a plan touches nothing"
    make("up", timeout=120)
    rules = json.dumps(platform.ec2.describe_security_groups(GroupIds=[group])["SecurityGroups"])
    assert "30000" not in rules, "`up` closed what was opened behind our back"


def test_a_wrong_knob_is_said_before_anything_is_touched(platform):
    site = ROOT / ".state/pillar/app.sls"
    kept = site.read_text()
    site.write_text("platform: {app: {digest: latest}, workers: {count: -1}}\n")
    try:
        done = make("plan", timeout=60, ok=False)
    finally:
        site.write_text(kept)
    assert done.returncode == 2 or done.returncode == 1
    assert "platform.app.digest" in done.stdout
    assert "platform.workers.count: -1 is not right; use a whole number from 1 to 50" in done.stdout
