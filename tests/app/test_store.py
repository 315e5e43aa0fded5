"""What the counting room does with votes, and with organisers."""

import asyncio
import re
import signal
import time
from dataclasses import replace

import pytest

from f1vote import batch
from f1vote.store import Burst, Cast, Outcome, Recount, Standing, Store, Unreachable
from tests.app.counting import count, opened, poll, receipt, run
from tests.app.servers import Redis

POLL = poll()
RANKED = poll("ranked", (3, 2, 1))
ANN, BOB = receipt("ann"), receipt("bob")


@pytest.fixture
def own_redis(tmp_path):
    """A Redis to be killed."""
    server = Redis(tmp_path)
    yield server
    if server.process.poll() is None:
        server.process.send_signal(signal.SIGCONT)
        server.kill()


def calls(redis: Redis) -> int:
    return int(redis.client.info("commandstats").get("cmdstat_evalsha", {"calls": 0})["calls"])


# One vote


def test_the_life_of_a_vote(redis_server):
    async def work(store: Store) -> list[Cast]:
        return [
            await store.cast(POLL, ANN, ["NOR"]),
            await store.cast(POLL, ANN, ["NOR"]),
            await store.cast(POLL, ANN, ["VER"]),
            await store.cast(POLL, ANN, []),
            await store.cast(POLL, ANN, []),
            await store.cast(POLL, ANN, ["NOR"]),
        ]

    assert run(redis_server, [POLL], work) == [
        Cast(Outcome.COUNTED, ()),
        Cast(Outcome.SAME, ("NOR",)),
        Cast(Outcome.CHANGED, ("NOR",)),
        Cast(Outcome.WITHDRAWN, ("VER",)),
        Cast(Outcome.SAME, ()),
        Cast(Outcome.COUNTED, ()),
    ]
    assert count(redis_server.client, POLL) == {ANN: "NOR"}


@pytest.mark.parametrize(
    "choices",
    [
        ["NOR", "NOR"],
        ["NOR", "VER", "HAM", "LEC"],
        ["BOT"],
        [""],
        ["NOR", ""],
        ["nor"],
        ["NOR>VER"],
        ["NOR;0000000000000=VER"],
        ["NOR\n"],
        ["A" * 100_000],
        ["NOR"] * 100_000,
    ],
)
def test_what_is_no_vote_is_refused_and_spoils_no_other(redis_server, choices):
    async def work(store: Store) -> tuple[Cast, Cast, Cast]:
        await store.cast(RANKED, ANN, ["HAM"])
        first, second, third = await asyncio.gather(
            store.cast(RANKED, BOB, ["NOR", "VER", "HAM"]),
            store.cast(RANKED, ANN, choices),
            store.cast(RANKED, receipt("cy"), ["VER"]),
        )
        return first, second, third

    assert run(redis_server, [RANKED], work) == (
        Cast(Outcome.COUNTED, ()),
        Cast(Outcome.UNKNOWN, ("HAM",)),
        Cast(Outcome.COUNTED, ()),
    )
    held = {ANN: "HAM", BOB: "NOR>VER>HAM", receipt("cy"): "VER"}
    assert count(redis_server.client, RANKED) == held


def test_what_is_no_receipt_is_not_sent(redis_server):
    async def work(store: Store) -> None:
        for wrong in ("", "ann", ANN + "A", "=" * 13):
            with pytest.raises(ValueError, match="not a receipt"):
                await store.cast(POLL, wrong, ["NOR"])

    run(redis_server, [POLL], work)
    assert redis_server.client.keys() == []


def test_the_window_is_kept_by_the_clock_of_redis(redis_server, monkeypatch):
    now = int(time.time())
    # The app's own clock may say what it likes.
    monkeypatch.setattr(time, "time", lambda: 0.0)
    early = replace(POLL, opens=now + 3600)
    closed = replace(POLL, opens=now - 7200, closes=now - 3600)

    async def work(store: Store) -> list[Outcome]:
        during = replace(POLL, opens=now - 3600, closes=now + 3600)
        return [
            (await store.cast(one, ANN, choices)).outcome
            for one, choices in (
                (early, ["NOR"]), (during, ["NOR"]), (closed, ["VER"]), (closed, []),
                # It was counted in time; that the answer got lost is no reason to deny it.
                (closed, ["NOR"]),
            )
        ]  # fmt: skip

    assert run(redis_server, [POLL], work) == [
        Outcome.EARLY, Outcome.COUNTED, Outcome.CLOSED, Outcome.CLOSED, Outcome.SAME,
    ]  # fmt: skip
    assert count(redis_server.client, POLL) == {ANN: "NOR"}


def test_the_organiser_outvotes_the_file(redis_server):
    async def work(store: Store) -> None:
        now = int((await store.standing(POLL)).now)

        async def now_is(state: str, outcome: Outcome, **overrides) -> None:
            standing = await store.control(POLL, **overrides)
            assert standing.state == state == (await store.standing(POLL)).state
            answer = await store.cast(POLL, BOB, ["NOR"])
            assert answer.outcome is outcome
            if outcome is Outcome.COUNTED:
                await store.cast(POLL, BOB, [])

        await now_is("frozen", Outcome.FROZEN, frozen=True)
        await now_is("early", Outcome.EARLY, opens=now + 600)
        await now_is("closed", Outcome.CLOSED, closes=now - 1)
        await now_is("early", Outcome.EARLY, closes=None)
        await now_is("frozen", Outcome.FROZEN, opens=None)
        await now_is("open", Outcome.COUNTED, frozen=None)
        await now_is("open", Outcome.COUNTED, closes=now + 600)
        with pytest.raises(TypeError, match="color"):
            await store.control(POLL, color=1)
        # The file closes it, the organiser says never.
        over = replace(POLL, closes=now - 5)
        assert (await store.control(over, closes=0)).state == "open"

    run(redis_server, [POLL], work)


def test_only_admitted_codes_vote(redis_server):
    closed = poll(voters="codes")

    async def work(store: Store) -> None:
        assert (await store.cast(closed, ANN, ["NOR"])).outcome is Outcome.CODE
        crowd = [receipt(str(n)) for n in range(1200)]
        assert await store.admit(closed, [ANN, *crowd]) == 1201
        assert await store.admit(closed, [ANN]) == 0
        assert (await store.cast(closed, ANN, ["NOR"])).outcome is Outcome.COUNTED
        assert (await store.cast(closed, BOB, ["NOR"])).outcome is Outcome.CODE
        assert await store.reset(closed) == 1
        assert (await store.cast(closed, ANN, ["NOR"])).outcome is Outcome.COUNTED

    run(redis_server, [closed], work)


# Together


def test_votes_that_wait_go_together_and_each_is_answered_by_itself(redis_server):
    async def work(store: Store) -> list[Outcome]:
        await store.cast(POLL, ANN, ["NOR"])
        before = calls(redis_server)
        votes = [store.cast(POLL, receipt(str(n)), ["VER"]) for n in range(300)]
        answers = await asyncio.gather(
            store.cast(POLL, ANN, ["NOR"]),
            store.cast(POLL, BOB, ["NOR"]),
            store.cast(POLL, BOB, ["HAM"]),
            store.cast(POLL, BOB, []),
            store.cast(POLL, BOB, ["LEC"]),
            store.cast(POLL, BOB, ["BOT"]),
            *votes,
        )
        assert calls(redis_server) - before <= 3
        return [answer.outcome for answer in answers]

    outcomes = run(redis_server, [POLL], work)
    assert outcomes[:6] == ["same", "counted", "changed", "withdrawn", "counted", "unknown"]
    assert set(outcomes[6:]) == {Outcome.COUNTED}
    assert count(redis_server.client, POLL)[BOB] == "LEC"


def test_who_leaves_takes_nobody_along(redis_server):
    async def work(store: Store) -> None:
        votes = [
            asyncio.ensure_future(store.cast(POLL, receipt(str(n)), ["VER"])) for n in range(9)
        ]
        await asyncio.sleep(0)
        votes[3].cancel()
        votes[8].cancel()
        done = await asyncio.gather(*votes, return_exceptions=True)
        assert sum(isinstance(one, Cast) for one in done) == 7

    run(redis_server, [POLL], work)
    count(redis_server.client, POLL)


def test_no_more_wait_than_can_be_answered(redis_server, monkeypatch):
    monkeypatch.setattr(batch, "MOST_WAITING", 10)

    async def work(store: Store) -> list[object]:
        votes = [store.cast(POLL, receipt(str(n)), ["VER"]) for n in range(12)]
        return await asyncio.gather(*votes, return_exceptions=True)

    answers = run(redis_server, [POLL], work)
    assert [isinstance(one, Unreachable) for one in answers] == [False] * 10 + [True] * 2


# What is seen


def test_a_page_shows_standing_and_vote_of_one_moment(redis_server):
    async def work(store: Store) -> tuple[Standing, tuple[str, ...]]:
        await store.cast(RANKED, ANN, ["NOR", "HAM"])
        await store.cast(RANKED, BOB, ["HAM"])
        assert await store.held(RANKED, receipt("cy")) == ()
        pages = [store.page(RANKED, BOB), store.page(RANKED, None), store.page(RANKED, ANN)]
        bob, nobody, ann = await asyncio.gather(*pages)
        assert (bob[1], nobody[1]) == (("HAM",), ())
        return ann

    standing, held = run(redis_server, [RANKED], work)
    assert held == ("NOR", "HAM")
    assert standing.points == {"NOR": 3, "VER": 0, "HAM": 5, "LEC": 0}
    assert (standing.voters, standing.version, standing.state) == (2, 2, "open")


@pytest.mark.parametrize(
    ("results", "state", "voted", "hidden", "seen"),
    [
        ("always", "open", False, False, True),
        ("voted", "open", False, False, False),
        ("voted", "open", True, False, True),
        ("voted", "closed", False, False, True),
        ("closed", "open", True, False, False),
        ("closed", "closed", False, False, True),
        ("always", "closed", True, True, False),
    ],
)
def test_who_sees_the_points(results, state, voted, hidden, seen):
    standing = Standing({}, 0, 0, 100.0, 0, 100 if state == "closed" else 101, False, hidden)
    assert standing.state == state
    assert standing.visible(replace(POLL, results=results), voted) is seen


def test_a_change_is_told_and_the_subscription_outlives_redis(own_redis):
    other = poll("other")

    async def work() -> None:
        async with opened(own_redis, POLL, other) as store:
            news = store.changes()

            async def heard() -> str:
                async with asyncio.timeout(20):
                    return await anext(news)

            assert [await heard(), await heard()] == ["test", "other"]
            await store.cast(POLL, ANN, ["NOR"])
            assert await heard() == "test"
            await asyncio.to_thread(own_redis.kill)
            await asyncio.to_thread(own_redis.start)
            # What was missed meanwhile is told as if it had changed.
            assert [await heard(), await heard()] == ["test", "other"]
            await store.cast(other, ANN, ["NOR"])
            assert await heard() == "other"
            await news.aclose()

    asyncio.run(work())


def test_many_votes_are_not_many_messages(redis_server):
    async def work(store: Store) -> int:
        with redis_server.client.pubsub() as listener:
            listener.subscribe("f1:changed")
            for n in range(100):
                await store.cast(POLL, receipt(str(n)), ["NOR"])
            told = [listener.get_message(timeout=0.2)]
            while told[-1]:
                told.append(listener.get_message(timeout=0.2))
            return sum(1 for message in told if message and message["type"] == "message")

    began = time.monotonic()
    assert 1 <= run(redis_server, [POLL], work) <= 1 + (time.monotonic() - began) / 0.2


# When Redis is in trouble


def test_the_file_does_not_tell_when_somebody_voted(own_redis):
    """Not even by what stands between votes: the pause between messages, the recount."""

    async def work(store: Store) -> None:
        for name in ("ann", "bob"):
            await store.cast(POLL, receipt(name), ["NOR"])
            await store.recount(POLL)

    began = time.time()
    run(own_redis, [POLL], work)
    written = b"".join(file.read_bytes() for file in own_redis.folder.rglob("*.incr.aof"))
    assert receipt("bob")[4:].encode() in written
    numbers = map(float, re.findall(rb"\d{10}(?:[.]\d+)?", written))
    assert [number for number in numbers if abs(number - began) < 3600] == []


def test_redis_that_forgot_the_script_is_given_it_again(redis_server):
    async def work(store: Store) -> Cast:
        await store.cast(POLL, ANN, ["NOR"])
        redis_server.client.script_flush()
        return await store.cast(POLL, ANN, ["VER"])

    assert run(redis_server, [POLL], work) == Cast(Outcome.CHANGED, ("NOR",))


def test_a_tally_that_cannot_be_written_leaves_the_vote_unwritten(redis_server):
    async def work(store: Store) -> None:
        redis_server.client.set("poll:test:tally", "not a hash")
        with pytest.raises(Unreachable, match="WRONGTYPE"):
            await store.cast(POLL, ANN, ["NOR"])

    run(redis_server, [POLL], work)
    assert redis_server.client.keys("poll:test:votes:*") == []


def test_when_memory_is_full_a_vote_is_refused_and_the_others_stay(own_redis):
    async def work(store: Store) -> None:
        await store.cast(RANKED, ANN, ["NOR", "VER"])
        own_redis.client.config_set("maxmemory", 1)
        for voter, choices in ((ANN, ["HAM"]), (ANN, []), (BOB, ["HAM"])):
            with pytest.raises(Unreachable, match="OutOfMemory"):
                await store.cast(RANKED, voter, choices)
        assert await store.held(RANKED, ANN) == ("NOR", "VER")
        own_redis.client.config_set("maxmemory", 0)
        assert (await store.cast(RANKED, BOB, ["HAM"])).outcome is Outcome.COUNTED

    run(own_redis, [RANKED], work)
    assert count(own_redis.client, RANKED) == {ANN: "NOR>VER", BOB: "HAM"}


def test_a_redis_that_comes_back_in_time_takes_the_vote_that_waited(own_redis):
    async def work() -> None:
        async with opened(own_redis, POLL) as store:
            await store.cast(POLL, BOB, ["NOR"])
            await asyncio.to_thread(own_redis.kill)
            vote = asyncio.create_task(store.cast(POLL, ANN, ["NOR"]))
            await asyncio.sleep(0.3)
            await asyncio.to_thread(own_redis.start)
            assert await vote == Cast(Outcome.COUNTED, ())

    asyncio.run(work())
    assert count(own_redis.client, POLL) == {ANN: "NOR", BOB: "NOR"}


@pytest.mark.parametrize("trouble", [signal.SIGSTOP, signal.SIGKILL])
def test_a_redis_that_does_not_answer_is_given_up_in_time(own_redis, trouble):
    async def work() -> None:
        async with opened(own_redis, POLL) as store:
            await store.cast(POLL, BOB, ["NOR"])
            own_redis.process.send_signal(trouble)
            began = time.monotonic()
            answers = await asyncio.gather(
                *(store.cast(POLL, receipt(str(n)), ["NOR"]) for n in range(600)),
                store.standing(POLL),
                return_exceptions=True,
            )
            assert {type(answer) for answer in answers} == {Unreachable}
            assert time.monotonic() - began < 4.5
            assert any("does not answer" in line for line in await store.problems())

    asyncio.run(work())


def test_readiness_wants_a_durable_redis_and_the_points_that_were_counted(redis_server):
    async def work(store: Store) -> None:
        assert await store.problems() == []
        await store.cast(RANKED, ANN, ["NOR", "VER"])
        redis_server.client.config_set("appendonly", "no")
        try:
            assert "appendonly yes" in (await store.problems())[0]
        finally:
            redis_server.client.config_set("appendonly", "yes")
        other = replace(RANKED, points=(5, 3, 1))
        async with opened(redis_server, other) as changed:
            assert "points 3>2>1" in (await changed.problems())[0]
            # It counts on as it began.
            await changed.cast(other, ANN, ["HAM"])
            assert count(redis_server.client, RANKED) == {ANN: "HAM"}
            await changed.reset(other)
            assert await changed.problems() == []

    run(redis_server, [POLL, RANKED], work)


def test_readiness_wants_every_choice_that_votes_hold(redis_server):
    async def work(store: Store) -> None:
        await store.cast(POLL, ANN, ["NOR"])
        await store.cast(POLL, BOB, ["VER"])
        await store.cast(POLL, BOB, ["HAM"])
        await store.cast(POLL, BOB, [])
        without = [choice for choice in POLL.choices if choice.code not in ("NOR", "VER", "HAM")]
        async with opened(redis_server, replace(POLL, choices=tuple(without))) as changed:
            (told,) = await changed.problems()
        assert "test: votes hold NOR, which" in told
        await store.cast(POLL, ANN, ["LEC"])
        async with opened(redis_server, replace(POLL, choices=tuple(without))) as changed:
            assert await changed.problems() == []

    run(redis_server, [POLL], work)


def test_each_call_is_observed(own_redis):
    seen: list[tuple[str, bool]] = []

    async def work() -> None:
        store = Store(own_redis.url, [POLL], observe=lambda name, _, ok: seen.append((name, ok)))
        await store.cast(POLL, ANN, ["NOR"])
        await store.standing(POLL)
        await asyncio.to_thread(own_redis.kill)
        with pytest.raises(Unreachable):
            await store.standing(POLL)
        await store.close()

    asyncio.run(work())
    assert {("vote", True), ("page", True), ("page", False)} <= set(seen)


# Organisers


def test_reset_removes_votes_and_nothing_else(redis_server):
    async def work(store: Store) -> int:
        for n in range(20):
            await store.cast(RANKED, receipt(str(n)), ["NOR", "VER"])
            await store.cast(POLL, receipt(str(n)), ["HAM"])
        await store.control(RANKED, frozen=True)
        before = await store.standing(RANKED)
        removed = await store.reset(RANKED)
        standing = await store.standing(RANKED)
        assert standing.version > before.version
        assert (standing.voters, sum(standing.points.values())) == (0, 0)
        assert standing.frozen
        return removed

    assert run(redis_server, [RANKED, POLL], work) == 20
    assert count(redis_server.client, RANKED) == {}
    assert len(count(redis_server.client, POLL)) == 20


def test_all_votes_are_listed_by_receipt(redis_server, monkeypatch):
    monkeypatch.setattr("f1vote.store.SLICE", 7)

    async def work(store: Store) -> list[tuple[str, tuple[str, ...]]]:
        assert [vote async for vote in store.votes(RANKED)] == []
        names = [receipt(str(n)) for n in range(100)]
        await asyncio.gather(*(store.cast(RANKED, name, ["NOR", "VER"]) for name in names))
        await store.cast(RANKED, names[0], [])
        return [vote async for vote in store.votes(RANKED)]

    names = sorted(receipt(str(n)) for n in range(1, 100))
    assert run(redis_server, [RANKED], work) == [(name, ("NOR", "VER")) for name in names]


def test_the_log_and_the_bursts_are_kept(redis_server):
    burst = Burst("ab12", 10, 20, 100, 3, {"NOR": 90})
    grown = replace(burst, last=30, fresh=180)
    other = replace(burst, address="")

    async def work(store: Store) -> None:
        await store.note("ann", "close", poll="test", at=5)
        await store.note("bob", "reset", poll="test")
        last, first = await store.log(10)
        assert (last.who, last.action) == ("bob", "reset")
        assert first.facts == {"poll": "test", "at": 5}
        assert abs(first.at - (await store.standing(POLL)).now) < 60
        assert len(await store.log(1)) == 1
        assert await store.bursts(POLL) == []
        for one in (burst, other, grown):
            await store.mark(POLL, one)
        assert await store.bursts(POLL) == [grown, other]

    run(redis_server, [POLL], work)


def test_a_recount_now(redis_server):
    async def work(store: Store) -> Recount:
        assert await store.recounted(POLL) is None
        await store.cast(POLL, ANN, ["NOR"])
        recount = await store.recount(POLL)
        assert recount == await store.recounted(POLL)
        return recount

    assert run(redis_server, [POLL], work).difference == 0
