"""
What an organiser may do with a poll. The web area and the command line are two ways to ask for it.

Whatever is done is written to the log first, with what was in force before and after: nothing is
done that the log does not know.
"""

import re
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from f1vote import codes, export, receipts
from f1vote.explained import Explained
from f1vote.i18n import _
from f1vote.polls import Poll
from f1vote.settings import Settings
from f1vote.store import Standing, Store

MOST_NAME = 64
UNITS = {"m": 60, "h": 3600, "d": 86400}


class Refused(Explained):
    """Nothing was done, and why."""


# What is said when a verb has done its work; ``{n}`` is its number.
DONE = {
    "open": _("The vote is open."),
    "close": _("The vote is closed."),
    "extend": _("The vote has another closing time."),
    "revert": _("The vote opens and closes as its file says."),
    "freeze": _("The vote is paused."),
    "unfreeze": _("The pause is over."),
    "hide": _("The results are hidden."),
    "show": _("The results are shown again."),
    "recount": _("Recounted. Difference: {n}"),
    "reset": _("Votes removed: {n}"),
    "admit": _("New codes admitted: {n}"),
}


@dataclass(frozen=True)
class Done:
    """The verb that was done; ``n`` is what it counted, if it counts something."""

    verb: str
    n: int = 0


class Organiser:
    """``who`` acts, as the log shall name them. Every method raises Refused or Unreachable."""

    def __init__(self, store: Store, settings: Settings, who: str) -> None:
        self._store, self._settings = store, settings
        self.who = name(who)

    # Opening and closing

    async def open(self, poll: Poll) -> Done:
        """Take votes from now on."""
        standing = await self._store.standing(poll)
        if standing.state == "open":
            raise Refused(_("The vote is open already."))
        changes: dict[str, int | None] = {"frozen": None}
        if standing.opens > standing.now:
            changes["opens"] = int(standing.now)
        if standing.state == "closed":
            if 0 < poll.closes <= standing.now:
                raise Refused(_("The vote is over: give it another closing time (extend)."))
            changes["closes"] = None
        await self._control(poll, "open", standing, **changes)
        return Done("open")

    async def close(self, poll: Poll) -> Done:
        """Take no more votes from now on."""
        standing = await self._store.standing(poll)
        if standing.state == "closed":
            raise Refused(_("The vote is closed already."))
        if standing.state == "early":
            raise Refused(_("The vote is not open yet: there is nothing to close."))
        await self._control(poll, "close", standing, closes=int(standing.now))
        return Done("close")

    async def extend(self, poll: Poll, until: str) -> Done:
        """Close at ``until``: see :func:`moment`. Opens a closed vote again."""
        standing = await self._store.standing(poll)
        closes = moment(until, max(standing.now, standing.closes))
        if closes <= standing.now or closes <= standing.opens:
            raise Refused(_("The closing time must be later than now and than the opening."))
        await self._control(poll, "extend", standing, closes=closes)
        return Done("extend")

    async def revert(self, poll: Poll) -> Done:
        """Open and close as the poll's file says."""
        standing = await self._store.standing(poll)
        if (standing.opens, standing.closes) == (poll.opens, poll.closes):
            raise Refused(_("The vote opens and closes as its file says already."))
        await self._control(poll, "revert", standing, opens=None, closes=None)
        return Done("revert")

    async def freeze(self, poll: Poll) -> Done:
        """Take no votes until :meth:`unfreeze`."""
        standing = await self._store.standing(poll)
        if standing.frozen:
            raise Refused(_("The vote is paused already."))
        if standing.state == "closed":
            raise Refused(_("The vote is closed already."))
        await self._control(poll, "freeze", standing, frozen=True)
        return Done("freeze")

    async def unfreeze(self, poll: Poll) -> Done:
        """End the pause."""
        standing = await self._store.standing(poll)
        if not standing.frozen:
            raise Refused(_("The vote is not paused."))
        await self._control(poll, "unfreeze", standing, frozen=None)
        return Done("unfreeze")

    # Results

    async def hide(self, poll: Poll) -> Done:
        """Show the results to nobody until :meth:`show`."""
        standing = await self._store.standing(poll)
        if standing.hidden:
            raise Refused(_("The results are hidden already."))
        await self._control(poll, "hide", standing, hidden=True)
        return Done("hide")

    async def show(self, poll: Poll) -> Done:
        """Show the results to whom the poll's file says."""
        standing = await self._store.standing(poll)
        if not standing.hidden:
            raise Refused(_("The results are not hidden."))
        await self._control(poll, "show", standing, hidden=None)
        return Done("show")

    async def recount(self, poll: Poll) -> Done:
        """Count every vote again, now."""
        recount = await self._store.recount(poll)
        await self._note("recount", poll, difference=recount.difference)
        return Done("recount", recount.difference)

    async def reset(self, poll: Poll, confirmation: str) -> Done:
        """Remove every vote; ``confirmation`` must be the poll's id."""
        if confirmation != poll.id:
            raise Refused(
                _("To remove every vote, confirm it with the name of the poll: {poll}"),
                poll=poll.id,
            )
        standing = await self._store.standing(poll)
        await self._note("reset", poll, before={"voters": standing.voters}, after={"voters": 0})
        return Done("reset", await self._store.reset(poll))

    # One-time codes

    async def admit(self, poll: Poll, lines: Iterable[str]) -> Done:
        """Let the one-time codes in ``lines`` vote; empty lines do not matter."""
        admitted: list[str] = []
        wrong: list[int] = []
        for number, line in enumerate(lines, 1):
            if line.strip():
                code = codes.read(line)
                if code is None:
                    wrong.append(number)
                else:
                    admitted.append(receipts.of(poll.id, code))
        if wrong:
            # By number: a code is a secret, even if a character of it is wrong.
            raise Refused(
                _("Not a one-time code, in these lines: {lines}. Nothing was admitted."),
                lines=", ".join(map(str, wrong[:10])) + ("…" if len(wrong) > 10 else ""),
            )
        return await self._admit(poll, admitted)

    async def make_codes(self, poll: Poll, count: int) -> list[str]:
        """Admit ``count`` new one-time codes and return them; nobody keeps them but the caller."""
        if not 1 <= count <= codes.MOST:
            raise Refused(_("Ask for 1 to {most} codes."), most=codes.MOST)
        made = codes.make(count)
        await self._admit(poll, [receipts.of(poll.id, code) for code in made])
        return made

    async def _admit(self, poll: Poll, admitted: list[str]) -> Done:
        if poll.voters != "codes":
            raise Refused(_("Everybody may vote here: the poll’s file asks for no codes."))
        if not admitted:
            raise Refused(_("There is no code to admit."))
        await self._note("admit", poll, codes=len(admitted))
        return Done("admit", await self._store.admit(poll, admitted))

    # Exports

    async def export(self, poll: Poll, kind: str) -> AsyncIterator[bytes]:
        """Return the pieces of an export (see export.py); ``kind`` is csv or json."""
        if kind not in export.KINDS:
            raise Refused(_("An export is one of {kinds}."), kinds=", ".join(export.KINDS))
        if (await self._store.standing(poll)).state == "open":
            # Of votes that go on there is no moment of which the file could be the whole truth.
            raise Refused(_("Pause or close the vote first: an export is of one moment."))
        await self._note("export", poll, kind=kind)
        secret = self._settings.sign_key
        key = export.signing_key(secret) if secret else None
        return export.archive(self._store, poll, kind, key, self._settings.version)

    async def _control(
        self, poll: Poll, action: str, standing: Standing, **changes: int | bool | None
    ) -> None:
        filed = {"opens": poll.opens, "closes": poll.closes, "frozen": False, "hidden": False}
        before = {key: getattr(standing, key) for key in changes}
        after = {key: filed[key] if value is None else value for key, value in changes.items()}
        changed = {key for key in changes if before[key] != after[key]}
        await self._note(
            action,
            poll,
            before={key: before[key] for key in sorted(changed)},
            after={key: after[key] for key in sorted(changed)},
        )
        await self._store.control(poll, **changes)

    async def _note(self, action: str, poll: Poll, **facts: Any) -> None:
        await self._store.note(self.who, action, poll=poll.id, **facts)


def name(text: str) -> str:
    """Return ``text`` as a name for the log; raise Refused if it is none."""
    text = " ".join(text.split())
    if not text or len(text) > MOST_NAME or not text.isprintable():
        raise Refused(
            _("Say who you are, in 1 to {most} characters: the log names you."), most=MOST_NAME
        )
    return text


def moment(text: str, base: float) -> int:
    """
    Return the Unix time (s) that ``text`` means: 2026-03-08T15:00Z (RFC 3339, seconds optional), or
    +30m, +2h, +1d after ``base``. Raises Refused.
    """
    text = text.strip()
    if step := re.fullmatch(r"\+([0-9]{1,5})([mhd])", text):
        return int(base) + int(step[1]) * UNITS[step[2]]
    try:
        when = datetime.fromisoformat(text.upper())
    except ValueError:
        when = None
    if when is None or when.tzinfo is None or "T" not in text.upper():
        raise Refused(
            _("{given} is not a time: write 2026-03-08T15:00Z, or +30m, +2h, +1d from now."),
            given=text[:40] or "–",
        )
    return int(when.timestamp())
