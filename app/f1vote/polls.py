"""
Polls: one YAML file each.

.. code-block:: yaml

    id: f1-2026                    # names the keys in Redis; never reuse one
    title: {en: …, fr: …}
    question: {en: …, fr: …}
    opens: 2026-03-06T00:00:00Z    # with an offset
    closes: null                   # null: does not close
    choices:
      - {code: NOR, name: Lando Norris, number: 1, team: McLaren, colour: '#ff8000'}
"""

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml

from f1vote.problems import Problems

LANGUAGES = ("en", "fr")


@dataclass(frozen=True)
class Choice:
    """One driver. ``code`` is what a vote holds; ``colour`` is the team's, #rrggbb."""

    code: str
    name: str
    number: int
    team: str
    colour: str


@dataclass(frozen=True)
class Poll:
    """``opens`` and ``closes`` are Unix seconds; ``closes`` 0 means that it does not close."""

    id: str
    title: dict[str, str]
    question: dict[str, str]
    opens: int
    closes: int
    choices: tuple[Choice, ...]

    @property
    def codes(self) -> tuple[str, ...]:
        return tuple(choice.code for choice in self.choices)


def load(folder: Path) -> tuple[Poll, ...]:
    """Return the polls of ``folder``, oldest first; raise Problems with all that is wrong."""
    wrong: list[str] = []
    polls = [
        poll for file in sorted(folder.glob("*.yaml")) if (poll := _read(file, wrong)) is not None
    ]
    for name, count in Counter(poll.id for poll in polls).items():
        if count > 1:
            wrong.append(f"{folder}: {count} polls have the id {name}; give each its own")
    if not polls and not wrong:
        wrong.append(f"{folder}: holds no poll; add a file such as f1-2026.yaml")
    if wrong:
        raise Problems(wrong)
    return tuple(sorted(polls, key=lambda poll: poll.opens))


def current(polls: Sequence[Poll], now: float) -> Poll:
    """Return the poll that opened last before ``now`` (Unix seconds), else the next to open."""
    opened = [poll for poll in polls if poll.opens <= now]
    return opened[-1] if opened else polls[0]


def _text(value: Any) -> bool:
    return isinstance(value, str) and 0 < len(value.strip()) <= 200


def _texts(value: Any) -> bool:
    return (
        isinstance(value, dict) and set(value) == set(LANGUAGES) and all(map(_text, value.values()))
    )


def _moment(value: Any) -> bool:
    return isinstance(value, datetime) and value.tzinfo is not None


def _matches(pattern: str) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, str) and re.fullmatch(pattern, value) is not None


# Key → (is it right?, the fix).
Rules = dict[str, tuple[Callable[[Any], bool], str]]
POLL: Rules = {
    "id": (_matches(r"[a-z0-9][a-z0-9-]{0,31}"), "1 to 32 of a-z, 0-9 and -"),
    "title": (_texts, "one text a language: {en: …, fr: …}"),
    "question": (_texts, "one text a language: {en: …, fr: …}"),
    "opens": (_moment, "a moment with its offset, such as 2026-03-06T00:00:00Z"),
    "closes": (lambda value: value is None or _moment(value), "a moment with its offset, or null"),
    "choices": (lambda value: isinstance(value, list) and len(value) >= 2, "a list of at least 2"),
}
CHOICE: Rules = {
    "code": (_matches(r"[A-Z0-9]{2,8}"), "2 to 8 of A-Z and 0-9"),
    "name": (_text, "the driver's name, at most 200 characters"),
    "number": (
        lambda value: type(value) is int and 0 <= value <= 99,
        "the car's number, 0 to 99",
    ),
    "team": (_text, "the team's name, at most 200 characters"),
    "colour": (_matches(r"#[0-9a-f]{6}"), "'#rrggbb' in lower case and quotes"),
}


def _check(where: str, value: Any, rules: Rules, wrong: list[str]) -> bool:
    """Check the mapping ``value`` against ``rules``; say what is wrong; return whether none is."""
    before = len(wrong)
    if not isinstance(value, dict):
        wrong.append(f"{where}: is not a mapping; it needs {', '.join(rules)}")
        return False
    wrong += [f"{where}: {key}: unknown; remove it" for key in value if key not in rules]
    for key, (right, fix) in rules.items():
        if key not in value:
            wrong.append(f"{where}: {key}: missing; write {fix}")
        elif not right(value[key]):
            wrong.append(f"{where}: {key}: {value[key]!r}: write {fix}")
    return len(wrong) == before


def _read(file: Path, wrong: list[str]) -> Poll | None:
    before = len(wrong)
    try:
        data = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        wrong.append(f"{file}: does not read as YAML: {' '.join(str(error).split())}")
        return None
    fine = _check(str(file), data, POLL, wrong)
    choices = data.get("choices") if isinstance(data, dict) else None
    listed = choices if isinstance(choices, list) else []
    for index, choice in enumerate(listed, 1):
        _check(f"{file}: choices: {index}", choice, CHOICE, wrong)
    for key in ("code", "number"):
        seen = Counter(choice.get(key) for choice in listed if isinstance(choice, dict))
        wrong += [
            f"{file}: choices: {key} {value} is there {count} times; give each its own"
            for value, count in seen.items()
            if value is not None and count > 1
        ]
    if fine and data["closes"] is not None and data["closes"] <= data["opens"]:
        wrong.append(f"{file}: closes: is not after opens; set a later moment, or null")
    if len(wrong) > before:
        return None
    return Poll(
        id=data["id"],
        title=data["title"],
        question=data["question"],
        opens=int(data["opens"].timestamp()),
        closes=0 if data["closes"] is None else int(data["closes"].timestamp()),
        choices=tuple(Choice(**choice) for choice in listed),
    )
