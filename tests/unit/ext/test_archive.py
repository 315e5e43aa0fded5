"""What a backup holds, and what is refused before any of it is put anywhere."""

import io
import json
import os
import tarfile
from pathlib import Path
from typing import Any

import archive
import pytest


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """A folder as K3s leaves it: files, a link, a folder, a socket."""
    root = tmp_path / "server"
    (root / "tls/empty").mkdir(parents=True)
    (root / "token").write_text("K10secret")
    (root / "token").chmod(0o600)
    os.utime(root / "token", (1_700_000_000, 1_700_000_000))
    (root / "node-token").symlink_to("token")
    (root / "tls/ca.crt").write_text("CA")
    (root / "tls/server-ca.crt").hardlink_to(root / "tls/ca.crt")
    return root


def make(machine: Path, path: Path, **manifest: Any) -> Path:
    writer = archive.Writer(path)
    writer.add(machine, machine)
    facts = {"platform": "f1", "at": 0.0, "k3s": "v1", "objects": {}, "redis": None}
    writer.finish(**{**facts, **manifest})
    return path


@pytest.fixture
def made(machine: Path, tmp_path: Path) -> Path:
    return make(machine, tmp_path / "backup.tar")


def test_all_comes_back_with_owner_mode_and_time(machine: Path, made: Path, tmp_path: Path) -> None:
    assert made.stat().st_mode & 0o777 == 0o600
    manifest = archive.read(made, "f1", [str(machine)])
    assert len(manifest["members"]) == 3
    target = tmp_path / "new"
    (target / str(machine)[1:]).mkdir(parents=True)
    there = target / str(machine)[1:]
    (there / "token").write_text("of before")
    for _ in range(2):
        assert len(archive.unpack(made, target)) == 4
    assert (there / "token").read_text() == "K10secret"
    assert (there / "token").stat().st_mode & 0o777 == 0o600
    assert (there / "token").stat().st_mtime == 1_700_000_000
    assert (there / "node-token").readlink() == Path("token")
    assert (there / "tls/server-ca.crt").read_text() == "CA"
    assert (there / "tls/empty").is_dir()
    assert not list(target.rglob(".*restored"))


def test_another_owner_can_be_given(machine: Path, tmp_path: Path) -> None:
    writer = archive.Writer(tmp_path / "backup.tar")
    owner = os.stat_result((0, 0, 0, 0, 10002, 10002, 0, 0, 0, 0))
    writer.add(machine / "tls", Path("/data/tls"), owner=owner)
    writer.folder(machine)
    writer.finish(platform="f1")
    with tarfile.open(tmp_path / "backup.tar") as tar:
        owners = {item.name: item.uid for item in tar}
    assert owners["files/data/tls/ca.crt"] == owners["files/data/tls"] == 10002
    assert owners[f"files{machine}"] == os.getuid()


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ({"platform": "other"}, "is of the platform 'other', not of 'f1'"),
        ({"schema": 2}, "schema 2, this tree knows 1: use the tree that made it"),
        ({"schema": None}, "schema None"),
    ],
)
def test_what_is_not_ours_is_refused(
    facts: dict[str, Any], words: str, machine: Path, tmp_path: Path
) -> None:
    path = make(machine, tmp_path / "backup.tar", **facts)
    with pytest.raises(archive.ArchiveError, match=words):
        archive.read(path, "f1", [str(machine)])


def rebuilt(made: Path, change: Any) -> Path:
    """Return the backup with its members (name → TarInfo, data) changed by ``change``."""
    with tarfile.open(made) as tar:
        members: dict[str, Any] = {i.name: (i, b"") for i in tar}
        for name, (one, _) in members.items():
            if one.isfile() and (file := tar.extractfile(one)):
                members[name] = (one, file.read())
    change(members)
    path = made.with_name("changed.tar")
    with tarfile.open(path, "w") as tar:
        for item, data in members.values():
            item.size = len(data)
            tar.addfile(item, io.BytesIO(data))
    return path


def item(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    made.type, made.linkname = kind, link
    return made


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("token", "token was changed"),
        ("gone", "tls/ca.crt is missing"),
        ("more", "tls/more is not in its list"),
        ("manifest", "it has no manifest.json"),
        ("json", "damaged"),
    ],
)
def test_a_damaged_backup_is_refused(name: str, words: str, machine: Path, made: Path) -> None:
    inside = f"files{machine}"

    def change(members: dict[str, Any]) -> None:
        if name == "token":
            members[f"{inside}/token"] = (members[f"{inside}/token"][0], b"K10other")
        elif name == "gone":
            del members[f"{inside}/tls/ca.crt"]
        elif name == "more":
            members["more"] = (item(f"{inside}/tls/more"), b"x")
        elif name == "manifest":
            del members["manifest.json"]
        else:
            members["manifest.json"] = (item("manifest.json"), b"{")

    with pytest.raises(archive.ArchiveError, match=words):
        archive.read(rebuilt(made, change), "f1", [str(machine)])


@pytest.mark.parametrize(
    "other",
    [
        item("files/etc/shadow"),
        item("etc/shadow"),
        item("files/../etc/shadow"),
        item("{inside}/../../../etc/shadow"),
        item("{inside}/null", tarfile.CHRTYPE),
        item("{inside}/a", tarfile.SYMTYPE, "/etc"),
        item("{inside}/a", tarfile.SYMTYPE, ".."),
        item("{inside}/a", tarfile.LNKTYPE, "files/etc/shadow"),
    ],
    ids=lambda each: f"{each.name}-{each.linkname}",
)
def test_nothing_is_put_elsewhere(other: tarfile.TarInfo, machine: Path, made: Path) -> None:
    other.name = other.name.format(inside=f"files{machine}")
    with pytest.raises(archive.ArchiveError, match=r"belongs to none of|a link to elsewhere"):
        archive.read(
            rebuilt(made, lambda members: members.update(x=(other, b""))), "f1", [str(machine)]
        )


@pytest.mark.parametrize("left", [0, 100, 700, 3000])
def test_a_file_that_is_cut_off_is_refused(left: int, machine: Path, made: Path) -> None:
    made.write_bytes(made.read_bytes()[:left])
    with pytest.raises(archive.ArchiveError, match=r"damaged|has no"):
        archive.read(made, "f1", [str(machine)])


def test_names_sort_as_their_times_and_the_oldest_go() -> None:
    names = [archive.name("f1", at) for at in (1_700_000_000, 1_800_000_000, 1_750_000_000)]
    assert names[0] == "f1-20231114T221320Z.f1backup"
    others = ["key", "last.json", archive.name("f2", 0), ".f1-20231114T221320Z.f1backup.new"]
    assert archive.surplus(names + others, "f1", 2) == [names[0]]
    assert archive.surplus(names, "f1", 3) == archive.surplus([], "f1", 3) == []


def test_the_manifest_can_be_read_by_anybody(machine: Path, made: Path) -> None:
    with tarfile.open(made) as tar:
        file = tar.extractfile("manifest.json")
        assert file
        told = json.load(file)
    assert told["schema"] == 1
    token = told["members"][f"files{machine}/token"]
    assert token["bytes"] == 9
