"""
The pages' routes: what a voter's browser asks for, with a script or without one.

A form is answered with a redirect to the page that shows what it changed.
"""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from sanic import HTTPResponse, Request, Sanic, html, raw, redirect

from f1vote import codes, receipts
from f1vote.i18n import _
from f1vote.pages import PLACES
from f1vote.polls import Poll
from f1vote.store import Standing, Unreachable
from f1vote.web.context import Context
from f1vote.web.errors import RETRY_AFTER, Refused, Told, asked_poll
from f1vote.web.request import READ, same_origin

FOR_EVER = {"cache-control": "public, max-age=31536000, immutable"}
# What is typed is shown again: no more of it than this (characters).
MOST_TYPED = 40

GAP = Told(
    400,
    _("A place of your podium is empty"),
    _("Fill the places from the first one down, each with another choice. Nothing was counted."),
)
MISTYPED = Told(
    400,
    _("This is not a code of this vote"),
    _("Compare it with what you were given, character by character, and type it again."),
)


def add(app: Sanic[Any, Any], context: Context) -> None:
    """Add the pages and the files that they load to ``app``."""
    site = _Site(context)

    def route(path: str, handler: Any, methods: Sequence[str] = READ) -> None:
        app.add_route(handler, path, methods=methods, name=f"page-{handler.__name__}")

    route("/", site.home)
    route("/privacy", site.privacy)
    route("/static/<name:str>", site.file)
    route("/<poll:str>", site.poll)
    route("/<poll:str>/receipt", site.receipt)
    route("/<poll:str>/vote", site.vote, ["POST"])
    route("/<poll:str>/withdraw", site.withdraw, ["POST"])
    route("/<poll:str>/code", site.code, ["POST"])


class _Site:
    def __init__(self, context: Context) -> None:
        self._context = context
        self._pages = context.pages
        self._listed = [poll for poll in context.polls.values() if poll.listed]

    # Shown

    async def home(self, request: Request) -> HTTPResponse:
        standings = await asyncio.gather(*map(self._context.standing, self._listed))
        return html(
            self._pages.home(
                self._context.visit(request), zip(self._listed, standings, strict=True)
            )
        )

    async def poll(self, request: Request, poll: str) -> HTTPResponse:
        asked, context = self._asked(poll), self._context
        given = request.args.get("code") if asked.voters == "codes" else None
        # Any site may lead here by a link: what the browser votes with is changed by the voter.
        kept = context.code(request, asked) if given else None
        if given and (kept is None or codes.read(given) in (None, kept)):
            return await self._take_code(request, asked, given)
        receipt = context.receipt(request, asked)
        standing: Standing | None = None
        held: Sequence[str] = ()
        with suppress(Unreachable):  # the page stays up and says so
            standing, held = await context.store.page(asked, receipt)
        admitted = asked.voters == "cookie" or receipt is not None
        page = self._pages.poll(
            context.visit(request), asked, standing, held, receipt,
            admitted=admitted, typed=(given or "")[:MOST_TYPED],
        )  # fmt: skip
        response = html(page)
        if standing is None:
            response.status = 503
            response.headers["retry-after"] = str(RETRY_AFTER)
        context.keep(request, response, asked)
        return response

    async def receipt(self, request: Request, poll: str) -> HTTPResponse:
        asked, visit = self._asked(poll), self._context.visit(request)
        typed = (request.args.get("code") or "").strip()[:MOST_TYPED]
        if not typed:
            return html(self._pages.receipt(visit, asked))
        read = receipts.read(typed)
        held = await self._context.store.held(asked, read) if read else ()
        return html(self._pages.receipt(visit, asked, typed, read, held))

    async def privacy(self, request: Request) -> HTTPResponse:
        return html(self._pages.privacy(self._context.visit(request)))

    async def file(self, request: Request, name: str) -> HTTPResponse:
        file = self._pages.files.get(f"/static/{name}")
        if file is None:
            raise Refused("404")
        return raw(file.body, content_type=file.type, headers=FOR_EVER)

    # Sent

    async def vote(self, request: Request, poll: str) -> HTTPResponse:
        asked = self._asked(poll)
        fields = [name for name, _called in PLACES[: len(asked.points)]]
        if len(fields) == 1:
            fields = ["choice"]
        form = _form(request)
        picks = [form.get(field) or "" for field in fields]
        while picks and not picks[-1]:
            picks.pop()
        if len(fields) > 1 and (not all(picks) or len(set(picks)) < len(picks) or not picks):
            raise Refused("gap", told=GAP)
        if not picks:
            raise Refused("unknown")
        return await self._cast(request, asked, picks)

    async def withdraw(self, request: Request, poll: str) -> HTTPResponse:
        return await self._cast(request, self._asked(poll), ())

    async def code(self, request: Request, poll: str) -> HTTPResponse:
        asked = self._asked(poll)
        if asked.voters != "codes":
            raise Refused("404")
        if not same_origin(request):
            raise Refused("origin")
        return await self._take_code(request, asked, _form(request).get("code") or "")

    async def _cast(self, request: Request, poll: Poll, choices: Sequence[str]) -> HTTPResponse:
        await self._context.desk.cast(request, poll, choices, _form(request).get("work"))
        return self._back(request, poll)

    async def _take_code(self, request: Request, poll: Poll, typed: str) -> HTTPResponse:
        code = codes.read(typed)
        if code is None:
            raise Refused("mistyped", told=MISTYPED)
        response = self._back(request, poll)
        self._context.give_code(request, response, poll, code)
        return response

    def _back(self, request: Request, poll: Poll) -> HTTPResponse:
        return redirect(self._context.visit(request).to(f"/{poll.id}"), status=303)

    def _asked(self, name: str) -> Poll:
        return asked_poll(self._context, name)


def _form(request: Request) -> Any:
    """Return the fields of the form; of a body that is none, no fields."""
    return request.form or {}
