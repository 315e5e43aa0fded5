"""`make audit`: every machine asked, one verdict a number, an exit code that is true."""

import json
from types import ModuleType
from typing import Any

import pytest
import ssh
from salt.exceptions import SaltException

from tests.conftest import load_ext

Answers = dict[str, Any]


def found(number: str, status: str, evidence: str = "seen") -> dict[str, str]:
    return {"id": number, "title": f"Title of {number}", "status": status, "evidence": evidence}


SOUND: Answers = {
    "f1-master": [found("1.2.6", "pass"), found("2.1", "n/a"), found("4.2.4", "pass")],
    "f1-worker-1": [found("4.2.4", "pass")],
}


@pytest.fixture
def audit(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    module = load_ext("runners/audit.py")
    fleet = {"master": "f1-master", "workers": ["f1-worker-1"]}
    monkeypatch.setattr(module.knobs, "load", lambda _: {"fleet": fleet})
    module.__dict__["__opts__"] = {}
    return module


def answers(audit: ModuleType, said: str | Exception) -> list[list[str]]:
    """Let the master say this; return what it is asked."""
    asked: list[list[str]] = []

    def run(words: list[str], seconds: float) -> str:
        asked.append(words)
        if isinstance(said, Exception):
            raise said
        return said

    audit.__dict__["__salt__"] = {"master.run": run}
    return asked


def test_every_machine_is_asked_by_its_id(audit: ModuleType) -> None:
    asked = answers(audit, json.dumps(SOUND))
    data = audit.cluster()
    (words,) = asked
    assert words[-3:] == ["-L", "f1-master,f1-worker-1", "cis.check"]
    assert [each["id"] for each in data["checks"]] == ["1.2.6", "2.1", "4.2.4"]
    assert data["checks"][2]["machines"] == {"f1-master": "pass", "f1-worker-1": "pass"}
    assert data["counts"] == {"n/a": 1, "pass": 2, "accepted": 0, "fail": 0}
    assert data["retcode"] == 0


def test_a_number_is_as_good_as_its_worst_machine(audit: ModuleType) -> None:
    worse = {**SOUND, "f1-worker-1": [found("4.2.4", "fail", "--read-only-port=10255")]}
    answers(audit, json.dumps(worse))
    data = audit.cluster()
    assert data["retcode"] == 1
    assert data["checks"][2]["status"] == "fail"
    assert data["checks"][2]["evidence"] == "f1-worker-1: --read-only-port=10255"


def test_what_is_accepted_does_not_fail(audit: ModuleType) -> None:
    answers(audit, json.dumps({**SOUND, "f1-worker-1": [found("4.2.4", "accepted")]}))
    assert audit.cluster()["retcode"] == 0


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (None, "f1-worker-1: no answer"),
        (False, "f1-worker-1: no answer"),
        ([], r"f1-worker-1: \[\]"),
        ("Minion did not return. [No response]", "f1-worker-1: Minion did not return"),
        ("'cis.check' is not available.", "`make up` gives it this tree"),
    ],
)
def test_what_was_not_looked_at_has_not_passed(answer: Any, words: str, audit: ModuleType) -> None:
    said = json.dumps({**SOUND, "f1-worker-1": answer})
    # With such an answer `salt` itself ends with an error.
    answers(audit, ssh.CommandFailed("salt ended with 1", said.encode()))
    with pytest.raises(SaltException, match=words):
        audit.cluster()


def test_an_answer_that_is_none_is_told(audit: ModuleType) -> None:
    answers(audit, "The Salt Master has thrown an error {")
    with pytest.raises(SaltException, match="did not answer in JSON"):
        audit.cluster()
    answers(audit, ssh.CommandFailed("no salt there"))
    with pytest.raises(ssh.CommandFailed, match="no salt there"):
        audit.cluster()


def test_it_is_printed_with_what_failed_at_the_end(audit: ModuleType) -> None:
    outputter = load_ext("outputters/audit.py")
    answers(audit, json.dumps({**SOUND, "f1-worker-1": [found("4.2.4", "fail", "open")]}))
    lines = outputter.output(audit.cluster()).splitlines()
    assert lines[0] == "  1.2.6   pass      Title of 1.2.6: seen"
    assert lines[3] == "  3 checks: 1 n/a, 1 pass, 1 fail"
    assert lines[4:] == ["  4.2.4   fail      Title of 4.2.4: f1-worker-1: open"]
    assert outputter.output("no master yet") == "no master yet"
