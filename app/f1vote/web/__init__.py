"""The HTTP side: two listeners in one process, what they share, what each answer bears."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from time import perf_counter
from types import ModuleType
from typing import Any

from sanic import HTTPResponse, Sanic

from f1vote import polls
from f1vote.guard import Guard
from f1vote.i18n import Texts
from f1vote.live import Hub
from f1vote.metrics import Metrics
from f1vote.pages import Pages
from f1vote.recount import Recounter
from f1vote.settings import Settings
from f1vote.store import Store
from f1vote.web import admin, api, events, key, openapi, ops, pages, share
from f1vote.web.answers import PAGE_HEADERS, Json
from f1vote.web.context import Context
from f1vote.web.errors import explainer
from f1vote.web.request import VoteRequest
from f1vote.web.vote import Desk

MAX_REQUEST_BYTES = 8192
# How long an answer may take (s): a voter's, and an organiser's, who may recount or reset a large
# poll.
PATIENCE, MORE_PATIENCE = 15, 120
# The methods that the log and the metrics name.
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
VOTERS = (api, openapi, pages, events, share, key)
OPERATORS = (ops, admin)

_numbers = count()

App = Sanic[Any, Any]


@dataclass(frozen=True)
class Site:
    """Both listeners, what they share, and what works beside them."""

    voters: App
    operators: App
    context: Context
    recounter: Recounter


def create(settings: Settings) -> Site:
    """Return the site; raise Problems if its polls or texts are wrong."""
    by_id = {poll.id: poll for poll in polls.load(settings.polls_dir)}
    texts = Texts()
    metrics = Metrics(by_id.values(), settings.version, settings.image)
    store = Store(
        settings.redis_url, by_id.values(), settings.redis_password, observe=metrics.redis
    )
    context = Context(
        settings=settings,
        polls=by_id,
        texts=texts,
        store=store,
        guard=Guard(settings.cookie_keys, settings.challenge),
        hub=Hub(store, by_id.values(), metrics),
        metrics=metrics,
        pages=Pages(texts, settings, by_id),
    )
    context.desk = Desk(context)
    site = Site(
        _app("voters", VOTERS, context, PATIENCE),
        _app("operators", OPERATORS, context, MORE_PATIENCE),
        context,
        Recounter(store, by_id.values()),
    )
    ops.add_version(site.voters, context)
    return site


def _app(name: str, parts: tuple[ModuleType, ...], context: Context, patience: int) -> App:
    app: App = Sanic(
        f"f1vote-{name}-{next(_numbers)}",
        configure_logging=False,
        request_class=VoteRequest,
    )
    app.config.update(
        ACCESS_LOG=False,
        AUTO_EXTEND=False,
        KEEP_ALIVE_TIMEOUT=75,
        MOTD=False,
        PROXIES_COUNT=context.settings.proxies or None,
        REQUEST_MAX_SIZE=MAX_REQUEST_BYTES,
        REQUEST_TIMEOUT=15,
        RESPONSE_TIMEOUT=patience,
    )
    app.ctx.f1 = context
    app.exception(Exception)(explainer(context))
    app.on_response(_finisher(context))
    for part in parts:
        part.add(app, context)
    return app


def _finisher(context: Context) -> Callable[[Any, HTTPResponse], None]:
    observe, log = context.metrics.request, context.answers.add

    def finish(request: VoteRequest, response: HTTPResponse) -> None:
        """Give the answer its headers, and count and log it."""
        headers, name = response.headers, request.id
        headers["x-request-id"] = name
        if response.status == 303:
            headers["cache-control"] = "no-store"  # nothing is shown
        elif type(response) is not Json:
            for header, value in PAGE_HEADERS.items():
                headers.setdefault(header, value)
        seconds = perf_counter() - request.began
        route = f"/{request.route.path}" if request.route else None
        method = request.method if request.method in METHODS else "other"
        observe(route, method, response.status, seconds)
        log(name, route or "none", method, response.status, seconds)

    return finish
