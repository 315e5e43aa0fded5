"""One-time codes: hard to guess, easy to type, and on a sheet that scans."""

import re
from dataclasses import replace

import pytest

from f1vote import codes, polls, receipts
from f1vote.i18n import Texts
from tests.app import qr
from tests.conftest import ROOT

POLL = next(poll for poll in polls.load(ROOT / "app" / "polls") if poll.id == "champion")
URL = "https://vote.example.org"


def test_each_code_is_another_and_no_bit_is_fixed():
    made = codes.make(500)
    assert len(set(made)) == len(made) == 500
    assert {len(code) for code in made} == {21}  # 100 bits and a check character
    for place in range(21):
        assert len({code[place] for code in made}) > 16, f"character {place} hardly changes"


def test_a_code_reads_as_it_may_be_typed():
    (code,) = codes.make(1)
    shown = receipts.show(code)
    assert [len(group) for group in shown.split("-")] == [4, 4, 4, 4, 5]
    typed = shown.lower().replace("0", "o").replace("1", "l").replace("-", " ")
    assert codes.read(shown) == codes.read(f"  {typed} ") == code


@pytest.mark.parametrize("text", ["", "7K2M", "é" * 21, "U" * 21, "0" * 22, receipts.encode(7)])
def test_what_is_no_code_is_not_read(text):
    assert codes.read(text) is None


def test_a_mistyped_code_is_not_another_code():
    (code,) = codes.make(1)
    for place, right in enumerate(code):
        for wrong in set(receipts.ALPHABET) - {right}:
            assert codes.read(code[:place] + wrong + code[place + 1 :]) is None


@pytest.mark.parametrize(("language", "said"), [("en", "One vote."), ("fr", "Un seul vote.")])
def test_the_sheet_has_a_card_for_each_code(language, said):
    made = codes.make(50)
    html = codes.sheet(POLL, made, URL, language, Texts())
    assert f'<html lang="{language}">' in html
    assert html.count('<section class="sheet">') == 3
    assert re.findall(r'class="code">([^<]+)<', html) == [receipts.show(code) for code in made]
    assert html.count(f"<b>vote.example.org/{POLL.id}</b>") == 50
    assert html.count(said) == 50
    assert html.count(f"<h2>{POLL.title[language]}</h2>") == 50
    # A file that is opened far from any server: nothing is fetched.
    assert not re.search(r"(src|href|url)\s*[=(]", html)


def test_a_card_scans_to_the_poll_with_its_code():
    made = codes.make(3)
    html = codes.sheet(POLL, made, URL, "en", Texts())
    for code, svg in zip(made, re.findall(r"<svg.*?</svg>", html), strict=True):
        address = f"{URL}/{POLL.id}?code={code}"
        assert qr.drawn(svg, border=2) == qr.wanted(address)


def test_a_title_is_a_text_and_no_html():
    poll = replace(POLL, title={"en": "<script>alert(1)</script> & co", "fr": "x"})
    html = codes.sheet(poll, codes.make(1), URL, "en", Texts())
    assert "<script>" not in html
    assert html.count("&lt;script&gt;alert(1)&lt;/script&gt; &amp; co") == 3
