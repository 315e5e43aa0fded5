"""What a voter sees: HTML from the templates, and the files that the pages load."""

import hashlib
import re
import socket
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from jinja2 import Environment

from f1vote import receipts
from f1vote.i18n import Texts, _
from f1vote.polls import LANGUAGES, Choice, Poll
from f1vote.settings import Settings
from f1vote.store import Standing
from f1vote.templating import environment

STATIC = Path(__file__).parent / "static"
# In a stylesheet or script: the address of another file, @@like-this.js@@.
NAMED = re.compile(rb"@@([\w.-]+)@@")
TYPES = {
    ".avif": "image/avif",
    ".css": "text/css; charset=utf-8",
    ".jpg": "image/jpeg",
    ".js": "text/javascript; charset=utf-8",
    ".png": "image/png",
    ".svg": "image/svg+xml",
    ".webp": "image/webp",
    ".woff2": "font/woff2",
}
# A name up to this long (characters) fits a place of the starting grid.
SHORT_NAME = 24

# The fields of a ranked vote's form, by place, and what they are called.
PLACES = (
    ("first", _("First place")),
    ("second", _("Second place")),
    ("third", _("Third place")),
)
STATES = {
    "early": _("Not open yet"),
    "open": _("Open"),
    "frozen": _("Paused"),
    "closed": _("Closed"),
    "silent": _("No answer"),
}


@dataclass(frozen=True)
class Visit:
    """
    To whom a page is shown: ``asked`` is the language that the address names, if any, ``path``
    the address without it, ``root`` what stands before (https://vote.example.org).
    """

    language: str
    asked: str | None
    path: str
    root: str

    def to(self, path: str) -> str:
        """Return the address of ``path``; the language stays as it was chosen."""
        return f"{path}?lang={self.asked}" if self.asked else path


@dataclass(frozen=True)
class File:
    """A file that never changes under its name."""

    body: bytes
    type: str


@dataclass(frozen=True)
class Row:
    """
    A line of the standings. ``order`` is the choice's in the poll; ``place`` is shared by equals;
    ``share`` is of all points, ``bar`` of the leader's, both in percent.
    """

    choice: Choice
    order: int
    place: int
    points: int
    share: int
    bar: int


@dataclass(frozen=True)
class Entry:
    """A poll of the home page; ``standing`` is None if the counting room does not answer."""

    poll: Poll
    standing: Standing | None
    leaders: tuple[Choice, ...]

    @property
    def state(self) -> str:
        """Return the poll's state, or ``silent``."""
        return self.standing.state if self.standing else "silent"


class Pages:
    """Every page, ready to be filled. One object a process."""

    def __init__(self, texts: Texts, settings: Settings, polls: Mapping[str, Poll]) -> None:
        self.files: dict[str, File] = {}
        names = self._publish(settings.polls_dir / "pictures", polls)
        self._templates = {
            language: _environment(texts, language, names, settings.version)
            for language in LANGUAGES
        }
        self._polls = polls

    def home(self, visit: Visit, standings: Iterable[tuple[Poll, Standing | None]]) -> str:
        """Return the page that lists the polls: open, to come, over."""
        entries = [Entry(poll, standing, _leaders(poll, standing)) for poll, standing in standings]
        groups = (
            (_("Open now"), ("open", "frozen", "silent")),
            (_("Soon"), ("early",)),
            (_("Finished"), ("closed",)),
        )
        return self._render(
            "home.html",
            visit,
            groups=[
                (title, chosen)
                for title, states in groups
                if (chosen := [entry for entry in entries if entry.state in states])
            ],
        )

    def poll(
        self,
        visit: Visit,
        poll: Poll,
        standing: Standing | None,
        held: Sequence[str] = (),
        receipt: str | None = None,
        *,
        admitted: bool = True,
        typed: str = "",
    ) -> str:
        """
        Return the page of ``poll`` for who holds the choices ``held`` under ``receipt``.

        ``standing`` None: the counting room does not answer. ``admitted`` False: the poll takes
        one-time codes, and this browser brought none. ``typed``: another code than the one that it
        votes with came along, and waits for the voter's word.
        """
        by_code = {choice.code: choice for choice in poll.choices}
        seen = standing is not None and standing.visible(poll, bool(held))
        names = [choice.label(visit.language) for choice in poll.choices]
        return self._render(
            "poll.html",
            visit,
            poll=poll,
            standing=standing,
            state=standing.state if standing else "silent",
            held=[by_code[code] for code in held if code in by_code],
            receipt=receipts.show(receipt) if receipt and held else None,
            admitted=admitted,
            typed=typed,
            short=max(map(len, names)) <= SHORT_NAME,
            rows=rows(poll.choices, standing.points) if standing and seen else None,
        )

    def receipt(
        self,
        visit: Visit,
        poll: Poll,
        asked: str | None = None,
        receipt: str | None = None,
        held: Sequence[str] = (),
    ) -> str:
        """
        Return the page that looks a receipt up: ``asked`` is what was typed, ``receipt`` what it
        means (None: mistyped), ``held`` the choices that are counted under it.
        """
        by_code = {choice.code: choice for choice in poll.choices}
        return self._render(
            "receipt.html",
            visit,
            poll=poll,
            asked=asked,
            receipt=receipts.show(receipt) if receipt else None,
            # A choice that the poll's file no longer names is counted all the same.
            held=[(code, by_code.get(code)) for code in held],
        )

    def privacy(self, visit: Visit) -> str:
        """Return the page that says what is stored."""
        return self._render("privacy.html", visit)

    def api(self, visit: Visit, document: Mapping[str, Any]) -> str:
        """Return the page that describes the API, from its OpenAPI ``document``."""
        return self._render("api.html", visit, document=document)

    def error(
        self,
        visit: Visit,
        title: str,
        text: str,
        poll: Poll | None = None,
        challenge: str | None = None,
    ) -> str:
        """
        Return the page that says what went wrong, and leads back to ``poll``, if there is one. A
        script that finds a ``challenge`` in it solves that and sends the vote again.
        """
        return self._render(
            "error.html", visit, title=title, text=text, poll=poll, challenge=challenge
        )

    def _render(self, template: str, visit: Visit, **values: Any) -> str:
        return self._templates[visit.language].get_template(template).render(
            visit=visit,
            other=next(language for language in LANGUAGES if language != visit.language),
            **values,
        )  # fmt: skip

    def _publish(self, pictures: Path, polls: Mapping[str, Poll]) -> dict[str, str]:
        """Fill ``files``; return the address of each file's name."""
        sources = {file.name: file for file in STATIC.rglob("*") if file.suffix in TYPES}
        sources |= {
            choice.picture: pictures / choice.picture
            for poll in polls.values()
            for choice in poll.choices
            if choice.picture
        }
        names: dict[str, str] = {}

        def publish(name: str, body: bytes) -> str:
            stem, suffix = name.rsplit(".", 1)
            path = f"/static/{stem}.{hashlib.sha256(body).hexdigest()[:12]}.{suffix}"
            self.files[path] = File(body, TYPES[f".{suffix}"])
            names[name] = path
            return path

        def address(name: str) -> str:
            if name in names:
                return names[name]
            body = sources[name].read_bytes()
            if name.endswith((".css", ".js")):
                # What it names comes first: its own hash covers their addresses.
                body = NAMED.sub(lambda match: address(match[1].decode()).encode(), body)
            return publish(name, body)

        for name in sources:
            address(name)
        for poll in polls.values():
            publish(f"{poll.id}.css", colours(poll.choices).encode())
        return names


def rows(choices: Sequence[Choice], points: Mapping[str, int]) -> list[Row]:
    """Return the standings, best first; equals share a place and keep the order of the poll."""
    total, best = sum(points.values()), max(points.values(), default=0)
    ranked = sorted(enumerate(choices), key=lambda pair: -points[pair[1].code])
    return [
        Row(
            choice=choice,
            order=order,
            place=1 + sum(other > points[choice.code] for other in points.values()),
            points=points[choice.code],
            share=percent(points[choice.code], total),
            bar=percent(points[choice.code], best),
        )
        for order, choice in ranked
    ]


def percent(part: int, whole: int) -> int:
    """Return ``part`` of ``whole`` in percent, half up; 0 of nothing."""
    return (200 * part + whole) // (2 * whole) if whole else 0


def colours(choices: Sequence[Choice]) -> str:
    """
    Return the stylesheet of the choices' colours, one class a choice: no page needs an inline
    style. The ink on a colour is black or white, whichever contrasts more (WCAG 2.1, 1.4.3).
    """
    return "".join(
        f".c-{choice.code}{{--team:{choice.colour};--team-ink:{ink(choice.colour)}}}\n"
        for choice in choices
    )


def ink(colour: str) -> str:
    """Return #000000 or #ffffff, whichever is easier to read on ``colour`` (#rrggbb)."""

    def linear(part: str) -> float:
        value = int(part, 16) / 255
        return value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4

    red, green, blue = (linear(colour[i : i + 2]) for i in (1, 3, 5))
    luminance = 0.2126 * red + 0.7152 * green + 0.0722 * blue  # WCAG 2.1, relative luminance
    return "#000000" if (luminance + 0.05) / 0.05 >= 1.05 / (luminance + 0.05) else "#ffffff"


def name_parts(label: str) -> tuple[str, str]:
    """Return what comes before the last name, and the last name; a description is not parted."""
    given, space, last = label.partition(" ")
    return (given + space, last) if last and len(label) <= SHORT_NAME else ("", label)


def _leaders(poll: Poll, standing: Standing | None) -> tuple[Choice, ...]:
    """Who leads, if everybody may know; nobody before the first vote."""
    if standing is None or not standing.voters or not standing.visible(poll, False):
        return ()
    return tuple(row.choice for row in rows(poll.choices, standing.points) if row.place == 1)


def _environment(
    texts: Texts, language: str, names: Mapping[str, str], version: str
) -> Environment:
    return environment(
        _=partial(texts.get, language),
        plural=partial(texts.plural, language),
        forms=partial(texts.forms, language),
        number=partial(texts.number, language),
        moment=partial(texts.moment, language),
        iso=lambda at: datetime.fromtimestamp(at, UTC).isoformat(),
        name_parts=name_parts,
        language=language,
        states=STATES,
        places=PLACES,
        file=names.__getitem__,
        version=version,
        pod=socket.gethostname(),
    )
