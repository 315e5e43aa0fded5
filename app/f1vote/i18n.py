"""
The two languages: tables in ``locale/<language>.yaml``, the same keys in both.

A text may hold ``{name}`` fields. One that depends on a number is ``{one: …, other: …}``, chosen
by ``n``: in English one is 1, in French 0 and 1 (Unicode CLDR, plural rules).
"""

import re
import string
from pathlib import Path
from typing import Any

import yaml

from f1vote.polls import LANGUAGES
from f1vote.problems import Problems

FOLDER = Path(__file__).parents[1] / "locale"
Table = dict[str, str | dict[str, str]]


class Texts:
    """Every text of the app, in every language."""

    def __init__(self, folder: Path = FOLDER) -> None:
        self.tables: dict[str, Table] = {}
        wrong: list[str] = []
        for language in LANGUAGES:
            file = folder / f"{language}.yaml"
            try:
                table = yaml.safe_load(file.read_text(encoding="utf-8"))
            except (OSError, ValueError, yaml.YAMLError) as error:
                wrong.append(f"{file}: does not read as YAML: {' '.join(str(error).split())}")
                continue
            self.tables[language] = table
        wrong += self._differences(folder)
        if wrong:
            raise Problems(wrong)

    def _differences(self, folder: Path) -> list[str]:
        keys = {key for table in self.tables.values() for key in table}
        wrong = []
        for key in sorted(keys):
            absent = [language for language, table in self.tables.items() if key not in table]
            wrong += [
                f"{folder / language}.yaml: {key}: missing; translate it" for language in absent
            ]
            if not absent and len({_shape(table[key]) for table in self.tables.values()}) > 1:
                wrong.append(f"{folder}: {key}: its {{fields}} or plural forms differ; align them")
        return wrong

    def get(self, language: str, key: str, **fields: Any) -> str:
        """Return the text of ``key`` in ``language``, with ``fields`` filled in."""
        text = self.tables[language][key]
        if isinstance(text, dict):
            one = fields["n"] == 1 or (language == "fr" and fields["n"] == 0)
            text = text["one" if one else "other"]
        return text.format(**fields)


def negotiate(asked: str | None, accept: str) -> str:
    """
    Return the language for a visitor who ``asked`` for one (``?lang=``), else the best of the
    ``Accept-Language`` header ``accept`` (RFC 9110, 12.5.4), else English.
    """
    if asked in LANGUAGES:
        return asked
    best, weight = LANGUAGES[0], 0.0
    for part in accept.split(","):
        tag, _, parameters = part.strip().partition(";")
        quality = re.fullmatch(r"\s*q\s*=\s*(0(?:\.\d{0,3})?|1(?:\.0{0,3})?)\s*", parameters)
        if parameters and not quality:
            continue
        q = float(quality[1]) if quality else 1.0
        language = tag.split("-")[0].lower()
        if language in LANGUAGES and q > weight:
            best, weight = language, q
    return best


def _shape(text: str | dict[str, str]) -> tuple[str, ...]:
    """The plural forms and fields of ``text``, to compare two languages."""
    forms = text if isinstance(text, dict) else {"": text}
    fields = {
        name for form in forms.values() for _, name, _, _ in string.Formatter().parse(form) if name
    }
    return (*sorted(forms), *sorted(fields))
