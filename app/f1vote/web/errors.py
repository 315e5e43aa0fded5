"""What went wrong, in the voter's language: a page for people, JSON for programs."""

from collections.abc import Callable
from dataclasses import dataclass

from sanic import HTTPResponse, Request, html
from sanic.exceptions import SanicException
from sanic.log import logger

from f1vote.guard import Verdict
from f1vote.i18n import _
from f1vote.polls import Poll
from f1vote.store import Unreachable
from f1vote.web.answers import json
from f1vote.web.context import Context
from f1vote.web.request import is_json

# How soon it is worth to ask Redis again (s).
RETRY_AFTER = 3


@dataclass(frozen=True)
class Told:
    """A status of HTTP, and what is said with it: English, to be translated."""

    status: int
    title: str
    text: str


TOLD = {
    # What became of a vote, by its Outcome.
    "unknown": Told(
        400,
        _("This choice is not on the list"),
        _("Go back to the vote and choose one of those that are."),
    ),
    "early": Told(409, _("The vote is not open yet"), _("Come back when it is.")),
    "closed": Told(
        409, _("The vote is closed"), _("It was not counted. Go back to see the results.")
    ),
    "frozen": Told(
        409,
        _("The vote is paused"),
        _("The organiser has paused it for a moment. It was not counted: try again later."),
    ),
    "code": Told(
        403,
        _("This vote needs a one-time code"),
        _("Open the link or type the code that you were given, then vote."),
    ),
    # Why there was no vote.
    "ballot": Told(
        403,
        _("Your browser did not bring a ballot"),
        _(
            "A vote needs our cookie, so that it counts once. Allow cookies for this site, open "
            "the page again and vote."
        ),
    ),
    "origin": Told(
        403,
        _("This vote came from another page"),
        _("To protect your vote, it is only accepted from our own page. Open it and vote there."),
    ),
    "hidden": Told(
        403,
        _("The standings are covered"),
        _("They open up when the rules of this vote say so."),
    ),
    "unreachable": Told(
        503,
        _("The counting room does not answer"),
        _(
            "Votes already counted are safe. Try again in a few seconds. If you were voting, vote "
            "again, it can only count once."
        ),
    ),
    "receipt": Told(
        404,
        _("This is not a receipt: a character is mistyped"),
        _(
            "A receipt has thirteen letters and digits, such as 7K2M-9QXT-4WPDR. Small letters, "
            "spaces and dashes do not matter."
        ),
    ),
    "full": Told(
        503,
        _("Very many people are watching"),
        _("The page works; it asks for the standings every few seconds."),
    ),
    # By status.
    "400": Told(400, _("This request cannot be read"), _("Go back to the vote and try again.")),
    "404": Told(404, _("No such page"), _("All our votes are on the first page.")),
    "405": Told(405, _("This cannot be done here"), _("Go back to the vote and use its buttons.")),
    "413": Told(
        413, _("This is too long"), _("A vote is short. Go back to the vote and use its buttons.")
    ),
    "415": Told(
        415,
        _("This is not a kind of content that is read here"),
        _("Send JSON to the API, and a form to a page."),
    ),
    "500": Told(500, _("Something broke on our side"), _("Try again in a moment.")),
    "503": Told(503, _("This took too long"), _("Try again in a moment.")),
}


class Refused(Exception):
    """A request that is answered with ``key`` of TOLD, or with ``told`` under that name."""

    def __init__(
        self,
        key: str,
        *,
        told: Told | None = None,
        retry_after: int = 0,
        challenge: str | None = None,
    ) -> None:
        super().__init__(key)
        self.key, self.told = key, told or TOLD[key]
        self.retry_after, self.challenge = retry_after, challenge

    @classmethod
    def by(cls, verdict: Verdict) -> "Refused":
        """Return the refusal of a vote by the guard."""
        return cls(
            verdict.reason,
            told=Told(429, verdict.title, verdict.text),
            retry_after=verdict.retry_after,
            challenge=verdict.challenge,
        )


def asked_poll(context: Context, name: str) -> Poll:
    """Return the poll ``name``; raise Refused if there is none."""
    poll = context.polls.get(name)
    if poll is None:
        raise Refused("404")
    return poll


def explainer(context: Context) -> Callable[[Request, Exception], HTTPResponse]:
    """Return what answers an exception."""

    def explain(request: Request, error: Exception) -> HTTPResponse:
        headers: dict[str, str] = {}
        refused = _refusal(request, error)
        if isinstance(error, SanicException):
            allowed = {k.lower(): v for k, v in (error.headers or {}).items()}.get("allow")
            if allowed:
                headers["allow"] = ", ".join(sorted(allowed.split(", ")))
        if refused.retry_after:
            headers["retry-after"] = str(refused.retry_after)
        told, language = refused.told, context.language(request)
        if is_json(request) or request.path.startswith("/api/"):
            body = {
                "error": refused.key,
                "title": context.texts.get(language, told.title),
                "message": context.texts.get(language, told.text),
            }
            if refused.challenge:
                body["challenge"] = refused.challenge
            return json(body, told.status, headers)
        page = context.pages.error(
            context.visit(request), told.title, told.text, _poll(context, request),
            refused.challenge,
        )  # fmt: skip
        return html(page, told.status, headers)

    return explain


def _refusal(request: Request, error: Exception) -> Refused:
    if isinstance(error, Refused):
        return error
    if isinstance(error, Unreachable):
        logger.warning("redis: %s", error)
        return Refused("unreachable", retry_after=RETRY_AFTER)
    if isinstance(error, SanicException) and error.status_code != 500:
        status = error.status_code
        key = str(status) if str(status) in TOLD else "400" if status < 500 else "503"
        return Refused(key, told=Told(status, TOLD[key].title, TOLD[key].text))
    logger.exception("%s failed", request.method, exc_info=error)
    return Refused("500")


def _poll(context: Context, request: Request) -> Poll | None:
    """Return the poll to which the page leads back."""
    return context.polls.get(request.path.lstrip("/").partition("/")[0])
