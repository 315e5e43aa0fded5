"""
What the API is, as OpenAPI 3.1 <https://spec.openapis.org/oas/v3.1.0> and as a page to read.

Tests hold every answer against this document (tests/app/test_api_schema.py).
"""

from collections.abc import Mapping
from typing import Any

from sanic import HTTPResponse, Request, Sanic, html

from f1vote import receipts
from f1vote.polls import LANGUAGES, Poll
from f1vote.web.answers import json
from f1vote.web.context import COOKIE, Context
from f1vote.web.errors import TOLD
from f1vote.web.request import READ

# The guard's, whose texts depend on why.
GUARD = {"rate": 429, "challenge": 429}

Schema = dict[str, Any]


def add(app: Sanic[Any, Any], context: Context) -> None:
    """Add the document and its page to ``app``."""
    described = document(context.settings.version, context.polls)

    async def openapi(_: Request) -> HTTPResponse:
        return json(described)

    async def page(request: Request) -> HTTPResponse:
        return html(context.pages.api(context.visit(request), described))

    app.add_route(openapi, "/api/openapi.json", methods=READ, name="openapi")
    app.add_route(page, "/api", methods=READ, name="api-page")


def document(version: str, polls: Mapping[str, Poll]) -> Schema:
    """Return the OpenAPI document of the API of ``polls``."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "F1-Vote",
            "version": version,
            "description": (
                "What the pages do, for programs. A vote needs the ballot, a signed cookie that "
                "the first question about a poll brings: one ballot, one vote in each poll. All "
                "times are Unix seconds by the server's clock. The texts of errors are in English "
                "or French, by Accept-Language."
            ),
        },
        "servers": [{"url": "/"}],
        "paths": {
            "/api/polls": {
                "get": _operation(
                    "polls",
                    "List the polls",
                    "The polls of the home page, in its order.",
                    _object({"polls": {"type": "array", "items": _ref("About")}}),
                )
            },
            "/api/polls/{poll}": {
                "get": _operation(
                    "poll",
                    "Show a poll",
                    "The poll, its choices, how it stands, and your vote. Brings the ballot, if "
                    "you have none yet.",
                    _ref("Poll"),
                    ["404", "unreachable"],
                )
            },
            "/api/polls/{poll}/results": {
                "get": _operation(
                    "results",
                    "Show the standings",
                    "Refused as long as the poll's rule keeps them covered.",
                    _ref("Results"),
                    ["hidden", "404", "unreachable"],
                )
            },
            "/api/polls/{poll}/events": {
                "get": _operation(
                    "events",
                    "Follow the standings",
                    "A stream of server-sent events: `standing` with each change, its data as in "
                    "`results` (without points as long as they are covered), `bye` when this "
                    "server ends. Come back with Last-Event-ID.",
                    None,
                    ["404", "unreachable", "full"],
                )
            },
            "/api/polls/{poll}/vote": {
                "post": _operation(
                    "vote",
                    "Vote, or change your vote",
                    "One code, or up to as many as the poll has places, best first. Asked twice it "
                    "counts once: after 503, or no answer, ask again.",
                    _ref("Vote"),
                    _VOTE_ERRORS,
                    {
                        "choices": {
                            "type": "array",
                            "items": {"type": "string"},
                            "minItems": 1,
                            "examples": [["NOR"]],
                        },
                        "work": _WORK,
                    },
                    ["choices"],
                )
            },
            "/api/polls/{poll}/withdraw": {
                "post": _operation(
                    "withdraw",
                    "Take your vote back",
                    "Until the poll closes.",
                    _ref("Vote"),
                    _VOTE_ERRORS,
                    {"work": _WORK},
                )
            },
            "/api/polls/{poll}/receipts/{code}": {
                "get": _operation(
                    "receipt",
                    "Check a receipt",
                    "Whether a vote is counted under this receipt, and for whom.",
                    _object({"counted": {"type": "boolean"}, "choices": _CODES}),
                    ["404", "receipt", "unreachable"],
                )
            },
            "/version": {
                "get": _operation(
                    "version",
                    "Which build answers",
                    "Version and image of the build, and the pod.",
                    _object({name: {"type": "string"} for name in ("version", "image", "pod")}),
                )
            },
        },
        "components": {
            "parameters": {
                "poll": {
                    "name": "poll",
                    "in": "path",
                    "required": True,
                    "description": "The id of a poll.",
                    "schema": {"type": "string", "enum": list(polls)},
                },
                "code": {
                    "name": "code",
                    "in": "path",
                    "required": True,
                    "description": "A receipt, however it is written.",
                    "schema": {"type": "string", "minLength": receipts.LENGTH, "maxLength": 40},
                    "example": receipts.show(receipts.encode(0)),
                },
            },
            "schemas": _schemas(),
            "securitySchemes": {"ballot": {"type": "apiKey", "in": "cookie", "name": COOKIE}},
        },
    }


_VOTE_ERRORS = [
    "400", "unknown", "ballot", "code", "origin", "404", "early", "closed", "frozen", "413", "415",
    "rate", "challenge", "unreachable",
]  # fmt: skip
_CODES: Schema = {"type": "array", "items": {"type": "string"}}
_WORK: Schema = {
    "type": ["string", "null"],
    "description": "The answer to the `challenge` of an error, if you were given one.",
}


def _operation(
    name: str,
    summary: str,
    description: str,
    answer: Schema | None,
    errors: list[str] | None = None,
    body: Schema | None = None,
    required: list[str] | None = None,
) -> Schema:
    """Return the description of an operation; ``answer`` None: it is a stream of events."""
    kind = "application/json" if answer else "text/event-stream"
    by_status: dict[int, list[str]] = {}
    for key in errors or ():
        by_status.setdefault(GUARD.get(key) or TOLD[key].status, []).append(key)
    responses: Schema = {
        "200": {
            "description": "OK",
            "content": {kind: {"schema": answer or {"type": "string"}}},
        }
    }
    for status, keys in sorted(by_status.items()):
        responses[str(status)] = {
            "description": "; ".join(_says(key) for key in keys),
            "content": {"application/json": {"schema": _ref("Error")}},
        }
        if status in (429, 503):
            responses[str(status)]["headers"] = {
                "Retry-After": {
                    "description": "Seconds after which it is worth to ask again.",
                    "schema": {"type": "integer"},
                }
            }
    operation: Schema = {
        "operationId": name,
        "summary": summary,
        "description": description,
        "responses": responses,
    }
    if errors:
        operation["parameters"] = [{"$ref": "#/components/parameters/poll"}]
    if name == "receipt":
        operation["parameters"].append({"$ref": "#/components/parameters/code"})
    if body is not None:
        schema = {
            "type": "object",
            "properties": body,
            "required": required or [],
            "additionalProperties": False,
        }
        operation["requestBody"] = {
            "required": True,
            "content": {"application/json": {"schema": schema}},
        }
        operation["security"] = [{"ballot": []}]
    return operation


def _says(key: str) -> str:
    if key in TOLD:
        return f"`{key}`: {TOLD[key].title}"
    return {
        "rate": "`rate`: Too many votes at once",
        "challenge": "`challenge`: Send the vote again with the answer to `challenge`",
    }[key]


def _schemas() -> Schema:
    moment = {"type": "integer", "minimum": 0}
    number = {"type": "integer", "minimum": 0}
    text = _object({language: {"type": "string"} for language in LANGUAGES})
    about: Schema = {
        "poll": {"type": "string"},
        "title": text,
        "question": text,
        "points_by_place": {
            "type": "array",
            "items": {"type": "integer"},
            "description": "What the choice at each place of a vote gets.",
        },
        "results": {
            "enum": ["always", "voted", "closed"],
            "description": "When a voter sees the standings: always, with a vote, or at the end.",
        },
        "voters_by": {"enum": ["cookie", "codes"]},
    }
    points = {"type": "object", "additionalProperties": {"type": "integer"}}
    standing: Schema = {
        "poll": {"type": "string"},
        "state": {"enum": ["early", "open", "frozen", "closed"]},
        "voters": number,
        "version": {**number, "description": "Grows with every change."},
        "opens": moment,
        "closes": {**moment, "description": "0: it does not close."},
        "now": {"type": "number", "description": "When this was so."},
    }
    choice: Schema = {
        "code": {"type": "string"},
        "name": text,
        "number": {"type": ["integer", "null"]},
        "team": {"type": ["string", "null"]},
        "colour": {"type": "string", "pattern": "^#[0-9a-f]{6}$"},
    }
    poll: Schema = {
        **about,
        **standing,
        "points": {**points, "description": "By code; absent as long as they are covered."},
        "choices": {"type": "array", "items": _object(choice)},
        "mine": {**_CODES, "description": "The codes of your vote, best first."},
        "receipt": {"type": ["string", "null"]},
    }
    error: Schema = {
        "error": {"enum": sorted({*TOLD, *GUARD})},
        "title": {"type": "string"},
        "message": {"type": "string"},
        "challenge": {"type": "string", "description": "A puzzle: see `work`."},
    }
    return {
        "About": _object(about),
        "Poll": _object(poll, optional=["points"]),
        "Results": _object({**standing, "points": points}),
        "Vote": _object(
            {
                "outcome": {"enum": ["counted", "changed", "withdrawn", "same"]},
                "choices": _CODES,
                "previous": {**_CODES, "description": "What counted before."},
                "receipt": {"type": "string"},
            }
        ),
        "Error": _object(error, optional=["challenge"]),
    }


def _object(properties: Schema, optional: list[str] | None = None) -> Schema:
    required = [name for name in properties if name not in (optional or ())]
    return {
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": False,
    }


def _ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}
