"""A vote on its way from a request to the counting room: the same for the form and for JSON."""

import asyncio
import time
from collections.abc import Sequence
from contextvars import Context as Variables
from dataclasses import dataclass

from sanic import Request

from f1vote import receipts
from f1vote.guard import PASS, Verdict
from f1vote.metrics import ACCEPTED
from f1vote.polls import Poll
from f1vote.store import Cast, Outcome, Unreachable
from f1vote.web.context import Context
from f1vote.web.errors import Refused
from f1vote.web.request import same_origin

_ACCEPTED = frozenset(ACCEPTED)
# What the counting room says of a vote that tells whether a poll takes votes.
_TELLING = {
    Outcome.COUNTED: True,
    Outcome.CHANGED: True,
    Outcome.WITHDRAWN: True,
    Outcome.EARLY: False,
    Outcome.CLOSED: False,
    Outcome.FROZEN: False,
}
# What is logged on the way of many belongs to none of their requests.
_NOBODY = Variables()
# More together are not cheaper.
ENOUGH = 64


@dataclass(slots=True, eq=False)
class _Vote:
    """What came with a request, and what the steps find out; ``answer`` is the counting room's."""

    request: Request
    poll: Poll
    choices: Sequence[str]
    work: str | None
    answer: "asyncio.Future[Cast]"
    voter: str = ""
    address: str = ""
    verdict: Verdict = PASS
    receipt: str = ""


class Desk:
    """
    Where votes arrive. Those that come close together are taken together, each step for all of
    them before the next: code that runs many times in a row stays in the processor's
    nearest cache, and a vote takes a quarter less of a core.
    """

    def __init__(self, context: Context) -> None:
        self._context = context
        self._arrived: list[_Vote] = []
        # By poll: does it take votes, and when (Unix time) did the counting room say so?
        self._open: dict[str, tuple[bool, float]] = {}

    async def cast(
        self, request: Request, poll: Poll, choices: Sequence[str], work: str | None
    ) -> tuple[Cast, str]:
        """
        Make ``choices``, best first, the vote of who asks; none withdraws it. ``work`` is the
        answer to a challenge, if one came along. Return what became of it, and its receipt.

        Raise Refused, or Unreachable: then it may be counted, and the same may be asked again.
        """
        loop, metrics = asyncio.get_running_loop(), self._context.metrics
        vote = _Vote(request, poll, choices, work, loop.create_future())
        if not self._arrived:
            loop.call_soon(self._wait, 0, context=_NOBODY)
        self._arrived.append(vote)
        guard = self._context.guard
        try:
            done = await vote.answer
        except BaseException as error:
            # Nobody knows if it was counted: who asked may have left on purpose.
            guard.settle(vote.verdict, poll.id, vote.voter, fresh=True)
            if isinstance(error, Unreachable):
                metrics.refused(poll.id, "unreachable")
            raise
        outcome = done.outcome
        if outcome in _TELLING:
            self._open[poll.id] = _TELLING[outcome], time.time()
        fresh = outcome is Outcome.COUNTED
        guard.settle(vote.verdict, poll.id, vote.voter, fresh, known=fresh or bool(done.held))
        if outcome not in _ACCEPTED:
            raise self._refused(vote, outcome)
        metrics.vote(poll.id, choices[0] if choices else "", outcome)
        if outcome is not Outcome.SAME:
            guard.counted(poll.id, vote.address, done.held, choices)
        return done, vote.receipt

    def _shut(self, poll: Poll) -> bool:
        """
        Return if ``poll`` takes no votes, as far as is known: by what the counting room said since
        its file's last edge, else by its file. The organiser's word is in what the room says.
        """
        now = time.time()
        closed = bool(poll.closes) and now >= poll.closes
        edge = poll.closes if closed else poll.opens if now >= poll.opens else 0
        takes, at = self._open.get(poll.id, (False, -1.0))
        return not takes if at >= edge else closed or now < poll.opens

    def _wait(self, before: int) -> None:
        """Take them once a turn of the loop, some µs if it is idle, brings nobody more."""
        arrived = len(self._arrived)
        if before < arrived < ENOUGH:
            asyncio.get_running_loop().call_soon(self._wait, arrived)
        else:
            self._take()

    def _take(self) -> None:
        votes, self._arrived = self._arrived, []
        for step in (self._know, self._guard, self._write, self._hand_in):
            for vote in votes:
                if vote.answer.done():  # refused, or who asked has left
                    continue
                try:
                    step(vote)
                except Exception as error:
                    vote.answer.set_exception(error)

    def _know(self, vote: _Vote) -> None:
        """Find out who votes."""
        context, request, poll = self._context, vote.request, vote.poll
        if not same_origin(request):
            raise self._refused(vote, "origin")
        by_cookie = poll.voters == "cookie"
        voter = context.voter(request) if by_cookie else context.code(request, poll)
        if voter is None:
            # A new ballot here would count a repeated request twice.
            raise self._refused(vote, "ballot" if by_cookie else "code")
        vote.voter, vote.address = voter, context.address(request)

    def _guard(self, vote: _Vote) -> None:
        """Ask whether he may vote now."""
        poll = vote.poll
        verdict = self._context.guard.check(
            poll.id, vote.address, vote.voter, vote.work, self._shut(poll)
        )
        if not verdict.allowed:
            self._context.metrics.refused(poll.id, verdict.reason)
            raise Refused.by(verdict)
        vote.verdict = verdict

    def _write(self, vote: _Vote) -> None:
        """Write the receipt."""
        vote.receipt = receipts.of(vote.poll.id, vote.voter)

    def _hand_in(self, vote: _Vote) -> None:
        """Bring it to the counting room."""
        self._context.store.put(vote.poll, vote.receipt, vote.choices, vote.answer)

    def _refused(self, vote: _Vote, reason: str) -> Refused:
        self._context.metrics.refused(vote.poll.id, reason)
        return Refused(reason)
