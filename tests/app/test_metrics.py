"""What Prometheus reads: well-formed whatever happens, and right to the vote."""

import asyncio
import json
import math
import re
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from f1vote import metrics as module
from f1vote.metrics import ACCEPTED, MOST_SERIES, REASONS, Metrics
from f1vote.polls import Poll, load
from f1vote.store import Outcome, Recount, Standing, Unreachable
from tests.app.servers import App, Redis
from tests.conftest import ROOT

POLLS = load(ROOT / "app" / "polls")
CANARY = "canary"
HOSTILE = 'a"b\\c\nd{},=\udcff é'

Series = tuple[str, frozenset[tuple[str, str]]]


# A strict reader of the text format 0.0.4
# (https://prometheus.io/docs/instrumenting/exposition_formats/): what Prometheus would refuse or
# read wrongly fails.


@dataclass
class Family:
    kind: str
    samples: dict[Series, float] = field(default_factory=dict)


NAME = r"[a-zA-Z_:][a-zA-Z0-9_:]*"
LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\["\\n])*)"(?:,|$)')
SAMPLE = re.compile(rf"({NAME})(?:\{{(.*)\}})? ([^ ]+)")
SUFFIXES = {"histogram": ("_bucket", "_sum", "_count"), "counter": ("",), "gauge": ("",)}
ESCAPES = {r"\\": "\\", r"\"": '"', r"\n": "\n"}


def labels(text: str) -> frozenset[tuple[str, str]]:
    found, at = {}, 0
    while at < len(text):
        match = LABEL.match(text, at)
        assert match, f"labels: {text!r} from {at}"
        name, value = match.groups()
        assert name not in found, f"label {name} twice: {text!r}"
        found[name] = re.sub(r'\\["\\n]', lambda escape: ESCAPES[escape[0]], value)
        at = match.end()
    return frozenset(found.items())


def read(body: bytes) -> dict[str, Family]:
    """Return the families of an exposition, by name."""
    text = body.decode("utf-8")
    assert text.endswith("\n")
    families: dict[str, Family] = {}
    helped: set[str] = set()
    name = ""
    for line in text[:-1].split("\n"):
        if match := re.fullmatch(rf"# HELP ({NAME}) (\S[^\\]*)", line):
            assert match[1] not in helped, line
            helped.add(match[1])
        elif match := re.fullmatch(rf"# TYPE ({NAME}) (counter|gauge|histogram)", line):
            name = match[1]
            assert name in helped, line
            assert name not in families, line
            families[name] = Family(match[2])
        else:
            match = SAMPLE.fullmatch(line)
            assert match, f"no sample: {line!r}"
            family = families[name]
            assert match[1] in [name + suffix for suffix in SUFFIXES[family.kind]], line
            series = (match[1], labels(match[2] or ""))
            assert series not in family.samples, f"twice: {line}"
            family.samples[series] = float(match[3])
    for name, family in families.items():
        if family.kind == "histogram":
            check_histogram(name, family)
        elif family.kind == "counter":
            assert name.endswith("_total")
            assert all(value >= 0 for value in family.samples.values())
    return families


def check_histogram(name: str, family: Family) -> None:
    groups: dict[frozenset[tuple[str, str]], dict[float, float]] = {}
    for (sample, names), value in family.samples.items():
        if sample == f"{name}_bucket":
            bound = float(dict(names)["le"])
            rest = frozenset(pair for pair in names if pair[0] != "le")
            groups.setdefault(rest, {})[bound] = value
    for rest, buckets in groups.items():
        counts = list(buckets.values())
        assert list(buckets) == sorted(buckets)
        assert counts == sorted(counts)
        assert buckets[math.inf] == family.samples[f"{name}_count", rest]
        assert (f"{name}_sum", rest) in family.samples


def values(body: bytes) -> dict[Series, float]:
    return {
        series: value for family in read(body).values() for series, value in family.samples.items()
    }


def series(name: str, **labels: str) -> Series:
    return name, frozenset(labels.items())


@pytest.mark.parametrize(
    "wrong",
    [
        b"# HELP a b\n# TYPE a gauge\na 1",  # no end
        b'# HELP a b\n# TYPE a gauge\na{x="y"z"} 1\n',
        b'# HELP a b\n# TYPE a gauge\na{x="y",x="z"} 1\n',
        b"# HELP a b\n# TYPE a gauge\na 1\na 2\n",
        b"# HELP a b\n# TYPE a gauge\nb 1\n",
        b'# HELP a b\n# TYPE a histogram\na_bucket{le="+Inf"} 2\na_count 1\na_sum 1\n',
    ],
)
def test_the_reader_of_this_test_is_strict(wrong: bytes) -> None:
    with pytest.raises(AssertionError):
        read(wrong)


class Room:
    """A counting room that says what the test knows."""

    def __init__(self) -> None:
        self.silent: type[Exception] | None = None
        self.recounts: dict[str, Recount] = {}

    async def standing(self, poll: Poll) -> Standing:
        if self.silent is Unreachable:
            raise Unreachable("the test says so")
        if self.silent is TimeoutError:
            await asyncio.Event().wait()
        points = {code: place for place, code in enumerate(poll.codes, 1)}
        return Standing(points, 7, 1, 1000.0, 0, 0, False, False)

    async def recounted(self, poll: Poll) -> Recount | None:
        return self.recounts.get(poll.id)


async def scrape(metrics: Metrics) -> dict[Series, float]:
    body, headers = await metrics.render(["text/plain"])
    assert headers["Content-Type"].startswith("text/plain; version=0.0.4")
    return values(body)


def made(version: str = "v", image: str = "sha256:1") -> Metrics:
    return Metrics(POLLS, version, image)


@pytest.mark.asyncio
async def test_hostile_labels_do_not_break_the_scrape() -> None:
    metrics = made(HOSTILE, HOSTILE)
    metrics.vote(HOSTILE, HOSTILE, HOSTILE)
    metrics.vote(CANARY, HOSTILE, "counted")
    metrics.refused(CANARY, HOSTILE)
    metrics.viewers(HOSTILE, 1)
    metrics.dropped(HOSTILE)
    metrics.request(HOSTILE, HOSTILE, 200, 0.1)
    metrics.redis(HOSTILE, 0.1, False)
    found = await scrape(metrics)
    shown = HOSTILE.replace("\udcff", "?")
    assert found[series("f1_build_info", version=shown, image=shown)] == 1
    assert found[series("f1_redis_errors_total", command=shown)] == 1
    # What fits no closed set is counted apart, and makes no series.
    assert found[series("f1_metrics_strays_total")] == 5
    assert not [name for name, _ in found if name.startswith("f1_vote") and found[name, _] == 1]


@pytest.mark.asyncio
async def test_the_number_of_series_is_bounded() -> None:
    metrics = made()
    for n in range(10 * MOST_SERIES):
        metrics.request(f"/{n}", "GET", 200, 0.1)
        metrics.redis(f"{n}", 0.1, False)
    found = await scrape(metrics)
    assert (
        len([name for name, _ in found if name == "f1_http_request_seconds_count"]) == MOST_SERIES
    )
    assert len([name for name, _ in found if name == "f1_redis_errors_total"]) == MOST_SERIES
    assert found[series("f1_metrics_strays_total")] == 2 * 9 * MOST_SERIES


@pytest.mark.asyncio
async def test_every_counter_is_there_before_its_first_count() -> None:
    """`rate()` sees the first vote only if there was a 0 before it."""
    found = await scrape(made())
    for poll in POLLS:
        for code in poll.codes:
            for outcome in set(ACCEPTED) - {Outcome.WITHDRAWN}:
                assert found[series(
                    "f1_votes_total", poll=poll.id, choice=code, outcome=outcome)] == 0  # fmt: skip
        assert found[series("f1_votes_total", poll=poll.id, choice="", outcome="withdrawn")] == 0
        for reason in REASONS:
            assert found[series("f1_votes_refused_total", poll=poll.id, reason=reason)] == 0
        assert found[series("f1_viewers", poll=poll.id)] == 0


@pytest.mark.asyncio
async def test_a_time_is_in_its_bucket() -> None:
    metrics = made()
    for seconds in (0.001, 0.0011, 7.0):
        metrics.request("/<poll>", "GET", 204, seconds)
    found = await scrape(metrics)
    route = {"route": "/<poll>", "method": "GET", "status": "2xx"}
    name = "f1_http_request_seconds"
    assert found[series(f"{name}_bucket", le="0.001", **route)] == 1  # "less or equal"
    assert found[series(f"{name}_bucket", le="0.0025", **route)] == 2
    assert found[series(f"{name}_bucket", le="5.0", **route)] == 2
    assert found[series(f"{name}_bucket", le="+Inf", **route)] == 3
    assert found[series(f"{name}_sum", **route)] == pytest.approx(7.0021)


@pytest.mark.asyncio
async def test_tally_and_recount_are_the_counting_rooms() -> None:
    metrics, room = made(), Room()
    room.recounts[CANARY] = Recount(at=940.0, seconds=1.0, difference=-3)
    await metrics.start(room)  # type: ignore[arg-type]
    found = await scrape(metrics)
    await metrics.close()
    assert found[series("f1_tally", poll=CANARY, choice="B2")] == 2
    assert found[series("f1_voters", poll=CANARY)] == 7
    assert found[series("f1_recount_difference", poll=CANARY)] == -3
    assert found[series("f1_recount_age_seconds", poll=CANARY)] == 60
    # A poll that was never recounted has no difference: 0 would say that it is right.
    assert series("f1_recount_difference", poll="champion") not in found


@pytest.mark.asyncio
@pytest.mark.parametrize("silence", [Unreachable, TimeoutError])
async def test_a_silent_redis_costs_a_scrape_nothing_but_fresh_figures(
    silence: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "READ_SECONDS", 0.05)
    metrics, room = made(), Room()
    await metrics.start(room)  # type: ignore[arg-type]
    before = await scrape(metrics)
    room.silent = silence
    after = await scrape(metrics)
    await metrics.close()
    assert after[series("f1_voters", poll=CANARY)] == before[series("f1_voters", poll=CANARY)] == 7
    assert before[series("f1_standing_errors_total")] == 0
    assert after[series("f1_standing_errors_total")] == len(POLLS)


@pytest.mark.asyncio
async def test_a_blocked_loop_is_seen() -> None:
    metrics = made()
    await metrics.start(Room())  # type: ignore[arg-type]
    end = time.monotonic() + 10
    while time.monotonic() < end:
        time.sleep(0.4)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        found = await scrape(metrics)
        name = "f1_event_loop_lag_seconds"
        if found.get(series(f"{name}_count"), 0) > found.get(series(f"{name}_bucket", le="0.1"), 0):
            break
    else:
        pytest.fail("waited 10 s for a lag of more than 0.1 s")
    await metrics.close()


# Over HTTP

SCRAPE = series("f1_http_request_seconds_count", route="/metrics", method="GET", status="2xx")


class Changes:
    """What changed between two scrapes of an app."""

    def __init__(self, app: App) -> None:
        self.app = app
        self.before = self._scrape()

    def _scrape(self) -> dict[Series, float]:
        with self.app.operator() as operator:
            answer = operator.get("/metrics")
        assert answer.status_code == 200
        return values(answer.content)

    def since(self, *prefixes: str) -> dict[Series, float]:
        after = self._scrape()
        return {
            key: value - self.before.get(key, 0)
            for key, value in after.items()
            if key[0].startswith(prefixes) and value != self.before.get(key, 0)
        }


def test_one_vote_is_one_count(app: App) -> None:
    voted = ("f1_votes", "f1_tally", "f1_voters", "f1_http_request_seconds_count", "f1_metrics")
    route = {"route": "/api/polls/<poll:str>/vote", "method": "POST"}
    with app.browser() as browser:
        browser.get(f"/api/polls/{CANARY}")

        def vote(*choices: str) -> int:
            path = f"/api/polls/{CANARY}/vote"
            return browser.post(path, json={"choices": choices}).status_code

        for choice, outcome, tally in [
            ("A1", "counted", {"A1": 1}),
            ("A1", "same", {}),
            ("B2", "changed", {"A1": -1, "B2": 1}),
        ]:
            changes = Changes(app)
            assert vote(choice) == 200
            expected = {
                series("f1_votes_total", poll=CANARY, choice=choice, outcome=outcome): 1,
                series("f1_http_request_seconds_count", status="2xx", **route): 1,
            }
            expected |= {series("f1_tally", poll=CANARY, choice=c): n for c, n in tally.items()}
            if outcome == "counted":
                expected[series("f1_voters", poll=CANARY)] = 1
            found = changes.since(*voted)
            # The scrape before is counted by the one after.
            found.pop(SCRAPE)
            assert found == expected

        changes = Changes(app)
        assert browser.post(f"/api/polls/{CANARY}/withdraw", json={}).status_code == 200
        assert vote("NOBODY") == 400
        found = changes.since("f1_votes", "f1_voters")
        assert found == {
            series("f1_votes_total", poll=CANARY, choice="", outcome="withdrawn"): 1,
            series("f1_votes_refused_total", poll=CANARY, reason="unknown"): 1,
            series("f1_voters", poll=CANARY): -1,
        }


def test_a_refused_vote_is_counted_by_its_reason(app: App) -> None:
    changes = Changes(app)
    path = f"/api/polls/{CANARY}/vote"
    with app.browser() as nobody:
        assert nobody.post(path, json={"choices": ["A1"]}).status_code == 403
    with app.browser(origin="https://elsewhere.example") as elsewhere:
        elsewhere.get(f"/api/polls/{CANARY}")
        assert elsewhere.post(path, json={"choices": ["A1"]}).status_code == 403
    assert changes.since("f1_votes", "f1_voters") == {
        series("f1_votes_refused_total", poll=CANARY, reason="ballot"): 1,
        series("f1_votes_refused_total", poll=CANARY, reason="origin"): 1,
    }


def test_what_is_asked_for_names_no_series(app: App) -> None:
    """A scan of addresses that are not there must not fill Prometheus."""
    changes = Changes(app)
    for n in range(50):
        # No client of ours would send that.
        asked = f'GET /nowhere{n}/"{{}}%0a HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n'
        with socket.create_connection(("127.0.0.1", app.port), timeout=30) as raw:
            raw.sendall(asked.encode())
            while raw.recv(65536):
                pass
    name = "f1_http_request_seconds_count"
    nowhere = series(name, route="none", method="GET", status="4xx")
    assert changes.since(name) == {nowhere: 50, SCRAPE: 1}


@pytest.fixture
def figures(app: App) -> Iterator[dict[str, Family]]:
    with app.operator() as operator:
        yield read(operator.get("/metrics").content)


def test_the_process_is_described(app: App, figures: dict[str, Family]) -> None:
    def one(name: str) -> float:
        (value,) = figures[name].samples.values()
        return value

    assert one("process_resident_memory_bytes") > 10e6
    assert one("process_virtual_memory_bytes") > one("process_resident_memory_bytes")
    assert one("process_cpu_seconds_total") > 0
    assert 5 < one("process_open_fds") < one("process_max_fds")
    assert one("process_threads") >= 1
    assert 0 < time.time() - one("process_start_time_seconds") < 600
    assert series("f1_build_info", version="c-test", image="") in figures["f1_build_info"].samples


def test_a_scrape_is_stable(app: App, redis_server: Redis) -> None:
    """Two scrapes of an idle app name the same series in the same order."""
    with app.operator() as operator:
        operator.get("/metrics")
        first, second = (operator.get("/metrics").content.decode() for _ in range(2))

    def names(text: str) -> list[str]:
        return [line.rpartition(" ")[0] for line in text.splitlines()]

    assert names(first) == names(second)
    assert json.dumps(first).isascii()
