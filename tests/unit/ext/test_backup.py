"""Backup and restore on K3s's server: real SQLite and Redis, a fake cluster around them."""

import json
import shutil
import sqlite3
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import archive
import jobs
import pytest
import redis_copy
import sealed
import server_backup
import server_restore

from tests.app.servers import Redis
from tests.conftest import load_ext

from .builders import Minions, node

K3S = "v1.36.4+k3s1"
FLEET = ["f1-master", "f1-worker-1", "f1-worker-2"]
SECRET = "K10topsecret"


def thing(kind: str, name: str, uid: str, space: str = "f1") -> dict[str, Any]:
    return {"kind": kind, "metadata": {"name": name, "namespace": space, "uid": uid}}


class Server:
    """K3s's server as far as a backup sees it, below a folder in place of the root."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self.monkeypatch = folder, monkeypatch
        self.k3s, self.etc = folder / "var/lib/rancher/k3s", folder / "etc/rancher"
        self.volume = self.k3s / "storage/pvc-1_f1_data-redis-0"
        self.backups = folder / "var/lib/f1/backup"
        places: dict[Any, dict[str, Any]] = {
            server_backup: {
                "K3S": self.k3s,
                "ETC": self.etc,
                "FOLDER": self.backups,
                "METRICS": folder / "metrics/backup.prom",
            },
            server_restore: {
                "FOLDER": folder / "var/lib/f1/restore",
                "KEPT": (
                    self.k3s / "server",
                    self.k3s / "storage",
                    self.etc / "node",
                    self.etc / "k3s/agent-token",
                ),
                "PAUSE": 0.01,
            },
        }
        for module, names in places.items():
            for name, value in names.items():
                monkeypatch.setattr(module, name, value)
        self.redis: Redis | None = None
        self.objects: dict[str, dict[str, Any]] = {}
        self.calls: list[tuple[str, ...]] = []
        self.broken: dict[str, str] = {}
        self.install("one", uid="uid-1")
        self.key = folder / "operator/key"
        sealed.make_key(self.key)
        self.backups.mkdir(parents=True)
        (self.backups / "recipient").write_text(sealed.public(self.key) + "\n")

    def install(self, cluster: str, uid: str) -> None:
        """Be a fresh K3s with its own authorities, secrets and datastore, and an empty Redis."""
        server = self.k3s / "server"
        for path, text in {
            server / "token": f"{SECRET}::server:{cluster}",
            server / "agent-token": f"{SECRET}::node:{cluster}",
            server / "tls/server-ca.key": f"{SECRET} key of {cluster}",
            server / "cred/encryption-config.json": f"{SECRET} aes of {cluster}",
            server / "manifests/coredns.yaml": "K3s makes it anew",
            self.etc / "k3s/agent-token": f"{SECRET} {cluster}",
            self.etc / "node/password": f"{SECRET} node of {cluster}",
            self.etc / "k3s/config.yaml": "written by Salt",
        }.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
            path.chmod(0o600)
        (server / "node-token").symlink_to("token")
        (server / "db").mkdir()
        self.write(f"/registry/namespaces/f1-{cluster}")
        self.write("/registry/secrets/f1/vote-secrets", b"k8s:enc:aescbc:v1:" + cluster.encode())
        self.volume.mkdir(parents=True)
        self.volume.chmod(0o777)
        self.start_redis()
        self.have(
            thing("Namespace", "f1", uid, ""),
            thing("Deployment", "vote", uid),
            thing("Secret", "f1-worker-1.node-password.k3s", uid, "kube-system"),
            *({**node(name, K3S), "uid": uid} for name in FLEET),
        )

    def write(self, name: str, value: bytes = b"x") -> None:
        path = self.k3s / "server/db/state.db"
        connection = sqlite3.connect(path)
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute(
            "CREATE TABLE IF NOT EXISTS kine (id INTEGER PRIMARY KEY AUTOINCREMENT, "
            "name TEXT, deleted INTEGER, value BLOB)"
        )
        connection.execute(
            "INSERT INTO kine (name, deleted, value) VALUES (?, 0, ?)", (name, value)
        )
        connection.commit()
        connection.close()

    def names(self) -> set[str]:
        connection = sqlite3.connect(self.k3s / "server/db/state.db")
        found = {row[0] for row in connection.execute("SELECT name FROM kine")}
        connection.close()
        return found

    def have(self, *objects: dict[str, Any]) -> None:
        self.objects = {f"{o['kind']}/{o['metadata']['name']}": o for o in objects}

    def start_redis(self) -> None:
        self.redis = Redis(self.volume)
        address = f"{self.volume}/redis.sock"
        self.monkeypatch.setattr(server_backup, "redis_address", lambda functions: address)

    def stop_redis(self) -> None:
        if self.redis:
            self.redis.kill()
        self.redis = None

    def vote(self, voter: str, code: str) -> None:
        assert self.redis
        self.redis.client.hset("poll:2026:votes:7K2", voter, code)
        self.redis.client.hincrby("poll:2026:tally", code, 1)

    def votes(self) -> dict[str, str]:
        assert self.redis
        found: Any = self.redis.client.hgetall("poll:2026:votes:7K2")
        return dict(found)

    def kubectl(self, *words: str, **_: Any) -> str:
        self.calls.append(words)
        if words[0] in self.broken:
            raise server_backup.BackupError(self.broken[words[0]])
        if words[:2] == ("get", "nodes"):
            found = [o for o in self.objects.values() if o["kind"] == "Node"]
        elif words[:2] == ("get", server_backup.KINDS):
            found = [o for o in self.objects.values() if o["kind"] != "Node"]
        elif words[:2] == ("get", "persistentvolumeclaim"):
            return json.dumps({"kind": "PersistentVolumeClaim", "spec": {"volumeName": "pvc-1"}})
        elif words[:2] == ("get", "persistentvolume"):
            spec = {"hostPath": {"path": str(self.volume)}}
            return json.dumps({"kind": "PersistentVolume", "spec": spec})
        elif words[0] == "delete":
            self.objects.pop(f"Node/{words[2]}", None)
            return ""
        else:
            raise AssertionError(words)
        return json.dumps({"items": found})

    def functions(self) -> dict[str, Callable[..., Any]]:
        modules = [load_ext("modules/kubectl.py"), load_ext("modules/kube_health.py")]
        found: dict[str, Callable[..., Any]] = {
            "kubectl.items": modules[0].items,
            "kubectl.title": modules[0].title,
            "kubectl.run": self.kubectl,
            "kube_health.nodes": modules[1].nodes,
            "kube_health.node_remove": modules[1].node_remove,
            "k3s.unit": lambda name: {"ActiveState": "active" if self.redis else "inactive"},
            "k3s.stop": lambda name: self.calls.append(("stop", name)),
        }
        modules[1].__dict__["__salt__"] = found
        return found

    def make(self, keep: int = 14, paths: list[str] | None = None) -> dict[str, Any]:
        return server_backup.make(self.functions(), "f1", "f1-master", keep, paths or [])

    def opened(self, record: dict[str, Any]) -> Path:
        """Open a backup as the operator does."""
        target = self.folder / "opened.tar"
        with (self.backups / record["file"]).open("rb") as source, target.open("wb") as out:
            sealed.open_sealed(source, out, self.key)
        return target


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    # Not pytest's folder: the name of Redis's socket must stay below 108 characters.
    with tempfile.TemporaryDirectory(prefix="f1-") as folder:
        made = Server(Path(folder), monkeypatch)
        yield made
        made.stop_redis()


def test_a_backup_holds_everything_and_shows_nothing(server: Server) -> None:
    server.vote("a", "VER")
    record = server.make()
    path = server.backups / record["file"]
    assert record["ok"]
    assert (record["bytes"], record["sha256"]) == (path.stat().st_size, archive.sha256(path))
    polls = {"2026": {"voters": 1, "tally": {"VER": 1}}}
    assert record["counts"] == {"objects": 2, "keys": 2, "polls": polls}
    assert server_backup.last_record() == record
    # Neither the record nor the sealed file tells a secret, and nothing else is left.
    assert SECRET not in json.dumps(record)
    assert SECRET.encode() not in path.read_bytes()
    assert {each.name for each in server.backups.iterdir()} == {
        "recipient", "last.json", record["file"],
    }  # fmt: skip
    assert path.stat().st_mode & 0o777 == 0o600
    assert server.backups.stat().st_mode & 0o777 == 0o700

    manifest = archive.read(server.opened(record), "f1", server_backup.roots([]))
    under = f"files{server.k3s}"
    assert set(manifest["members"]) == {
        f"{under}/server/db/state.db",
        f"{under}/server/token",
        f"{under}/server/agent-token",
        f"{under}/server/tls/server-ca.key",
        f"{under}/server/cred/encryption-config.json",
        f"files{server.etc}/k3s/agent-token",
        f"files{server.etc}/node/password",
        f"files{server.volume}/appendonlydir/{redis_copy.BASE}",
        f"files{server.volume}/appendonlydir/{redis_copy.MANIFEST}",
    }
    assert manifest["objects"] == {"Namespace f1": "uid-1", "Deployment f1/vote": "uid-1"}
    assert manifest["k3s"] == K3S


def test_the_datastore_is_of_one_moment_while_it_is_written(server: Server) -> None:
    stop = threading.Event()
    path = server.k3s / "server/db/state.db"

    def writer() -> None:
        connection = sqlite3.connect(path, timeout=30)
        number = 0
        while not stop.is_set():
            with connection:  # two rows, or none
                for half in "ab":
                    row = (f"/pair/{number}/{half}", b"y" * 2000)
                    connection.execute(
                        "INSERT INTO kine (name, deleted, value) VALUES (?, 0, ?)", row
                    )
            number += 1
        connection.close()

    thread = threading.Thread(target=writer)
    thread.start()
    try:
        for number in range(10):
            target = server.folder / f"copy-{number}.db"
            server_backup._datastore(path, target, path)
            copy = sqlite3.connect(target)
            pairs = copy.execute("SELECT count(*) FROM kine WHERE name LIKE '/pair/%'").fetchone()
            copy.close()
            assert pairs[0] % 2 == 0
            assert not target.with_name(f"{target.name}-wal").exists()
    finally:
        stop.set()
        thread.join()


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda s: (s.backups / "recipient").unlink(), "there is no public key in .*make backup"),
        (lambda s: (s.backups / "recipient").write_text("x"), "'x' is no public key"),
        (lambda s: (s.k3s / "server/token").unlink(), "server/token does not exist"),
        (lambda s: shutil.rmtree(s.k3s / "server/db"), "state.db does not exist"),
        (
            lambda s: (s.k3s / "server/cred/encryption-config.json").unlink(),
            "1 Secrets are encrypted, and .*encryption-config.json is not there",
        ),
        (lambda s: s.broken.update(get="no answer in 60 s"), "no answer in 60 s"),
        (lambda s: s.redis.kill(), "Redis at .* does not answer"),
        (lambda s: s.redis.client.hincrby("poll:2026:tally", "VER", 5), "tally is"),
        (
            lambda s: (s.k3s / "server/db/state.db").write_bytes(b"no database" * 1000),
            "file is not a database",
        ),
    ],
)
def test_what_is_not_whole_is_no_backup(
    spoil: Callable[[Server], Any], words: str, server: Server
) -> None:
    good = server.make()
    spoil(server)
    with pytest.raises(server_backup.BackupError, match=words):
        server.make()
    record = server_backup.last_record()
    assert record
    assert record["ok"] is False
    assert record["good"] == {"at": good["at"], "bytes": good["bytes"]}
    # What was good before is still there, and no half of another.
    assert [path.name for path in server.backups.glob("*f1backup*")] == [good["file"]]
    assert not list(server.backups.glob(".*"))
    metrics = (server.folder / "metrics/backup.prom").read_text()
    assert "f1_backup_ok 0\n" in metrics
    assert f"f1_backup_last_success_timestamp_seconds {good['at']:.0f}\n" in metrics
    assert SECRET not in metrics + json.dumps(record)


def test_a_sealed_file_is_read_back(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    seal = sealed.seal

    def rotten(source: Any, target: Any, recipient: str) -> None:
        seal(source, target, recipient)
        target.file.seek(100)
        target.file.write(b"\0" * 8)

    monkeypatch.setattr(sealed, "seal", rotten)
    with pytest.raises(server_backup.BackupError, match="is the disk sound"):
        server.make()
    assert not list(server.backups.glob("*.f1backup"))


def test_metrics_of_a_good_one(server: Server) -> None:
    record = server.make()
    path = server.folder / "metrics/backup.prom"
    assert path.stat().st_mode & 0o777 == 0o644
    assert "f1_backup_ok 1\n" in path.read_text()
    assert f"f1_backup_size_bytes {record['bytes']}\n" in path.read_text()


def test_the_newest_are_kept(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    at = iter(range(1_800_000_000, 1_900_000_000, 60))
    monkeypatch.setattr(server_backup.time, "time", lambda: next(at))
    made = [server.make(keep=2)["file"] for _ in range(4)]
    assert sorted(path.name for path in server.backups.glob("*.f1backup")) == made[2:]


def test_further_paths_and_a_cluster_without_the_app(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    grafana = server.folder / "grafana"
    grafana.mkdir()
    (grafana / "grafana.db").write_text("dashboards")
    monkeypatch.setattr(server_backup, "redis_address", lambda functions: None)
    paths = [str(grafana), str(server.folder / "none")]
    record = server.make(paths=paths)
    assert record["counts"] == {"objects": 2, "keys": 0, "polls": {}}
    manifest = archive.read(server.opened(record), "f1", server_backup.roots(paths))
    assert f"files{grafana}/grafana.db" in manifest["members"]


def test_objects_that_came_or_went_meanwhile_are_not_promised(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    copied = server_backup._datastore

    def meanwhile(*arguments: Any) -> None:
        copied(*arguments)
        server.objects["Deployment/new"] = thing("Deployment", "new", "uid-9")
        server.objects["Deployment/vote"] = thing("Deployment", "vote", "uid-again")

    monkeypatch.setattr(server_backup, "_datastore", meanwhile)
    manifest = archive.read(server.opened(server.make()), "f1", server_backup.roots([]))
    assert manifest["objects"] == {"Namespace f1": "uid-1"}


class Restore:
    """The state, over minions that take K3s down and start it as the SLS files would."""

    def __init__(self, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
        self.server = server
        self.minions = Minions()
        self.minions.act = self.act
        self.stages: list[str] = []
        self.fail_at = ""
        self.module = load_ext("states/backup.py")
        functions = server.functions()
        functions["saltutil.cmd"] = self.minions.cmd
        self.opts = {"test": False}
        self.module.__dict__.update(
            __salt__=functions,
            __opts__=self.opts,
            __utils__={
                "events.begin": lambda stage, text: self.stages.append(stage),
                "events.end": lambda stage, text: None,
            },
        )
        monkeypatch.setattr(jobs, "states", self.minions.states)
        self.backed: list[dict[str, Any]] = []

    def act(self, minion: str, sls: str | None) -> dict[str, str]:
        server = self.server
        if f"{minion} {sls}" == self.fail_at:
            return {"a state": "it broke"}
        if minion != FLEET[0]:
            return {}
        if sls == "k3s.absent":
            server.stop_redis()
            for path in (server.k3s, server.etc / "k3s", server.etc / "node"):
                shutil.rmtree(path, ignore_errors=True)
        elif sls == "k3s.server":
            server.start_redis()
            # The API serves what the datastore holds.
            assert "/registry/namespaces/f1-one" in server.names()
            server.have(*self.backed)
        return {}

    def hand_over(self, record: dict[str, Any]) -> Path:
        target = server_restore.incoming()
        target.parent.mkdir(parents=True, exist_ok=True)
        self.server.opened(record).rename(target)
        return target

    def run(self, **more: Any) -> dict[str, Any]:
        arguments: dict[str, Any] = {
            "platform": "f1", "master": FLEET[0], "workers": FLEET[1:], "k3s": K3S, "paths": [],
            "deadline": 0.3, **more,
        }  # fmt: skip
        said = dict(self.module.restored("x", **arguments))
        assert SECRET not in json.dumps(said)
        return said

    def lose_everything(self) -> None:
        """Be another machine, with a new cluster in which somebody has voted already."""
        server = self.server
        self.backed = list(server.objects.values())
        server.stop_redis()
        for path in (server.k3s, server.etc):
            shutil.rmtree(path)
        server.install("two", uid="uid-2")
        server.vote("too-early", "HAM")


@pytest.fixture
def restore(server: Server, monkeypatch: pytest.MonkeyPatch) -> Restore:
    return Restore(server, monkeypatch)


@pytest.fixture
def lost(restore: Restore, server: Server) -> dict[str, Any]:
    """Return the record of a backup that was handed over to a fresh machine."""
    for voter, code in {"a": "VER", "b": "HAM", "c": "VER"}.items():
        server.vote(voter, code)
    record = server.make()
    restore.lose_everything()
    restore.hand_over(record)
    return record


VOTES = {"a": "VER", "b": "HAM", "c": "VER"}


def came_back(server: Server) -> None:
    assert server.votes() == VOTES
    token = (server.k3s / "server/token").read_text()
    assert token == f"{SECRET}::server:one"
    assert (server.k3s / "server/cred/encryption-config.json").read_text().endswith("aes of one")
    assert (server.etc / "node/password").read_text().endswith("node of one")
    assert (server.k3s / "server/node-token").read_text() == token
    assert server.volume.stat().st_mode & 0o777 == 0o777
    assert "/registry/namespaces/f1-two" not in server.names()


def test_everything_comes_back(restore: Restore, server: Server, lost: Any) -> None:
    said = restore.run()
    assert said["result"] is True, said["comment"]
    assert "1 voters in 2026 ({'HAM': 1})" in said["changes"]["votes"]["old"]
    assert "3 voters in 2026 ({'HAM': 1, 'VER': 2})" in said["changes"]["votes"]["new"]
    came_back(server)
    assert restore.minions.applied == [
        ("f1-worker-1", "k3s.absent"),
        ("f1-worker-2", "k3s.absent"),
        ("f1-master", "k3s.absent"),
        ("f1-master", "k3s.server"),
    ]
    # The workers' nodes of before are gone, with what is said to run there.
    assert [o["metadata"]["name"] for o in server.objects.values() if o["kind"] == "Node"] == [
        "f1-master"
    ]
    gone = [words for words in server.calls if words[:2] == ("delete", "pods")]
    assert [words[4] for words in gone] == [f"spec.nodeName={worker}" for worker in FLEET[1:]]
    # What was there before is kept until the platform is up.
    before = server_restore.FOLDER / "before"
    kept = before / str(server.k3s)[1:] / "server/token"
    assert kept.read_text() == f"{SECRET}::server:two"
    assert restore.module.ended("x")["changes"]
    assert not server_restore.FOLDER.exists()
    assert restore.module.ended("x")["changes"] == {}


POINTS = ["f1-worker-2 k3s.absent", "f1-master k3s.absent", "f1-master k3s.server"]


@pytest.mark.parametrize("point", POINTS)
def test_one_that_fails_goes_on(point: str, restore: Restore, server: Server, lost: Any) -> None:
    restore.fail_at = point
    said = restore.run()
    assert said["result"] is False
    assert f"{point.split()[0]}: a state: it broke\nRun it again" in said["comment"]
    settled = restore.module.settled("x")
    assert (settled["result"], "make restore" in settled["comment"]) == (False, True)
    restore.fail_at = ""
    said = restore.run()
    assert said["result"] is True, said["comment"]
    came_back(server)
    # The first ones, not those of the restore's own first half.
    assert "too-early" not in server.votes()
    assert "1 voters in 2026" in said["changes"]["votes"]["old"]
    kept = server_restore.FOLDER / "before" / str(server.k3s)[1:] / "server/token"
    assert kept.read_text().endswith("two")
    restore.module.ended("x")
    assert restore.module.settled("x")["result"] is True


@pytest.mark.parametrize("target", ["keep_aside", "note", "_moved", "unpack", "wait_same"])
def test_one_that_is_killed_goes_on(
    target: str, restore: Restore, server: Server, lost: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = archive if target == "unpack" else server_restore
    whole = getattr(module, target)
    calls: list[Any] = []

    def killed(*arguments: Any, **more: Any) -> Any:
        calls.append(arguments)
        if target in ("note", "_moved", "unpack") and len(calls) == 1:
            whole(*arguments, **more)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(module, target, killed)
        with pytest.raises(KeyboardInterrupt):
            restore.run()
    said = restore.run()
    assert said["result"] is True, said["comment"]
    came_back(server)


def test_once_compared_nothing_is_undone(restore: Restore, server: Server, lost: Any) -> None:
    """The highstate after it may fail and be repeated, and people have voted meanwhile."""
    assert restore.run()["result"] is True
    server.vote("d", "LEC")
    applied = len(restore.minions.applied)
    said = restore.run()
    assert (said["result"], said["changes"]) == (True, {})
    assert len(restore.minions.applied) == applied
    assert server.votes() == {**VOTES, "d": "LEC"}


def test_another_backup_begins_anew(restore: Restore, server: Server, lost: Any) -> None:
    assert restore.run()["result"] is True
    server.vote("d", "LEC")
    second = server.make()
    restore.hand_over(second)
    said = restore.run()
    assert said["result"] is True, said["comment"]
    assert server.votes() == {**VOTES, "d": "LEC"}
    assert "4 voters" in said["changes"]["votes"]["old"]
    kept = server_restore.FOLDER / "before" / str(server.k3s)[1:] / "server/token"
    assert kept.read_text().endswith("one")


def test_votes_that_differ_are_told(
    restore: Restore, server: Server, lost: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = server.start_redis

    def swapped() -> None:
        start()
        assert server.redis
        server.redis.client.hset("poll:2026:votes:7K2", mapping={"a": "HAM", "b": "VER"})

    monkeypatch.setattr(server, "start_redis", swapped)
    said = restore.run()
    assert said["result"] is False
    assert "not as in the backup:\nRedis holds 2 keys, 3 voters" in said["comment"]


def test_objects_that_differ_are_told(restore: Restore, server: Server, lost: Any) -> None:
    restore.backed = [thing("Namespace", "f1", "uid-7", "")]
    said = restore.run()
    assert said["result"] is False
    assert "\nDeployment f1/vote: missing\nNamespace f1: another UID\n" in said["comment"]


def test_a_server_that_does_not_answer_is_waited_for(
    restore: Restore, server: Server, lost: Any
) -> None:
    start = server.start_redis
    server.start_redis = lambda: None  # type: ignore[method-assign]
    said = restore.run()
    assert said["result"] is False
    assert "waited 0.3 s for the restored server and its Redis; last seen: Redis" in said["comment"]
    server.start_redis = start  # type: ignore[method-assign]
    assert restore.run()["result"] is True
    came_back(server)


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"platform": "f2"}, "is of the platform 'f1', not of 'f2'"),
        ({"k3s": "v1.35.9+k3s1"}, "made by K3s v1.36.4.k3s1, newer than the lock's v1.35.9"),
        ({"k3s": "v1.38.0+k3s1"}, "more than one minor version newer"),
    ],
)
def test_a_backup_that_does_not_fit_is_refused(
    more: dict[str, Any], words: str, restore: Restore, server: Server, lost: Any
) -> None:
    said = restore.run(**more)
    assert said["result"] is False
    assert words.replace(".k3s1", "+k3s1") in said["comment"]
    untouched(restore, server)


def untouched(restore: Restore, server: Server) -> None:
    assert restore.minions.applied == []
    assert server.votes() == {"too-early": "HAM"}
    assert (server.k3s / "server/token").read_text().endswith("two")
    assert not (server_restore.FOLDER / "before").exists()


def test_a_damaged_one_a_silent_machine_and_none_at_all(
    restore: Restore, server: Server, lost: Any
) -> None:
    restore.minions.silent = {"f1-worker-2"}
    assert "nothing was touched: f1-worker-2 did not answer" in restore.run()["comment"]
    restore.minions.silent = set()
    incoming = server_restore.incoming()
    incoming.write_bytes(incoming.read_bytes().replace(b"::server:one", b"::server:bad"))
    assert "server/token was changed" in restore.run()["comment"]
    incoming.unlink()
    said = restore.run()
    assert said["result"] is False
    assert "`make restore`" in said["comment"]
    untouched(restore, server)


def test_a_plan_touches_nothing(restore: Restore, server: Server, lost: Any) -> None:
    restore.opts["test"] = True
    said = restore.run()
    assert said["result"] is None
    assert "3 voters" in said["changes"]["votes"]["new"]
    untouched(restore, server)
    assert restore.module.made("x", "f1", FLEET[0], 14, [])["changes"] == {}


def test_a_backup_as_a_state(restore: Restore, server: Server) -> None:
    server.vote("a", "VER")
    said = restore.module.made("x", "f1", FLEET[0], 14, [])
    assert said["result"] is True
    assert SECRET not in json.dumps(said)
    (made,) = said["changes"]
    assert (server.backups / made).exists()
    (server.backups / "recipient").unlink()
    said = restore.module.made("x", "f1", FLEET[0], 14, [])
    assert (said["result"], said["changes"]) == (False, {})
    assert "no backup was made: there is no public key" in said["comment"]
