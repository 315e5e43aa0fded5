"""
Any history of votes, repetitions, races, organisers and recounts, held against a model.

The scripts are the real ones in a real Redis; only where they ask for the time do they read a key.
"""

import asyncio
import hashlib
from collections import Counter

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from f1vote import receipts, store
from f1vote.store import Outcome, Store
from tests.app import counting
from tests.app.servers import Redis

NOON = 1_800_000_000
OPENS, CLOSES = NOON - 3600, NOON + 3600
# What counts at an edge is which side of it one is on, to the microsecond.
EDGES = st.sampled_from([OPENS, CLOSES, NOON])
# Neighbours: of one bucket, of one byte of the map, of the next byte, the first and the last.
VOTERS = (
    "0000AAAAAAAAA", "0000BBBBBBBBB", "0001AAAAAAAAA", "0007AAAAAAAAA", "0008AAAAAAAAA",
    "7K2M9QXT4WPDR", "ZZZZAAAAAAAAA", "ZZZZBBBBBBBBB",
)  # fmt: skip
CODES = ("NOR", "VER", "HAM", "LEC")
voters = st.sampled_from(VOTERS)
votes = st.lists(st.sampled_from([*CODES, "BOT"]), max_size=4).map(tuple)


class Counting(RuleBasedStateMachine):
    """``held`` is what each voter's vote is, by the model."""

    redis: Redis

    @initialize(ranked=st.booleans(), coded=st.booleans())
    def begin(self, ranked: bool, coded: bool) -> None:
        self.redis.client.flushdb()
        self.poll = counting.poll(
            points=(3, 2, 1) if ranked else (1,), opens=OPENS, closes=CLOSES,
            voters="codes" if coded else "cookie",
        )  # fmt: skip
        self.loop = asyncio.new_event_loop()
        # Two processes of the app.
        self.stores = [Store(self.redis.url, [self.poll]) for _ in range(2)]
        for one in self.stores:
            for script in (one._vote, one._page, one._recount):
                assert "redis.call('TIME')" in script.text
                script.text = script.text.replace(
                    "redis.call('TIME')", "redis.call('LRANGE', 'clock', 0, 1)"
                )
                script.hash = hashlib.sha1(script.text.encode()).hexdigest()
        self.held: dict[str, tuple[str, ...]] = {}
        self.admitted: set[str] = set()
        self.overrides: dict[str, int] = {}
        self.version = 0
        self.set_clock(NOON, 0)

    def teardown(self) -> None:
        if hasattr(self, "loop"):
            for one in self.stores:
                self.loop.run_until_complete(one.close())
            self.loop.close()

    def set_clock(self, second: int, micros: int) -> None:
        self.now = second + micros / 1e6
        with self.redis.client.pipeline() as pipe:
            pipe.delete("clock")
            pipe.rpush("clock", int(self.now), round(self.now % 1 * 1e6))
            pipe.execute()
        for one in self.stores:
            one._clock = self.now - self.loop.time()

    # The model

    def window(self) -> Outcome | None:
        opens, closes = self.overrides.get("opens", OPENS), self.overrides.get("closes", CLOSES)
        if closes and self.now >= closes:
            return Outcome.CLOSED
        if self.now < opens:
            return Outcome.EARLY
        return Outcome.FROZEN if self.overrides.get("frozen") else None

    def expect(self, voter: str, choices: tuple[str, ...]) -> tuple[Outcome, tuple[str, ...]]:
        before = self.held.get(voter, ())
        if choices == before:
            return Outcome.SAME, before
        if shut := self.window():
            return shut, before
        if self.poll.voters == "codes" and voter not in self.admitted:
            return Outcome.CODE, before
        if choices and (
            not set(choices) <= set(CODES)
            or len(set(choices)) < len(choices)
            or len(choices) > len(self.poll.points)
        ):
            return Outcome.UNKNOWN, before
        self.version += 1
        if not choices:
            del self.held[voter]
            return Outcome.WITHDRAWN, before
        self.held[voter] = choices
        return (Outcome.CHANGED if before else Outcome.COUNTED), before

    # What happens

    @rule(history=st.lists(st.tuples(voters, votes), min_size=1, max_size=8))
    def vote_together(self, history: list[tuple[str, tuple[str, ...]]]) -> None:
        async def all_at_once() -> list[store.Cast]:
            return await asyncio.gather(
                *(self.stores[0].cast(self.poll, *vote) for vote in history)
            )

        answers = self.loop.run_until_complete(all_at_once())
        assert [(a.outcome, a.held) for a in answers] == [self.expect(*vote) for vote in history]

    @rule(voter=voters, choices=votes, times=st.integers(2, 4))
    def repeat(self, voter: str, choices: tuple[str, ...], times: int) -> None:
        """The network, a library or a voter does it again."""
        for n in range(times):
            answer = self.loop.run_until_complete(
                self.stores[n % 2].cast(self.poll, voter, choices)
            )
            assert (answer.outcome, answer.held) == self.expect(voter, choices)

    @rule(voter=voters, one=votes, other=votes)
    def race(self, voter: str, one: tuple[str, ...], other: tuple[str, ...]) -> None:
        """Two tabs in two processes: either may be first, and what they are told fits together."""

        async def both() -> list[store.Cast]:
            return await asyncio.gather(
                self.stores[0].cast(self.poll, voter, one),
                self.stores[1].cast(self.poll, voter, other),
            )

        first, second = self.loop.run_until_complete(both())
        before, version = dict(self.held), self.version
        stories = []
        for turned in (False, True):
            self.held, self.version = dict(before), version
            told = [
                self.expect(voter, choices)
                for choices in ((other, one) if turned else (one, other))
            ]
            stories.append((told[::-1] if turned else told, self.held, self.version))
        seen = [(first.outcome, first.held), (second.outcome, second.held)]
        fitting = [story for story in stories if story[0] == seen]
        assert fitting, f"{seen} fits none of {stories}"
        held, _ = counted(self.redis, self.poll)
        _, self.held, self.version = next(story for story in fitting if story[1] == held)

    @rule(edge=EDGES, micros=st.sampled_from([-1_000_000, -1, 0, 1, 1_000_000]))
    def time_passes(self, edge: int, micros: int) -> None:
        self.set_clock(edge, micros)

    @rule(
        overrides=st.dictionaries(
            st.sampled_from(["opens", "closes", "frozen"]),
            st.sampled_from([None, 0, 1, NOON]),
            min_size=1,
        )
    )
    def organise(self, overrides: dict[str, int | None]) -> None:
        overrides = {
            name: value if value is None or name != "frozen" else min(value, 1)
            for name, value in overrides.items()
        }
        standing = self.loop.run_until_complete(self.stores[1].control(self.poll, **overrides))
        self.version += 1
        for name, value in overrides.items():
            if value is None:
                self.overrides.pop(name, None)
            else:
                self.overrides[name] = value
        assert standing.state == (self.window() or "open")

    @rule(some=st.sets(voters))
    def admit(self, some: set[str]) -> None:
        new = self.loop.run_until_complete(self.stores[0].admit(self.poll, sorted(some)))
        assert new == len(some - self.admitted)
        self.admitted |= some

    @rule(most=st.integers(1, 3), anew=st.booleans(), driver=st.sampled_from(["a", "b"]))
    def recount(self, most: int, anew: bool, driver: str) -> None:
        """A slice as small as it can be, so that votes come between."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(store, "SLICE", most)
            state = self.loop.run_until_complete(
                self.stores[0].recount_slice(self.poll, driver, 0.0, -1.0 if anew else 0.0)
            )
        assert state in ("more", "ended", "idle")
        if state == "ended":
            self.exact()

    @rule()
    def whole_recount(self) -> None:
        self.loop.run_until_complete(self.stores[1].recount(self.poll))
        self.exact()

    def exact(self) -> None:
        result = self.loop.run_until_complete(self.stores[1].recounted(self.poll))
        assert result is not None
        assert result.difference == 0

    @rule()
    def reset(self) -> None:
        assert self.loop.run_until_complete(self.stores[1].reset(self.poll)) == len(self.held)
        self.held = {}
        self.version += 1

    # What holds after each of them

    @invariant()
    def every_vote_is_counted_once(self) -> None:
        if hasattr(self, "held"):
            held, version = counted(self.redis, self.poll)
            assert held == self.held
            assert version == self.version

    @invariant()
    def pages_tell_the_same(self) -> None:
        if hasattr(self, "held"):
            standing, vote = self.loop.run_until_complete(self.stores[1].page(self.poll, VOTERS[0]))
            points: Counter[str] = Counter()
            for choices in self.held.values():
                points.update(dict(zip(choices, self.poll.points, strict=False)))
            assert vote == self.held.get(VOTERS[0], ())
            assert {code: n for code, n in standing.points.items() if n} == points
            assert (standing.voters, standing.version) == (len(self.held), self.version)
            assert standing.state == (self.window() or "open")

    @invariant()
    def a_recount_knows_what_lies_behind_it(self) -> None:
        if hasattr(self, "held"):
            kept = self.redis.client.hgetall(f"poll:{self.poll.id}:recount")
            if "cursor" in kept:
                behind = [
                    choices
                    for voter, choices in self.held.items()
                    if int("".join(f"{receipts.ALPHABET.index(c):05b}" for c in voter[:4]), 2) // 8
                    < int(kept["cursor"])
                ]
                points: Counter[str] = Counter()
                for choices in behind:
                    points.update(dict(zip(choices, self.poll.points, strict=False)))
                found = {name[2:]: int(n) for name, n in kept.items() if name.startswith("n:")}
                assert {code: n for code, n in found.items() if n} == points
                assert int(kept.get("voters", 0)) == len(behind)


def counted(redis: Redis, poll: counting.Poll) -> tuple[dict[str, tuple[str, ...]], int]:
    """Return the votes by an independent count, and the version."""
    held = counting.count(redis.client, poll)
    version = int(redis.client.hget(f"poll:{poll.id}:meta", "version") or 0)
    return {voter: tuple(vote.split(">")) for voter, vote in held.items()}, version


def test_any_history_is_counted_as_the_model_counts(redis_server):
    class Here(Counting):
        redis = redis_server

    run_state_machine_as_test(
        Here,
        settings=settings(
            max_examples=40, stateful_step_count=40, deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("right", "wrong", "finders"),
    [
        # A vote that changes is not taken from its former choice.
        ("add(deltas, held, -1)", "", {"count"}),
        # The very last moment.
        ("now >= closes", "now > closes", {"vote_together", "repeat", "race"}),
        # A recount is not told of what changes behind it.
        ("add(counted_deltas, value, 1)", "", {"exact", "a_recount_knows_what_lies_behind_it"}),
    ],
)
def test_the_model_would_find_a_wrong_script(redis_server, right, wrong, finders):
    class Wrong(Counting):
        redis = redis_server

        def begin(self, **facts) -> None:
            super().begin(**facts)
            for one in self.stores:
                assert right in one._vote.text
                one._vote.text = one._vote.text.replace(right, wrong)
                one._vote.hash = hashlib.sha1(one._vote.text.encode()).hexdigest()

        begin = initialize(ranked=st.booleans(), coded=st.booleans())(begin)

    with pytest.raises(AssertionError) as found:
        run_state_machine_as_test(
            Wrong,
            settings=settings(
                max_examples=2000, stateful_step_count=40, deadline=None, derandomize=True,
                report_multiple_bugs=False, suppress_health_check=list(HealthCheck),
                phases=[Phase.generate],
            ),
        )  # fmt: skip
    assert found.traceback[-1].name in finders
