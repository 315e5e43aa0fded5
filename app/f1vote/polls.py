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

import difflib
import functools
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, cast

import jsonschema
import yaml

from f1vote.problems import Problems

LANGUAGES = ("en", "fr")
SCHEMA = Path(__file__).with_suffix(".schema.json")

Texts = dict[str, str]  # language → text
Keys = Sequence[str | int]  # the way from the top of a file to a value


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

    @property
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


def current(polls: Sequence[Poll], now: float) -> Poll:
    """Return the poll that opened last before ``now`` (Unix seconds), else the next to open."""
    return next((poll for poll in polls if poll.opens <= now), polls[-1])


class _Loader(yaml.SafeLoader):
    """
    YAML's core types of today (YAML 1.2.2, 10.3.2): NO is a text and not a false, a moment is a
    text that the schema checks.
    """

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012


for _type, _pattern, _first in (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?(0|[1-9][0-9]*)", list("-+0123456789")),
):
    _Loader.add_implicit_resolver(
        f"tag:yaml.org,2002:{_type}", re.compile(f"^(?:{_pattern})$"), _first
    )


class _Document:
    """One YAML file: its values, and where each is written."""

    def __init__(self, file: Path) -> None:
        """Raise OSError, ValueError (not UTF-8) or yaml.YAMLError."""
        self.file = file
        loader = _Loader(file.read_text(encoding="utf-8"))
        try:
            self.root = loader.get_single_node()
            self.data: Any = None if self.root is None else loader.construct_document(self.root)
        finally:
            loader.dispose()

    def line(self, keys: Keys) -> int:
        """Return the line (from 1) of the value at ``keys``, or of its key if it is a group."""
        node, mark = self.root, self.root.start_mark if self.root else None
        for key in keys:
            if isinstance(node, yaml.MappingNode):
                # Of a key that is there twice the last counts.
                name, node = [pair for pair in node.value if pair[0].value == str(key)][-1]
                mark = (node if isinstance(node, yaml.ScalarNode) else name).start_mark
            elif isinstance(node, yaml.SequenceNode) and isinstance(key, int):
                node = node.value[key]
                mark = node.start_mark
        return mark.line + 1 if mark else 1

    def repeated(self) -> Iterator[tuple[int, str]]:
        """Yield line and name of every key that its mapping holds already."""
        nodes, met = [self.root], set()
        while nodes:
            node = nodes.pop()
            if id(node) in met:
                continue
            met.add(id(node))
            if isinstance(node, yaml.MappingNode):
                names: set[str] = set()
                for name, value in node.value:
                    if name.value in names:
                        yield name.start_mark.line + 1, name.value
                    names.add(name.value)
                    nodes.append(value)
            elif isinstance(node, yaml.SequenceNode):
                nodes += node.value


class _Reader:
    """Reads the polls of a folder and gathers all that is wrong with them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.wrong: list[str] = []
        self._ids: dict[str, Path] = {}
        self._lists: dict[str, list[dict[str, Any]] | None] = {}

    def poll(self, file: Path) -> Poll | None:
        """Return the poll of ``file``; None if something is wrong with it."""
        before = len(self.wrong)
        if (document := self._document(file, "")) is None:
            return None
        data = document.data if isinstance(document.data, dict) else {}
        said = [*self._moments(document, data), *self._identity(document, data)]
        choices = data.get("choices")
        if isinstance(choices, list):
            said += self._choices(document, ("choices",), choices)
        elif isinstance(choices, str):
            choices = self._shared(document, choices)
        said += self._points(document, data, choices)
        self._say(document, said)
        if len(self.wrong) > before or not isinstance(choices, list):
            return None
        known = _schema()["properties"]
        data = {key: rule["default"] for key, rule in known.items() if "default" in rule} | data
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

    def _document(self, file: Path, part: str) -> _Document | None:
        """Return what ``file`` holds, held against ``part`` of the schema; None if unreadable."""
        try:
            document = _Document(file)
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            line = f":{mark.line + 1}" if mark else ""
            self.wrong.append(
                f"{file}{line}: is not YAML: {error.problem}; look for a missing quote, bracket, "
                "colon or indentation on this line or the one before"
            )
            return None
        except (ValueError, yaml.YAMLError):
            self.wrong.append(f"{file}: is not a text in UTF-8; save it as one")
            return None
        except OSError as error:
            self.wrong.append(f"{file}: cannot be read: {error.strerror}; let the app read it")
            return None
        said = [(line, key, "is there twice; keep one") for line, key in document.repeated()]
        for found in _validator(part).iter_errors(document.data):
            said += _explain(document, found)
        self._say(document, said)
        return document

    def _say(self, document: _Document, said: list[tuple[int, str, str]]) -> None:
        self.wrong += [
            f"{document.file}:{line}: {key}: {text}" if key else f"{document.file}:{line}: {text}"
            for line, key, text in sorted(set(said))
        ]

    def _identity(
        self, document: _Document, data: dict[str, Any]
    ) -> Iterator[tuple[int, str, str]]:
        name = data.get("id")
        if isinstance(name, str):
            other = self._ids.setdefault(name, document.file)
            if other != document.file:
                yield (
                    document.line(["id"]), "id",
                    f"{name} is the id of {other.name}, too; give each poll its own",
                )  # fmt: skip

    def _moments(self, document: _Document, data: dict[str, Any]) -> Iterator[tuple[int, str, str]]:
        opens, closes = _seconds(data.get("opens")), _seconds(data.get("closes"))
        if opens is not None and closes is not None and closes <= opens:
            yield (
                document.line(["closes"]), "closes",
                "is not after opens; set a later moment, or null for none",
            )  # fmt: skip

    def _points(
        self, document: _Document, data: dict[str, Any], choices: Any
    ) -> Iterator[tuple[int, str, str]]:
        points = data.get("points")
        if not isinstance(points, list) or not all(type(point) is int for point in points):
            return
        if isinstance(choices, list) and 0 < len(choices) < len(points):
            yield (
                document.line(["points"]), "points",
                f"has {len(points)} places for {len(choices)} choices; "
                "write fewer places, or more choices",
            )  # fmt: skip
        if points != sorted(points, reverse=True):
            yield (
                document.line(["points"]), "points",
                "gives a lower place more than a higher one; write the first place's first",
            )  # fmt: skip

    def _shared(self, document: _Document, name: str) -> list[dict[str, Any]] | None:
        """Return the choices of the list ``name``, which is read and held against all once."""
        folder = self.folder / "choices"
        if name not in self._lists:
            known = sorted(file.stem for file in folder.glob("*.yaml"))
            if name not in known:
                fix = f"use one of {', '.join(known)}" if known else "write the choices here"
                self._say(
                    document,
                    [(document.line(["choices"]), "choices", f"no list {name} in {folder}; {fix}")],
                )
                return None
            before = len(self.wrong)
            shared = self._document(folder / f"{name}.yaml", "/$defs/list")
            if shared is not None and isinstance(shared.data, list):
                self._say(shared, list(self._choices(shared, (), shared.data)))
            fine = shared is not None and len(self.wrong) == before
            self._lists[name] = shared.data if shared is not None and fine else None
        return self._lists[name]

    def _choices(
        self, document: _Document, keys: Keys, choices: list[Any]
    ) -> Iterator[tuple[int, str, str]]:
        met: set[tuple[str, str]] = set()
        for index, choice in enumerate(choices):
            if not isinstance(choice, dict):
                continue
            texts = _texts(choice.get("name"))
            marks = [("code", choice.get("code"))]
            marks += [("name", texts[language]) for language in LANGUAGES if language in texts]
            here = set()
            for key, value in marks:
                if isinstance(value, str):
                    where: Keys = (*keys, index, key)
                    if (key, value) in met:
                        yield (
                            document.line(where), _dotted(where),
                            f"{value} is another choice's, too; give each its own",
                        )  # fmt: skip
                    here.add((key, value))
            met |= here
            picture = choice.get("picture")
            if isinstance(picture, str) and not (self.folder / "pictures" / picture).is_file():
                where = (*keys, index, "picture")
                yield (
                    document.line(where), _dotted(where),
                    f"no file {picture} in {self.folder / 'pictures'}; put it there",
                )  # fmt: skip


_FORMATS = jsonschema.FormatChecker(formats=())


@_FORMATS.checks("date-time")
def _is_moment(value: object) -> bool:
    return not isinstance(value, str) or _seconds(value) is not None


@functools.cache
def _schema() -> dict[str, Any]:
    return cast(dict[str, Any], json.loads(SCHEMA.read_text(encoding="utf-8")))


@functools.cache
def _validator(part: str) -> jsonschema.Draft202012Validator:
    """Return the validator of ``part`` of the schema: a JSON pointer, ``""`` is a whole poll."""
    schema = {"$defs": _schema()["$defs"], "$ref": f"#{part}"} if part else _schema()
    return jsonschema.Draft202012Validator(schema, format_checker=_FORMATS)


def _explain(
    document: _Document, error: jsonschema.ValidationError
) -> Iterator[tuple[int, str, str]]:
    """Yield line, key and plain words for what jsonschema found."""
    keys, where = list(error.absolute_path), _dotted(error.absolute_path)
    # In our schema they are always these; the library allows for more.
    schema, asked = cast(dict[str, Any], error.schema), cast(Any, error.validator_value)
    value = cast(Any, error.instance)
    known = schema.get("properties", {})
    if error.validator == "additionalProperties":
        for key in sorted(set(value) - set(known), key=str):
            near = difflib.get_close_matches(str(key), known, n=1)
            fix = f"write {near[0]}" if near else f"remove it; known here: {', '.join(known)}"
            yield document.line([*keys, key]), _dotted([*keys, key]), f"no such key; {fix}"
    elif error.validator == "required":
        for key in asked:
            if key not in value:
                fix = _fix(known[key])
                yield document.line(keys), _dotted([*keys, key]), f"missing; write {fix}"
    else:
        shown = json.dumps(value, ensure_ascii=False, default=str)
        what = "this" if isinstance(value, dict | list) or len(shown) > 60 else shown
        yield document.line(keys), where, f"{what} is not right; write {_fix(schema)}"


def _fix(schema: dict[str, Any]) -> str:
    """Return the fix of a part of the schema, else of the part that it refers to."""
    if "fix" in schema:
        return str(schema["fix"])
    name = schema["$ref"].rpartition("/")[2]
    return _fix(_schema()["$defs"][name])


def _dotted(keys: Keys) -> str:
    """Return the way to a value as people say it: ``choices.3.code`` is the third's code."""
    return ".".join(str(key + 1) if isinstance(key, int) else str(key) for key in keys)


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
