"""
Receipts: a short code that shows that a vote is counted, and for whom, without saying whose it is.

It is one-way (a hash of the voter's random id), the same before and after a change of the vote, and
another in each poll. Written in Crockford's base 32 <https://www.crockford.com/base32.html>, which
confuses no letter with a digit: twelve characters of the hash and one that finds typing errors.
One-time codes (codes.py) are written in the same way, and longer.
"""

import functools
import hashlib

ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
LENGTH = 13
BITS = 5 * (LENGTH - 1)
# Ties the hash to this use of the voter's id.
PURPOSE = b"f1vote receipt 1\0"

_VALUE = {character: value for value, character in enumerate(ALPHABET)}
# What people write for a digit or leave between groups.
_READ = str.maketrans({"O": "0", "I": "1", "L": "1", "-": None, " ": None})


def of(poll: str, voter: str) -> str:
    """Return the receipt of ``voter`` (id or one-time code) in the poll ``poll`` (id)."""
    digest = hashlib.sha256(b"%s%s\0%s" % (PURPOSE, poll.encode(), voter.encode())).digest()
    return encode(int.from_bytes(digest[:8], "big") >> (64 - BITS))


def show(receipt: str) -> str:
    """Return ``receipt``, or a code, in groups, as people read it: 7K2M-9QXT-4WPDR."""
    return receipt if len(receipt) <= 5 else f"{receipt[:4]}-{show(receipt[4:])}"


def read(text: str, bits: int = BITS) -> str | None:
    """
    Return the receipt, or the code of ``bits``, that ``text`` means, however it was typed; None if
    it is mistyped.
    """
    receipt = text.strip().upper().translate(_READ)
    if len(receipt) != bits // 5 + 1 or not _VALUE.keys() >= set(receipt):
        return None
    number = functools.reduce(lambda number, one: number << 5 | _VALUE[one], receipt[:-1], 0)
    return receipt if receipt == encode(number, bits) else None


def encode(number: int, bits: int = BITS) -> str:
    """
    Return ``number`` (of ``bits``, a multiple of ten) as a code with its check character.

    That one is the sum of the values of the others, each times its odd place (1, 3, 5, …), modulo
    32. An odd factor has an inverse, so every single wrong character is found, and neighbours that
    changed places are unless they differ by 16.
    """
    # Every vote comes through here: two characters at a time, from tables.
    body, check = "", 0
    for weights, shift in _steps(bits):
        pair = number >> shift & 1023
        body += _PAIRS[pair]
        check += weights[pair]
    return body + ALPHABET[check & 31]


_PAIRS = [a + b for a in ALPHABET for b in ALPHABET]


@functools.cache
def _steps(bits: int) -> list[tuple[list[int], int]]:
    """Return by place of a pair what each adds to the check, and how far it lies from the end."""
    return [
        (
            [(4 * place + 1) * (pair >> 5) + (4 * place + 3) * (pair & 31) for pair in range(1024)],
            bits - 10 * (place + 1),
        )
        for place in range(bits // 10)
    ]
