"""Who votes too often waits, honest crowds pass, and bursts are marked without an address."""

import asyncio
import ipaddress
import json
import math
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from f1vote import guard as guards
from f1vote import work
from f1vote.guard import (
    ADDRESS,
    CROWD,
    MINUTE,
    NETWORK,
    SECOND,
    VOTER,
    Buckets,
    Guard,
    Limit,
    Verdict,
)
from f1vote.store import Unreachable
from tests.app.servers import App, Redis, wait
from tests.app.test_work import solve
from tests.conftest import ROOT

KEY = b"a key of the tests, 32 bytes or so"
UNIX = 1_790_000_000.0
POLL = "champion"
SINGLE = "driver-of-the-day"


class Clock:
    """Time that passes when it is told to; s for the wall, ns for the guard."""

    def __init__(self) -> None:
        self.ns = 7 * SECOND

    def __call__(self) -> int:
        return self.ns

    def wall(self) -> float:
        return UNIX + self.ns / SECOND

    def passes(self, seconds: float) -> None:
        self.ns += round(seconds * SECOND)


class Room:
    """A store that keeps what it is told, unless it is away."""

    def __init__(self) -> None:
        self.records: list[tuple[str, object]] = []
        self.away = False

    async def mark(self, poll, burst):
        if self.away:
            raise Unreachable("away")
        self.records.append((poll, burst))


@pytest.fixture
def clock() -> Clock:
    return Clock()


def make(clock: Clock, challenge: str = "attack") -> Guard:
    return Guard([KEY], challenge, clock, clock.wall)


def cast(guard: Guard, poll: str, address: str, voter: str, answer: str | None) -> Verdict:
    """A vote that is counted if it is let through."""
    verdict = guard.check(poll, address, voter, answer)
    guard.settle(verdict, poll, voter, fresh=True)
    return verdict


def voter(n: int) -> str:
    return f"{n:022d}"


@pytest.fixture
def cheap(monkeypatch):
    """A puzzle that a test has solved at once."""
    monkeypatch.setattr(guards, "BITS", 2)


# Buckets

limits = st.builds(
    Limit, st.integers(1, 50), st.sampled_from([0.01, 1 / 3, 1.0, 7.0, 200.0, 12345.0])
)
waits = st.lists(st.integers(0, 3 * SECOND), min_size=1, max_size=200)


@given(limits, waits)
def test_a_bucket_never_gives_more_than_it_holds_and_what_time_brought(limit, waits):
    bucket: Buckets[str] = Buckets(limit, 10)
    interval = round(SECOND / limit.rate)
    now, taken = 0, []
    for pause in waits:
        now += pause
        if bucket.take("k", now) == 0:
            taken.append(now)
    for first, began in enumerate(taken):
        for last in range(first, len(taken)):
            passed = Fraction(taken[last] - began, interval)
            assert last - first + 1 <= limit.capacity + passed


@given(limits, waits)
def test_what_a_bucket_says_of_the_wait_is_exact(limit, waits):
    bucket: Buckets[str] = Buckets(limit, 10)
    now = 0
    for pause in waits:
        now += pause
        if left := bucket.take("k", now):
            assert bucket.take("k", now + left - 1) == 1
            assert bucket.take("k", now + left) == 0
            now += left


@given(limits)
def test_a_full_bucket_gives_all_that_it_holds_at_once(limit):
    bucket: Buckets[str] = Buckets(limit, 10)
    assert [bucket.take("k", 5) for _ in range(limit.capacity)] == [0] * limit.capacity
    assert bucket.take("k", 5) > 0
    assert bucket.take("other", 5) == 0


@given(st.lists(st.integers(0, 40), max_size=300))
def test_a_table_holds_no_more_than_it_may_and_forgets_the_one_least_used(keys):
    bucket: Buckets[int] = Buckets(Limit(1000, 1), 8)
    recent: list[int] = []
    for key in keys:
        bucket.take(key, 0)
        recent = [*(other for other in recent if other != key), key][-8:]
        assert [other for other in range(41) if other in bucket] == sorted(recent)


# Addresses


@given(st.ip_addresses(v=4))
def test_an_ipv4_address_is_one_source_however_it_is_written(address):
    packed = guards.pack(str(address))
    assert packed == address.packed
    assert guards.pack(f"::ffff:{address}") == packed


@given(st.ip_addresses(v=6), st.integers(0, 2**64 - 1))
def test_ipv6_addresses_of_one_64_are_one_source(address, host):
    if address.ipv4_mapped:
        return
    other = ipaddress.IPv6Address(int(address) >> 64 << 64 | host)
    assert guards.pack(str(address)) == guards.pack(other.exploded) == address.packed[:8]
    elsewhere = ipaddress.IPv6Address(int(address) ^ 1 << 64)
    assert guards.pack(str(elsewhere)) != guards.pack(str(address))


@given(st.text())
def test_what_is_no_address_does_no_harm(text):
    assert len(guards.pack(text)) in (0, 4, 8)


def test_all_that_is_no_address_is_one_source():
    assert {guards.pack(text) for text in ("", "unknown", "_a", "1.2.3", "1:2", "é", "\0")} == {b""}


# Honest voters pass


@given(st.lists(st.floats(0, 300), min_size=1, max_size=400), st.sampled_from(["attack", "never"]))
def test_honest_voters_behind_one_address_all_pass(moments, challenge):
    """A class, a stadium: each votes once, is asked for work at most, and is never told to wait."""
    clock = Clock()
    guard = make(clock, challenge)
    start = clock.ns
    for n, moment in enumerate(sorted(moments)):
        clock.ns = start + round(moment * SECOND)
        verdict = cast(guard, POLL, "192.0.2.1", voter(n), None)
        if not verdict.allowed:
            assert challenge == "attack"
            assert n >= CROWD
            assert verdict.challenge
            assert verdict.reason == "challenge"


def test_a_stadium_votes_in_the_same_instant(clock):
    guard = make(clock, "never")
    assert all(
        cast(guard, POLL, "192.0.2.1", voter(n), None).allowed for n in range(ADDRESS.capacity)
    )
    refused = cast(guard, POLL, "192.0.2.1", voter(9999), None)
    assert (refused.allowed, refused.retry_after, refused.reason) == (False, 1, "rate")
    assert cast(guard, POLL, "192.0.2.2", voter(9999), None).allowed
    clock.passes(refused.retry_after)
    assert cast(guard, POLL, "192.0.2.1", voter(9999), None).allowed


def test_a_voter_may_change_his_mind_but_not_for_ever(clock):
    guard = make(clock)
    for _ in range(VOTER.capacity):
        assert cast(guard, POLL, "192.0.2.1", voter(1), None).allowed
    refused = cast(guard, POLL, "192.0.2.1", voter(1), None)
    assert (refused.allowed, refused.retry_after, refused.challenge) == (False, 3, None)
    # Another address is no way round it; another poll is another vote.
    assert not cast(guard, POLL, "198.51.100.1", voter(1), None).allowed
    assert cast(guard, "best-overtake", "192.0.2.1", voter(1), None).allowed
    assert cast(guard, POLL, "192.0.2.1", voter(2), None).allowed
    clock.passes(refused.retry_after)
    assert cast(guard, POLL, "192.0.2.1", voter(1), None).allowed


def test_who_is_refused_takes_nothing_from_the_others_of_the_address(clock):
    guard = make(clock)
    for _ in range(3 * ADDRESS.capacity):
        cast(guard, POLL, "192.0.2.1", voter(1), None)
    for n in range(3 * ADDRESS.capacity):
        cast(guard, POLL, "192.0.2.1", voter(100 + n), "0.0.nonsense.1")
    clock.passes(60)  # the crowd is gone
    assert cast(guard, POLL, "192.0.2.1", voter(2), None).allowed


# Work under attack


def crowd(guard: Guard, n: int, address: str = "192.0.2.1", start: int = 0) -> list[bool]:
    return [cast(guard, POLL, address, voter(start + i), None).allowed for i in range(n)]


def test_work_is_asked_of_new_voters_of_a_crowded_address_alone(clock, cheap):
    guard = make(clock)
    assert crowd(guard, 200) == [True] * CROWD + [False] * (200 - CROWD)
    asked = cast(guard, POLL, "192.0.2.1", voter(1000), None)
    assert not asked.allowed
    assert cast(guard, POLL, "192.0.2.1", voter(0), None).allowed  # voted before
    assert cast(guard, POLL, "192.0.2.2", voter(1000), None).allowed
    assert cast(guard, "best-overtake", "192.0.2.1", voter(1000), None).allowed
    answer = solve(asked.challenge)
    assert not cast(guard, POLL, "192.0.2.1", voter(1001), answer).allowed
    assert not cast(guard, POLL, "192.0.2.1", voter(1001), answer + "1").allowed
    assert cast(guard, POLL, "192.0.2.1", voter(1000), answer).allowed
    # Done once: to change the vote takes no more of it.
    assert cast(guard, POLL, "192.0.2.1", voter(1000), None).allowed


def test_a_ballot_of_which_nothing_came_leaves_no_trace(clock):
    """Too late, too early, a wrong code, a withdrawal of nothing: no crowd, no burst."""
    guard = make(clock)
    for n in range(3 * CROWD):
        verdict = guard.check(POLL, "192.0.2.1", voter(n), None)
        assert verdict.allowed
        guard.settle(verdict, POLL, voter(n), fresh=False, known=False)
    room = Room()
    assert crowd(guard, CROWD, start=1000) == [True] * CROWD
    asyncio.run(guard.report(room, {POLL: POLL}))
    assert room.records == []
    # Nor does it let anybody pass who would have to work.
    assert not guard.check(POLL, "192.0.2.1", voter(0), None).allowed


def test_many_at_once_are_a_crowd_before_the_first_is_counted(clock):
    guard = make(clock)
    coming = [guard.check(POLL, "192.0.2.1", voter(n), None) for n in range(2 * CROWD)]
    assert [verdict.allowed for verdict in coming] == [True] * CROWD + [False] * CROWD
    for n, verdict in enumerate(coming):
        guard.settle(verdict, POLL, voter(n), fresh=False, known=False)
    assert guard.check(POLL, "192.0.2.1", voter(5000), None).allowed


def test_a_vote_that_another_process_knows_is_no_new_ballot(clock):
    guard = make(clock)
    for n in range(2 * CROWD):
        verdict = guard.check(POLL, "192.0.2.1", voter(n), None)
        guard.settle(verdict, POLL, voter(n), fresh=False, known=True)
    assert cast(guard, POLL, "192.0.2.1", voter(5000), None).allowed


def test_nobody_works_for_a_poll_that_takes_no_vote(clock):
    guard = make(clock)
    crowd(guard, 2 * CROWD)
    assert not guard.check(POLL, "192.0.2.1", voter(5000), None).allowed
    assert guard.check(POLL, "192.0.2.1", voter(5000), None, shut=True).allowed


def test_who_tries_in_vain_is_limited_and_takes_nothing_from_the_others(clock):
    guard = make(clock)
    for n in range(3 * ADDRESS.capacity):
        verdict = guard.check(POLL, "192.0.2.1", voter(1), None, shut=True)
        assert verdict.allowed == (n < VOTER.capacity)
        guard.settle(verdict, POLL, voter(1), fresh=False, known=False)
    assert guard.check(POLL, "192.0.2.1", voter(2), None).allowed


def test_the_wait_without_work_is_what_is_said(clock, cheap):
    guard = make(clock)
    crowd(guard, CROWD)
    for n in range(CROWD):
        asked = cast(guard, POLL, "192.0.2.1", voter(1000 + n), None)
        answer = solve(asked.challenge)
        assert cast(guard, POLL, "192.0.2.1", voter(1000 + n), answer).allowed
    asked = cast(guard, POLL, "192.0.2.1", voter(5000), None)
    assert asked.retry_after == math.ceil(60 * math.log(2))  # twice as many: halved in 42 s
    clock.passes(asked.retry_after - 1)
    assert not cast(guard, POLL, "192.0.2.1", voter(5000), None).allowed
    clock.passes(1)
    assert cast(guard, POLL, "192.0.2.1", voter(5000), None).allowed


def test_an_expired_answer_gets_another_challenge(clock, cheap):
    guard = make(clock, "always")
    answer = solve(cast(guard, POLL, "192.0.2.1", voter(1), None).challenge)
    clock.passes(work.SECONDS + 1)
    again = cast(guard, POLL, "192.0.2.1", voter(1), answer)
    assert not again.allowed
    assert cast(guard, POLL, "192.0.2.1", voter(1), solve(again.challenge)).allowed


def test_the_knob(clock, cheap):
    never, always = make(clock, "never"), make(clock, "always")
    assert all(crowd(never, 3 * CROWD))
    asked = cast(always, POLL, "192.0.2.1", voter(1), None)
    assert (asked.allowed, asked.retry_after) == (False, 0)
    assert cast(always, POLL, "192.0.2.1", voter(1), solve(asked.challenge)).allowed


def test_another_process_takes_the_work_that_one_asked_for(clock, cheap):
    one, other = make(clock, "always"), make(clock, "always")
    asked = cast(one, POLL, "192.0.2.1", voter(1), None)
    assert cast(other, POLL, "192.0.2.1", voter(1), solve(asked.challenge)).allowed


def test_harder_the_more_come():
    assert [guards.bits(pressure) - guards.BITS for pressure in (0, 1, 7.9, 8.1, 65, 1e9)] == [
        0, 0, 0, 1, 2, 2,
    ]  # fmt: skip


def test_a_48_is_no_way_round_its_64s(clock):
    guard = make(clock)
    spread = [
        cast(guard, POLL, f"2001:db8:7:{n:x}::1", voter(n), None).allowed
        for n in range(NETWORK + 50)
    ]
    assert spread == [True] * NETWORK + [False] * 50
    assert cast(guard, POLL, "2001:db8:8::1", voter(9999), None).allowed


def test_memory_is_bounded(clock, monkeypatch):
    for name in ("MOST_VOTERS", "MOST_STRANGERS", "MOST_ADDRESSES", "MOST_BURSTS"):
        monkeypatch.setattr(guards, name, 16)
    guard = make(clock, "never")
    for source in range(100):
        crowd(guard, CROWD + 5, f"192.0.2.{source}", 1000 * source)
    assert len(guard._crowds) == 16
    assert len(guard._voters._full_at) == len(guard._strangers._full_at) == 16
    assert len(guard._addresses._full_at) == 16
    assert len(guard._bursts) == 17  # and the rest of them together
    room = Room()
    asyncio.run(guard.report(room, {POLL: POLL}))
    assert sum(burst.fresh for _, burst in room.records) == 100 * 5


# Bursts


def stuff(guard: Guard, n: int, code: str, start: int = 0) -> None:
    for i in range(n):
        if cast(guard, POLL, "192.0.2.1", voter(start + i), None).allowed:
            guard.counted(POLL, "192.0.2.1", (), (code,))


def test_a_burst_is_marked_with_what_it_was_for(clock):
    guard, room = make(clock, "never"), Room()
    stuff(guard, CROWD, "NOR")
    asyncio.run(guard.report(room, {POLL: POLL}))
    assert room.records == []
    stuff(guard, 10, "VER", 1000)
    guard.counted(POLL, "192.0.2.1", ("VER",), ("NOR", "VER", "HAM"))  # thinks again
    guard.counted(POLL, "192.0.2.1", ("VER",), ())  # takes it back
    guard.counted(POLL, "198.51.100.1", (), ("HAM",))  # somebody else
    clock.passes(2)
    stuff(guard, 5, "LEC", 2000)
    asyncio.run(guard.report(room, {POLL: POLL}))
    ((poll, burst),) = room.records
    assert poll == POLL
    assert burst.fresh == 15
    assert burst.choices == {"VER": 8, "NOR": 1, "LEC": 5}
    assert (burst.first, burst.last) == (int(UNIX) + 7, int(UNIX) + 9)
    assert len(burst.address) == 16


def test_a_record_holds_the_whole_burst_and_is_written_once_a_minute(clock):
    guard, room = make(clock, "never"), Room()

    def report():
        asyncio.run(guard.report(room, {POLL: POLL}))

    stuff(guard, CROWD + 5, "VER")
    for second in range(61):
        report()
        # At once, and then slowly: one long burst must not push the others out.
        assert len(room.records) == 1
        room.away = second == 59
        clock.passes(1)
        stuff(guard, 2, "VER", 1000 + 2 * second)
    report()
    first, second = (burst for _, burst in room.records)
    assert (first.address, first.first) == (second.address, second.first)
    assert (first.fresh, second.fresh) == (5, 5 + 2 * 61)
    assert second.choices == {"VER": second.fresh}


def test_who_was_asked_for_work_and_brought_none_is_counted(clock, cheap):
    guard, room = make(clock), Room()
    crowd(guard, CROWD)
    challenges = [cast(guard, POLL, "192.0.2.1", voter(1000 + n), None) for n in range(9)]
    for n, asked in enumerate(challenges[:4]):
        assert cast(guard, POLL, "192.0.2.1", voter(1000 + n), solve(asked.challenge)).allowed
    crowd(guard, 7, start=2000)
    asyncio.run(guard.report(room, {POLL: POLL}))
    ((_, burst),) = room.records
    # The burst began with the first of the four; who was asked before is not in it.
    assert (burst.fresh, burst.challenged) == (4, 7)


def test_what_came_last_is_written_when_the_process_ends(clock):
    guard, room = make(clock, "never"), Room()

    async def life():
        await guard.start(room, {POLL: POLL})
        stuff(guard, CROWD + 5, "VER")
        await guard.report(room, {POLL: POLL})
        stuff(guard, 2, "VER", 1000)
        await guard.close(room, {POLL: POLL})

    asyncio.run(life())
    assert [burst.fresh for _, burst in room.records] == [5, 7]


def test_a_burst_ends_and_the_next_is_another(clock):
    guard, room = make(clock, "never"), Room()
    stuff(guard, CROWD + 5, "VER")
    asyncio.run(guard.report(room, {POLL: POLL}))
    clock.passes(120)
    asyncio.run(guard.report(room, {POLL: POLL}))
    assert guard._bursts == {}
    stuff(guard, CROWD + 5, "VER", 1000)
    asyncio.run(guard.report(room, {POLL: POLL}))
    first, second = (burst for _, burst in room.records)
    assert first.address == second.address
    assert second.first > first.first


def test_the_fingerprint_of_an_address_changes_every_day_and_everywhere(clock):
    def fingerprint(guard, start):
        room = Room()
        stuff(guard, CROWD + 5, "VER", start)
        asyncio.run(guard.report(room, {POLL: POLL}))
        return room.records[-1][1].address

    guard = make(clock, "never")
    today = fingerprint(guard, 0)
    clock.passes(24 * 3600)
    asyncio.run(guard.report(Room(), {POLL: POLL}))
    assert len({today, fingerprint(guard, 1000), fingerprint(make(clock, "never"), 0)}) == 3


def test_a_minute_of_ballots_is_what_is_measured(clock):
    """n a minute for long give n: here one a second, whatever the threshold."""
    line = guards._Crowd(b"", 1, clock.ns)
    for _ in range(600):
        line.add(clock.ns)
        clock.passes(1)
    assert 59 < line.pressure(clock.ns) < 61
    assert line.pressure(clock.ns + MINUTE) == pytest.approx(line.pressure(clock.ns) / math.e)


# The real app, over HTTP, before a real Redis

HERE, V6 = "203.0.113.77", "2001:db8:dead:beef::77"


@pytest.fixture
def guarded(redis_server: Redis, tmp_path: Path) -> Iterator[App]:
    redis_server.client.flushall()
    app = App(tmp_path, redis_server.url, F1_PROXIES="1")
    yield app
    if app.process.poll() is None:
        app.stop()


@contextmanager
def newcomer(app: App, address: str, **headers: str) -> Iterator[httpx.Client]:
    """Somebody at ``address`` who has opened the page."""
    with app.browser(**{"x-forwarded-for": address, **headers}) as browser:
        browser.get(f"/api/polls/{SINGLE}").raise_for_status()
        yield browser


def vote(browser: httpx.Client, code: str, **more: str) -> httpx.Response:
    return browser.post(f"/api/polls/{SINGLE}/vote", json={"choices": [code], **more})


def bursts(redis_server: Redis) -> list[dict[str, Any]]:
    entries = redis_server.client.xrange(f"poll:{SINGLE}:bursts")
    return [json.loads(record["burst"]) for _, record in entries]


def test_a_burst_is_seen_in_redis_and_an_address_nowhere(guarded, redis_server):
    for n in range(CROWD):
        with newcomer(guarded, (HERE, V6)[n % 2]) as browser:
            assert vote(browser, "NOR").status_code == 200
    passed = 0
    while True:
        with newcomer(guarded, HERE) as browser:
            answer = vote(browser, "VER")
            if answer.status_code == 200:
                passed += 1
                assert passed < 2 * CROWD
                continue
            assert passed >= CROWD // 2
            assert answer.status_code == 429
            assert int(answer.headers["retry-after"]) >= 1
            assert answer.json()["error"] == "challenge"
            assert "JavaScript" in answer.json()["message"]
            solved = solve(answer.json()["challenge"])
            assert vote(browser, "VER", work=solved).json()["outcome"] == "counted"
            # Sent again it is the same vote.
            assert vote(browser, "VER", work=solved).json()["outcome"] == "same"
            break
    with guarded.operator() as operator:
        figures = operator.get("/metrics").text
    assert f'f1_votes_refused_total{{poll="{SINGLE}",reason="challenge"}} 1\n' in figures

    def seen() -> None:
        burst = bursts(redis_server)[-1]
        assert burst["fresh"] >= 1
        assert burst["choices"] == {"VER": burst["fresh"]}

    wait("the burst in Redis", seen, guarded.process)
    assert guarded.stop() == 0
    last = bursts(redis_server)[-1]
    assert re.fullmatch("[0-9a-f]{16}", last["address"])
    assert last["first"] <= last["last"] <= time.time()
    # All that Redis ever was told is in its append-only file; all that the app said in its log.
    said = [*redis_server.folder.rglob("*.aof"), guarded.log]
    assert len(said) >= 2
    for file in said:
        text = file.read_bytes()
        for address in (HERE, V6, "2001:db8", "dead:beef"):
            assert address.encode() not in text, file
        for packed in (guards.pack(HERE), guards.pack(V6)):
            assert packed not in text, file
            assert packed.hex().encode() not in text, file
    assert b"very many new ballots" in guarded.log.read_bytes()


def until_work(app: App) -> None:
    """Let newcomers vote until one is asked for work."""
    for _ in range(2 * CROWD):
        with newcomer(app, HERE) as browser:
            answer = vote(browser, "NOR")
        if answer.status_code == 429:
            assert answer.json()["error"] == "challenge"
            return
        assert answer.status_code == 200
    raise AssertionError("nobody was asked for work")


def test_late_voters_need_not_work_to_be_told_so(guarded, redis_server):
    meta = f"poll:{SINGLE}:meta"
    until_work(guarded)
    redis_server.client.hset(meta, "closes", 1)
    told = []
    for _ in range(5):
        with newcomer(guarded, HERE) as browser:
            answer = vote(browser, "NOR")
            if answer.status_code == 429 and not told:
                # By the file it is open: one has to find out.
                answer = vote(browser, "NOR", work=solve(answer.json()["challenge"]))
            told.append(answer.json()["error"])
    assert told == ["closed"] * 5
    # It is opened again: who votes first shows it.
    redis_server.client.hdel(meta, "closes")
    until_work(guarded)


def test_a_poll_that_is_closed_by_its_file_asks_nobody_for_work(tmp_path, redis_server):
    redis_server.client.flushall()
    (tmp_path / "polls").mkdir()
    file = (ROOT / "app" / "polls" / f"{SINGLE}.yaml").read_text()
    file = re.sub("(?m)^opens:.*$", "opens: 2026-01-01T00:00:00Z", file)
    file = re.sub("(?m)^closes:.*$", "closes: 2026-01-02T00:00:00Z", file)
    (tmp_path / "polls" / f"{SINGLE}.yaml").write_text(file)
    shutil.copytree(ROOT / "app" / "polls" / "choices", tmp_path / "polls" / "choices")
    app = App(tmp_path, redis_server.url, tmp_path / "polls", F1_PROXIES="1", F1_CHALLENGE="always")
    try:
        with newcomer(app, HERE) as browser:
            assert vote(browser, "NOR").json()["error"] == "closed"
        # The organiser's word counts more: from the first vote that shows it.
        redis_server.client.hset(f"poll:{SINGLE}:meta", "closes", 0)
        with newcomer(app, HERE) as browser:
            assert vote(browser, "NOR").status_code == 200
        with newcomer(app, HERE) as browser:
            assert vote(browser, "NOR").json()["error"] == "challenge"
    finally:
        app.stop()


@pytest.mark.parametrize(("language", "title"), [("en", "Slowly, please"), ("fr", "Doucement")])
def test_too_many_changes_are_told_in_the_voters_language(guarded, language, title):
    with newcomer(guarded, HERE, **{"accept-language": language}) as browser:
        statuses = [
            browser.post(f"/{SINGLE}/vote", data={"choice": code}).status_code
            for code in ("NOR", "VER") * (VOTER.capacity // 2)
        ]
        assert statuses == [303] * VOTER.capacity
        page = browser.post(f"/{SINGLE}/vote", data={"choice": "HAM"})
        assert page.status_code == 429
        assert int(page.headers["retry-after"]) >= 1
        assert title in page.text
        assert vote(browser, "HAM").json()["error"] == "rate"
        assert browser.get(f"/api/polls/{SINGLE}").json()["mine"] == ["VER"]
