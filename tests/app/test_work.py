"""A challenge is worth something to one voter, in one poll, for minutes, at its own difficulty."""

import hashlib

import pytest

from f1vote import ballot, work

KEY, OLD = b"a key of the tests, 32 bytes or so", b"the key before it, 32 bytes or so."
NOW = 1_790_000_000.0
POLL, VOTER = "champion", "v" * 22
BITS = 6


def solve(challenge: str, bits: int | None = None) -> str:
    """Solve it as work.js does; with fewer ``bits`` than asked, badly."""
    bits = int(challenge.split(".")[0]) if bits is None else bits
    found = []
    for piece in range(work.PIECES):
        number = 0
        while zero_bits(f"{challenge}.{piece}.{number}") < bits:
            number += 1
        found.append(str(number))
    return f"{challenge}.{'-'.join(found)}"


def zero_bits(text: str) -> int:
    return 256 - int(hashlib.sha256(text.encode()).hexdigest(), 16).bit_length()


def lazy(challenge: str) -> str:
    """An answer whose last piece has one zero bit too few."""
    right, _, _ = solve(challenge).rpartition("-")
    number = 0
    while zero_bits(f"{challenge}.{work.PIECES - 1}.{number}") != BITS - 1:
        number += 1
    return f"{right}-{number}"


@pytest.fixture(scope="module")
def challenge() -> str:
    return work.issue(KEY, POLL, VOTER, BITS, NOW)


@pytest.fixture(scope="module")
def answer(challenge: str) -> str:
    return solve(challenge)


def test_the_right_answer_holds_for_its_voter_in_its_poll_in_time(answer):
    assert work.verify([KEY], POLL, VOTER, answer, NOW)
    assert work.verify([KEY], POLL, VOTER, answer, NOW + work.SECONDS)
    assert not work.verify([KEY], POLL, VOTER, answer, NOW + work.SECONDS + 1)
    assert not work.verify([KEY], "other", VOTER, answer, NOW)
    assert not work.verify([KEY], POLL, "w" * 22, answer, NOW)


def test_what_separates_poll_and_voter_cannot_be_moved():
    answer = solve(work.issue(KEY, "ab", "c", 1, NOW))
    assert work.verify([KEY], "ab", "c", answer, NOW)
    assert not work.verify([KEY], "a", "bc", answer, NOW)


def test_a_key_may_be_rotated_while_somebody_works(answer):
    assert work.verify([OLD, KEY], POLL, VOTER, answer, NOW)
    assert not work.verify([OLD], POLL, VOTER, answer, NOW)


def test_less_work_than_asked_does_not_do(challenge):
    assert not work.verify([KEY], POLL, VOTER, lazy(challenge), NOW)
    one_less = solve(challenge).rpartition("-")[0]
    assert not work.verify([KEY], POLL, VOTER, one_less, NOW)


@pytest.mark.parametrize("field", [0, 1])
def test_difficulty_and_end_cannot_be_rewritten(challenge, field):
    parts = challenge.split(".")
    parts[field] = {0: "1", 1: str(int(parts[1]) + 86400)}[field]
    assert not work.verify([KEY], POLL, VOTER, solve(".".join(parts)), NOW)


def test_pieces_are_not_interchangeable(answer):
    challenge, _, numbers = answer.rpartition(".")
    turned = "-".join(reversed(numbers.split("-")))
    assert not work.verify([KEY], POLL, VOTER, f"{challenge}.{turned}", NOW)


@pytest.mark.parametrize(
    "text",
    [None, "", ".", "...", "0.0.", "6.1.x.1-2", "é" * 20, "٣.1.x.1", "9" * 100_000, "a.b.c.d.e\0"],
)
def test_anything_else_is_no_answer(text):
    assert not work.verify([KEY], POLL, VOTER, text, NOW)


def test_a_ballot_is_no_challenge_though_the_same_key_signs_both():
    voter, cookie = ballot.issue([KEY])
    assert not work.verify([KEY], POLL, voter, f"{cookie}.1-1-1-1-1-1-1-1", NOW)
