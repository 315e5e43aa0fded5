"""
Receipts: a short code that shows that a vote is counted, and for whom, without saying whose it is.

It is one-way (a hash of the voter's random id), the same before and after a change of the vote, and
another in each poll. Written in Crockford's base 32 <https://www.crockford.com/base32.html>, which
confuses no letter with a digit: twelve characters of the hash and one that finds typing errors.
"""

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
    """Return ``receipt`` in groups, as people read it: 7K2M-9QXT-4WPDR."""
    return f"{receipt[:4]}-{receipt[4:8]}-{receipt[8:]}"


def read(text: str) -> str | None:
    """Return the receipt that ``text`` means, however it was typed; None if it is mistyped."""
    receipt = text.strip().upper().translate(_READ)
    if len(receipt) != LENGTH or not _VALUE.keys() >= set(receipt):
        return None
    return receipt if receipt[-1] == _check(receipt[:-1]) else None


def encode(number: int) -> str:
    """Return ``number`` (0 … 2**60 - 1) as a code with its check character."""
    body = "".join(ALPHABET[number >> shift & 31] for shift in range(BITS - 5, -1, -5))
    return body + _check(body)


def _check(body: str) -> str:
    """
    Return the check character: the sum of the values, each times its odd place, modulo 32. An odd
    factor has an inverse, so every single wrong character is found, and neighbours that changed
    places are unless they differ by 16.
    """
    return ALPHABET[sum(_VALUE[c] * (2 * place + 1) for place, c in enumerate(body)) % 32]
