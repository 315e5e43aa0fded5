"""
Polls: one YAML file each, described by ``polls.schema.json``.

.. code-block:: yaml

    id: champion                   # names the poll in addresses and in Redis; never reuse one
    title: {en: …, fr: …}
    question: {en: …, fr: …}
    opens: 2026-03-06T00:00:00Z    # with an offset
    closes: null                   # null: as long as nobody closes it
    results: always                # or voted, closed: when a voter sees them
    points: [3, 2, 1]              # what each place is worth; [1] is a single choice
    voters: cookie                 # or codes: only who holds a one-time code
    listed: true                   # on the home page
    choices:
      - {code: NOR, name: Lando Norris, number: 1, team: McLaren, colour: '#ff8000'}

``choices`` may name a list that several polls share: ``choices: drivers-2026`` is the list in
``choices/drivers-2026.yaml`` beside the poll.
"""

import json
import re
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from f1vote.documents import Document, Keys
from f1vote.problems import Problems

LANGUAGES = ("en", "fr")
SCHEMA = json.loads(Path(__file__).with_suffix(".schema.json").read_text(encoding="utf-8"))
# A list of choices alone, as in a file of the folder choices/.
LIST_SCHEMA = {"$ref": "#/$defs/list", "$defs": SCHEMA["$defs"]}
DEFAULTS = {key: rule["default"] for key, rule in SCHEMA["properties"].items() if "default" in rule}

Texts = dict[str, str]  # language → text


@dataclass(frozen=True)
class Choice:
    """What can be voted for. ``code`` is what a vote holds; ``colour`` is the team's, #rrggbb."""

    code: str
    name: Texts
    number: int | None
    team: str | None
    colour: str
    picture: str | None

    def label(self, language: str) -> str:
        """Return its name in ``language``."""
        return self.name[language]


@dataclass(frozen=True)
class Poll:
    """
    ``opens`` and ``closes`` are Unix seconds; ``closes`` 0 means that it does not close.

    The choice at place i of a vote gets ``points[i]``. ``results`` is always, voted or closed,
    ``voters`` is cookie or codes.
    """

    id: str
    title: Texts
    question: Texts
    opens: int
    closes: int
    choices: tuple[Choice, ...]
    points: tuple[int, ...]
    results: str
    voters: str
    listed: bool

    @cached_property
    def codes(self) -> tuple[str, ...]:
        """The codes of its choices, in their order."""
        return tuple(choice.code for choice in self.choices)


def load(folder: Path) -> tuple[Poll, ...]:
    """
    Return the polls of ``folder``, the one that opened last first.

    Raise Problems with all that is wrong in all files; each line names file, line, key and fix.
    """
    reader = _Reader(folder)
    polls = [poll for file in sorted(folder.glob("*.yaml")) if (poll := reader.poll(file))]
    for file in sorted(folder.glob("*.yml")):
        reader.wrong.append(f"{file}: would not be read; name it {file.stem}.yaml")
    if not polls and not reader.wrong:
        reader.wrong.append(f"{folder}: holds no poll; add a file such as champion.yaml")
    if reader.wrong:
        raise Problems(reader.wrong)
    return tuple(sorted(polls, key=lambda poll: (-poll.opens, poll.id)))


class _Reader:
    """Reads the polls of a folder and gathers all that is wrong with them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.wrong: list[str] = []
        self._ids: dict[str, Path] = {}
        self._lists: dict[str, list[Any] | None] = {}

    def poll(self, file: Path) -> Poll | None:
        """Return the poll of ``file``; None if something is wrong with it."""
        document = Document(file)
        document.check(SCHEMA, {"date-time": _is_moment})
        data = document.data if isinstance(document.data, dict) else {}
        choices = data.get("choices")
        if isinstance(choices, list):
            self._compare(document, ("choices",), choices)
        elif isinstance(choices, str):
            choices = self._shared(document, choices)
        self._identity(document, data.get("id"))
        _period(document, _seconds(data.get("opens")), _seconds(data.get("closes")))
        _places(document, data.get("points"), choices)
        self.wrong += document.problems
        if document.problems or choices is None:
            return None
        data = DEFAULTS | data
        return Poll(
            id=data["id"],
            title=data["title"],
            question=data["question"],
            opens=_seconds(data["opens"]) or 0,
            closes=_seconds(data["closes"]) or 0,
            choices=tuple(_choice(choice) for choice in choices),
            points=tuple(data["points"]),
            results=data["results"],
            voters=data["voters"],
            listed=data["listed"],
        )

    def _shared(self, document: Document, name: str) -> list[Any] | None:
        """Return the list ``name`` of choices, checked the first time; None if it is not right."""
        folder = self.folder / "choices"
        known = sorted(file.stem for file in folder.glob("*.yaml"))
        if name not in known:
            fix = f"use {' or '.join(known)}" if known else "write the choices here"
            document.say(["choices"], f"no list {name} in {folder}; {fix}")
        elif name not in self._lists:
            shared = Document(folder / f"{name}.yaml")
            shared.check(LIST_SCHEMA, {})
            if isinstance(shared.data, list):
                self._compare(shared, (), shared.data)
            self.wrong += shared.problems
            self._lists[name] = None if shared.problems else shared.data
        return self._lists.get(name)

    def _identity(self, document: Document, name: Any) -> None:
        if isinstance(name, str):
            other = self._ids.setdefault(name, document.file)
            if other != document.file:
                document.say(["id"], f"{name} is the id of {other.name}, too; give each its own")

    def _compare(self, document: Document, keys: Keys, choices: list[Any]) -> None:
        """Hold the choices at ``keys`` against each other, and their pictures against the disk."""
        met: set[tuple[str, str, str]] = set()
        for index, choice in enumerate(choices):
            if not isinstance(choice, dict):
                continue
            texts = {"": choice.get("code"), **_texts(choice.get("name"))}
            marks = {
                ("name" if language else "code", language, text)
                for language, text in texts.items()
                if isinstance(text, str)
            }
            for key, _, text in marks & met:
                document.say([*keys, index, key], f"{text} is another's, too; give each its own")
            met |= marks
            picture = choice.get("picture")
            if isinstance(picture, str) and not (self.folder / "pictures" / picture).is_file():
                document.say(
                    [*keys, index, "picture"],
                    f"no file {picture} in {self.folder / 'pictures'}; put it there",
                )


def _period(document: Document, opens: int | None, closes: int | None) -> None:
    if opens is not None and closes is not None and closes <= opens:
        document.say(["closes"], "is not after opens; set a later moment, or null for none")


def _places(document: Document, points: Any, choices: Any) -> None:
    if not isinstance(points, list) or not all(type(point) is int for point in points):
        return
    if isinstance(choices, list) and len(choices) < len(points):
        document.say(
            ["points"],
            f"{len(points)} places for {len(choices)} choices; write fewer, or add choices",
        )
    if points != sorted(points, reverse=True):
        document.say(["points"], "a lower place gets more than a higher; write the largest first")


def _is_moment(value: Any) -> bool:
    return not isinstance(value, str) or _seconds(value) is not None


def _seconds(moment: Any) -> int | None:
    """Return the Unix seconds of ``moment`` (RFC 3339, of this century); None if it is none."""
    form = r"20\d\d-\d\d-\d\d[Tt ]\d\d:\d\d(:\d\d)?([Zz]|[+-]\d\d:\d\d)"
    if not isinstance(moment, str) or not re.fullmatch(form, moment, re.ASCII):
        return None
    try:
        return int(datetime.fromisoformat(moment.upper()).timestamp())
    except ValueError:
        return None  # such as the 30th of February


def _texts(name: Any) -> Texts:
    """Return a name in every language that it is written in; one text is for all of them."""
    if isinstance(name, str):
        return dict.fromkeys(LANGUAGES, name)
    return name if isinstance(name, dict) else {}


def _choice(data: dict[str, Any]) -> Choice:
    return Choice(
        code=data["code"],
        name=_texts(data["name"]),
        number=data.get("number"),
        team=data.get("team"),
        colour=data["colour"],
        picture=data.get("picture"),
    )
