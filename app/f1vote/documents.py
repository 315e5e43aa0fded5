"""
YAML files that people write, held against a JSON Schema (2020-12); whatever is wrong is said with
file, line, key and fix.

The schema's keyword ``fix`` is ours: what to write instead, in plain words. A part without one
has that of the part which its ``$ref`` names.
"""

import difflib
import json
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import jsonschema
import yaml

Keys = Sequence[str | int]  # the way from the top of a file to a value


class _Loader(yaml.SafeLoader):
    """
    YAML's core types of today (YAML 1.2.2, 10.3.2), less its fractions: NO is a text and not a
    false, a moment is a text that the schema checks.
    """

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Return the mapping; a key is the text that stands there, whatever it looks like."""
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.MarkedYAMLError(problem="a key is a text", problem_mark=key.start_mark)
        return {key.value: self.construct_object(value, deep=deep) for key, value in node.value}


for _type, _pattern, _first in (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?(0|[1-9][0-9]*)", list("-+0123456789")),
):
    _Loader.add_implicit_resolver(
        f"tag:yaml.org,2002:{_type}", re.compile(f"^(?:{_pattern})$"), _first
    )


class Document:
    """One file: its values (``data``), where each is written, and what is wrong (``problems``)."""

    def __init__(self, file: Path) -> None:
        """Read ``file``; if that fails, ``problems`` says why and ``data`` is None."""
        self.file = file
        self.data: Any = None
        self._said: set[tuple[int, str]] = set()
        self._root: yaml.Node | None = None
        try:
            text = file.read_text(encoding="utf-8")
            loader = _Loader(text)
            try:
                self._root = loader.get_single_node()
                if self._root is not None:
                    self.data = loader.construct_document(self._root)
            finally:
                loader.dispose()
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark
            if "flow" in (error.context or "") and error.context_mark:
                mark = error.context_mark  # where the bracket is that nothing closes
            # What is missing may be missed after the last line.
            line = min(mark.line + 1, len(text.splitlines())) if mark else 1
            self._said.add(
                (
                    line,
                    f"is not YAML: {error.problem}; look for a missing bracket, colon, "
                    "indentation or quote (a # outside of quotes begins a comment) here or on "
                    "the line before",
                )
            )
        except (ValueError, yaml.YAMLError):
            self._said.add((1, "is not a text in UTF-8; save it as one"))
        except OSError as error:
            self._said.add((1, f"cannot be read: {error.strerror}; let the app read it"))

    @property
    def problems(self) -> list[str]:
        """What was said, by line: ``file:line: key: problem; fix``."""
        return [f"{self.file}:{line}: {text}" for line, text in sorted(self._said)]

    def say(self, keys: Keys, text: str) -> None:
        """Say ``text`` (problem and fix) about the value at ``keys``."""
        self._said.add((self._line(keys), f"{_dotted(keys)}: {text}" if keys else text))

    def check(self, schema: dict[str, Any], formats: dict[str, Callable[[Any], bool]]) -> None:
        """Say all that ``schema`` finds; ``formats`` are the functions behind its formats."""
        if self._said:
            return
        for line, key in self._repeated():
            self._said.add((line, f"{key}: is there twice; keep one"))
        checker = jsonschema.FormatChecker(formats=())
        for name, right in formats.items():
            checker.checks(name)(right)
        validator = jsonschema.Draft202012Validator(schema, format_checker=checker)
        for error in validator.iter_errors(self.data):
            self._explain(error, schema)

    def _explain(self, error: jsonschema.ValidationError, whole: dict[str, Any]) -> None:
        keys = list(error.absolute_path)
        # In our schemas they are always these; the library allows for more.
        part, asked = cast(dict[str, Any], error.schema), cast(Any, error.validator_value)
        value: Any = error.instance
        known = part.get("properties", {})
        if error.validator == "additionalProperties":
            for key in set(value) - set(known):
                near = difflib.get_close_matches(str(key), known, n=1)
                fix = f"write {near[0]}" if near else f"remove it; known here: {', '.join(known)}"
                self.say([*keys, key], f"no such key; {fix}")
        elif error.validator == "required":
            for key in set(asked) - set(value):
                self._said.add(
                    (
                        self._line(keys),
                        f"{_dotted([*keys, key])}: missing; write {_fix(known[key], whole)}",
                    )
                )
        else:
            self.say(keys, f"{_shown(value)} is not right; write {_fix(part, whole)}")

    def _line(self, keys: Keys) -> int:
        """Return the line (from 1) of the value at ``keys``, or of its key if it is a group."""
        node = self._root
        mark = node.start_mark if node else None
        for key in keys:
            if isinstance(node, yaml.MappingNode):
                # Of a key that is there twice the last counts.
                name, node = [pair for pair in node.value if pair[0].value == str(key)][-1]
                mark = (node if isinstance(node, yaml.ScalarNode) else name).start_mark
            elif isinstance(node, yaml.SequenceNode) and isinstance(key, int):
                node = node.value[key]
                mark = node.start_mark
        return mark.line + 1 if mark else 1

    def _repeated(self) -> Iterator[tuple[int, str]]:
        """Yield line and name of every key that its mapping holds already."""
        nodes, met = [self._root], set()
        while nodes:
            node = nodes.pop()
            if id(node) in met:  # an alias may lead back to where it stands
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


def _dotted(keys: Keys) -> str:
    """Return the way to a value as people count: ``choices.3.code`` is the third's code."""
    return ".".join(str(key + 1) if isinstance(key, int) else key for key in keys)


def _shown(value: Any) -> str:
    """Return a short value as it may be written in YAML, of all others that it is meant."""
    if value is None or isinstance(value, bool | int | str):
        text = json.dumps(value, ensure_ascii=False)
        if len(text) <= 60:
            return text
    return "this"


def _fix(part: dict[str, Any], whole: dict[str, Any]) -> str:
    if "fix" in part:
        return str(part["fix"])
    return _fix(whole["$defs"][part["$ref"].rpartition("/")[2]], whole)
