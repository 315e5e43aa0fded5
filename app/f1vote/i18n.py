"""
The languages: English is in the source, the others in gettext catalogues
(``locale/<language>.po``).

A text may hold ``{name}`` fields; an integer is written as the language writes numbers. Mark a
text where it is defined with ``_("…")`` and translate it where it is shown.
"""

import gettext
import io
import re
import string
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polib

from f1vote.polls import LANGUAGES
from f1vote.problems import Problems

FOLDER = Path(__file__).parents[1] / "locale"
# The language of the source: it needs no catalogue.
SOURCE = "en"
# Between the thousands (Unicode CLDR: U+202F in French).
GROUP = {"en": ",", "fr": "\u202f"}


def _(text: str) -> str:
    """Mark ``text`` for translation; return it as it is."""
    return text


MONTHS = (
    _("January"), _("February"), _("March"), _("April"), _("May"), _("June"), _("July"),
    _("August"), _("September"), _("October"), _("November"), _("December"),
)  # fmt: skip
FIRST = _("1")  # the first day of a month: 1er in French


class Texts:
    """Every text of the app, in every language."""

    def __init__(self, folder: Path = FOLDER) -> None:
        """Read the catalogues of ``folder``; raise Problems with all that is wrong in them."""
        self._tables: dict[str, gettext.NullTranslations] = {SOURCE: gettext.NullTranslations()}
        wrong: list[str] = []
        for language in LANGUAGES:
            if language == SOURCE:
                continue
            file = folder / f"{language}.po"
            try:
                catalogue = polib.pofile(str(file), encoding="utf-8")
            except (OSError, ValueError) as error:
                wrong.append(f"{file}: does not read as a catalogue: {error}")
                continue
            wrong += mismatches(file, catalogue)
            self._tables[language] = gettext.GNUTranslations(io.BytesIO(catalogue.to_binary()))
        if wrong:
            raise Problems(wrong)

    def get(self, language: str, text: str, **fields: Any) -> str:
        """Return ``text`` in ``language``, with ``fields`` filled in."""
        return self._fill(language, self._tables[language].gettext(text), fields)

    def plural(self, language: str, one: str, other: str, n: int, **fields: Any) -> str:
        """Return the form of the text that ``n`` asks for; the field ``{n}`` is filled, too."""
        form = self._tables[language].ngettext(one, other, n)
        return self._fill(language, form, {"n": n, **fields})

    def forms(self, language: str, one: str, other: str) -> dict[str, str]:
        """Return both forms, unfilled: ``{"one": …, "other": …}``, for a script to choose from."""
        table = self._tables[language]
        return {"one": table.ngettext(one, other, 1), "other": table.ngettext(one, other, 2)}

    def number(self, language: str, n: int) -> str:
        """Return ``n`` as ``language`` writes it: 12,345 or 12 345."""
        return f"{n:,}".replace(",", GROUP[language])

    def moment(self, language: str, at: int) -> str:
        """Return the Unix time ``at`` (s) written out, in UTC: 8 March 2026, 14:00 UTC."""
        when = datetime.fromtimestamp(at, UTC)
        return self.get(
            language,
            _("{day} {month} {year}, {hour}:{minute} UTC"),
            day=self.get(language, FIRST) if when.day == 1 else when.day,
            month=self.get(language, MONTHS[when.month - 1]),
            year=str(when.year),
            hour=f"{when.hour:02}",
            minute=f"{when.minute:02}",
        )

    def _fill(self, language: str, text: str, fields: dict[str, Any]) -> str:
        if not fields:
            return text
        return text.format_map(
            {
                name: self.number(language, value) if type(value) is int else value
                for name, value in fields.items()
            }
        )


def mismatches(file: Path, catalogue: polib.POFile) -> list[str]:
    """Say which translations hold other fields than their text: filling them in would fail."""
    wrong = []
    for entry in catalogue.translated_entries():
        known = fields_of(entry.msgid) | fields_of(entry.msgid_plural)
        for form in [entry.msgstr, *entry.msgstr_plural.values()]:
            if form and fields_of(form) != known:
                wrong.append(
                    f"{file}:{entry.linenum}: {form!r}: its fields are not those of "
                    f"{entry.msgid!r}; write {{{'}, {'.join(sorted(known)) or '…'}}}"
                )
    return wrong


def fields_of(text: str) -> set[str]:
    """Return the names of the ``{name}`` fields in ``text``."""
    try:
        return {name for _, name, _, _ in string.Formatter().parse(text) if name is not None}
    except ValueError:  # a lone brace
        return {text}


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
