"""A job outlives its minion's restart; every wait ends. Salt's client is a script here."""

import itertools
from collections.abc import Callable
from typing import Any

import jobs
import pytest

OK = {"file_|-a_|-a_|-managed": {"__id__": "a", "result": True, "changes": {"x": 1}}}
BUSY = ['The function "state.highstate" is running as PID 7 and was started at … with jid 1']


class Client:
    """A client whose minions do what `script` says for the nth job: (returned, still there)."""

    def __init__(self, script: dict[str, list[Any]]) -> None:
        self.script = script
        self.cache: dict[str, dict[str, Any]] = {}
        self.found: Callable[[str], Any] = lambda minion: {}
        self.published: list[tuple[list[str], str, Any, Any]] = []
        self.events: list[dict[str, Any]] = []
        self.numbers = itertools.count(1)
        self.event = self

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: Any) -> None:
        pass

    def run_job(self, minions: list[str], function: str, arg: Any, kwarg: Any, **_: Any) -> Any:
        known = [minion for minion in minions if minion in self.script]
        if not known:
            return {}
        jid = str(next(self.numbers))
        self.published.append((minions, function, arg, kwarg))
        for minion in known:
            does = self.script[minion].pop(0) if self.script[minion] else None
            if does is not None:
                self.events.append({"data": {"id": minion, "jid": jid, "return": does}})
        return {"jid": jid, "minions": known}

    def get_event(self, **_: Any) -> dict[str, Any] | None:
        return self.events.pop(0) if self.events else None

    def cmd(self, minions: list[str], *_: Any, full_return: bool, **__: Any) -> dict[str, Any]:
        """Answer as Salt does: for one that is silent, in words of its own."""
        assert full_return
        silent = "Minion did not return. [No response]"
        told = {minion: self.found(minion) for minion in minions}
        return {m: {"ret": silent if said is None else said} for m, said in told.items()}


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[jobs.Outcome, Client]]:
    def start(
        script: dict[str, list[Any]], deadline: float = 5, **more: Any
    ) -> tuple[jobs.Outcome, Client]:
        client = Client(script)
        client.__dict__.update(more)
        monkeypatch.setattr(jobs.salt.client, "get_local_client", lambda c_path: client)
        cached = {"local_cache.get_jid": lambda jid: client.cache.get(jid, {})}
        monkeypatch.setattr(jobs.salt.loader, "returners", lambda opts, functions: cached)
        for name in ("LOOK_SECONDS", "BUSY_SECONDS"):
            monkeypatch.setattr(jobs, name, 0)
        opts = {"conf_file": "/etc/salt/master", "master_job_cache": "local_cache", "test": True}
        return jobs.states(opts, ["a", "b"], deadline=deadline), client

    return start


class Always(list[Any]):
    """A script that says the same again and again."""

    def pop(self, _: Any = 0) -> Any:
        return self[0]


Run = Callable[..., tuple[jobs.Outcome, Client]]


def test_what_all_return(run: Run) -> None:
    outcome, client = run({"a": [OK], "b": [OK]})
    assert (outcome.returned, outcome.failed) == ({"a": OK, "b": OK}, {})
    ((minions, function, arg, kwarg),) = client.published
    assert (minions, function, arg) == (["a", "b"], "state.highstate", [])
    assert kwarg == {"pillar": {}, "queue": False, "test": True}


def test_nobody_and_one_without_a_key(run: Run) -> None:
    outcome, _ = run({})
    assert set(outcome.failed) == {"a", "b"}
    outcome, _ = run({"a": [OK]})
    assert outcome.failed == {"b": "the master has no accepted key of it (`salt-key -L`)"}


def test_a_return_whose_event_was_missed_is_looked_up_by_its_job(run: Run) -> None:
    outcome, client = run({"a": [OK], "b": [None]}, cache={"1": {"b": {"return": OK}}})
    assert outcome.returned == {"a": OK, "b": OK}
    assert len(client.published) == 1


def test_a_job_that_died_with_its_minion_is_sent_once_more(run: Run) -> None:
    outcome, client = run({"a": [OK], "b": [None, OK]})
    assert outcome.returned == {"a": OK, "b": OK}
    assert [minions for minions, *_ in client.published] == [["a", "b"], ["b"]]


def test_having_been_busy_before_does_not_count(run: Run) -> None:
    outcome, client = run({"a": [OK], "b": [BUSY, BUSY, None, OK]})
    assert outcome.returned == {"a": OK, "b": OK}
    assert len(client.published) == 4


def test_and_not_without_end(run: Run) -> None:
    outcome, client = run({"a": [OK], "b": []})
    assert "its state run ended 2 times without a word" in outcome.failed["b"]
    assert len(client.published) == 2


def test_a_silent_minion_is_given_up(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "SILENT_SECONDS", 0)
    outcome, _ = run({"a": [OK], "b": []}, found=lambda minion: None)
    assert outcome.returned == {"a": OK}
    assert outcome.failed["b"].startswith("silent for 0 s")


def test_a_job_that_goes_on_is_waited_for_until_the_deadline(run: Run) -> None:
    outcome, _ = run({"a": [OK], "b": []}, 0.2, found=lambda minion: {"jid": "1"})
    assert list(outcome.failed) == ["b"]
    assert outcome.failed["b"].endswith("s; last seen: its state run still goes on")


def test_a_busy_minion_is_asked_again(run: Run) -> None:
    outcome, client = run({"a": [OK], "b": [BUSY, BUSY, OK]})
    assert outcome.returned == {"a": OK, "b": OK}
    assert len(client.published) == 3


def test_and_is_named_with_what_it_does(run: Run) -> None:
    outcome, _ = run({"a": [OK], "b": Always([BUSY])}, 0.2)
    assert "s; last seen: The function" in outcome.failed["b"]
    assert "is running as PID 7" in outcome.failed["b"]


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (["Rendering SLS 'base:x' failed"], "Rendering SLS 'base:x' failed"),
        ("'state.highstate' is not available.", "is not available"),
        (False, "False"),
        ({}, "{}"),
    ],
)
def test_what_is_no_result_is_a_failure_in_its_own_words(run: Run, said: Any, words: str) -> None:
    outcome, _ = run({"a": [OK], "b": [said]})
    assert words in outcome.failed["b"]


def test_faults_and_changes_by_the_name_of_the_state() -> None:
    value = {
        "file_|-a_|-a_|-managed": {"__id__": "a", "result": False, "comment": "no space "},
        "file_|-b_|-b_|-managed": {
            "result": False,
            "comment": "One or more requisite failed: x.a",
            "changes": {},
        },
        **{key.replace("-a_", "-c_"): {**one, "__id__": "c"} for key, one in OK.items()},
    }
    assert jobs.faults(value) == ["a: no space"]
    assert jobs.changes(value) == {"c": {"x": 1}}
