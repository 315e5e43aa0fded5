"""What every handler of a process shares, and what it asks of a request."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sanic import HTTPResponse, Request

from f1vote import ballot, receipts
from f1vote.guard import Guard
from f1vote.i18n import Texts, negotiate
from f1vote.live import Hub
from f1vote.logs import AnswerLog
from f1vote.metrics import Metrics
from f1vote.pages import Pages, Visit
from f1vote.polls import LANGUAGES, Poll
from f1vote.settings import Settings
from f1vote.store import Standing, Store, Unreachable

if TYPE_CHECKING:
    from f1vote.web.vote import Desk

# `__Host-`: Secure, Path=/, no Domain (RFC 6265bis, 4.1.3.2), so that no other host can set it.
COOKIE = "__Host-f1vote"
CODE_COOKIE = "__Host-f1code-"
COOKIE_SECONDS = 400 * 24 * 3600  # the longest that browsers keep one
# Sanic's own parser makes objects of every cookie; we look for one.
_BALLOT = re.compile(rf"(?:^|;) *{COOKIE}=([^; ]*)")
_HOST = re.compile(r"[A-Za-z0-9.-]{1,253}(:[0-9]{1,5})?|\[[0-9A-Fa-f:.]{2,45}\](:[0-9]{1,5})?")


@dataclass
class Context:
    """
    One object a process; ``draining``: the process was asked to end, and still serves.

    ``polls`` are by id, in the order of the home page.
    """

    settings: Settings
    polls: Mapping[str, Poll]
    texts: Texts
    store: Store
    guard: Guard
    hub: Hub
    metrics: Metrics
    pages: Pages
    # Where votes arrive, by a form or as JSON: it needs the rest of this object.
    desk: "Desk" = field(init=False)
    answers: AnswerLog = field(default_factory=AnswerLog)
    draining: bool = False

    # Who asks

    def voter(self, request: Request) -> str | None:
        """Return the id in the ballot that the browser brought; None if it brought none of ours."""
        return ballot.read(self.settings.cookie_keys, _brought(request))

    def code(self, request: Request, poll: Poll) -> str | None:
        """Return the one-time code of ``poll`` that the browser keeps, if it keeps one."""
        if poll.voters != "codes":
            return None
        value = request.cookies.get(CODE_COOKIE + poll.id)
        return ballot.read_code(self.settings.cookie_keys, poll.id, value)

    def receipt(self, request: Request, poll: Poll) -> str | None:
        """Return under which receipt the browser votes in ``poll``; None if it cannot yet."""
        voter = self.voter(request) if poll.voters == "cookie" else self.code(request, poll)
        return receipts.of(poll.id, voter) if voter else None

    def address(self, request: Request) -> str:
        """
        Return the address from which the request came, as the trusted proxies tell it: each
        appends to X-Forwarded-For whom it was asked by, so that what a voter wrote there is left
        of what counts.
        """
        proxies = self.settings.proxies
        told = request.headers.getall("x-forwarded-for", ()) if proxies else ()
        if told:
            hops = ",".join(told).rsplit(",", proxies)
            if len(hops) >= proxies:
                return str(hops[-proxies].strip())
        return str(request.ip)

    async def standing(self, poll: Poll) -> Standing | None:
        """Return how ``poll`` stands; None if the counting room does not answer."""
        try:
            return await self.store.standing(poll)
        except Unreachable:
            return None

    # What it is given

    def keep(self, request: Request, response: HTTPResponse, poll: Poll) -> None:
        """
        Set on ``response`` what the browser needs to vote in ``poll``: a ballot if it brought none,
        and what it brought if an older key signed that.
        """
        keys, brought = self.settings.cookie_keys, _brought(request)
        voter = ballot.read(keys, brought)
        value = ballot.sign(keys, voter) if voter else ballot.issue(keys)[1]
        if value != brought:
            _set_cookie(response, COOKIE, value)
        if code := self.code(request, poll):
            self.give_code(request, response, poll, code)

    def give_code(self, request: Request, response: HTTPResponse, poll: Poll, code: str) -> None:
        """Set the cookie that keeps the one-time ``code`` of ``poll``, unless it is kept so."""
        name = CODE_COOKIE + poll.id
        value = ballot.sign_code(self.settings.cookie_keys, poll.id, code)
        if value != request.cookies.get(name):
            _set_cookie(response, name, value)

    # In which words

    def language(self, request: Request) -> str:
        """Return the language in which to answer."""
        return negotiate(_asked(request), request.headers.get("accept-language", ""))

    def visit(self, request: Request) -> Visit:
        """Return to whom a page is shown."""
        # With two slashes at its start a link would lead to another host (RFC 3986, 4.2).
        path = "/" + request.path.lstrip("/")
        return Visit(self.language(request), _asked(request), path, self.root(request))

    def root(self, request: Request) -> str:
        """Return our address without a path, as settings or else the request tell it."""
        if self.settings.public_url:
            return self.settings.public_url
        host = request.headers.get("host", "")
        host = host if _HOST.fullmatch(host) else "localhost"
        scheme = "http"
        if self.settings.proxies and request.headers.get("x-forwarded-proto") == "https":
            scheme = "https"
        return f"{scheme}://{host}"


def _brought(request: Request) -> str | None:
    cookies = request.headers.get("cookie")
    found = _BALLOT.search(cookies) if cookies else None
    return found[1] if found else None


def _asked(request: Request) -> str | None:
    """Return the language that the address asks for, if it is one of ours."""
    if not request.query_string:
        return None
    lang: str | None = request.args.get("lang")
    return lang if lang in LANGUAGES else None


def _set_cookie(response: HTTPResponse, name: str, value: str) -> None:
    response.headers.add(
        "set-cookie",
        f"{name}={value}; Path=/; Max-Age={COOKIE_SECONDS}; Secure; HttpOnly; SameSite=Lax",
    )
