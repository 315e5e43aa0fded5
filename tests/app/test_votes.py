"""The invariant: for every code, its tally is the number of voters who hold it."""

import asyncio
import time
from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from f1vote import polls, votes
from f1vote.polls import Choice, Poll
from f1vote.votes import Outcome, Unreachable, Votes
from tests.app.servers import Redis

CODES = ("NOR", "VER", "HAM")
POLL = Poll(
    id="test",
    title={},
    question={},
    opens=0,
    closes=0,
    choices=tuple(Choice(code, code, n, "Team", "#000000") for n, code in enumerate(CODES)),
)

steps = st.tuples(
    st.sampled_from(["ann", "bob", "cy", "dee"]),
    st.sampled_from([*CODES, "", "XXX"]),
    st.integers(1, 3),  # how often the network repeats it
)


def check(redis: Redis, poll: Poll = POLL) -> dict[str, str]:
    """Return who holds what, after an independent recount."""
    held = redis.client.hgetall(f"poll:{poll.id}:votes")
    tally = redis.client.hgetall(f"poll:{poll.id}:tally")
    assert {code: int(n) for code, n in tally.items() if n != "0"} == Counter(held.values())
    return held


async def with_votes(redis: Redis, work):
    room = Votes(redis.url)
    try:
        return await work(room)
    finally:
        await room.close()


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(steps, max_size=25))
def test_any_history_leaves_each_voter_the_last_valid_vote(redis_server, history):
    redis_server.client.flushall()
    expected: dict[str, str] = {}

    async def work(room: Votes) -> None:
        for voter, code, times in history:
            for _ in range(times):
                outcome, _ = await room.cast(POLL, voter, code)
            if code in CODES:
                expected[voter] = code
                assert outcome in (Outcome.COUNTED, Outcome.SAME)
            elif code == "":
                expected.pop(voter, None)
                assert outcome in (Outcome.WITHDRAWN, Outcome.SAME)
            else:
                assert outcome is Outcome.UNKNOWN

    asyncio.run(with_votes(redis_server, work))
    assert check(redis_server) == expected


def test_many_at_once_and_each_counted_once(redis_server):
    redis_server.client.flushall()

    async def work(room: Votes) -> None:
        await asyncio.gather(
            *(room.cast(POLL, f"v{i % 50}", CODES[(i // 50) % 3]) for i in range(900))
        )
        results = await room.results(POLL, "v7")
        assert results.voters == 50
        assert sum(results.tally.values()) == 50
        assert results.mine in CODES

    asyncio.run(with_votes(redis_server, work))
    check(redis_server)


def test_the_window_is_kept_by_the_clock_of_redis(redis_server, monkeypatch):
    redis_server.client.flushall()
    now = int(time.time())
    # The app's own clock may say what it likes.
    monkeypatch.setattr(time, "time", lambda: 0.0)

    async def work(room: Votes) -> None:
        early = replace(POLL, opens=now + 3600)
        closed = replace(POLL, opens=now - 7200, closes=now - 3600)
        during = replace(POLL, opens=now - 3600, closes=now + 3600)
        assert (await room.cast(early, "ann", "NOR"))[0] is Outcome.EARLY
        assert (await room.cast(during, "ann", "NOR")) == (Outcome.COUNTED, None)
        assert (await room.cast(closed, "ann", "VER")) == (Outcome.CLOSED, "NOR")
        assert (await room.cast(closed, "ann", "")) == (Outcome.CLOSED, "NOR")

    asyncio.run(with_votes(redis_server, work))
    assert check(redis_server) == {"ann": "NOR"}


def test_redis_that_forgot_the_script_is_given_it_again(redis_server):
    redis_server.client.flushall()

    async def work(room: Votes) -> None:
        await room.cast(POLL, "ann", "NOR")
        redis_server.client.script_flush()
        assert (await room.cast(POLL, "ann", "VER")) == (Outcome.COUNTED, "NOR")

    asyncio.run(with_votes(redis_server, work))
    assert check(redis_server) == {"ann": "VER"}


def test_a_tally_that_cannot_be_written_leaves_the_vote_unwritten(redis_server):
    redis_server.client.flushall()
    redis_server.client.set("poll:test:tally", "not a hash")

    async def work(room: Votes) -> None:
        with pytest.raises(Unreachable):
            await room.cast(POLL, "ann", "NOR")

    asyncio.run(with_votes(redis_server, work))
    assert redis_server.client.hgetall("poll:test:votes") == {}


def test_a_redis_that_hangs_is_given_up_in_time(redis_server, monkeypatch):
    monkeypatch.setattr(votes, "DEADLINE", 0.3)

    async def work(room: Votes) -> None:
        await room.ping()
        redis_server.client.execute_command("CLIENT", "PAUSE", "2000", "ALL")
        began = time.monotonic()
        with pytest.raises(Unreachable):
            await room.cast(POLL, "ann", "NOR")
        assert time.monotonic() - began < 1.5

    asyncio.run(with_votes(redis_server, work))
    redis_server.client.execute_command("CLIENT", "UNPAUSE")


def test_the_poll_of_the_moment():
    first, second = replace(POLL, id="a", opens=100), replace(POLL, id="b", opens=200)
    assert [polls.current((first, second), now).id for now in (50, 150, 250)] == ["a", "a", "b"]
