"""
The HTTP side: routes, ballots in cookies, languages, errors.

A page needs no script. A form is answered with a redirect, JSON with JSON.
"""

import socket
import time
from typing import Any

from sanic import HTTPResponse, Request, Sanic, html, json, redirect, text
from sanic.exceptions import SanicException
from sanic.log import logger

from f1vote import ballot, polls
from f1vote.config import Config
from f1vote.i18n import Texts, negotiate
from f1vote.pages import Pages, Served, state_of
from f1vote.polls import Poll
from f1vote.votes import Outcome, Unreachable, Votes

COOKIE = "f1vote"
COOKIE_SECONDS = 400 * 24 * 3600  # the longest that browsers keep one
MAX_REQUEST_BYTES = 8192

HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'self'; form-action 'self'; base-uri 'none'; "
        "frame-ancestors 'none'"
    ),
    # `no-referrer` would make browsers send `Origin: null` with a form.
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Opener-Policy": "same-origin",
}
# Outcome of a vote → HTTP status.
REFUSED = {Outcome.UNKNOWN: 400, Outcome.EARLY: 409, Outcome.CLOSED: 409}
EXPLAINED = (400, 403, 404, 405, 413, 500, 503)


class Refused(Exception):
    """The request is answered with ``status`` and the texts ``error.<key>``."""

    def __init__(self, status: int, key: str) -> None:
        super().__init__(key)
        self.status, self.key = status, key


def create(config: Config) -> Sanic[Any, Any]:
    """Return the app; raise Problems if its polls or texts are wrong."""
    app: Sanic[Any, Any] = Sanic("f1vote", configure_logging=False)
    app.config.update(
        REQUEST_MAX_SIZE=MAX_REQUEST_BYTES,
        REQUEST_TIMEOUT=15,
        RESPONSE_TIMEOUT=15,
        GRACEFUL_SHUTDOWN_TIMEOUT=10,
        AUTO_EXTEND=False,
        ACCESS_LOG=False,
    )
    texts = Texts()
    served = Served(version=config.version, pod=socket.gethostname())
    _Site(app, config, polls.load(config.polls_dir), texts, Pages(texts, served), served)
    return app


class _Site:
    def __init__(
        self,
        app: Sanic[Any, Any],
        config: Config,
        polls: tuple[Poll, ...],
        texts: Texts,
        pages: Pages,
        served: Served,
    ) -> None:
        self.config, self.polls, self.texts = config, polls, texts
        self.pages, self.served = pages, served
        app.before_server_start(self.start)
        app.after_server_stop(self.stop)
        app.on_response(self.harden)
        app.exception(Exception)(self.explain)
        for path, handler in {
            "/": self.home,
            "/api/results": self.results,
            "/healthz": self.healthz,
            "/readyz": self.readyz,
            "/version": self.version,
            pages.css_path: self.css,
        }.items():
            app.add_route(handler, path, methods=["GET", "HEAD"], name=handler.__name__)
        app.add_route(self.vote, "/vote", methods=["POST"], name="vote")
        app.add_route(self.withdraw, "/withdraw", methods=["POST"], name="withdraw")

    async def start(self, *_: Any) -> None:
        self.votes = Votes(self.config.redis_url)

    async def stop(self, *_: Any) -> None:
        await self.votes.close()

    # Pages

    async def home(self, request: Request) -> HTTPResponse:
        voter, poll = self.voter(request), self.poll()
        results = await self.votes.results(poll, voter)
        response = html(self.pages.poll(self.language(request), asked(request), poll, results))
        if voter is None:
            _, value = ballot.issue(self.config.cookie_key)
            response.add_cookie(
                COOKIE,
                value,
                httponly=True,
                samesite="Lax",
                secure=request.headers.get("x-forwarded-proto") == "https",
                max_age=COOKIE_SECONDS,
                path="/",
            )
        return response

    async def vote(self, request: Request) -> HTTPResponse:
        body = request.json if is_json(request) else request.form
        choice = body.get("choice") if isinstance(body, dict) else None
        if not isinstance(choice, str) or not choice:
            raise Refused(400, Outcome.UNKNOWN)
        return await self.cast(request, choice)

    async def withdraw(self, request: Request) -> HTTPResponse:
        return await self.cast(request, "")

    async def cast(self, request: Request, choice: str) -> HTTPResponse:
        if not same_origin(request):
            raise Refused(403, "403")
        voter = self.voter(request)
        if voter is None:
            # A new ballot here would count a repeated request twice.
            raise Refused(403, "ballot")
        outcome, held = await self.votes.cast(self.poll(), voter, choice)
        if outcome in REFUSED:
            raise Refused(REFUSED[outcome], outcome)
        if is_json(request):
            return json({"outcome": outcome, "choice": choice or None, "previous": held})
        lang = asked(request)
        return redirect(f"/?lang={lang}" if lang else "/", status=303)

    async def css(self, _: Request) -> HTTPResponse:
        return HTTPResponse(
            self.pages.css,
            content_type="text/css; charset=utf-8",
            headers={"Cache-Control": "public, max-age=31536000, immutable"},
        )

    # For programs

    async def results(self, _: Request) -> HTTPResponse:
        poll = self.poll()
        results = await self.votes.results(poll)
        return json(
            {
                "poll": poll.id,
                "state": state_of(poll, results.now),
                "tally": results.tally,
                "voters": results.voters,
            }
        )

    async def healthz(self, _: Request) -> HTTPResponse:
        return text("ok\n")

    async def readyz(self, _: Request) -> HTTPResponse:
        try:
            await self.votes.ping()
        except Unreachable as error:
            logger.warning("redis: %s", error)
            return text("redis does not answer\n", status=503)
        return text("ok\n")

    async def version(self, _: Request) -> HTTPResponse:
        return json({"version": self.served.version, "pod": self.served.pod})

    # Around them

    def poll(self) -> Poll:
        return polls.current(self.polls, time.time())

    def voter(self, request: Request) -> str | None:
        return ballot.read(self.config.cookie_key, request.cookies.get(COOKIE))

    def language(self, request: Request) -> str:
        return negotiate(asked(request), request.headers.get("accept-language", ""))

    async def harden(self, _: Request, response: HTTPResponse) -> None:
        for name, value in HEADERS.items():
            response.headers.setdefault(name, value)
        response.headers.setdefault("Cache-Control", "no-store")

    async def explain(self, request: Request, error: Exception) -> HTTPResponse:
        """Answer an error in the voter's language, or in JSON to a program."""
        headers: dict[str, str] = {}
        if isinstance(error, Refused):
            status, key = error.status, error.key
        elif isinstance(error, Unreachable):
            logger.warning("redis: %s", error)
            status, key, headers = 503, "503", {"Retry-After": "3"}
        elif isinstance(error, SanicException):
            status = error.status_code if error.status_code in EXPLAINED else 400
            key = str(status)
            headers = {k: v for k, v in (error.headers or {}).items() if k.lower() == "allow"}
        else:
            logger.exception("%s %s", request.method, request.path, exc_info=error)
            status, key = 500, "500"
        language = self.language(request)
        if is_json(request) or request.path.startswith("/api/"):
            message = self.texts.get(language, f"error.{key}.text")
            return json({"error": key, "message": message}, status=status, headers=headers)
        page = self.pages.error(language, asked(request), key)
        return html(page, status=status, headers=headers)


def asked(request: Request) -> str | None:
    """Return the language that the address asks for, if it is one of ours."""
    lang = request.args.get("lang")
    return lang if lang in polls.LANGUAGES else None


def is_json(request: Request) -> bool:
    """Return whether the request's body is JSON."""
    return request.headers.get("content-type", "").partition(";")[0].strip() == "application/json"


def same_origin(request: Request) -> bool:
    """
    Return whether a page of ours sent this request.

    ``Origin`` (RFC 6454) decides; a browser too old to send it has at least ``SameSite=Lax`` to
    keep the ballot from other sites.
    """
    origin = request.headers.get("origin")
    if origin is None:
        return request.headers.get("sec-fetch-site") in (None, "same-origin", "none")
    return origin.partition("://")[2] == request.headers.get("host")
