"""
One-time codes: who holds one may vote in a poll with ``voters: codes``; and the sheet that they are
printed on.

A code is 100 random bits, written as a receipt is: a mistyped character is found. It is longer than
a receipt because its receipt, public in an export, is a hash of it without a key: nobody tries all
of 100 bits. Few type it; the QR code brings it along.
"""

import secrets
from collections.abc import Iterable
from functools import cache

from jinja2 import Template

from f1vote import qr, receipts
from f1vote.i18n import Texts
from f1vote.polls import Poll
from f1vote.templating import environment

BITS = 100
MOST = 2400  # in one call: a hundred sheets of A4, some ten seconds to draw


def make(count: int) -> list[str]:
    """Return ``count`` new codes, each another."""
    made: set[str] = set()
    while len(made) < count:
        made.add(receipts.encode(secrets.randbits(BITS), BITS))
    return sorted(made)


def read(text: str) -> str | None:
    """Return the code that ``text`` means, however it was typed; None if it is mistyped."""
    return receipts.read(text, BITS)


def sheet(poll: Poll, codes: Iterable[str], url: str, language: str, texts: Texts) -> str:
    """
    Return the HTML of the sheets to print: one card a code, 24 on a page of A4 (70 × 37 mm, as
    ready-cut labels are). ``url`` is the voters' address without a path.
    """
    address = f"{url}/{poll.id}"
    return _template().render(
        _=lambda text, **fields: texts.get(language, text, **fields),
        language=language,
        poll=poll,
        address=address.partition("://")[2],
        cards=[
            (
                receipts.show(code),
                qr.svg(f"{address}?code={code}", border=2, omitsize=True, svgns=False),
            )
            for code in codes
        ],
    )


@cache
def _template() -> Template:
    return environment().get_template("codes.html")
