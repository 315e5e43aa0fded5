"""Live results over HTTP: a real app, a real Redis, streams read as browsers do."""

import json
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.app.servers import DEADLINE, App, Redis, wait

POLL = """\
id: {name}
title: {{en: T, fr: T}}
question: {{en: Q, fr: Q}}
opens: 2026-01-01T00:00:00Z
closes: null
results: {results}
choices:
  - {{code: A1, name: A, colour: '#000000'}}
  - {{code: B2, name: B, colour: '#ffffff'}}
"""


@dataclass
class Event:
    id: str
    name: str
    data: str

    @property
    def standing(self) -> dict[str, Any]:
        assert self.name == "standing"
        found: dict[str, Any] = json.loads(self.data)
        return found


class Stream:
    """
    The parts of a stream one after the other, as the standard reads them
    (https://html.spec.whatwg.org/multipage/server-sent-events.html#parsing-an-event-stream).
    """

    def __init__(self, answer: httpx.Response) -> None:
        self.answer = answer
        self.lines = answer.iter_lines()
        self.retry: int | None = None
        self.comments = 0

    def next(self) -> Event | None:
        """Return the next event, or None at the end of the stream."""
        fields: dict[str, str] = {}
        for line in self.lines:
            if not line:
                if "data" in fields:
                    return Event(fields.get("id", ""), fields.get("event", ""), fields["data"])
                fields = {}
            elif line.startswith(":"):
                self.comments += 1
            else:
                name, _, value = line.partition(":")
                assert name in ("event", "id", "data", "retry")
                if name == "retry":
                    self.retry = int(value)
                fields[name] = value.removeprefix(" ")
        return None

    def event(self) -> Event:
        found = self.next()
        assert found, "the stream has ended"
        return found


@contextmanager
def watch(browser: httpx.Client, poll: str = "open", **headers: str) -> Iterator[Stream]:
    path = f"/api/polls/{poll}/events"
    with browser.stream("GET", path, headers=headers, timeout=DEADLINE) as answer:
        assert answer.status_code == 200
        yield Stream(answer)


def vote(app: App, choice: str = "A1", poll: str = "open") -> httpx.Client:
    """Vote as somebody new; return his browser."""
    browser = app.browser()
    browser.get(f"/api/polls/{poll}")
    answer = browser.post(f"/api/polls/{poll}/vote", json={"choices": [choice]})
    assert answer.status_code == 200, answer.text
    return browser


def timeless(standing: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in standing.items() if key != "now"}


@pytest.fixture(scope="module")
def polls(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("polls")
    for name, results in {"open": "always", "voted": "voted", "sealed": "closed"}.items():
        (folder / f"{name}.yaml").write_text(POLL.format(name=name, results=results))
    return folder


@pytest.fixture(scope="module")
def running(
    redis_server: Redis, polls: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[App]:
    app = App(tmp_path_factory.mktemp("app"), redis_server.url, polls, F1_CHALLENGE="never")
    yield app
    app.stop()


def test_a_vote_is_seen_as_the_results_tell_it(app: App) -> None:
    with app.browser() as browser, watch(browser) as stream:
        assert stream.answer.headers["content-type"] == "text/event-stream"
        assert stream.answer.headers["cache-control"] == "no-store"
        first = stream.event()
        assert first.standing["voters"] == 0
        assert stream.retry is not None
        assert 1000 <= stream.retry <= 5000
        vote(app)
        second = stream.event()
        assert second.standing["points"] == {"A1": 1, "B2": 0}
        assert second.id != first.id
        results = app.browser().get("/api/polls/open/results").json()
        assert timeless(second.standing) == timeless(results)


def test_who_comes_back_is_told_what_changed_and_nothing_else(app: App) -> None:
    with app.browser() as browser:
        with watch(browser) as stream:
            seen = stream.event().id
        with watch(browser, **{"last-event-id": seen}) as stream:
            # Nothing happened: the next event is the one of the vote.
            vote(app)
            after = stream.event()
            assert after.standing["voters"] == 1
        with watch(browser, **{"last-event-id": seen}) as stream:
            assert stream.event().id == after.id


def test_results_after_voting(app: App) -> None:
    with app.browser() as stranger, watch(stranger, "voted") as closed_eyes:
        assert "points" not in closed_eyes.event().standing
        voter = vote(app, "B2", "voted")
        blind = closed_eyes.event()
        assert timeless(blind.standing).keys() == {
            "poll", "state", "voters", "version", "opens", "closes",
        }  # fmt: skip
        assert blind.standing["voters"] == 1
        # The page of who has voted asks anew; the same id must not be the answer to both.
        with watch(voter, "voted", **{"last-event-id": blind.id}) as stream:
            assert stream.event().standing["points"] == {"A1": 0, "B2": 1}
            vote(app, "B2", "voted")
            assert stream.event().standing["points"] == {"A1": 0, "B2": 2}


def test_a_sealed_poll_opens_its_results_when_it_closes(app: App, redis_server: Redis) -> None:
    voter = vote(app, "A1", "sealed")
    closes = int(time.time()) + 2
    redis_server.client.hset("poll:sealed:meta", "closes", closes)
    with watch(voter, "sealed") as stream:
        before = stream.event().standing
        assert (before["state"], before["closes"]) == ("open", closes)
        assert "points" not in before
        # Nobody votes, nobody says a word.
        after = stream.event().standing
        assert after["state"] == "closed"
        assert after["points"] == {"A1": 1, "B2": 0}


def test_hidden_results_leave_a_stream_that_shows_them(app: App, redis_server: Redis) -> None:
    with app.browser() as browser, watch(browser) as stream:
        assert "points" in stream.event().standing
        redis_server.client.hset("poll:open:meta", "hidden", 1)
        redis_server.client.publish("f1:changed", "open")
        assert "points" not in stream.event().standing


def test_no_stream_of_a_poll_that_is_not_there(app: App) -> None:
    with app.browser() as browser:
        answer = browser.get("/api/polls/nothing/events")
        assert answer.status_code == 404
        assert answer.json()["error"] == "404"


def figure(app: App, line: str) -> float:
    with app.operator() as operator:
        text = operator.get("/metrics").text
    return float(next(found.split(" ")[1] for found in text.splitlines() if found.startswith(line)))


def until(what: str, probe: Callable[[], bool]) -> None:
    def check() -> None:
        assert probe()

    wait(what, check)


def test_who_leaves_leaves_nothing_behind(app: App) -> None:
    viewers = 'f1_viewers{poll="open"} '
    before = figure(app, "process_open_fds ")
    for _ in range(3):
        browsers = [app.browser() for _ in range(20)]
        for browser in browsers:
            answer = browser.send(
                browser.build_request("GET", "/api/polls/open/events"), stream=True
            )
            assert answer.status_code == 200
        assert figure(app, viewers) == 20
        for browser in browsers:
            browser.close()
        until("all to be gone", lambda: figure(app, viewers) == 0)
    until("descriptors to be closed", lambda: figure(app, "process_open_fds ") <= before + 1)


def test_a_silent_stream_stays(app: App) -> None:
    """Longer than Sanic lets an answer take; a comment tells proxies that it lives."""
    with app.browser() as browser, watch(browser) as stream:
        stream.event()
        began = time.monotonic()
        # Comments end no event: the clock of this test is what they show.
        for line in stream.lines:
            if line.startswith(":") and time.monotonic() - began > 16:
                break
        else:
            pytest.fail(f"it ended after {time.monotonic() - began:.0f} s")
        vote(app)
        assert stream.event().standing["voters"] == 1


@pytest.fixture
def own(tmp_path: Path, polls: Path) -> Iterator[tuple[App, Redis]]:
    """An app and a Redis that the test may break."""
    server = Redis(tmp_path)
    app = App(tmp_path, server.url, polls, F1_CHALLENGE="never")
    yield app, server
    app.process.kill()
    app.process.wait(DEADLINE)
    server.kill()


def test_a_stream_outlives_redis(own: tuple[App, Redis]) -> None:
    app, server = own
    with app.browser() as browser, watch(browser) as stream:
        assert stream.event().standing["voters"] == 0
        server.kill()
        with app.browser() as other:
            answer = other.get("/api/polls/open/events")
            assert answer.status_code == 503
            assert int(answer.headers["retry-after"]) > 0
        server.start()
        vote(app)
        assert stream.event().standing["voters"] == 1


def test_the_end_of_a_process_is_told(own: tuple[App, Redis]) -> None:
    app, _ = own
    with app.browser() as browser, watch(browser) as stream:
        stream.event()
        app.process.send_signal(signal.SIGTERM)
        assert stream.event().name == "bye"
        assert stream.next() is None
    assert app.process.wait(DEADLINE) == 0
