"""What a voter sees: HTML from the templates, and the stylesheet with the teams' colours."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from f1vote.i18n import Texts
from f1vote.polls import Choice, Poll
from f1vote.votes import Results

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Served:
    """Who serves the page: the version of the app and the pod."""

    version: str
    pod: str


@dataclass(frozen=True)
class Line:
    """One driver of the list: the votes, and their share of all votes in percent."""

    choice: Choice
    votes: int
    percent: int
    mine: bool


class Pages:
    """Every page, ready to be filled."""

    def __init__(self, texts: Texts, served: Served) -> None:
        self._texts = texts
        self._served = served
        self._env = Environment(
            loader=FileSystemLoader(HERE / "templates"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self.css = (HERE / "static" / "style.css").read_bytes()
        # In the address, so that a browser keeps it for ever and still gets the next one.
        self.css_path = f"/style.{hashlib.sha256(self.css).hexdigest()[:12]}.css"

    def poll(self, language: str, asked: str | None, poll: Poll, results: Results) -> str:
        """Return the page of ``poll``; ``asked`` is the language that the address names, if any."""
        state = state_of(poll, results.now)
        edge = poll.opens if state == "early" else poll.closes
        return self._render(
            "poll.html",
            language,
            asked,
            poll=poll,
            state=state,
            moment=datetime.fromtimestamp(edge, UTC).strftime("%Y-%m-%d %H:%M"),
            voters=results.voters,
            mine=results.mine,
            lines=standings(poll.choices, results),
        )

    def error(self, language: str, asked: str | None, key: str) -> str:
        """Return the page that explains ``error.<key>``."""
        return self._render("error.html", language, asked, key=key)

    def _render(self, template: str, language: str, asked: str | None, **values: Any) -> str:
        def text(key: str, **fields: Any) -> str:
            return self._texts.get(language, key, **fields)

        return self._env.get_template(template).render(
            t=text,
            language=language,
            other="fr" if language == "en" else "en",
            # Kept in every address of the page, so that the language stays as it was chosen.
            lang=f"?lang={asked}" if asked else "",
            css=self.css_path,
            served=self._served,
            **values,
        )


def state_of(poll: Poll, now: float) -> str:
    """Return ``early``, ``open`` or ``closed``: where ``poll`` is at ``now`` (Unix seconds)."""
    if now < poll.opens:
        return "early"
    return "closed" if poll.closes and now >= poll.closes else "open"


def standings(choices: Sequence[Choice], results: Results) -> list[Line]:
    """Return one line a driver, in the order of the poll: a list that jumps is hard to tap."""
    total = sum(results.tally.values())
    return [
        Line(
            choice=choice,
            votes=results.tally[choice.code],
            percent=round(100 * results.tally[choice.code] / total) if total else 0,
            mine=results.mine == choice.code,
        )
        for choice in choices
    ]
