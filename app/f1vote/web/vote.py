"""A vote on its way from a request to the counting room: the same for the form and for JSON."""

from collections.abc import Sequence

from sanic import Request

from f1vote import receipts
from f1vote.metrics import ACCEPTED
from f1vote.polls import Poll
from f1vote.store import Cast, Outcome, Unreachable
from f1vote.web.context import Context
from f1vote.web.errors import Refused
from f1vote.web.request import same_origin

_ACCEPTED = frozenset(ACCEPTED)


async def cast(
    context: Context, request: Request, poll: Poll, choices: Sequence[str], work: str | None
) -> tuple[Cast, str]:
    """
    Make ``choices``, best first, the vote of who asks; none withdraws it. ``work`` is the answer to
    a challenge, if one came along. Return what became of it, and its receipt.

    Raise Refused, or Unreachable: then it may be counted, and the same may be asked again.
    """
    metrics = context.metrics
    if not same_origin(request):
        raise _refused(context, poll, "origin")
    voter = context.voter(request) if poll.voters == "cookie" else context.code(request, poll)
    if voter is None:
        # A new ballot here would count a repeated request twice.
        raise _refused(context, poll, "ballot" if poll.voters == "cookie" else "code")
    address = context.address(request)
    verdict = context.guard.check(poll.id, address, voter, work)
    if not verdict.allowed:
        metrics.refused(poll.id, verdict.reason)
        raise Refused.by(verdict)
    receipt = receipts.of(poll.id, voter)
    try:
        done = await context.store.cast(poll, receipt, choices)
    except Unreachable:
        metrics.refused(poll.id, "unreachable")
        raise
    outcome = done.outcome
    if outcome not in _ACCEPTED:
        raise _refused(context, poll, outcome)
    metrics.vote(poll.id, choices[0] if choices else "", outcome)
    if outcome is not Outcome.SAME:
        context.guard.counted(poll.id, address, done.held, choices)
    return done, receipt


def _refused(context: Context, poll: Poll, reason: str) -> Refused:
    context.metrics.refused(poll.id, reason)
    return Refused(reason)
