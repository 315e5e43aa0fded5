"""Redis and the app are killed under load: see lab/bench/app_crash.py, which does it 100 times."""

from lab.bench.app_crash import crash


def test_no_acknowledged_vote_is_lost_or_doubled():
    result = crash(rounds=8, seed=7)
    assert result.wrong == []
    assert len(result.killed) == 3
    assert result.acknowledged > 100
    assert result.unanswered > 0


def test_a_redis_that_forgets_would_be_found_out():
    assert any("holds" in line for line in crash(rounds=8, seed=7, log=False).wrong)
