"""The operator's part: a bucket behind a cloud API, and a master reached by a shell of this one."""

import io
import json
import subprocess
from pathlib import Path
from typing import Any

import archive
import aws
import backup_copies
import firstcontact
import knobs
import pytest
import sealed
import ssh

from tests.conftest import load_ext
from tests.unit.cloud_driver.conftest import endpoint, platform  # noqa: F401

SECRET = "a token of the cluster"


class Master:
    """The master's folder below another one; what ssh would run there is run here."""

    def __init__(self, folder: Path, platform: dict[str, Any]) -> None:  # noqa: F811
        self.folder, self.platform = folder, platform
        self.backups = folder / "var/lib/f1/backup"
        self.backups.mkdir(parents=True)
        self.lines: list[str] = []
        self.there = True
        self.spoil = lambda data: data

    def remember(self, platform: dict[str, Any]) -> dict[str, Any]:  # noqa: F811
        if not self.there:
            raise firstcontact.NoMaster("no machine named f1-master")
        return {}

    def run(self, name: str, argv: list[str], *, stdin: bytes = b"", seconds: float = 60) -> str:
        assert (name, argv[0]) == ("f1-master", "sudo")
        words = [word.replace("/var/lib/f1", f"{self.folder}/var/lib/f1") for word in argv[1:]]
        self.lines.append(" ".join(words))
        done = subprocess.run(words, input=self.spoil(stdin), capture_output=True, check=False)
        if done.returncode:
            raise ssh.CommandFailed(done.stderr.decode())
        return done.stdout.decode()

    def make(self, at: int, name: str = "f1", **facts: Any) -> dict[str, Any]:
        """Make a backup as the master does, for the key that it has."""
        plain = self.folder / "plain"
        (self.folder / "token").write_text(f"{SECRET} {at}")
        writer = archive.Writer(plain)
        writer.add(self.folder / "token", Path("/etc/rancher/token"))
        manifest: dict[str, Any] = {"platform": name, "at": at, "k3s": "v1", "objects": {}}
        writer.finish(**{**manifest, **facts})
        out = io.BytesIO()
        recipient = (self.backups / "recipient").read_text().strip()
        sealed.seal(io.BytesIO(plain.read_bytes()), out, recipient)
        path = self.backups / archive.name("f1", at)
        path.write_bytes(out.getvalue())
        record = {
            "at": at, "ok": True, "file": path.name, "bytes": path.stat().st_size,
            "sha256": archive.sha256(path), "counts": {"keys": 2},
        }  # fmt: skip
        (self.backups / "last.json").write_text(json.dumps(record))
        return record


@pytest.fixture
def master(tmp_path: Path, platform, monkeypatch) -> Master:  # noqa: F811
    made = Master(tmp_path / "master", platform)
    monkeypatch.setattr(ssh, "run", made.run)
    monkeypatch.setattr(firstcontact, "remember_master", made.remember)
    where = {"CreateBucketConfiguration": {"LocationConstraint": platform["aws"]["region"]}}
    aws.call(platform, "s3", "create_bucket", Bucket=aws.bucket(platform), **where)
    return made


class States:
    """The states as an orchestration on the operator's machine would call them."""

    def __init__(self, platform: dict[str, Any]) -> None:  # noqa: F811
        self.module = load_ext("states/backup_copy.py")
        self.opts = {"test": False}
        self.module.__dict__.update(__opts__=self.opts, __pillar__={"platform": platform})

    def call(self, function: str, **arguments: Any) -> dict[str, Any]:
        said = dict(getattr(self.module, function)("x", **arguments))
        assert SECRET not in json.dumps(said)
        assert "PRIVATE KEY" not in json.dumps(said)
        return said

    def keyed(self, **more: Any) -> dict[str, Any]:
        return self.call("keyed", **more)

    def fetched(self, keep: int = 14) -> dict[str, Any]:
        return self.call("fetched", keep=keep)

    def handed_over(self, source: str | None = None) -> dict[str, Any]:
        return self.call("handed_over", roots=["/etc/rancher"], source=source)


@pytest.fixture
def states(platform, master) -> States:  # noqa: F811
    return States(platform)


def here() -> set[str]:
    return {path.name for path in backup_copies.folder().iterdir()}


def test_the_key_is_made_here_and_only_its_public_half_leaves(states, master):
    states.opts["test"] = True
    said = states.keyed()
    assert (said["result"], set(said["changes"])) == (None, {str(backup_copies.key()), "recipient"})
    assert not backup_copies.key().exists()
    assert not (master.backups / "recipient").exists()
    states.opts["test"] = False
    assert states.keyed()["result"] is True
    assert backup_copies.key().stat().st_mode & 0o777 == 0o600
    recipient = master.backups / "recipient"
    assert recipient.read_text().strip() == sealed.public(backup_copies.key())
    said = states.keyed()
    assert (said["result"], said["changes"]) == (True, {})


def test_a_master_with_another_key_is_left_alone(states, master):
    states.keyed()
    before = (master.backups / "recipient").read_text()
    backup_copies.key().unlink()
    said = states.keyed()
    assert said["result"] is False
    assert "from the machine that made it" in said["comment"]
    assert before.strip() in said["comment"]
    assert (master.backups / "recipient").read_text() == before
    assert states.keyed(replace=True)["result"] is True
    assert (master.backups / "recipient").read_text() != before


def test_a_plan_before_there_is_a_master(states, master):
    master.there = False
    assert states.keyed()["result"] is False
    states.opts["test"] = True
    assert states.keyed()["result"] is None
    assert states.fetched()["changes"] == {}


def test_copies_are_here_and_in_the_bucket_as_they_were_made(states, master, platform):  # noqa: F811
    states.keyed()
    record = master.make(1_800_000_000)
    said = states.fetched()
    assert said["result"] is True, said["comment"]
    copy = backup_copies.folder() / record["file"]
    assert archive.sha256(copy) == record["sha256"]
    assert copy.stat().st_mode & 0o777 == 0o600
    assert backup_copies.stored(platform) == {record["file"]: record["bytes"]}
    key = f"backup/{record['file']}"
    body = aws.call(platform, "s3", "get_object", Bucket=aws.bucket(platform), Key=key)["Body"]
    assert body.read() == copy.read_bytes()
    assert SECRET.encode() not in copy.read_bytes()
    again = states.fetched()
    assert (again["result"], again["changes"]) == (True, {})


def test_the_newest_are_kept_in_both(states, master, platform):  # noqa: F811
    states.keyed()
    aws.call(
        platform, "s3", "put_object", Bucket=aws.bucket(platform), Key="backup/f1-notes", Body=b"x"
    )
    made = []
    for at in range(1_800_000_000, 1_800_000_400, 100):
        made.append(master.make(at)["file"])
        assert states.fetched(keep=2)["result"] is True
    assert here() == {"key", *made[2:]}
    assert set(backup_copies.stored(platform)) == set(made[2:])
    listed = aws.call(platform, "s3", "list_objects_v2", Bucket=aws.bucket(platform))["Contents"]
    assert "backup/f1-notes" in {item["Key"] for item in listed}


@pytest.mark.parametrize(
    ("record", "words"),
    [
        ({}, "the master has no good backup: none yet"),
        ({"ok": False, "error": "no Redis"}, "the master has no good backup: no Redis"),
        ({"ok": True, "file": "../../etc/shadow"}, "a name that is none"),
        ({"ok": True, "file": "f1-20270115T080000Z.f1backup;id"}, "a name that is none"),
    ],
)
def test_no_backup_is_none(record, words, states, master):
    states.keyed()
    if record:
        (master.backups / "last.json").write_text(json.dumps(record))
    said = states.fetched()
    assert said["result"] is False
    assert words in said["comment"]
    assert here() == {"key"}


def test_what_does_not_arrive_whole_is_not_kept(states, master, platform, monkeypatch):  # noqa: F811
    states.keyed()
    record = master.make(1_800_000_000)
    path = master.backups / record["file"]
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    assert "run it again" in states.fetched()["comment"]
    assert here() == {"key"}
    path.write_bytes(whole)
    monkeypatch.setattr(backup_copies, "_load", lambda *_: b"other")
    assert "reads otherwise than it was written" in states.fetched()["comment"]


def test_the_newest_is_handed_over_opened(states, master, platform):  # noqa: F811
    states.keyed()
    for at in (1_800_000_000, 1_800_000_500):
        master.make(at)
        states.fetched()
    said = states.handed_over()
    assert said["result"] is True, said["comment"]
    incoming = master.folder / "var/lib/f1/restore/incoming.tar"
    manifest = archive.read(incoming, "f1", ["/etc/rancher"])
    assert manifest["at"] == 1_800_000_500
    assert incoming.stat().st_mode & 0o777 == 0o600
    assert incoming.parent.stat().st_mode & 0o777 == 0o700
    # It is open there only, and no command line ever held a part of it.
    assert {path.suffix for path in backup_copies.folder().iterdir()} == {"", ".f1backup"}
    assert not any(SECRET in line for line in master.lines)


def test_one_that_is_only_in_the_bucket_by_name_or_by_file(states, master, platform, tmp_path):  # noqa: F811
    states.keyed()
    names = []
    for at in (1_800_000_000, 1_800_000_500):
        names.append(master.make(at)["file"])
        states.fetched()
    for name in names:
        (backup_copies.folder() / name).rename(tmp_path / name)
    assert states.handed_over()["changes"].keys() == {names[1]}
    assert states.handed_over(names[0])["changes"].keys() == {names[0]}
    assert states.handed_over(str(tmp_path / names[0]))["changes"].keys() == {names[0]}
    assert here() == {"key", *names}


def test_none_at_all_and_none_of_that_name(states, master):
    states.keyed()
    assert "there is no backup at all" in states.handed_over()["comment"]
    name = master.make(1_800_000_000)["file"]
    states.fetched()
    assert f"no backup nothing, in {backup_copies.folder()}" in (
        said := states.handed_over("nothing")["comment"]
    )
    assert f"known: {name}" in said


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        ("another key", "sealed for another key"),
        ("no key", "the only key that opens the backups"),
        ("truncated", "truncated"),
        ("changed", "the sealed file was changed"),
        ("platform", "is of the platform 'f2', not of 'f1'"),
        ("schema", "schema 9, this tree knows 1"),
        ("elsewhere", "holds files/etc/rancher/token, which belongs to none of /opt"),
        ("on its way", "checksum did NOT match"),
    ],
)
def test_what_is_refused_does_not_reach_the_master(spoil, words, states, master, monkeypatch):
    states.keyed()
    facts: dict[str, Any] = {"platform": {"name": "f2"}, "schema": {"schema": 9}}.get(spoil, {})
    record = master.make(1_800_000_000, **facts)
    states.fetched()
    copy = backup_copies.folder() / record["file"]
    data = bytearray(copy.read_bytes())
    if spoil == "another key":
        backup_copies.key().unlink()
        sealed.make_key(backup_copies.key())
    elif spoil == "no key":
        backup_copies.key().unlink()
    elif spoil == "truncated":
        copy.write_bytes(data[:-20])
    elif spoil == "changed":
        data[100] ^= 1
        copy.write_bytes(data)
    elif spoil == "on its way":
        master.spoil = lambda stdin: stdin[:-1]
    roots = ["/opt"] if spoil == "elsewhere" else ["/etc/rancher"]
    said = states.call("handed_over", roots=roots)
    assert said["result"] is False
    assert words in said["comment"]
    assert not (master.folder / "var/lib/f1/restore/incoming.tar").exists()
    assert not list(backup_copies.folder().glob(".open-*"))


def test_the_list_of_copies(states, master, platform, monkeypatch):  # noqa: F811
    states.keyed()
    names = []
    for at in (1_800_000_000, 1_800_000_500):
        names.append(master.make(at)["file"])
        states.fetched()
    (backup_copies.folder() / names[0]).unlink()
    monkeypatch.setattr(knobs, "load", lambda opts: {"platform": platform})
    runner = load_ext("runners/backup.py")
    runner.__dict__["__opts__"] = {}
    found = runner.copies()
    assert list(found) == names[::-1]
    assert found[names[0]]["here"] is None
    assert found[names[0]]["bucket"] == found[names[1]]["here"]
