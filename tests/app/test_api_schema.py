"""The API is what its OpenAPI document says: schemathesis asks all that it allows, and does not."""

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from openapi_spec_validator import validate
from schemathesis import GenerationMode
from schemathesis.checks import CHECKS, load_all_checks

from f1vote import ballot, polls
from f1vote.web.openapi import document
from tests.app.servers import COOKIE, App
from tests.conftest import ROOT

EXAMPLES = 150
POLLS = {poll.id: poll for poll in polls.load(ROOT / "app" / "polls")}
DOCUMENT = document("c-test", POLLS)
# Not held against us: that a ballot is missing is told by 403, as every other refusal, and a code
# that no schema forbids may be none of this poll.
IGNORED = {"ignored_auth", "positive_data_acceptance"}

load_all_checks()
checks = [check for check in CHECKS.get_all() if check.__name__ not in IGNORED]
# A stream of events has no end.
schema = schemathesis.openapi.from_dict(DOCUMENT).exclude(path_regex="/events$")


@pytest.fixture(scope="module")
def patient(redis_server, tmp_path_factory):
    """An app that asks nobody for work, however many come."""
    app = App(tmp_path_factory.mktemp("patient"), redis_server.url, F1_CHALLENGE="never")
    yield app
    app.stop()


def test_the_document_is_openapi_and_served(app):
    validate(DOCUMENT)
    assert httpx.get(f"{app.url}/api/openapi.json").json() == DOCUMENT


def test_the_page_names_every_operation(app):
    answer = httpx.get(f"{app.url}/api")
    assert answer.status_code == 200
    for path, operations in DOCUMENT["paths"].items():
        assert f"<code>{next(iter(operations)).upper()} {path}</code>" in answer.text
    assert "<script" not in answer.text


@schema.parametrize()
@settings(
    max_examples=EXAMPLES,
    deadline=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
def test_answers_conform(case, patient):
    cookies = {}
    if case.meta.generation.mode is GenerationMode.POSITIVE:
        _, cookies[COOKIE] = ballot.issue((patient.key,))
    case.call_and_validate(base_url=patient.url, cookies=cookies, checks=checks)
