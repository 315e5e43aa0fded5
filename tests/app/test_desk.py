"""Votes that arrive together are looked at together; what befalls one is nothing to the others."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from f1vote.guard import PASS
from f1vote.store import Cast, Outcome, Unreachable
from f1vote.web.errors import Refused
from f1vote.web.vote import ENOUGH, Desk

POLL: Any = SimpleNamespace(id="race", voters="cookie", opens=0, closes=0)


class Room:
    """A counting room that writes down what it is handed, and what it was told before."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def put(self, poll: Any, receipt: str, choices: Any, answer: "asyncio.Future[Cast]") -> None:
        self.seen.append(f"put {choices[0]}")
        if choices[0] == "BAD":
            raise Unreachable("too many wait")
        answer.set_result(Cast(Outcome.COUNTED, ()))


def desk(room: Room) -> Desk:
    def check(poll: str, address: str, voter: str, *_: object) -> Any:
        room.seen.append(f"check {voter}")
        if voter == "broken":
            raise ZeroDivisionError
        return PASS

    def nothing(*_: object, **__: object) -> None:
        pass

    context: Any = SimpleNamespace(
        store=room,
        guard=SimpleNamespace(check=check, counted=nothing, settle=nothing),
        metrics=SimpleNamespace(vote=nothing, refused=nothing),
        voter=lambda request: request.voter,
        address=lambda request: "192.0.2.1",
    )
    return Desk(context)


def ask(desk: Desk, voter: str | None, choice: str) -> Any:
    request: Any = SimpleNamespace(headers={}, voter=voter)
    return asyncio.ensure_future(desk.cast(request, POLL, [choice], None))


def test_each_gets_its_own_answer():
    async def together() -> tuple[Room, list[Any]]:
        room = Room()
        here = desk(room)
        asked = [
            ask(here, "ann", "NOR"), ask(here, None, "NOR"), ask(here, "broken", "NOR"),
            ask(here, "bob", "BAD"), ask(here, "eve", "PIA"), ask(here, "cy", "VER"),
        ]  # fmt: skip
        await asyncio.sleep(0)
        asked[4].cancel()  # her browser has gone
        return room, await asyncio.gather(*asked, return_exceptions=True)

    room, (ann, none, broken, bob, eve, cy) = asyncio.run(together())
    assert ann[0].outcome is Outcome.COUNTED
    assert isinstance(none, Refused)
    assert none.key == "ballot"
    assert isinstance(broken, ZeroDivisionError)
    assert isinstance(bob, Unreachable)
    assert isinstance(eve, asyncio.CancelledError)
    assert cy[0].outcome is Outcome.COUNTED
    assert ann[1] != cy[1]
    # One step for all, then the next; in the order in which they came.
    assert room.seen == [
        *("check ann", "check broken", "check bob", "check cy", "put NOR", "put BAD", "put VER"),
    ]


@pytest.mark.parametrize("votes", [1, ENOUGH + 1])
def test_nobody_waits_for_company(votes: int):
    async def alone() -> list[Any]:
        here = desk(Room())
        return await asyncio.wait_for(
            asyncio.gather(*(ask(here, f"voter {n}", "NOR") for n in range(votes))), 5
        )

    assert {done.outcome for done, _ in asyncio.run(alone())} == {Outcome.COUNTED}
