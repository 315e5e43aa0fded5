"""What is passed on of a poll: its QR code, its picture, and that neither tells too much."""

import asyncio
import io
import re
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image, ImageChops, ImageDraw, ImageFont

from f1vote import card, polls
from f1vote.i18n import FOLDER, Texts
from f1vote.polls import LANGUAGES, Poll
from f1vote.store import Standing, Unreachable
from f1vote.web import share
from f1vote.web.context import Context
from tests.app import qr
from tests.app.servers import App, Redis
from tests.conftest import ROOT

POLLS = {poll.id: poll for poll in polls.load(ROOT / "app" / "polls")}
CHAMPION, DAY, OVERTAKE = (
    POLLS[name] for name in ("champion", "driver-of-the-day", "best-overtake")
)
TEXTS = Texts()


def standing(poll: Poll, *first: int, **other: object) -> Standing:
    """Return a standing of ``poll`` in which its first choices have ``first`` points."""
    points = dict.fromkeys(poll.codes, 0) | dict(zip(poll.codes, first, strict=False))
    known = {
        "points": points, "voters": sum(first), "version": 1, "now": 2e9, "opens": 1, "closes": 0,
        "frozen": False, "hidden": False,
    }  # fmt: skip
    return Standing(**(known | other))  # type: ignore[arg-type]


def drawn(poll: Poll, now: Standing | None, language: str = "en") -> Image.Image:
    body = card.draw(poll, now, language, TEXTS, f"vote.example.org/{poll.id}")
    return Image.open(io.BytesIO(body)).convert("RGB")


def longest_run(image: Image.Image, colour: str) -> tuple[int, int, int]:
    """Return length, left end and line of the longest run of ``colour``, above the lower edge."""
    plain = Image.new("RGB", image.size, colour)
    red, green, blue = ImageChops.difference(image, plain).split()
    other = ImageChops.lighter(ImageChops.lighter(red, green), blue).tobytes()
    best = (0, 0, 0)
    for y in range(600):
        line = other[y * image.width : (y + 1) * image.width]
        for run in re.finditer(rb"\0+", line):
            best = max(best, (len(run[0]), run.start(), y))
    return best


# The picture


@pytest.mark.parametrize("language", LANGUAGES)
def test_bars_are_as_long_as_points_say_and_the_leader_is_on_top(language):
    image = drawn(OVERTAKE, standing(OVERTAKE, 10, 80, 40, 0, 5), language)
    assert image.size == (1200, 630)
    runs = [longest_run(image, choice.colour) for choice in OVERTAKE.choices]
    leader, second, third = runs[1], runs[2], runs[0]
    assert leader[0] > 700
    assert second[0] == pytest.approx(leader[0] / 2, abs=2)
    assert third[0] == pytest.approx(leader[0] * 0.13, abs=10)
    assert leader[1] == second[1] == third[1]
    assert leader[2] < second[2] < third[2]
    # Who has no points has no bar, only a plate with a number on it.
    assert runs[3][0] < 100


@pytest.mark.parametrize(
    ("poll", "other"),
    [
        (DAY, {}),
        (replace(OVERTAKE, results="closed"), {}),
        (OVERTAKE, {"hidden": True}),
        (OVERTAKE, {"hidden": True, "closes": 5}),
    ],
)
def test_a_standing_that_not_everybody_may_see_is_not_in_the_picture(poll, other):
    one, two = standing(poll, 90, 10, **other), standing(poll, 10, 90, **other)
    for language in LANGUAGES:
        assert drawn(poll, one, language).tobytes() == drawn(poll, two, language).tobytes()
    more = standing(poll, 90, 11, **other)
    assert drawn(poll, more).tobytes() != drawn(poll, one).tobytes(), "how many voted is shown"


@pytest.mark.parametrize("poll", [OVERTAKE, CHAMPION, replace(DAY, results="always")])
def test_a_standing_that_everybody_may_see_is_in_the_picture(poll):
    one, two = standing(poll, 90, 10), standing(poll, 10, 90)
    assert drawn(poll, one).tobytes() != drawn(poll, two).tobytes()


def test_at_the_end_the_result_is_in_the_picture():
    one, two = (standing(DAY, *points, closes=5) for points in ((90, 10), (10, 90)))
    assert drawn(DAY, one).tobytes() != drawn(DAY, two).tobytes()


def test_a_name_on_the_picture_is_in_its_language():
    now = standing(OVERTAKE, 5)
    assert drawn(OVERTAKE, now, "en").tobytes() != drawn(OVERTAKE, now, "fr").tobytes()


def test_the_longest_poll_that_the_schema_admits_is_drawn():
    texts = dict.fromkeys(LANGUAGES, "Ŵ" * 70 + " " + "W" * 69)
    choice = replace(
        CHAMPION.choices[0], name=dict.fromkeys(LANGUAGES, "W" * 80), team="W" * 40, number=999
    )
    for count in (6, 33, 100):
        choices = tuple(replace(choice, code=f"C{index}") for index in range(count))
        poll = replace(CHAMPION, title=texts, question=texts, choices=choices)
        for now in (None, standing(poll), standing(poll, 10**9)):
            assert drawn(poll, now).size == (1200, 630)


def test_the_fonts_have_every_character_that_is_drawn():
    font = ImageFont.truetype(next(card.FONTS.glob("*.woff2")), 40)
    absent = glyph(font, "\uffff")
    written = [(FOLDER / "fr.po").read_text(), *Path(card.__file__).read_text(), "0 1 %\u202f"]
    for poll in POLLS.values():
        written += [*poll.title.values(), *poll.question.values()]
        written += [name for choice in poll.choices for name in choice.name.values()]
    characters = {c for c in card.latin("".join(written) + "Łukasz Žák ćđ") if c.isprintable()}
    assert len(characters) > 80
    assert [c for c in sorted(characters) if glyph(font, c) == absent] == []


def glyph(font: ImageFont.FreeTypeFont, character: str) -> bytes:
    image = Image.new("L", (60, 60))
    ImageDraw.Draw(image).text((5, 5), character, font=font, fill=255)
    return image.tobytes()


def test_our_png_is_the_image():
    image = Image.linear_gradient("L").resize((37, 11)).convert("RGB")
    image.putpixel((36, 10), (1, 2, 3))
    again = Image.open(io.BytesIO(card.png(image)))
    again.load()
    assert (again.format, again.mode, again.size) == ("PNG", "RGB", (37, 11))
    assert again.tobytes() == image.tobytes()


def test_the_fonts_are_small_and_bear_their_licence():
    files = list(card.FONTS.iterdir())
    assert sum(file.stat().st_size for file in files) < 250_000
    assert "SIL OPEN FONT LICENSE Version 1.1" in (card.FONTS / "OFL.txt").read_text()


# When it is drawn


class Room:
    """A counting room: each question is another version, unless it is still or silent."""

    def __init__(self) -> None:
        self.version, self.still, self.silent = 0, False, False

    async def standing(self, poll: Poll) -> Standing:
        if self.silent:
            raise Unreachable("test")
        self.version += not self.still
        return standing(poll, self.version, version=self.version)


class Desk:
    """Cards of a counting room, a clock that is set, and what was drawn in which thread."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.room, self.now, self.drawn = Room(), 100.0, Counter[str]()
        self.threads: set[int] = set()
        context = SimpleNamespace(
            store=self.room, texts=TEXTS, settings=SimpleNamespace(public_url="https://v.example")
        )
        context.standing = partial(Context.standing, context)
        self.cards = share.Cards(context)  # type: ignore[arg-type]

        def draw(
            poll: Poll, now: Standing | None, language: str, texts: Texts, address: str
        ) -> bytes:
            self.drawn[poll.id] += 1
            self.threads.add(threading.get_ident())
            assert address == f"v.example/{poll.id}"
            return f"{poll.id} {language} {now.version if now else None}".encode()

        monkeypatch.setattr(share, "monotonic", lambda: self.now)
        monkeypatch.setattr(share.card, "draw", draw)


@pytest.fixture
def desk(monkeypatch: pytest.MonkeyPatch) -> Desk:
    return Desk(monkeypatch)


def test_who_asks_at_once_gets_one_drawing_made_beside_the_loop(desk):
    async def ask() -> list[tuple[share.Picture, bool]]:
        return await asyncio.gather(*(desk.cards.get(OVERTAKE, "en") for _ in range(50)))

    assert set(asyncio.run(ask())) == {(share._picture(b"best-overtake en 1"), True)}
    assert desk.drawn == {"best-overtake": 1}
    assert threading.get_ident() not in desk.threads


def test_a_card_is_drawn_again_when_it_is_old_and_something_changed(desk):
    async def ask() -> list[bytes]:
        bodies = []
        for self_now, still in ((0, False), (4.9, False), (5, False), (9.9, False), (20, True)):
            desk.now, desk.room.still = 100 + self_now, still
            bodies.append((await desk.cards.get(OVERTAKE, "fr"))[0].body)
        return bodies

    first, second = b"best-overtake fr 1", b"best-overtake fr 2"
    assert asyncio.run(ask()) == [first, first, second, second, second]
    assert desk.drawn == {"best-overtake": 2}


def test_while_redis_is_silent_the_card_has_only_the_question(desk):
    async def ask() -> list[tuple[bytes, bool]]:
        found = []
        for seconds, silent in ((0, True), (1, False), (6, False), (12, True)):
            desk.now, desk.room.silent = 100 + seconds, silent
            picture, known = await desk.cards.get(OVERTAKE, "en")
            found.append((picture.body, known))
        return found

    nothing = (b"best-overtake en None", False)
    assert asyncio.run(ask()) == [nothing, nothing, (b"best-overtake en 1", True), nothing]


# Over HTTP


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[App]:
    """An app that knows its address, and a Redis of its own with a standing."""
    folder = tmp_path_factory.mktemp("share")
    room = Redis(folder)
    room.client.hset("poll:best-overtake:tally", mapping={"BAK24": 30, "IMO25": 10})
    room.client.hset("poll:best-overtake:meta", mapping={"voters": 40, "version": 40})
    app = App(folder, room.url, F1_PUBLIC_URL="https://vote.example.org")
    yield app
    app.stop()
    room.kill()


def test_the_qr_code_leads_to_the_poll(served):
    with served.browser() as client:
        answer = client.get("/champion/qr.svg")
        assert answer.status_code == 200
        assert answer.headers["content-type"] == "image/svg+xml"
        assert "max-age=86400" in answer.headers["cache-control"]
        assert 'xmlns="http://www.w3.org/2000/svg"' in answer.text
        assert qr.drawn(answer.text, border=4) == qr.wanted("https://vote.example.org/champion")


def test_without_an_address_of_its_own_the_qr_code_is_of_the_one_asked(app):
    with app.browser() as client:
        svg = client.get("/champion/qr.svg").text
    assert qr.drawn(svg, border=4) == qr.wanted(f"{app.url}/champion")


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_picture_shows_the_standing(served, language):
    with served.browser() as client:
        answer = client.get(f"/best-overtake/card.{language}.png")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "image/png"
    assert answer.headers["cache-control"] == "public, max-age=30"
    assert answer.headers["cross-origin-resource-policy"] == "cross-origin"
    assert "set-cookie" not in answer.headers
    image = Image.open(io.BytesIO(answer.content)).convert("RGB")
    assert image.size == (1200, 630)
    piastri, verstappen = (
        longest_run(image, next(c for c in OVERTAKE.choices if c.code == code).colour)
        for code in ("BAK24", "IMO25")
    )
    assert verstappen[0] == pytest.approx(piastri[0] * 0.33, abs=2)


@pytest.mark.parametrize("path", ["/champion/qr.svg", "/best-overtake/card.en.png"])
def test_who_has_it_need_not_load_it_again(served, path):
    with served.browser() as client:
        tag = client.get(path).headers["etag"]
        for known in (tag, f'"other", W/{tag}'):
            again = client.get(path, headers={"if-none-match": known})
            assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag)
        assert client.get(path, headers={"if-none-match": '"other"'}).status_code == 200
        head = client.head(path)
        assert (head.status_code, head.content, head.headers["etag"]) == (200, b"", tag)


@pytest.mark.parametrize(
    "path", ["/none/qr.svg", "/none/card.en.png", "/champion/card.de.png", "/champion/card.png"]
)
def test_what_is_not_there(served, path):
    with served.browser() as client:
        assert client.get(path).status_code == 404
