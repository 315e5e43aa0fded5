"""Sealed files: what goes in comes out, for one key alone, and nothing else ever does."""

import io
import subprocess
from pathlib import Path

import pytest
import sealed

CHUNK = sealed.CHUNK
SIZES = [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK, 3 * CHUNK + 17]
HEADER = 72


def content(size: int) -> bytes:
    return bytes(n * 7 % 251 for n in range(size))


@pytest.fixture
def key(tmp_path: Path) -> Path:
    path = tmp_path / "operator" / "key"
    assert sealed.make_key(path)
    return path


def seal(data: bytes, key: Path) -> bytes:
    out = io.BytesIO()
    sealed.seal(io.BytesIO(data), out, sealed.public(key))
    return out.getvalue()


def opened(data: bytes, key: Path) -> bytes:
    out = io.BytesIO()
    sealed.open_sealed(io.BytesIO(data), out, key)
    return out.getvalue()


@pytest.mark.parametrize("size", SIZES)
def test_what_goes_in_comes_out(size: int, key: Path) -> None:
    data = content(size)
    made = seal(data, key)
    assert opened(made, key) == data
    assert len(made) == HEADER + size + 16 * max(1, -(-size // CHUNK))
    if size > 16:
        assert data[:16] not in made


def test_the_same_content_is_never_sealed_the_same(key: Path) -> None:
    assert seal(b"votes", key)[HEADER:] != seal(b"votes", key)[HEADER:]


def test_the_key_is_made_once_and_is_the_owners_alone(key: Path) -> None:
    before = key.read_bytes()
    assert not sealed.make_key(key)
    assert key.read_bytes() == before
    assert key.stat().st_mode & 0o777 == 0o600
    assert key.parent.stat().st_mode & 0o777 == 0o700
    # Others' tools read it too.
    said = subprocess.run(
        ["openssl", "pkey", "-in", str(key), "-noout", "-text"], capture_output=True, check=True
    )
    assert b"X25519 Private-Key" in said.stdout


# Bytes cut off, of those that are there beside the header.
CUTS = [(size, cut) for size in SIZES for cut in (1, 16, 17, CHUNK, CHUNK + 16) if cut <= size + 16]


@pytest.mark.parametrize(("size", "cut"), CUTS)
def test_a_truncated_file_is_refused(size: int, cut: int, key: Path) -> None:
    made = seal(content(size), key)
    with pytest.raises(sealed.SealError, match="truncated"):
        opened(made[:-cut], key)


@pytest.mark.parametrize("where", [HEADER - 1, HEADER, HEADER + CHUNK + 20, -1])
def test_a_changed_file_is_refused(where: int, key: Path) -> None:
    made = bytearray(seal(content(2 * CHUNK + 100), key))
    made[where] ^= 1
    with pytest.raises(sealed.SealError, match="changed"):
        opened(bytes(made), key)


def test_chunks_cannot_change_places_nor_be_left_out_or_added(key: Path) -> None:
    made = seal(content(3 * CHUNK), key)
    size = CHUNK + 16
    head, one, two, three = made[:HEADER], *(made[HEADER + n * size :][:size] for n in range(3))
    for wrong in (two + one + three, one + three, one + two + three + three):
        with pytest.raises(sealed.SealError):
            opened(head + wrong, key)
    with pytest.raises(sealed.SealError, match="goes on after its end"):
        opened(made + b"more", key)


def test_another_key_is_told_from_damage(key: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    sealed.make_key(other)
    with pytest.raises(sealed.SealError, match="sealed for another key") as caught:
        opened(seal(b"votes", key), other)
    assert sealed.public(key) in str(caught.value)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda made: b"PK\3\4" + made, "no sealed file"),
        (lambda made: made[:7] + b"\2" + made[8:], "format 2; this tree knows format 1"),
        (lambda made: made[:40], "truncated: it ends in its header"),
        (lambda made: made[:40] + bytes(32) + made[72:], "its header holds no key"),
    ],
)
def test_other_formats_are_refused(change, words: str, key: Path) -> None:
    with pytest.raises(sealed.SealError, match=words):
        opened(change(seal(b"votes", key)), key)


def test_what_is_no_key_is_said(key: Path, tmp_path: Path) -> None:
    with pytest.raises(sealed.SealError, match="no public key"):
        sealed.seal(io.BytesIO(), io.BytesIO(), "AAAA")
    with pytest.raises(sealed.SealError, match="the only key that opens the backups"):
        sealed.public(tmp_path / "none")
    (tmp_path / "text").write_text("a text")
    with pytest.raises(sealed.SealError, match="holds no private key"):
        sealed.public(tmp_path / "text")
    subprocess.run(
        ["openssl", "genpkey", "-algorithm", "ed25519", "-out", tmp_path / "ed"], check=True
    )
    with pytest.raises(sealed.SealError, match="another kind of key"):
        sealed.public(tmp_path / "ed")
