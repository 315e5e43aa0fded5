"""
The organiser's area, on the operators' listener. It needs no script. Without a token in the
settings there is no such area.
"""

import asyncio
import hashlib
import socket
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from functools import partial
from typing import Any, cast

from jinja2 import Environment
from sanic import Blueprint, HTTPResponse, Request, Sanic, html, raw, redirect
from sanic.exceptions import SanicException
from sanic.log import logger

from f1vote import admin, codes, export
from f1vote.admin import DONE, Organiser, Refused
from f1vote.explained import Explained
from f1vote.i18n import _
from f1vote.pages import STATES, rows
from f1vote.polls import LANGUAGES, Poll
from f1vote.store import Entry, Unreachable
from f1vote.templating import TEMPLATES, environment
from f1vote.web.context import Context
from f1vote.web.errors import RETRY_AFTER
from f1vote.web.request import READ, same_origin
from f1vote.web.session import SECONDS, Sessions

FOLDER = TEMPLATES / "admin"
PATH = "/admin"
COOKIE = "f1admin"
# Notes of the log on a page; of one poll they are among so many.
NOTES, AMONG = 20, 1000
MOST_DIGITS = 9
# On a sheet made here; more on the command line, where no voter waits meanwhile.
MOST_CODES = 240

GONE = _("There is no such page here.")
STRANGER = _("The request did not come from a page of this area. Nothing was done.")
SIGNED_OUT = _("Your session is over, nothing was done. Sign in again.")
NOT_THE_TOKEN = _("This is not the token.")
WAIT = _("Too many attempts. Try again in {n} s.")
SILENT = _("Redis does not answer. What you asked for may be done or not: look again in a moment.")
BROKEN = _("Something broke on our side.")
TOO_LARGE = _("This is too much for a form. Use the command line for long lists.")

Handler = Callable[..., Coroutine[Any, Any, HTTPResponse | None]]


def add(app: Sanic[Any, Any], context: Context) -> None:
    """Add the area to the operators' ``app``."""
    if context.settings.admin_token is None:
        return
    area = _Area(context, context.settings.admin_token)
    blueprint = Blueprint("admin", url_prefix=PATH)
    blueprint.exception(Exception)(area.explain)
    for path, handler, methods in (
        ("/", area.home, READ),
        ("/log", area.log, READ),
        ("/polls/<name:str>", area.poll, READ),
        ("/polls/<name:str>/confirm", area.confirm, READ),
        ("/polls/<name:str>/<verb:str>", area.act, ("POST",)),
        ("/logout", area.logout, ("POST",)),
    ):
        blueprint.add_route(
            area.signed_in(handler),
            path,
            methods=methods,
            name=handler.__name__,
            strict_slashes=False,
        )
    blueprint.add_route(area.sign_in, "/login", methods=READ, name="sign_in")
    blueprint.add_route(area.login, "/login", methods=("POST",), name="login")
    blueprint.add_route(area.css, f"/{area.css_name}", methods=READ, name="css")
    blueprint.add_route(area.gone, "/<path:path>", methods=(*READ, "POST"), name="gone")
    app.blueprint(blueprint)


class _Area:
    def __init__(self, context: Context, token: bytes) -> None:
        self._context = context
        self._sessions = Sessions(token, context.settings.cookie_keys)
        self._css = (FOLDER / "admin.css").read_bytes()
        self.css_name = f"admin.{hashlib.sha256(self._css).hexdigest()[:12]}.css"
        self._templates = {
            language: _environment(context, language, f"{PATH}/{self.css_name}")
            for language in LANGUAGES
        }

    # Who asks

    def signed_in(self, handler: Handler) -> Handler:
        """Return ``handler`` for who is signed in, with the name of who that is."""

        async def guarded(request: Request, **path: str) -> HTTPResponse | None:
            if request.method == "POST":
                self._refuse_strangers(request)
            who = self._sessions.who(request.cookies.get(COOKIE))
            if who is not None:
                return await handler(request, who, **path)
            if request.method == "POST":
                return self._login_page(request, SIGNED_OUT, 403)
            return redirect(f"{PATH}/login", status=303)

        return guarded

    def _refuse_strangers(self, request: Request) -> None:
        if not same_origin(request):
            raise SanicException(STRANGER, 403)

    async def sign_in(self, request: Request) -> HTTPResponse:
        return self._login_page(request)

    async def login(self, request: Request) -> HTTPResponse:
        self._refuse_strangers(request)
        if seconds := self._sessions.wait():
            page = self._login_page(request, WAIT, 429, n=seconds)
            page.headers["retry-after"] = str(seconds)
            return page
        if not self._sessions.right(_field(request, "token")):
            # Not under the name that was typed: it may be the token, in the wrong field.
            await self._context.store.note("–", "login refused")
            return self._login_page(request, NOT_THE_TOKEN, 403)
        try:
            who = admin.name(_field(request, "name"))
        except Refused as refused:
            return self._login_page(request, refused.text, 400, **refused.fields)
        await self._context.store.note(who, "login")
        response = redirect(PATH, status=303)
        self._set_cookie(request, response, self._sessions.begin(who), SECONDS)
        return response

    async def logout(self, request: Request, who: str) -> HTTPResponse:
        response = redirect(f"{PATH}/login", status=303)
        self._set_cookie(request, response, "", 0)
        return response

    def _set_cookie(
        self, request: Request, response: HTTPResponse, value: str, seconds: int
    ) -> None:
        # Through a port-forward the area is plain http on loopback, where not every browser keeps
        # a Secure cookie.
        secure = "; Secure" if request.scheme == "https" else ""
        response.headers.add(
            "set-cookie",
            f"{COOKIE}={value}; Path={PATH}; Max-Age={seconds}; HttpOnly; SameSite=Strict{secure}",
        )

    # Pages

    async def home(self, request: Request, who: str) -> HTTPResponse:
        store = self._context.store
        return self._page(
            request,
            "home.html",
            who=who,
            polls=[(poll, await store.standing(poll)) for poll in self._context.polls.values()],
            notes=await store.log(NOTES),
        )

    async def log(self, request: Request, who: str) -> HTTPResponse:
        return self._page(request, "log.html", who=who, notes=await self._context.store.log(AMONG))

    async def poll(self, request: Request, who: str, name: str) -> HTTPResponse:
        done, said = request.args.get("done"), None
        if done in DONE:
            n = _number(request.args.get("n", ""))
            said = self._context.texts.get(self._language(request), DONE[done], n=n)
        return await self._poll_page(request, who, self._asked(name), said)

    async def confirm(self, request: Request, who: str, name: str) -> HTTPResponse:
        poll = self._asked(name)
        standing = await self._context.store.standing(poll)
        return self._page(request, "reset.html", who=who, poll=poll, standing=standing, wrong=None)

    async def _poll_page(
        self, request: Request, who: str, poll: Poll, said: str | None, wrong: str | None = None
    ) -> HTTPResponse:
        store, settings = self._context.store, self._context.settings
        standing = await store.standing(poll)
        return self._page(
            request,
            "poll.html",
            409 if wrong else 200,
            who=who,
            poll=poll,
            standing=standing,
            rows=rows(poll.choices, standing.points),
            recount=await store.recounted(poll),
            bursts=(await store.bursts(poll))[:NOTES],
            notes=[note for note in await store.log(AMONG) if note.facts.get("poll") == poll.id][
                :NOTES
            ],
            said=said,
            wrong=wrong,
            most=MOST_CODES,
            fingerprint=(
                export.fingerprint(export.signing_key(settings.sign_key))
                if settings.sign_key
                else None
            ),
        )

    # Actions

    async def act(self, request: Request, who: str, name: str, verb: str) -> HTTPResponse | None:
        poll = self._asked(name)
        organiser = Organiser(self._context.store, self._context.settings, who)
        simple = {
            "open": organiser.open,
            "close": organiser.close,
            "revert": organiser.revert,
            "freeze": organiser.freeze,
            "unfreeze": organiser.unfreeze,
            "hide": organiser.hide,
            "show": organiser.show,
            "recount": organiser.recount,
        }
        try:
            if verb in simple:
                done = await simple[verb](poll)
            elif verb == "extend":
                done = await organiser.extend(poll, _until(request))
            elif verb == "reset":
                done = await organiser.reset(poll, _field(request, "confirmation").strip())
            elif verb == "admit":
                done = await organiser.admit(poll, _field(request, "codes").splitlines())
            elif verb == "sheet":
                return await self._sheet(request, organiser, poll)
            elif verb == "export":
                return await self._export(request, organiser, poll, _field(request, "kind"))
            else:
                raise SanicException(GONE, 404)
        except Explained as refused:
            wrong = refused.say(self._context.texts, self._language(request))
            return await self._poll_page(request, who, poll, None, wrong)
        return redirect(f"{PATH}/polls/{poll.id}?done={done.verb}&n={done.n}", status=303)

    async def _sheet(self, request: Request, organiser: Organiser, poll: Poll) -> HTTPResponse:
        """Return new codes as a file: it is the only place where they are."""
        url = self._context.settings.public_url
        if not url:
            raise Refused(_("The platform was not told the voters’ address (F1_PUBLIC_URL)."))
        count = _number(_field(request, "count"))
        if count > MOST_CODES:
            raise Refused(_("Ask for 1 to {most} codes."), most=MOST_CODES)
        made = await organiser.make_codes(poll, count)
        # Drawing them takes time that voters would wait.
        sheet = await asyncio.to_thread(
            codes.sheet, poll, made, url, self._language(request), self._context.texts
        )
        response = html(sheet)
        response.headers["content-disposition"] = f'attachment; filename="{poll.id}-codes.html"'
        return response

    async def _export(
        self, request: Request, organiser: Organiser, poll: Poll, kind: str
    ) -> HTTPResponse | None:
        standing = await self._context.store.standing(poll)
        pieces = await organiser.export(poll, kind)
        # What is wrong with a small poll is told on a page.
        first = await anext(pieces)
        name = export.file_name(poll, kind, standing.now)
        response = await request.respond(
            content_type="application/zip",
            headers={"content-disposition": f'attachment; filename="{name}"'},
        )
        try:
            await response.send(first)
            async for piece in pieces:
                await response.send(piece)
        except (Explained, Unreachable) as error:
            # Half of a file must not look like a whole one.
            logger.error("export of %s: %s", poll.id, error)
            cast(asyncio.Transport, request.transport).abort()
            return None
        await response.eof()
        return None

    # Around them

    async def css(self, _: Request) -> HTTPResponse:
        return raw(
            self._css,
            content_type="text/css; charset=utf-8",
            headers={"cache-control": "public, max-age=31536000, immutable"},
        )

    async def gone(self, _: Request, path: str) -> HTTPResponse:
        if not path:
            return redirect(PATH, status=308)
        raise SanicException(GONE, 404)

    async def explain(self, request: Request, error: Exception) -> HTTPResponse:
        headers: dict[str, str] = {}
        if isinstance(error, Unreachable):
            logger.warning("redis: %s", error)
            status, text, headers = 503, SILENT, {"retry-after": str(RETRY_AFTER)}
        elif isinstance(error, SanicException) and error.status_code < 500:
            status = error.status_code
            text = {403: STRANGER, 413: TOO_LARGE}.get(status, GONE)
        else:
            logger.exception("%s failed", request.method, exc_info=error)
            status, text = 500, BROKEN
        page = self._page(request, "error.html", status, text=text)
        page.headers.extend(headers)
        return page

    def _asked(self, name: str) -> Poll:
        poll = self._context.polls.get(name)
        if poll is None:
            raise SanicException(GONE, 404)
        return poll

    def _language(self, request: Request) -> str:
        return self._context.language(request)

    def _login_page(
        self, request: Request, wrong: str | None = None, status: int = 200, **fields: Any
    ) -> HTTPResponse:
        language = self._language(request)
        text = self._context.texts.get(language, wrong, **fields) if wrong else None
        return self._page(request, "login.html", status, wrong=text)

    def _page(
        self, request: Request, template: str, status: int = 200, **values: Any
    ) -> HTTPResponse:
        templates = self._templates[self._language(request)]
        return html(templates.get_template(template).render(**{"who": None, **values}), status)


def _field(request: Request, name: str) -> str:
    """Return the field ``name`` of the form, "" if it has none."""
    form: Any = request.form or {}
    return str(form.get(name) or "")


def _number(text: str) -> int:
    """Return the number that ``text`` is; 0 if it is none."""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= MOST_DIGITS else 0


def _until(request: Request) -> str:
    """Return the time that the form of the closing time asks for: a step, or a moment in UTC."""
    return _field(request, "step") or f"{_field(request, 'until')}Z"


FACTS: dict[str, str] = {
    "opens": _("Opens"),
    "closes": _("Closes"),
    "frozen": _("Paused"),
    "hidden": _("Results hidden"),
    "voters": _("Votes"),
    "codes": _("Codes"),
    "difference": _("Difference"),
    "kind": _("File"),
}


def _environment(context: Context, language: str, css: str) -> Environment:
    texts = context.texts
    say = partial(texts.get, language)

    def value(key: str, given: Any) -> str:
        if key in ("opens", "closes"):
            return texts.moment(language, given) if given else say(_("never"))
        if isinstance(given, bool):
            return say(_("yes")) if given else say(_("no"))
        return texts.number(language, given) if isinstance(given, int) else str(given)

    def facts(note: Entry) -> list[str]:
        """Return what a note of the log says, a line a fact."""
        said: dict[str, Any] = dict(note.facts)
        said.pop("poll", None)
        before, after = said.pop("before", {}), said.pop("after", {})
        lines = [
            say(
                _("{what}: {before} → {after}"),
                what=say(FACTS[key]),
                before=value(key, before[key]),
                after=value(key, after[key]),
            )
            for key in before
        ]
        return lines + [
            say(_("{what}: {value}"), what=say(FACTS[key]), value=value(key, given))
            for key, given in said.items()
        ]

    return environment(
        FOLDER,
        _=say,
        plural=partial(texts.plural, language),
        number=partial(texts.number, language),
        moment=partial(texts.moment, language),
        iso=lambda at: f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M:%SZ}",
        facts=facts,
        language=language,
        states=STATES,
        css=css,
        version=context.settings.version,
        pod=socket.gethostname(),
    )
