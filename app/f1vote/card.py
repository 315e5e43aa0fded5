"""
The picture of a poll that other sites show beside a link to it: 1200 × 630, drawn with Pillow.

Nothing here waits, and nothing but the compression, which lets other threads run, takes more than
a few milliseconds in one step: it may be drawn in a thread beside the event loop.
"""

import math
import struct
import unicodedata
import zlib
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from f1vote.i18n import Texts, _
from f1vote.pages import STATES, Row, ink, rows
from f1vote.polls import Choice, Poll
from f1vote.store import Standing

SIZE = WIDTH, HEIGHT = 1200, 630
MARGIN = 56
MARK = 78  # the line on which the mark stands
FOOT = HEIGHT - 76  # where the last line begins
# The page's colours by night.
ASPHALT, CHALK, MIST, SIGNAL, TRACK = "#14151a", "#ffffff", "#b9bcc8", "#ffd21f", "#2b2e38"
FONTS = Path(__file__).parent / "static" / "fonts"
# Slope of numbers and plates, as of the italic letters.
LEAN = 0.21
# The standing shows the first of them.
SHOWN = 5
# The field of a poll with up to so many choices is a list of names, else a grid of numbers.
LISTED = 6
# Sizes of the question, and in how many lines it must fit; of a longer one the end is left out.
QUESTION_SIZES = ((76, 2), (66, 2), (56, 2), (48, 2), (44, 3))
# What the fonts lack (they are the Latin subset) and has no parts: letters with a stroke, a space.
SIMPLER = str.maketrans("łŁđĐ\u202f", "lLdD\u00a0")

COVERED = {
    "voted": _("Who votes sees the standings"),
    "closed": _("The standings open up at the end"),
}

Box = tuple[int, int, int, int]
Font = ImageFont.FreeTypeFont


def draw(poll: Poll, standing: Standing | None, language: str, texts: Texts, address: str) -> bytes:
    """
    Return the PNG of ``poll`` for who has not voted. The points are in it only if everybody may
    see them. ``standing`` None: the counting room does not answer. ``address`` is shown, too.
    """
    card = _Card(poll, language, texts)
    top = card.head()
    if standing and standing.voters and standing.visible(poll, voted=False):
        card.standing(top, rows(poll.choices, standing.points)[:SHOWN])
    elif len(poll.choices) <= LISTED:
        card.names(top)
    else:
        card.field(top)
    card.foot(standing, address)
    return png(card.image)


def png(image: Image.Image) -> bytes:
    """
    Return ``image`` (RGB) as PNG (W3C PNG, 2nd edition, 5 and 11.2). Pillow's own writer keeps
    every other thread waiting while it compresses.
    """
    width, height = image.size
    stride, pixels = 3 * width, image.tobytes()
    # Each line is preceded by its filter, 0: none.
    lines = b"".join(b"\0" + pixels[at : at + stride] for at in range(0, len(pixels), stride))

    def chunk(name: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        )

    # 8 bits a channel, RGB, deflate, adaptive filters, not interlaced.
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"".join(
        (b"\x89PNG\r\n\x1a\n", chunk(b"IHDR", head), chunk(b"IDAT", zlib.compress(lines, 5)),
         chunk(b"IEND", b""))
    )  # fmt: skip


class _Card:
    """A card while it is drawn, part by part from the top."""

    def __init__(self, poll: Poll, language: str, texts: Texts) -> None:
        self.poll, self.language, self.texts = poll, language, texts
        self.image = _ground().copy()
        self.pen = ImageDraw.Draw(self.image)

    def write(self, at: tuple[float, float], text: str, font: Font, fill: str, anchor: str) -> None:
        """Write ``text``; ``anchor`` is Pillow's: which point of the text is ``at``."""
        self.pen.text(at, text, font=font, fill=fill, anchor=anchor)

    def head(self) -> int:
        """Draw title (beside the mark) and question; return where the rest begins."""
        font = _font("bold", 34)
        title = latin(self.poll.title[self.language]).upper()
        self.write(
            (WIDTH - MARGIN, MARK), _cut(title, font, WIDTH - 2 * MARGIN - 260), font, SIGNAL, "rs"
        )
        question, room = latin(self.poll.question[self.language]).upper(), WIDTH - 2 * MARGIN
        for size, most in QUESTION_SIZES:
            font = _font("italic", size)
            lines = _wrap(question, font, room)
            if len(lines) <= most:
                break
        lines = _even(question, font, room, len(lines))
        lines[most - 1 :] = [" ".join(lines[most - 1 :])] if lines[most - 1 :] else []
        y = MARK + 22
        for line in lines:
            y += round(0.96 * size)
            self.write((MARGIN, y), _cut(line, font, room), font, CHALK, "ls")
        return y + 30

    def standing(self, top: int, first: Sequence[Row]) -> None:
        """Draw the rows ``first`` of the standing."""
        height = min(66, (FOOT - top) // len(first))
        figures = _font("italic", min(44, height - 12))
        values = [latin(self._value(row)) for row in first]
        left, right = MARGIN + 140, WIDTH - MARGIN
        end = right - round(max(map(figures.getlength, values))) - 24
        names = [latin(row.choice.label(self.language)) for row in first]
        for size in range(min(34, height - 20), 23, -2):
            large = _font("bold", size)
            if max(map(large.getlength, names)) <= end - left:
                break
        small = _font("medium", size - 6)
        teams = [latin(row.choice.team or "") for row in first]
        beside = [left + large.getlength(name) + 14 for name in names]
        # Either every team has its place, or none.
        fits = all(x + small.getlength(team) <= end for x, team in zip(beside, teams, strict=True))
        for index, (row, value) in enumerate(zip(first, values, strict=True)):
            y = top + index * height
            middle, base = y + (height - 8) // 2, y + height - 25
            place = str(row.place) if row.points else "–"
            self.write((MARGIN + 32, middle), place, figures, MIST, "rm")
            self._number((MARGIN + 44, y + 2, MARGIN + 122, y + height - 8), row.choice)
            self.write((left, base), _cut(names[index], large, end - left), large, CHALK, "ls")
            if fits:
                self.write((beside[index], base), teams[index], small, MIST, "ls")
            bar = (left, y + height - 18, end, y + height - 8)
            self.pen.rectangle(bar, fill=TRACK)
            if row.bar:
                reach = left + (end - left) * row.bar // 100
                self.pen.rectangle((*bar[:2], reach, bar[3]), fill=row.choice.colour)
            self.write((right, middle), value, figures, CHALK, "rm")

    def names(self, top: int) -> None:
        """Draw the choices in the order of the poll: it says nothing of their standing."""
        height = min(62, (FOOT - top) // len(self.poll.choices))
        font = _font("bold", min(36, height - 12))
        for index, choice in enumerate(self.poll.choices):
            y = top + index * height
            self._number((MARGIN + 4, y + 2, MARGIN + 82, y + height - 8), choice)
            name = _cut(latin(choice.label(self.language)), font, WIDTH - 2 * MARGIN - 106)
            self.write((MARGIN + 106, y + height // 2 - 3), name, font, CHALK, "lm")

    def field(self, top: int) -> None:
        """Draw the numbers of the choices as a starting grid, in the order of the poll."""
        count = len(self.poll.choices)
        across = min(11, count) if count <= 33 else 20
        width, height = (
            (WIDTH - 2 * MARGIN - 8) // across,
            min(96, (FOOT - top) // -(-count // across)),
        )
        for index, choice in enumerate(self.poll.choices):
            line, column = divmod(index, across)
            x, y = MARGIN + column * width, top + line * height
            # Every other place is set back, in the same columns of each line.
            y += 10 if column % 2 else 0
            self._number((x, y, x + width - 12, y + height - 20), choice)

    def foot(self, standing: Standing | None, address: str) -> None:
        """Draw how many voted, the state, the address, and the colours of all teams."""
        font, quiet = _font("bold", 32), _font("medium", 32)
        base, x = HEIGHT - 34, float(MARGIN)
        if standing:
            voters = latin(
                self.texts.plural(self.language, "{n} vote", "{n} votes", standing.voters)
            )
            self.write((x, base), voters, font, CHALK, "ls")
            x += font.getlength(voters) + 18
            said = STATES[standing.state]
            if standing.state == "open" and not standing.visible(self.poll, voted=False):
                said = COVERED.get(self.poll.results, said)
            words = latin(self.texts.get(self.language, said))
            self.write((x, base), words, quiet, MIST, "ls")
            x += quiet.getlength(words) + 30
        if x + quiet.getlength(address) <= WIDTH - MARGIN:
            self.write((WIDTH - MARGIN, base), address, quiet, SIGNAL, "rs")
        colours = list(dict.fromkeys(choice.colour for choice in self.poll.choices))
        for index, colour in enumerate(colours):
            left, right = (WIDTH * at // len(colours) for at in (index, index + 1))
            self.pen.rectangle((left, HEIGHT - 12, right, HEIGHT), fill=colour)

    def _value(self, row: Row) -> str:
        if len(self.poll.points) == 1:
            return self.texts.get(self.language, _("{percent}%"), percent=row.share)
        return self.texts.plural(self.language, "{n} point", "{n} points", row.points)

    def _number(self, box: Box, choice: Choice) -> None:
        """Draw the plate of ``choice``: its colour, and its number if it has one."""
        _plate(self.image, box, choice.colour)
        if choice.number is not None:
            left, above, right, below = box
            # The number leans, too: its middle is that of the plate.
            middle = (left + right + LEAN * (below - above)) / 2, (above + below) / 2
            size = min(below - above - 4, 54)
            wide = _font("italic", size).getlength(str(choice.number)) / (right - left - 12)
            font = _font("italic", int(size / max(wide, 1)))
            self.write(middle, str(choice.number), font, ink(choice.colour), "mm")


@cache
def _ground() -> Image.Image:
    """Return what every card has: the asphalt, a flag on it, the mark."""
    image = Image.new("RGB", SIZE, ASPHALT)
    side = 70
    for column in range(8):
        # The flag fades out to the left.
        colour = f"#{0x14 + 3 * column:02x}{0x15 + 3 * column:02x}{0x1A + 3 * column:02x}"
        for line in range(HEIGHT // side):
            if (column + line) % 2 == 0:
                x, y = 640 + column * side, line * side
                lean = round(LEAN * (HEIGHT - y - side))
                _plate(image, (x + lean, y, x + lean + side, y + side), colour)
    cell = 9
    for line in range(4):
        for column in range(line % 2, 6, 2):
            x, y = MARGIN + column * cell + 2 * (3 - line), MARK - 35 + line * cell
            _plate(image, (x, y, x + cell, y + cell), CHALK)
    pen, font, x = ImageDraw.Draw(image), _font("italic", 46), MARGIN + 76
    pen.text((x, MARK), "F1", font=font, fill=CHALK, anchor="ls")
    pen.text((x + font.getlength("F1"), MARK), "-VOTE", font=font, fill=SIGNAL, anchor="ls")
    return image


# Tools


def _plate(image: Image.Image, box: Box, colour: str) -> None:
    """Fill ``box``, its upper edge shifted to the right, with ``colour``."""
    left, above, right, below = box
    image.paste(colour, (left, above), _leaning(right - left, below - above))


@cache
def _leaning(width: int, height: int) -> Image.Image:
    """Return the mask of a leaning box, ``width`` without its lean; its edges are smooth."""
    fine, lean = 4, LEAN * height
    mask = Image.new("L", (fine * (width + math.ceil(lean)), fine * height))
    corners = [(lean, 0), (lean + width, 0), (width, height), (0, height)]
    ImageDraw.Draw(mask).polygon([(fine * x, fine * y) for x, y in corners], fill=255)
    return mask.reduce(fine)


@cache
def _font(style: str, size: int) -> Font:
    name = {"medium": "500-normal", "bold": "700-normal", "italic": "800-italic"}[style]
    # Basic: the other engine wants a library that an image may lack.
    return ImageFont.truetype(
        FONTS / f"barlow-condensed-{name}.woff2", size, layout_engine=ImageFont.Layout.BASIC
    )


def latin(text: str) -> str:
    """Return ``text`` with what the fonts lack in simpler characters: ć → c, ł → l."""
    return "".join(
        letter
        if letter < "\u0100" or "\u2000" <= letter <= "\u206f" or letter in "Œœı€"
        else unicodedata.normalize("NFKD", letter).encode("ascii", "ignore").decode()
        for letter in unicodedata.normalize("NFC", text).translate(SIMPLER)
    )


def _wrap(text: str, font: Font, width: float) -> list[str]:
    """Return ``text`` in lines as wide as ``width``; a word that is wider has its own."""
    lines = [""]
    for word in filter(None, text.split(" ")):
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and font.getlength(longer) > width:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines


def _even(text: str, font: Font, width: float, count: int) -> list[str]:
    """Return ``text`` in ``count`` lines of about the same width, if it fits in so many."""
    for part in (55, 60, 65, 70, 75, 80, 85, 90, 95):
        lines = _wrap(text, font, width * part / 100)
        if len(lines) == count:
            return lines
    return _wrap(text, font, width)


def _cut(text: str, font: Font, width: float) -> str:
    """Return ``text``, its end left out if it is wider than ``width``."""
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(f"{text}…") > width:
        text = text[:-1]
    return f"{text.rstrip()}…"
