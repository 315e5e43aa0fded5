"""What is passed on of a poll: the QR code of its address, and the picture beside a link to it."""

import asyncio
import hashlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache, partial
from time import monotonic
from typing import Any

from sanic import HTTPResponse, Request, Sanic, raw

from f1vote import card, qr
from f1vote.polls import LANGUAGES, Poll
from f1vote.store import Standing
from f1vote.web.context import Context
from f1vote.web.errors import asked_poll
from f1vote.web.request import READ

# A picture is drawn, or compared with Redis, at most once in so long (s).
FRESH = 5.0
# How long others may keep one (s); a QR code changes only with the address.
KEEP_CARD, KEEP_QR = 30, 24 * 3600

Facts = tuple[int, str, bool, bool] | None  # what of a standing a card depends on


@dataclass(frozen=True)
class Picture:
    """An image and what it is known by (ETag, RFC 9110, 8.8.3)."""

    body: bytes
    tag: str


def add(app: Sanic[Any, Any], context: Context) -> None:
    """Add QR codes and cards to ``app``."""
    cards = Cards(context)

    async def qr(request: Request, poll: str) -> HTTPResponse:
        asked = asked_poll(context, poll)
        picture = _qr(f"{context.root(request)}/{asked.id}")
        return _answer(request, picture, "image/svg+xml", f"public, max-age={KEEP_QR}")

    async def draw(request: Request, poll: str, language: str) -> HTTPResponse:
        asked = asked_poll(context, poll)
        picture, known = await cards.get(asked, language)
        keep = f"public, max-age={KEEP_CARD}" if known else "no-store"
        return _answer(request, picture, "image/png", keep)

    app.add_route(qr, "/<poll:str>/qr.svg", methods=READ, name="share-qr")
    for language in LANGUAGES:
        app.add_route(
            partial(draw, language=language), f"/<poll:str>/card.{language}.png", methods=READ,
            name=f"share-card-{language}",
        )  # fmt: skip


class Cards:
    """The cards of a process: each is drawn beside the event loop, and drawn again if it must."""

    def __init__(self, context: Context) -> None:
        self._context = context
        # One after the other: drawing must not take the processor from the votes.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="card")
        self._drawn: dict[tuple[str, str], tuple[float, Facts, Picture]] = {}
        self._locks: dict[tuple[str, str], asyncio.Lock] = {}

    async def get(self, poll: Poll, language: str) -> tuple[Picture, bool]:
        """
        Return the card of ``poll``, at most FRESH behind, and whether it shows how the poll stands:
        it does not while Redis is silent.
        """
        key = poll.id, language
        # Who asks while a card is drawn gets the same one.
        async with self._locks.setdefault(key, asyncio.Lock()):
            at, facts, picture = self._drawn.get(key, (-FRESH, None, None))
            if picture is None or monotonic() - at >= FRESH:
                standing = await self._context.standing(poll)
                now = _facts(poll, standing)
                if picture is None or now != facts:
                    picture = await self._draw(poll, standing, language)
                facts = now
                self._drawn[key] = monotonic(), facts, picture
            return picture, facts is not None

    async def _draw(self, poll: Poll, standing: Standing | None, language: str) -> Picture:
        url = self._context.settings.public_url
        body = await asyncio.get_running_loop().run_in_executor(
            self._thread, card.draw, poll, standing, language, self._context.texts,
            f"{url.partition('://')[2]}/{poll.id}" if url else "",
        )  # fmt: skip
        return _picture(body)


def _facts(poll: Poll, standing: Standing | None) -> Facts:
    if standing is None:
        return None
    seen = standing.visible(poll, voted=False)
    # Of votes that may not be seen the card shows how many, not every change of one.
    return (standing.version if seen else standing.voters), standing.state, seen, standing.hidden


@lru_cache(256)
def _qr(address: str) -> Picture:
    # Four modules of white around it, as the standard asks (ISO/IEC 18004).
    return _picture(qr.svg(address, border=4, scale=8, light="#fff").encode())


def _picture(body: bytes) -> Picture:
    return Picture(body, f'"{hashlib.sha256(body).hexdigest()[:16]}"')


def _answer(request: Request, picture: Picture, kind: str, keep: str) -> HTTPResponse:
    headers = {
        "etag": picture.tag,
        "cache-control": keep,
        # Other sites show it.
        "cross-origin-resource-policy": "cross-origin",
    }
    known = request.headers.get("if-none-match", "")
    if picture.tag in (tag.strip().removeprefix("W/") for tag in known.split(",")):
        return HTTPResponse(status=304, headers=headers)
    return raw(picture.body, content_type=kind, headers=headers)
