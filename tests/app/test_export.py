"""An export says exactly what was counted, and whoever alters it is found out."""

import asyncio
import csv
import hashlib
import io
import json
import shutil
import subprocess
import zipfile
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from f1vote import export, polls, receipts
from f1vote.export import Forged, Inconsistent, signing_key
from f1vote.store import Store
from tests.app.organised import SECRET, write_polls
from tests.app.servers import Redis

KEY = signing_key(SECRET.encode())
VOTES = [("VER",), ("NOR",), ("VER",), ("VER", "NOR"), ("NOR", "LEC", "VER"), ("LEC", "VER")]
# Of these: 3-2-1.
POINTS = {"NOR": 3 + 2 + 3, "VER": 3 + 3 + 3 + 1 + 2, "LEC": 2 + 3}


@pytest.fixture(scope="module")
def podium(tmp_path_factory: pytest.TempPathFactory) -> polls.Poll:
    found = polls.load(write_polls(tmp_path_factory.mktemp("export")))
    return next(poll for poll in found if poll.id == "podium")


def with_store(redis: Redis, poll: polls.Poll, work: Callable[[Store], Awaitable[Any]]) -> Any:
    """Do ``work`` with a store in which the votes above are counted and the vote is paused."""

    async def run() -> Any:
        redis.client.flushall()
        store = Store(redis.url, [poll])
        try:
            for number, choices in enumerate(VOTES):
                await store.cast(poll, receipts.of(poll.id, f"voter {number}"), choices)
            await store.control(poll, frozen=True)
            return await work(store)
        finally:
            await store.close()

    return asyncio.run(run())


async def collect(store: Store, poll: polls.Poll, kind: str, key: Any = KEY) -> bytes:
    return b"".join([piece async for piece in export.archive(store, poll, kind, key, "c-test")])


@pytest.fixture(scope="module")
def files(
    redis_server: Redis, podium: polls.Poll, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    """An export of each kind, of the same votes."""
    folder = tmp_path_factory.mktemp("exports")

    async def both(store: Store) -> dict[str, bytes]:
        return {kind: await collect(store, podium, kind) for kind in export.KINDS}

    made = with_store(redis_server, podium, both)
    for kind, content in made.items():
        (folder / f"{kind}.zip").write_bytes(content)
    return {kind: folder / f"{kind}.zip" for kind in made}


@pytest.mark.parametrize("kind", export.KINDS)
def test_an_export_checks(files, kind):
    checked = export.verify(files[kind], KEY.verify_key)
    assert (checked.poll, checked.voters, checked.signature) == ("podium", len(VOTES), "good")
    assert checked.standing == POINTS


def test_its_votes_are_all_there_and_in_an_order_that_tells_nothing(files):
    expected = {
        receipts.show(receipts.of("podium", f"voter {number}")): choices
        for number, choices in enumerate(VOTES)
    }
    with zipfile.ZipFile(files["csv"]) as packed:
        table = list(csv.reader(io.StringIO(packed.read("votes.csv").decode(), newline="")))
    assert table[0] == ["receipt", "choice_1", "choice_2", "choice_3"]
    assert {row[0]: tuple(filter(None, row[1:])) for row in table[1:]} == expected
    assert [row[0] for row in table[1:]] == sorted(expected)
    with zipfile.ZipFile(files["json"]) as packed:
        votes = json.loads(packed.read("votes.json"))
        about = json.loads(packed.read("poll.json"))
    assert [(vote["receipt"], tuple(vote["choices"])) for vote in votes] == sorted(expected.items())
    assert [row["code"] for row in about["standing"]] == ["VER", "NOR", "LEC"]


def test_no_cell_is_a_formula(files):
    with zipfile.ZipFile(files["csv"]) as packed:
        for name in ("standing.csv", "votes.csv"):
            for row in csv.reader(io.StringIO(packed.read(name).decode(), newline="")):
                assert not [cell for cell in row if cell.startswith(export.FORMULA)]
        text = packed.read("standing.csv").decode()
    assert "VER,'=Max+Verstappen,'=Max+Verstappen,12" in text
    assert '"Leclerc, on the outside"' in text


def test_a_stranger_checks_it_with_openssl_and_sha256sum(files, tmp_path):
    (tmp_path / "key.pem").write_text(export.public_pem(KEY))
    with zipfile.ZipFile(files["csv"]) as packed:
        packed.extractall(tmp_path)
    verify = [
        "openssl", "pkeyutl", "-verify", "-pubin", "-inkey", "key.pem", "-rawin",
        "-in", "SHA256SUMS", "-sigfile", "SHA256SUMS.sig",
    ]  # fmt: skip
    assert subprocess.run(verify, cwd=tmp_path, capture_output=True).returncode == 0
    sums = subprocess.run(["sha256sum", "-c", "--strict", "SHA256SUMS"], cwd=tmp_path)
    assert sums.returncode == 0
    der = subprocess.run(
        ["openssl", "pkey", "-pubin", "-in", "key.pem", "-outform", "DER"],
        cwd=tmp_path, capture_output=True, check=True,
    ).stdout  # fmt: skip
    assert hashlib.sha256(der).hexdigest() == export.fingerprint(KEY)
    (tmp_path / "SHA256SUMS").write_text("altered")
    assert subprocess.run(verify, cwd=tmp_path, capture_output=True).returncode != 0


def contents(file: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(file) as packed:
        return {name: packed.read(name) for name in packed.namelist()}


@pytest.mark.parametrize("kind", export.KINDS)
def test_a_flipped_bit_anywhere_is_found_or_changes_nothing(files, kind, tmp_path):
    content, original = files[kind].read_bytes(), contents(files[kind])
    flipped = tmp_path / "flipped.zip"
    unseen = 0
    for place in range(len(content)):
        changed = bytearray(content)
        changed[place] ^= 1 << place % 8
        flipped.write_bytes(changed)
        try:
            checked = export.verify(flipped, KEY.verify_key)
        except Forged:
            continue
        if checked.signature == "absent":
            continue
        # Dates and the like of the archive itself: nothing that the export says.
        assert contents(flipped) == original
        unseen += 1
    assert unseen < len(content) / 3


def packed(parts: dict[str, bytes], file: Path, key: Any = KEY) -> Path:
    """Make an export of ``parts`` as a forger would: with hashes that fit, signed by ``key``."""
    sums = "".join(
        f"{hashlib.sha256(content).hexdigest()}  {name}\n" for name, content in parts.items()
    ).encode()
    with zipfile.ZipFile(file, "w") as made:
        for name, content in parts.items():
            made.writestr(name, content)
        made.writestr("SHA256SUMS", sums)
        if key:
            made.writestr("SHA256SUMS.sig", key.sign(sums).signature)
    return file


def parts_of(file: Path) -> dict[str, bytes]:
    return {name: c for name, c in contents(file).items() if not name.startswith("SHA256")}


def test_who_packs_the_same_again_passes_only_with_our_key(files, tmp_path):
    parts = parts_of(files["csv"])
    assert export.verify(packed(parts, tmp_path / "a.zip"), KEY.verify_key).signature == "good"
    with pytest.raises(Forged, match="signature"):
        export.verify(packed(parts, tmp_path / "b.zip", signing_key(b"x" * 32)), KEY.verify_key)
    checked = export.verify(packed(parts, tmp_path / "c.zip", key=None), KEY.verify_key)
    assert checked.signature == "absent"
    assert export.verify(files["csv"], None).signature == "unchecked"


FIRST = receipts.show(min(receipts.of("podium", f"voter {n}") for n in range(len(VOTES)))).encode()


@pytest.mark.parametrize(
    ("kind", "name", "change", "said"),
    [
        ("json", "votes.json", (b'["VER"]', b'["NOR"]'), "sum of the votes"),
        ("csv", "votes.csv", (b",VER,,\r\n", b",NOR,,\r\n"), "sum of the votes"),
        ("csv", "votes.csv", (b",VER,,\r\n", b",XXX,,\r\n"), "a choice that the poll"),
        ("csv", "votes.csv", (b",VER,,\r\n", b",VER,VER,\r\n"), "not written as a vote"),
        ("csv", "votes.csv", (b",VER,,\r\n", b",VER,,,NOR\r\n"), "not written as a vote"),
        ("csv", "votes.csv", (b",VER,,\r\n", b",,,\r\n"), "not written as a vote"),
        ("csv", "votes.csv", (b"receipt,", b"Receipt,"), "not written as a vote"),
        ("csv", "votes.csv", (FIRST, b"0000-0000-00001"), "no receipt of its own"),
        ("csv", "votes.csv", (FIRST, b"ZZZZ-ZZZZ-ZZZZZ"), "no receipt of its own"),
        ("json", "votes.json", (b'["VER"]', b'"VER"'), "not written as a vote"),
        ("json", "votes.json", (b'["VER"]', b"["), "not written as a vote"),
        ("json", "votes.json", (b'"choices"', b'"choice"'), "not written as a vote"),
        ("csv", "poll.json", (b'"points": 12', b'"points": 13'), "standing.csv does not say"),
        ("json", "poll.json", (b'"points": 12', b'"points": 13'), "sum of the votes"),
        ("json", "poll.json", (b'"voters": 6', b'"voters": 7'), "sum of the votes"),
        ("json", "poll.json", (b'"points": 12', b'"points": "12"'), "poll.json is not as"),
        ("json", "poll.json", (b"export 1", b"export 2"), "poll.json is not as"),
        ("json", "poll.json", (b"{", b"["), "poll.json is not as"),
    ],
)  # fmt: skip
def test_what_does_not_fit_together_is_told_though_it_is_signed(
    files, tmp_path, kind, name, change, said
):
    parts = parts_of(files[kind])
    old, new = change
    assert old in parts[name]
    parts[name] = parts[name].replace(old, new, 1)
    with pytest.raises(Forged) as raised:
        export.verify(packed(parts, tmp_path / "x.zip"), KEY.verify_key)
    assert said in raised.value.text.format_map(
        {**raised.value.fields, "n": raised.value.fields.get("n", 0)}
    )


def test_a_file_more_less_or_twice_is_told(files, tmp_path):
    parts = parts_of(files["csv"])
    for altered in (
        {**parts, "more.txt": b"?"},
        {name: content for name, content in parts.items() if name != "standing.csv"},
        {},
    ):
        with pytest.raises(Forged):
            export.verify(packed(altered, tmp_path / "x.zip"), KEY.verify_key)
    twice = shutil.copy(files["csv"], tmp_path / "twice.zip")
    with zipfile.ZipFile(twice, "a") as more, pytest.warns(UserWarning, match="Duplicate"):
        more.writestr("votes.csv", b"other")
    with pytest.raises(Forged):
        export.verify(twice, KEY.verify_key)


@pytest.mark.parametrize("content", [b"", b"no archive", b"PK\x03\x04" + bytes(100)])
def test_another_file_is_no_export(tmp_path, content):
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(Forged, match="not an export"):
        export.verify(tmp_path / "x", KEY.verify_key)


def test_half_of_an_export_is_none(files, tmp_path):
    content = files["csv"].read_bytes()
    (tmp_path / "half.zip").write_bytes(content[: len(content) // 2])
    with pytest.raises(Forged, match="not an export"):
        export.verify(tmp_path / "half.zip", KEY.verify_key)


@pytest.mark.parametrize(
    "pem",
    [
        "",
        "-----BEGIN PUBLIC KEY-----\n-----END PUBLIC KEY-----",
        export.public_pem(KEY).replace("MCow", "MCox"),
        export.public_pem(KEY).replace("PUBLIC", "PRIVATE"),
        "-----BEGIN PUBLIC KEY-----\nAAA\n-----END PUBLIC KEY-----\n",
    ],
)
def test_what_is_no_key_is_told(pem):
    with pytest.raises(ValueError, match=r"."):
        export.read_key(pem)


def test_the_key_is_read_as_it_is_written():
    assert export.read_key(export.public_pem(KEY)) == KEY.verify_key


def test_an_empty_poll_can_be_exported(redis_server, podium, tmp_path):
    async def work(store: Store) -> None:
        await store.reset(podium)
        for kind in export.KINDS:
            (tmp_path / kind).write_bytes(await collect(store, podium, kind))

    with_store(redis_server, podium, work)
    for kind in export.KINDS:
        checked = export.verify(tmp_path / kind, KEY.verify_key)
        assert (checked.voters, set(checked.standing.values())) == (0, {0})


@pytest.mark.parametrize("field", [("tally", "NOR"), ("meta", "voters")])
def test_a_tally_that_is_wrong_is_not_exported(redis_server, podium, field):
    async def work(store: Store) -> None:
        redis_server.client.hincrby(f"poll:podium:{field[0]}", field[1], 1)
        with pytest.raises(Inconsistent, match="not the sum"):
            await collect(store, podium, "csv")

    with_store(redis_server, podium, work)


def test_votes_for_a_choice_that_left_the_file_are_not_dropped_silently(redis_server, podium):
    async def work(store: Store) -> None:
        fewer = replace(podium, choices=podium.choices[:2])
        with pytest.raises(Inconsistent, match="no longer names") as raised:
            await collect(store, fewer, "csv")
        assert raised.value.fields == {"codes": "LEC"}

    with_store(redis_server, podium, work)


def test_votes_that_move_meanwhile_are_not_exported(redis_server, podium):
    """As many votes before and after, and the same points: a vote was changed and changed back."""

    async def work(store: Store) -> None:
        with pytest.raises(Inconsistent, match="Something changed"):
            async for _ in export.archive(cast(Any, Moving(store)), podium, "csv", KEY, "c"):
                pass

    class Moving:
        def __init__(self, store: Store) -> None:
            self.standing, self._store = store.standing, store

        async def votes(self, poll: polls.Poll) -> Any:
            async for vote in self._store.votes(poll):
                yield vote
            await self._store.control(poll, frozen=None)
            receipt = receipts.of(poll.id, "voter 0")
            for choices in (("NOR",), VOTES[0]):
                await self._store.cast(poll, receipt, choices)

    with_store(redis_server, podium, work)


def test_a_large_poll_comes_in_pieces(redis_server, podium, tmp_path):
    """What is held at once does not grow with the votes."""

    class Room:
        def __init__(self, store: Store) -> None:
            self._store = store

        async def standing(self, poll: polls.Poll) -> Any:
            standing = await self._store.standing(poll)
            object.__setattr__(standing, "voters", 100_000)
            standing.points.update(NOR=300_000, VER=0, LEC=0)
            return standing

        async def votes(self, _: polls.Poll) -> Any:
            for number in range(100_000):
                yield receipts.encode(number << 20), ("NOR",)

    async def work(store: Store) -> list[bytes]:
        return [
            piece async for piece in export.archive(cast(Any, Room(store)), podium, "csv", KEY, "c")
        ]

    pieces = with_store(redis_server, podium, work)
    assert len(pieces) > 3
    assert max(map(len, pieces)) < 4 * export.CHUNK
    (tmp_path / "large.zip").write_bytes(b"".join(pieces))
    assert export.verify(tmp_path / "large.zip", KEY.verify_key).voters == 100_000
