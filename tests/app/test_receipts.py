"""Receipts: one-way, typed by people, and no error passes for another receipt."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from f1vote import receipts
from f1vote.receipts import ALPHABET

VOTER = "dGhpcyBpcyBhIHZvdGVyLg"
some = st.integers(0, 2**60 - 1).map(receipts.encode)


def test_a_receipt_is_sixty_bits_of_the_hash():
    digest = hashlib.sha256(b"f1vote receipt 1\0champion\0" + VOTER.encode()).digest()
    bits = "".join(f"{byte:08b}" for byte in digest)[:60]
    body = "".join(ALPHABET[int(bits[at : at + 5], 2)] for at in range(0, 60, 5))
    assert receipts.of("champion", VOTER)[:12] == body


def test_each_poll_has_its_own():
    assert receipts.of("champion", VOTER) == receipts.of("champion", VOTER)
    assert receipts.of("champion", VOTER) != receipts.of("best-overtake", VOTER)
    # A name cannot be moved from the one to the other.
    assert receipts.of("a", "b\0c") != receipts.of("a\0b", "c")[::-1]


@given(some)
def test_it_is_read_however_it_is_typed(receipt):
    shown = receipts.show(receipt)
    assert [len(group) for group in shown.split("-")] == [4, 4, 5]
    sloppy = shown.lower().replace("0", "o").replace("1", "l")
    for text in (
        receipt,
        shown,
        sloppy,
        f"  {shown.replace('-', ' ')} ",
        receipt.replace("1", "I"),
    ):
        assert receipts.read(text) == receipt


@given(some, st.integers(0, 12), st.sampled_from(ALPHABET))
def test_one_wrong_character_is_found(receipt, place, character):
    wrong = receipt[:place] + character + receipt[place + 1 :]
    assert receipts.read(wrong) == (receipt if wrong == receipt else None)


@given(some, st.integers(0, 10))
def test_neighbours_that_changed_places_are_found(receipt, place):
    left, right = receipt[place], receipt[place + 1]
    wrong = receipt[:place] + right + left + receipt[place + 2 :]
    if abs(ALPHABET.index(left) - ALPHABET.index(right)) not in (0, 16):
        assert receipts.read(wrong) is None


@pytest.mark.parametrize(
    "text", ["", "-", "7K2M", "7K2M-9QXT-4WPDRR", "U" * 13, "７K2M9QXT4WPDR", "\0" * 13, "é" * 13]
)
def test_what_is_no_receipt(text):
    assert receipts.read(text) is None


@given(st.integers(0, 2**100 - 1))
def test_a_longer_code_has_all_its_bits(number):
    code = receipts.encode(number, 100)
    assert int("".join(f"{ALPHABET.index(c):05b}" for c in code[:-1]), 2) == number
    check = sum((2 * place + 1) * ALPHABET.index(c) for place, c in enumerate(code[:-1])) % 32
    assert code[-1] == ALPHABET[check]
    assert receipts.read(receipts.show(code), 100) == code


@given(st.text(max_size=20))
def test_any_text_is_judged(text):
    assert receipts.read(text) is None or len(receipts.read(text) or "") == 13
