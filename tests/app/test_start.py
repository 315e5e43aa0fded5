"""What the app is given to start with: everything wrong is told at once, with its fix."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from f1vote import ballot, config, i18n, polls, web
from f1vote.problems import Problems
from tests.conftest import ROOT

APP = ROOT / "app"
POLL = (APP / "polls" / "f1-2026.yaml").read_text()


def problems(work) -> list[str]:
    with pytest.raises(Problems) as raised:
        work()
    return raised.value.lines


def test_every_wrong_variable_is_told_at_once(tmp_path):
    (tmp_path / "key").write_bytes(b"short")
    lines = problems(
        lambda: config.load(
            {
                "F1_REDIS_URL": "http://redis",
                "F1_COOKIE_KEY_FILE": str(tmp_path / "key"),
                "F1_POLLS_DIR": str(tmp_path / "none"),
                "F1_PORT": "http",
            }
        )
    )
    assert [line.partition(":")[0] for line in lines] == [
        "F1_REDIS_URL", "F1_COOKIE_KEY_FILE", "F1_POLLS_DIR", "F1_VERSION", "F1_PORT",
    ]  # fmt: skip
    assert "holds 5 bytes" in lines[1]


def test_the_key_is_not_shown(tmp_path):
    (tmp_path / "key").write_bytes(b"k" * 40)
    loaded = config.load(
        {
            "F1_REDIS_URL": "redis://:hunter2@redis:6379/0",
            "F1_COOKIE_KEY_FILE": str(tmp_path / "key"),
            "F1_POLLS_DIR": str(tmp_path),
            "F1_VERSION": "1",
        }
    )
    assert "kkkk" not in repr(loaded)
    assert "hunter2" not in repr(loaded)


def test_the_program_ends_with_2_and_says_why():
    env = {name: value for name, value in os.environ.items() if not name.startswith("F1_")}
    ended = subprocess.run(
        [sys.executable, "-m", "f1vote"],
        env={**env, "PYTHONPATH": str(APP)}, capture_output=True, text=True, timeout=30,
    )  # fmt: skip
    assert ended.returncode == 2
    assert ended.stderr.count("\n  F1_") == 4
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("id: f1-2026", "id: F1 2026", "id: 'F1 2026': write 1 to 32"),
        ("opens: 2026-03-06T00:00:00Z", "opens: 2026-03-06", "opens: "),
        ("opens: 2026-03-06T00:00:00Z", "opens: 2026-03-06T00:00:00", "with its offset"),
        ("closes: null", "closes: 2026-01-01T00:00:00Z", "closes: is not after opens"),
        ("closes: null", "", "closes: missing; write"),
        ("closes: null", "closes: null\ncolour: red", "colour: unknown; remove it"),
        ("  fr: Qui", "  de: Qui", "question: "),
        ("code: PIA", "code: NOR", "code NOR is there 2 times"),
        ("number: 81", "number: 1", "number 1 is there 2 times"),
        ("code: PIA", "code: pia", "choices: 2: code: 'pia': write"),
        ("colour: '#ff8000'}\n  - {code: PIA", "colour: red}\n  - {code: PIA", "'#rrggbb'"),
        ("choices:", "choices: [", "does not read as YAML"),
    ],
)
def test_a_wrong_poll_is_told_by_file_key_and_fix(tmp_path, old, new, said):
    assert old in POLL
    (tmp_path / "p.yaml").write_text(POLL.replace(old, new, 1))
    lines = problems(lambda: polls.load(tmp_path))
    assert any(said in line and str(tmp_path / "p.yaml") in line for line in lines), lines


def test_all_that_is_wrong_in_all_polls_is_told(tmp_path):
    (tmp_path / "a.yaml").write_text(POLL.replace("number: 81", "number: x"))
    (tmp_path / "b.yaml").write_text("[]")
    lines = problems(lambda: polls.load(tmp_path))
    assert len(lines) == 2
    assert problems(lambda: polls.load(tmp_path / "none")) == [
        f"{tmp_path / 'none'}: holds no poll; add a file such as f1-2026.yaml"
    ]
    (tmp_path / "a.yaml").write_text(POLL)
    (tmp_path / "b.yaml").write_text(POLL)
    assert "2 polls have the id f1-2026" in problems(lambda: polls.load(tmp_path))[0]


def test_the_season_of_2026():
    (poll,) = polls.load(APP / "polls")
    assert len(poll.choices) == 22
    teams = {choice.team: choice.colour for choice in poll.choices}
    assert len(teams) == 11
    assert all(teams[choice.team] == choice.colour for choice in poll.choices)
    # The proof of `up` votes: a poll that closes would end it.
    assert poll.closes == 0


def test_both_languages_have_the_same_texts_and_each_is_used():
    texts = i18n.Texts()
    sources = [*(APP / "f1vote").rglob("*.py"), *(APP / "f1vote").rglob("*.html")]
    source = "\n".join(file.read_text() for file in sources)
    spoken = {"ballot", *map(str, web.EXPLAINED), *web.REFUSED}
    built = {f"error.{key}.{part}" for key in spoken for part in ("title", "text")}
    built |= {"state.early", "state.closed"}
    keys = set(texts.tables["en"])
    assert built <= keys
    unused = [key for key in keys - built if not re.search(rf'"{re.escape(key)}"', source)]
    assert unused == []
    used = set(re.findall(r'\bt\("([\w.]+\w)"', source))
    assert used <= set(texts.tables["en"])


def test_a_missing_or_different_translation_is_told(tmp_path):
    for language in ("en", "fr"):
        table = yaml.safe_load((APP / "locale" / f"{language}.yaml").read_text())
        if language == "fr":
            del table["back"]
            table["vote.for"] = "Voter"
            table["results.voters"] = "{n} votes"
        (tmp_path / f"{language}.yaml").write_text(yaml.safe_dump(table))
    lines = problems(lambda: i18n.Texts(Path(tmp_path)))
    assert "fr.yaml: back: missing" in lines[0]
    assert len(lines) == 3


def test_plurals():
    texts = i18n.Texts()
    forms = [texts.get(lang, "results.voters", n=n) for lang in ("en", "fr") for n in (0, 1, 2)]
    assert forms == ["0 votes", "1 vote", "2 votes", "0 vote", "1 vote", "2 votes"]


def test_a_ballot_is_only_good_for_its_key():
    voter, value = ballot.issue(b"k" * 32)
    assert ballot.read(b"k" * 32, value) == voter
    assert ballot.read(b"K" * 32, value) is None
    assert len({ballot.issue(b"k" * 32)[0] for _ in range(100)}) == 100
