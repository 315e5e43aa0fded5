"""
Exports: the standing and every vote in one file that a stranger can check.

An export is a ZIP archive of these files; texts are UTF-8:

=================  =============================================================================
``poll.json``      the poll, what a place is worth, the moment, the number of votes, the standing
``standing.csv``   CSV only: the standing for a spreadsheet
``votes.csv``      every vote: its receipt, then the codes of its choices, best first
or ``votes.json``  the same as one array, an object a line
``SHA256SUMS``     the hashes of the files above, as ``sha256sum`` writes and checks them
``SHA256SUMS.sig`` the Ed25519 signature (RFC 8032; 64 bytes) of SHA256SUMS, as OpenSSL checks it
=================  =============================================================================

Votes are sorted by receipt, which is a hash: their order tells nothing about when they came.
Nothing is gathered in memory, neither here nor by :func:`verify`.
"""

import csv
import hashlib
import hmac
import io
import json
import lzma
import re
import zipfile
import zlib
from base64 import b64decode, b64encode
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import zip_longest
from pathlib import Path
from typing import IO, Any

import orjson
from nacl.exceptions import BadSignatureError
from nacl.signing import SigningKey, VerifyKey

from f1vote import receipts
from f1vote.explained import Explained
from f1vote.i18n import _
from f1vote.polls import LANGUAGES, Poll
from f1vote.store import Standing, Store

FORMAT = "f1vote export 1"
KINDS = ("csv", "json")
SUMS, SIGNATURE = "SHA256SUMS", "SHA256SUMS.sig"
# Ties the key to this use of the secret.
PURPOSE = b"f1vote export key 1\0"
# What stands before the 32 bytes of a public key in its DER (RFC 8410, 4 and 10.1).
DER = bytes.fromhex("302a300506032b6570032100")
PEM = ("-----BEGIN PUBLIC KEY-----\n", "\n-----END PUBLIC KEY-----\n")
# A cell of a spreadsheet that begins so is taken for a formula (OWASP, CSV Injection).
FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "\0")
# What comes before the first line of votes, between two, and after the last.
CSV_LINES = ("\r\n", "\r\n", "\r\n")
JSON_LINES = ("\n", ",\n", "\n]\n")
# Texts that are joined at once; bytes that are sent at once.
BATCH, CHUNK = 1000, 1 << 16
# More than any poll.json, SHA256SUMS or line of votes holds (bytes).
SMALL = 1 << 20
MOST_LINE = 1 << 12

# What zipfile and the methods of compression raise for what they cannot read.
UNREADABLE = (
    zipfile.BadZipFile, zlib.error, lzma.LZMAError, OSError, EOFError, NotImplementedError,
    RuntimeError, ValueError,
)  # fmt: skip

NOT_THE_SUM = _("The standing is not the sum of the votes")

Vote = tuple[str, tuple[str, ...]]  # receipt, choices


class Inconsistent(Explained):
    """The votes and the standing do not belong together; no export can be made of them."""


class Forged(Explained):
    """A file is not an export, or is not what the platform signed."""


# Keys


def signing_key(secret: bytes) -> SigningKey:
    """Return the key that signs, made from ``secret`` (at least 32 random bytes)."""
    return SigningKey(hmac.digest(secret, PURPOSE, "sha256"))


def public_pem(key: SigningKey | VerifyKey) -> str:
    """Return the public key as PEM (RFC 7468), as OpenSSL reads it."""
    return b64encode(_der(key)).decode().join(PEM)


def fingerprint(key: SigningKey | VerifyKey) -> str:
    """Return the SHA-256 of the public key's DER in hex."""
    return hashlib.sha256(_der(key)).hexdigest()


def read_key(pem: str) -> VerifyKey:
    """Return the public key in ``pem``; raise ValueError if it holds none of Ed25519."""
    found = re.fullmatch(r"\s*{}([\w+/=\s]+?){}\s*".format(*map(str.strip, PEM)), pem, re.ASCII)
    der = b64decode("".join(found[1].split()), validate=True) if found else b""
    if len(der) != len(DER) + 32 or not der.startswith(DER):
        raise ValueError("not a public key of Ed25519 in PEM")
    return VerifyKey(der[len(DER) :])


def _der(key: SigningKey | VerifyKey) -> bytes:
    return DER + bytes(key.verify_key if isinstance(key, SigningKey) else key)


# Making one


async def archive(
    store: Store, poll: Poll, kind: str, key: SigningKey | None, version: str
) -> AsyncIterator[bytes]:
    """
    Yield the export of ``poll``, piece by piece; ``kind`` is csv or json, ``version`` of the app.

    Its last piece is only given if the votes did not change meanwhile and their sum is the
    standing: raises Inconsistent otherwise, and what was given so far does not open. Raises
    Unreachable.
    """
    before = await store.standing(poll)
    about = _about(poll, before, version)
    tally = _Tally(poll)
    sums: dict[str, str] = {}
    sink = _Sink()
    # The votes of ten million voters are a few hundred MB: the fastest level halves them.
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as packed:
        moment = datetime.fromtimestamp(before.now, UTC).timetuple()[:6]
        texts = {"poll.json": _json(about)}
        if kind == "csv":
            texts["standing.csv"] = standing_csv(about)
        for name, text in texts.items():
            packed.writestr(_entry(name, moment), text)
            sums[name] = hashlib.sha256(text).hexdigest()
        total = hashlib.sha256()
        name = f"votes.{kind}"
        with packed.open(_entry(name, moment), "w", force_zip64=True) as member:
            async for piece in _pieces(kind, poll, tally.count(store.votes(poll))):
                member.write(piece)
                total.update(piece)
                if sink.size >= CHUNK:
                    yield sink.take()
        sums[name] = total.hexdigest()
        after = await store.standing(poll)
        if (after.version, after.voters) != (before.version, before.voters):
            raise Inconsistent(_("Something changed while the votes were exported. Try again."))
        tally.compare(before)
        text = "".join(f"{digest}  {name}\n" for name, digest in sums.items()).encode()
        packed.writestr(_entry(SUMS, moment), text)
        if key:
            packed.writestr(_entry(SIGNATURE, moment), key.sign(text).signature)
    yield sink.take()


def file_name(poll: Poll, kind: str, at: float) -> str:
    """Return a name for the export of ``poll`` at the Unix time ``at``."""
    return f"{poll.id}-{datetime.fromtimestamp(at, UTC):%Y%m%dT%H%M%SZ}-{kind}.zip"


def standing_csv(about: Mapping[str, Any]) -> bytes:
    """Return ``standing.csv`` of what ``poll.json`` says."""
    text = io.StringIO()
    table = csv.writer(text)
    table.writerow(["code", *(f"name_{language}" for language in LANGUAGES), "points"])
    for row in about["standing"]:
        names = (cell(row["name"][language]) for language in LANGUAGES)
        table.writerow([row["code"], *names, row["points"]])
    return text.getvalue().encode()


def cell(text: str) -> str:
    """Return ``text`` so that no spreadsheet takes it for a formula."""
    return f"'{text}" if text.startswith(FORMULA) else text


class _Sink(io.RawIOBase):
    """Where the archive is written to, until it is taken away. It cannot seek."""

    def __init__(self) -> None:
        self._written: list[bytes] = []
        self.size = 0

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._written.append(bytes(data))
        self.size += len(data)
        return len(data)

    def take(self) -> bytes:
        """Return all that was written since the last time."""
        taken = b"".join(self._written)
        self._written, self.size = [], 0
        return taken


def _about(poll: Poll, standing: Standing, version: str) -> dict[str, Any]:
    ranked = sorted(poll.choices, key=lambda choice: -standing.points.get(choice.code, 0))
    return {
        "format": FORMAT,
        "poll": poll.id,
        "title": poll.title,
        "question": poll.question,
        "points": poll.points,
        "opens": standing.opens,
        "closes": standing.closes,
        "state": standing.state,
        "at": datetime.fromtimestamp(standing.now, UTC).isoformat(timespec="milliseconds"),
        "version": version,
        "voters": standing.voters,
        "standing": [
            {
                "code": choice.code,
                "name": choice.name,
                "points": standing.points.get(choice.code, 0),
            }
            for choice in ranked
        ],
    }


def _json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, indent=1).encode() + b"\n"


def _entry(name: str, moment: Any) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name, moment)
    entry.compress_type = zipfile.ZIP_DEFLATED
    entry.external_attr = 0o644 << 16
    return entry


class _Tally:
    """What the votes that pass give to each choice."""

    def __init__(self, poll: Poll) -> None:
        self._poll = poll
        self._points: Counter[str] = Counter()
        self._votes = 0

    async def count(self, votes: AsyncIterator[Vote]) -> AsyncIterator[Vote]:
        """Pass ``votes`` on; raise Inconsistent if a receipt comes twice."""
        last, worth, points = "", self._poll.points, self._points
        async for vote in votes:
            receipt, choices = vote
            if receipt <= last:
                raise Inconsistent(NOT_THE_SUM)
            last = receipt
            self._votes += 1
            for code, value in zip(choices, worth, strict=False):
                points[code] += value
            yield vote

    def compare(self, standing: Standing) -> None:
        """Raise Inconsistent unless ``standing`` is the sum of what passed."""
        if unknown := self._points.keys() - set(self._poll.codes):
            raise Inconsistent(
                _("There are votes for {codes}, which the poll’s file no longer names."),
                codes=", ".join(sorted(unknown)),
            )
        if (self._votes, +self._points) != (standing.voters, +Counter(standing.points)):
            raise Inconsistent(NOT_THE_SUM)


async def _pieces(kind: str, poll: Poll, votes: AsyncIterator[Vote]) -> AsyncIterator[bytes]:
    """Yield the file of ``votes``, many lines at once."""
    places = len(poll.points)
    opening, begin, between, end = (
        (_header(places), *CSV_LINES) if kind == "csv" else ("[", *JSON_LINES)
    )
    lines, separator = [opening], begin
    async for receipt, choices in votes:
        # As voters know it; without its dashes a spreadsheet may take it for a number.
        shown = receipts.show(receipt)
        if kind == "csv":
            line = ",".join((shown, *choices, *[""] * (places - len(choices))))
        else:
            line = orjson.dumps({"receipt": shown, "choices": choices}).decode()
        lines += separator, line
        separator = between
        if len(lines) >= BATCH:
            yield "".join(lines).encode()
            lines.clear()
    lines.append(end)
    yield "".join(lines).encode()


def _header(places: int) -> str:
    return ",".join(("receipt", *(f"choice_{place}" for place in range(1, places + 1))))


# Checking one


@dataclass(frozen=True)
class Checked:
    """
    What an export says, when all in it fits together. ``signature`` is ``good``, ``absent``, or
    ``unchecked`` if no key was given.
    """

    poll: str
    at: str
    voters: int
    standing: dict[str, int]
    signature: str


def verify(file: Path, key: VerifyKey | None) -> Checked:
    """
    Check the export in ``file``: its hashes, the signature by ``key``, and that the points of the
    standing are the sum of the votes.

    Raise Forged with the first thing that does not fit, OSError if the file cannot be read.
    """
    with file.open("rb") as opened:
        try:
            with zipfile.ZipFile(opened) as packed:
                return _verify(packed, key)
        except UNREADABLE as error:
            raise Forged(
                _("This is not an export, or half of one: {error}"), error=error
            ) from error


def _verify(packed: zipfile.ZipFile, key: VerifyKey | None) -> Checked:
    names = packed.namelist()
    kind = next((kind for kind in KINDS if f"votes.{kind}" in names), "")
    parts = ["poll.json", *(["standing.csv"] if kind == "csv" else []), f"votes.{kind}"]
    signed = SIGNATURE in names
    if sorted(names) != sorted([*parts, SUMS, *([SIGNATURE] if signed else [])]):
        raise Forged(_("This is not an export: it holds {names}"), names=", ".join(names) or "–")
    sums = _small(packed, SUMS)
    if signed and key:
        _check_signature(packed, sums, key)
    for name, line in zip_longest(parts, sums.decode("ascii", "replace").splitlines()):
        if name is None or line != f"{_digest(packed, name)}  {name}":
            raise Forged(_("{name} was altered: its hash is another"), name=name or SUMS)
    about = _read_about(_small(packed, "poll.json"))
    standing = {row["code"]: row["points"] for row in about["standing"]}
    if kind == "csv" and _small(packed, "standing.csv") != standing_csv(about):
        raise Forged(_("{name} does not say what poll.json says"), name="standing.csv")
    votes, points = 0, Counter(dict.fromkeys(standing, 0))
    for number, choices in enumerate(_votes_of(packed, kind, len(about["points"])), 1):
        if not set(choices) <= standing.keys():
            raise Forged(_("Vote {n} is for a choice that the poll does not have"), n=number)
        votes = number
        for code, value in zip(choices, about["points"], strict=False):
            points[code] += value
    if points != standing or votes != about["voters"]:
        raise Forged(NOT_THE_SUM)
    signature = "absent" if not signed else "good" if key else "unchecked"
    return Checked(about["poll"], about["at"], votes, standing, signature)


def _check_signature(packed: zipfile.ZipFile, sums: bytes, key: VerifyKey) -> None:
    try:
        key.verify(sums, _small(packed, SIGNATURE))
    except (BadSignatureError, ValueError, TypeError) as error:
        raise Forged(_("The signature is not of this key, or the file was altered")) from error


def _small(packed: zipfile.ZipFile, name: str) -> bytes:
    with packed.open(name) as member:
        content = member.read(SMALL + 1)
    if len(content) > SMALL:
        raise Forged(_("{name} is too large for an export"), name=name)
    return content


def _digest(packed: zipfile.ZipFile, name: str) -> str:
    with packed.open(name) as member:
        return hashlib.file_digest(member, "sha256").hexdigest()  # type: ignore[arg-type]


def _read_about(text: bytes) -> dict[str, Any]:
    """Return ``poll.json``; raise Forged if it is not as :func:`_about` writes it."""
    try:
        about = json.loads(text)
        right = (
            about["format"] == FORMAT
            and isinstance(about["poll"], str)
            and isinstance(about["at"], str)
            and all(type(value) is int for value in (about["voters"], *about["points"]))
            and all(
                isinstance(row["code"], str)
                and all(isinstance(row["name"][language], str) for language in LANGUAGES)
                and type(row["points"]) is int
                for row in about["standing"]
            )
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        right = False
    if not right:
        raise Forged(_("{name} is not as this version of the app writes it"), name="poll.json")
    return dict(about)


def _votes_of(packed: zipfile.ZipFile, kind: str, places: int) -> Iterator[tuple[str, ...]]:
    """Yield the choices of each vote; raise Forged at the first line that is not one."""
    last = ""
    with packed.open(f"votes.{kind}") as member:
        for number, line in enumerate(_rows(member, kind, places), 1):
            read = _vote_csv(line) if kind == "csv" else _vote_json(line)
            if read is None or not 1 <= len(read[1]) <= places or len(set(read[1])) < len(read[1]):
                raise Forged(_("Vote {n} is not written as a vote"), n=number)
            receipt = receipts.read(read[0])
            if receipt is None or receipts.show(receipt) != read[0] or receipt <= last:
                raise Forged(_("Vote {n} has no receipt of its own"), n=number)
            last = receipt
            yield read[1]


def _rows(member: IO[bytes], kind: str, places: int) -> Iterator[str]:
    """Yield the lines of votes, without what separates them."""
    opening = _header(places) if kind == "csv" else "["
    for number, raw in enumerate(iter(lambda: member.readline(MOST_LINE), b"")):
        line = raw.decode("ascii", "replace").rstrip("\r\n")
        if number == 0:
            if line != opening:
                raise Forged(_("Vote {n} is not written as a vote"), n=number)
        elif kind == "csv":
            yield line
        elif line != "]":
            yield line.removesuffix(",")


def _vote_csv(line: str) -> Vote:
    receipt, *choices = line.split(",")
    while choices and not choices[-1]:
        choices.pop()
    return receipt, tuple(choices)


def _vote_json(line: str) -> Vote | None:
    try:
        vote = orjson.loads(line)
    except ValueError:
        return None
    if not isinstance(vote, dict) or vote.keys() != {"receipt", "choices"}:
        return None
    receipt, choices = vote["receipt"], vote["choices"]
    if not isinstance(choices, list) or not all(
        isinstance(text, str) for text in (receipt, *choices)
    ):
        return None
    return receipt, tuple(choices)
