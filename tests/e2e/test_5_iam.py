"""All that this run asked the cloud's API for is in the operator's policy; machines ask nothing."""

import pytest

from tests.e2e.conftest import requests_since
from tests.unit.cloud_driver import iam

pytestmark = pytest.mark.e2e

# The lab gives itself the zone that an operator has before the platform.
LABS_OWN = {"route53:CreateHostedZone", "route53:ListHostedZones"}


def test_the_policy_allows_all_that_was_asked(platform):
    asked = requests_since()
    actions = {iam.action(r["service"], r["operation"]) for r in asked if r["source"] == "operator"}
    assert len(actions) > 30, actions
    assert iam.outside(iam.policy(), actions - LABS_OWN) == set()


def test_machines_ask_for_nothing_but_their_own_objects(platform):
    """By presigned URLs: neither credentials nor another service."""
    theirs = {(r["service"], r["operation"]) for r in requests_since() if r["source"] != "operator"}
    assert theirs <= {("s3", "GetObject"), ("s3", "PutObject")}
    assert theirs, "machines fetched their environment"
