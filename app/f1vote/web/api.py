"""The JSON API: what the pages do, for programs. ``openapi.py`` says what each part answers."""

from collections.abc import Sequence
from typing import Any

import orjson
from sanic import HTTPResponse, Request, Sanic

from f1vote import receipts
from f1vote.live import view
from f1vote.polls import Poll
from f1vote.web.answers import json
from f1vote.web.context import Context
from f1vote.web.errors import Refused, asked_poll
from f1vote.web.request import READ, is_json


def add(app: Sanic[Any, Any], context: Context) -> None:
    """Add the API to ``app``."""
    api = _Api(context)
    for name, path, methods in (
        ("polls", "/api/polls", READ),
        ("poll", "/api/polls/<poll>", READ),
        ("results", "/api/polls/<poll>/results", READ),
        ("vote", "/api/polls/<poll>/vote", ("POST",)),
        ("withdraw", "/api/polls/<poll>/withdraw", ("POST",)),
        ("receipt", "/api/polls/<poll>/receipts/<code>", READ),
    ):
        app.add_route(getattr(api, name), path, methods=methods, name=f"api-{name}")


class _Api:
    def __init__(self, context: Context) -> None:
        self.context = context

    async def polls(self, _: Request) -> HTTPResponse:
        polls = self.context.polls.values()
        return json({"polls": [_about(poll) for poll in polls if poll.listed]})

    async def poll(self, request: Request, poll: str) -> HTTPResponse:
        asked = self._poll(poll)
        receipt = self.context.receipt(request, asked)
        standing, held = await self.context.store.page(asked, receipt)
        answer = json(
            {
                **_about(asked),
                "choices": [_choice(choice) for choice in asked.choices],
                **view(asked, standing, bool(held)),
                "mine": held,
                "receipt": receipts.show(receipt) if receipt and held else None,
            }
        )
        self.context.keep(request, answer, asked)
        return answer

    async def results(self, request: Request, poll: str) -> HTTPResponse:
        asked = self._poll(poll)
        receipt = self.context.receipt(request, asked) if asked.results == "voted" else None
        standing, held = await self.context.store.page(asked, receipt)
        if not standing.visible(asked, bool(held)):
            raise Refused("hidden")
        return json(view(asked, standing, bool(held)))

    async def vote(self, request: Request, poll: str) -> HTTPResponse:
        body = _object(request, {"choices", "work"})
        choices = body.get("choices")
        if not isinstance(choices, list) or not choices or set(map(type, choices)) != {str}:
            raise Refused("400")
        return await self._cast(request, self._poll(poll), choices, body)

    async def withdraw(self, request: Request, poll: str) -> HTTPResponse:
        return await self._cast(request, self._poll(poll), (), _object(request, {"work"}))

    async def _cast(
        self, request: Request, poll: Poll, choices: Sequence[str], body: dict[str, Any]
    ) -> HTTPResponse:
        work = body.get("work")
        if work is not None and not isinstance(work, str):
            raise Refused("400")
        done, receipt = await self.context.desk.cast(request, poll, choices, work)
        return json(
            {
                "outcome": done.outcome,
                "choices": choices,
                "previous": done.held,
                "receipt": receipts.show(receipt),
            }
        )

    async def receipt(self, _: Request, poll: str, code: str) -> HTTPResponse:
        asked = self._poll(poll)
        receipt = receipts.read(code)
        if receipt is None:
            raise Refused("receipt")
        held = await self.context.store.held(asked, receipt)
        return json({"counted": bool(held), "choices": held})

    def _poll(self, name: str) -> Poll:
        return asked_poll(self.context, name)


def _about(poll: Poll) -> dict[str, Any]:
    return {
        "poll": poll.id,
        "title": poll.title,
        "question": poll.question,
        "points_by_place": poll.points,
        "results": poll.results,
        "voters_by": poll.voters,
    }


def _choice(choice: Any) -> dict[str, Any]:
    return {
        "code": choice.code,
        "name": choice.name,
        "number": choice.number,
        "team": choice.team,
        "colour": choice.colour,
    }


def _object(request: Request, known: set[str]) -> dict[str, Any]:
    """Return the JSON object in the body; raise Refused if it is none, or holds other keys."""
    if not is_json(request):
        raise Refused("415")
    try:
        body = orjson.loads(request.body)
    except ValueError:
        raise Refused("400") from None
    if not isinstance(body, dict) or not body.keys() <= known:
        raise Refused("400")
    return body
