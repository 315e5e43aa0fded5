"""What the measurements of the app make of what they see."""

import json
from base64 import b64decode
from pathlib import Path

import pytest

from f1vote import ballot
from lab.bench import app, app_load, app_viewers
from lab.bench.app_load import Seen
from lab.bench.app_servers import KEY, Server


def seen(answers: dict[str, int]) -> Seen:
    return Seen(rate=1.0, p50=1.0, p99=1.0, worst=1.0, answers=answers, cores={})


def test_a_lag_is_from_the_sending_to_the_last_viewer():
    sent = [(10.0, 10.1), (10.2, 10.3), (20.0, 20.1)]
    # The second event holds two votes; who saw none of them yet saw 0 at first.
    assert app.lags(sent, [(0, 9.0), (2, 10.5), (3, 20.4)]) == pytest.approx([0.5, 0.3, 0.4])


def test_a_vote_that_was_never_seen_ends_the_measurement():
    with pytest.raises(SystemExit, match="vote 2 of 2 was never seen"):
        app.lags([(1.0, 1.1), (1.2, 1.3)], [(0, 0.5), (1, 1.4)])


def test_figures_of_votes_that_were_not_kept_are_refused():
    app.counted(Server((), (), lambda: 7), 7)
    app.counted(Server((), (), lambda: -1), 7)  # who keeps none
    with pytest.raises(SystemExit, match="7 votes were acknowledged, Redis holds 6"):
        app.counted(Server((), (), lambda: 6), 7)


def test_only_what_was_answered_well_is_acknowledged():
    assert seen({"200": 5, "204": 2, "503": 3, "0": 1}).acknowledged == 7
    assert app.answers([seen({"200": 1000}), seen({"0": 1, "200": 234})]) == "1 × 0, 1,234 × 200"


def test_every_vote_is_of_a_voter_of_its_own(tmp_path: Path):
    made = list(app_load.votes(50, "/api/polls/bench/vote", ["NOR", "PIA"]))
    written = app_load.write(tmp_path / "votes", made).read_text().splitlines()
    assert [json.loads(line) for line in written] == made
    cookies = [target["header"]["Cookie"][0].removeprefix("__Host-f1vote=") for target in made]
    voters = {ballot.read([KEY], cookie) for cookie in cookies}
    assert len(voters) == 50
    assert None not in voters
    for target in made:
        (choice,) = json.loads(b64decode(target["body"]))["choices"]
        assert choice in ("NOR", "PIA")
        assert target["url"] == "http://vote.example/api/polls/bench/vote"


def test_viewers_tell_what_all_have_seen(capsys: pytest.CaptureFixture[str]):
    crowd = app_viewers.Crowd(2)
    first, second = (app_viewers.Viewer(crowd, b"") for _ in range(2))
    first.data_received(b'event: standing\ndata: {"voters":0}\n\n')
    assert not capsys.readouterr().out
    second.data_received(b'HTTP/1.1 200 OK\r\n\r\nretry: 3000\n\ndata: {"voters":0}\n\ndata: {"vot')
    first.data_received(b'data: {"voters":3}\n\n:\n\ndata: {"voters":4}\n\n')
    second.data_received(b'ers":3}\n\n')
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line.get("voters") for line in told] == [None, 0, 3]
    assert crowd.events == 5


def test_the_page_says_what_is_not_met():
    assert app.aim("Fast", met=True) == "- ✓ Fast\n"
    assert app.aim("Fast", met=False) == "- ✗ not met: Fast\n"
    assert app.spread([3.0, 1.0, 2.0], 1) == "1.0 / 2.0 / 3.0"
