"""The operators' listener, and that nothing of it is on the voters'."""

import os
import socket

import pytest

from f1vote import settings, web
from tests.app.servers import ask

OPERATORS = ("/healthz", "/readyz", "/metrics", "/admin", "/admin/", "/admin/log")


def test_health_readiness_version(app):
    with app.operator() as operator:
        assert operator.get("/healthz").text == "ok\n"
        ready = operator.get("/readyz")
        assert (ready.status_code, ready.text) == (200, "ok\n")
        version = operator.get("/version").json()
    assert version == {"version": "c-test", "image": "", "pod": socket.gethostname()}
    assert ask("GET", f"{app.url}/version").json() == version


@pytest.mark.parametrize("path", OPERATORS)
def test_nothing_of_it_can_be_reached_by_voters(app, path):
    assert ask("GET", f"{app.url}{path}").status_code == 404
    assert ask("POST", f"{app.url}{path}").status_code in (404, 405)


def test_without_a_token_there_is_no_admin_area(app):
    assert ask("GET", f"{app.ops_url}/admin").status_code == 404


def test_metrics_count_what_was_answered(app):
    def count(text: str, line: str) -> float:
        return next((float(x.rpartition(" ")[2]) for x in text.splitlines() if line in x), 0)

    vote = 'f1_votes_total{choice="A1",outcome="counted",poll="canary"}'
    origin = 'f1_votes_refused_total{poll="canary",reason="origin"}'
    unknown = 'f1_http_request_seconds_count{method="GET",route="none",status="4xx"}'
    with app.operator() as operator, app.browser() as voter:
        before = operator.get("/metrics").text
        voter.get("/api/polls/canary")
        choice = {"choices": ["A1"]}
        voter.post("/api/polls/canary/vote", json=choice)
        voter.post("/api/polls/canary/vote", json=choice, headers={"origin": "https://else.where"})
        voter.get("/api/nope/nope/nope/nope/nope/nope")
        after = operator.get("/metrics")
    assert after.headers["content-type"].startswith("text/plain")
    for line in (vote, origin, unknown):
        assert count(after.text, line) > count(before, line), line
    assert "nope" not in after.text


def test_an_organiser_may_wait_for_a_recount_longer_than_a_voter_for_a_page(app, monkeypatch):
    for name, value in app.environ.items():
        monkeypatch.setenv(name, value)
    site = web.create(settings.load(os.environ))
    voters, operators = (one.config.RESPONSE_TIMEOUT for one in (site.voters, site.operators))
    assert voters <= 15 < 120 <= operators


def test_head(app):
    for path in ("/healthz", "/readyz", "/version", "/metrics"):
        head = ask("HEAD", f"{app.ops_url}{path}")
        assert (head.status_code, head.content) == (200, b"")


def test_a_redis_without_a_log_is_not_ready(app, redis_server):
    redis_server.client.config_set("appendonly", "no")
    try:
        answer = ask("GET", f"{app.ops_url}/readyz")
        assert answer.status_code == 503
        assert "append" in answer.text
    finally:
        redis_server.client.config_set("appendonly", "yes")
