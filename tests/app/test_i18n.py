"""The texts: every one is translated, none is left over, and French is written as French is."""

import io
import re
from typing import Any

import polib
import pytest
from babel.messages.extract import extract
from jinja2.ext import babel_extract

from f1vote.i18n import FOLDER, Texts, negotiate
from f1vote.problems import Problems
from tests.conftest import ROOT

SOURCE = ROOT / "app" / "f1vote"
METHODS: dict[str, Any] = {".html": babel_extract, ".py": "python"}
CATALOGUE = polib.pofile(str(FOLDER / "fr.po"))

Text = tuple[str, str]  # the text, and its plural or ""


def marked() -> set[Text]:
    """Return every text that the source marks for translation."""
    found: set[Text] = set()
    for file in SOURCE.rglob("*"):
        # In Python the methods of Texts are told the language first.
        if file.suffix == ".html":
            plural = (1, 2)
        elif file.suffix == ".py":
            plural = (2, 3)
        else:
            continue
        method = METHODS[file.suffix]
        keywords = {"_": None, "plural": plural, "forms": plural}
        options = {"silent": "false"} if file.suffix == ".html" else {}
        for _, message, _, _ in extract(
            method, io.BytesIO(file.read_bytes()), keywords, (), options
        ):
            found.add((message, "") if isinstance(message, str) else (message[0], message[1]))
    return found


def french() -> list[str]:
    return [
        form
        for entry in CATALOGUE
        for form in ([entry.msgstr] if not entry.msgid_plural else entry.msgstr_plural.values())
    ]


def test_every_text_is_translated_and_none_is_left_over():
    texts = marked()
    assert len(texts) > 100
    entries = {(entry.msgid, entry.msgid_plural) for entry in CATALOGUE}
    assert texts - entries == set()
    assert entries - texts == set()
    assert [entry.msgid for entry in CATALOGUE if not entry.translated()] == []
    assert len(entries) == len(CATALOGUE)


def test_french_typography():
    wrong = [
        text
        for text in french()
        if re.search(
            r"'|\"|\.\.\.|[ \u00a0][;!?%»]|(?<!\u202f)[;!?%»]|« | :|(?<!\u00a0):(?=\s)", text
        )
        or re.search(r"^\s|\s$|  ", text)
    ]
    # Within a field's braces or a clock there is no French.
    assert [text for text in wrong if not re.fullmatch(r"[{}\w: ]*", text)] == []


def test_english_typography():
    assert [
        text for pair in marked() for text in pair if re.search(r"'|\"|\.\.\.|  | [;:!?]", text)
    ] == []


def test_plurals_and_numbers():
    texts = Texts()
    forms = [
        texts.plural(language, "{n} vote", "{n} votes", n)
        for language in ("en", "fr")
        for n in (0, 1, 2, 12345)
    ]
    assert forms == [
        "0 votes", "1 vote", "2 votes", "12,345 votes",
        "0 vote", "1 vote", "2 votes", "12\u202f345 votes",
    ]  # fmt: skip
    assert texts.forms("fr", "{n} vote", "{n} votes") == {"one": "{n} vote", "other": "{n} votes"}


@pytest.mark.parametrize(
    ("language", "at", "written"),
    [
        ("en", 1772978400, "8 March 2026, 14:00 UTC"),
        ("fr", 1772978400, "8\u00a0mars 2026 à 14\u00a0h\u00a000 UTC"),
        ("en", 1785542709, "1 August 2026, 00:05 UTC"),
        ("fr", 1785542709, "1er\u00a0août 2026 à 00\u00a0h\u00a005 UTC"),
    ],
)
def test_a_moment_is_written_out(language, at, written):
    assert Texts().moment(language, at) == written


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ('msgid "Vote for {name}"\nmsgstr "Voter pour {nom}"\n', "write {name}"),
        ('msgid "{n} vote"\nmsgid_plural "{n} votes"\nmsgstr[0] "un vote"\nmsgstr[1] "{n}"', "{n}"),
        ('msgid "Vote"\nmsgstr "Voter {"\n', "its fields are not those"),
        ("nothing of the kind", "does not read as a catalogue"),
    ],
)
def test_a_wrong_catalogue_is_told_by_line(tmp_path, entry, said):
    (tmp_path / "fr.po").write_text(
        f'msgid ""\nmsgstr ""\n"Content-Type: text/plain; charset=utf-8\\n"\n\n{entry}'
    )
    with pytest.raises(Problems) as raised:
        Texts(tmp_path)
    (line,) = raised.value.lines
    assert str(tmp_path / "fr.po") in line
    assert said in line


def test_an_absent_catalogue_is_told(tmp_path):
    with pytest.raises(Problems, match=r"fr\.po: does not read"):
        Texts(tmp_path)


@pytest.mark.parametrize(
    ("asked", "accept", "language"),
    [
        (None, "fr-FR,fr;q=0.9,en;q=0.8", "fr"),
        (None, "de;q=0.9, en;q=0.2, fr;q=0.7", "fr"),
        (None, "en-GB, fr;q=0.9", "en"),
        (None, "de, *;q=0.1", "en"),
        (None, "", "en"),
        (None, "fr;q=0", "en"),
        (None, "fr;q=banana, ;;;,", "en"),
        ("fr", "en", "fr"),
        ("en", "fr", "en"),
        ("../../etc", "fr", "fr"),
    ],
)
def test_the_language(asked, accept, language):
    assert negotiate(asked, accept) == language
