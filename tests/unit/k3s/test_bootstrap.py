"""What a server keeps in its datastore: enough, with the token, to come back from nothing."""

import json
import os
import sqlite3
from contextlib import closing

import pytest

from lab.k3s import bootstrap
from lab.k3s.config import ConfigError


@pytest.fixture
def server(tmp_path):
    """A server's folder with a datastore that holds something else as well."""
    folder = tmp_path / "server"
    (folder / "db").mkdir(parents=True)
    with closing(sqlite3.connect(folder / "db/state.db")) as connection, connection:
        connection.execute("CREATE TABLE kine (name TEXT)")
    for name in bootstrap.FILES:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(f"secret of {name}\n")
    return folder


def db(server):
    return server / "db/state.db"


def test_all_comes_back_as_it_was_private(server, tmp_path):
    bootstrap.save(db(server), "token", server)
    other = tmp_path / "other"
    data = bootstrap.load(db(server), "token")
    assert bootstrap.restore(other, data) == list(bootstrap.FILES)
    for name in bootstrap.FILES:
        assert (other / name).read_bytes() == (server / name).read_bytes()
        assert (other / name).stat().st_mode & 0o777 == 0o600
    assert bootstrap.restore(other, data) == []


def test_nothing_is_kept_in_clear(server):
    bootstrap.save(db(server), "token", server)
    raw = b"".join(path.read_bytes() for path in (server / "db").iterdir())
    assert b"secret of" not in raw
    assert b"token" not in raw.replace(b"k3s_bootstrap", b"")


def test_another_token_is_refused_in_k3s_words(server):
    bootstrap.save(db(server), "token", server)
    for secret in ("", "tokem"):
        with pytest.raises(ConfigError, match="already found and encrypted with different token"):
            bootstrap.load(db(server), secret)
    with pytest.raises(ConfigError, match="different token"):
        bootstrap.save(db(server), "tokem", server)


def test_damage_is_noticed(server):
    bootstrap.save(db(server), "token", server)
    with closing(sqlite3.connect(db(server))) as connection, connection:
        ((value,),) = connection.execute("SELECT value FROM k3s_bootstrap")
        value = value[:-1] + bytes([value[-1] ^ 1])
        connection.execute("UPDATE k3s_bootstrap SET value = ?", (value,))
    with pytest.raises(ConfigError, match="or damaged"):
        bootstrap.load(db(server), "token")


def test_no_datastore_or_an_empty_one_keeps_nothing(server, tmp_path):
    assert bootstrap.load(tmp_path / "none", "token") is None
    assert not (tmp_path / "none").exists()
    assert bootstrap.load(db(server), "token") is None


def test_file_that_is_no_datastore_is_named(server):
    db(server).write_text("no database")
    with pytest.raises(ConfigError, match=r"the datastore .*state\.db: file is not a database"):
        bootstrap.load(db(server), "token")


def test_saved_only_when_it_changed(server):
    bootstrap.save(db(server), "token", server)
    before = rows(server)
    bootstrap.save(db(server), "token", server)
    assert rows(server) == before  # a salt of its own each time, had it been written
    (server / "tls/ca.key").write_text("another\n")
    bootstrap.save(db(server), "token", server)
    assert rows(server) != before
    assert bootstrap.load(db(server), "token")["tls/ca.key"]["content"] == "another\n"


def rows(server):
    with closing(sqlite3.connect(db(server))) as connection:
        return connection.execute("SELECT name, value FROM k3s_bootstrap").fetchall()


def test_newer_file_on_disk_is_refused_and_older_replaced(server):
    bootstrap.save(db(server), "token", server)
    data = bootstrap.load(db(server), "token")
    path = server / "tls/ca.crt"
    path.write_text("of another cluster\n")
    stamp = data["tls/ca.crt"]["timestamp"]
    os.utime(path, (stamp + 60, stamp + 60))
    (server / "tls/sa.key").unlink()
    with pytest.raises(ConfigError, match=r"tls/ca\.crt newer than datastore") as caught:
        bootstrap.restore(server, data)
    assert "secret" not in str(caught.value)
    assert not (server / "tls/sa.key").exists()
    os.utime(path, (stamp - 60, stamp - 60))
    assert sorted(bootstrap.restore(server, data)) == ["tls/ca.crt", "tls/sa.key"]
    assert path.read_text() == "secret of tls/ca.crt\n"


def test_rotation_takes_the_old_token_its_power(server):
    bootstrap.save(db(server), "old", server)
    kept = bootstrap.load(db(server), "old")
    bootstrap.rotate(db(server), "old", "new")
    assert json.dumps(bootstrap.load(db(server), "new")) == json.dumps(kept)
    with pytest.raises(ConfigError, match="different token"):
        bootstrap.load(db(server), "old")


def test_nothing_to_rotate_is_an_error(server):
    with pytest.raises(ConfigError, match="keeps no bootstrap data"):
        bootstrap.rotate(db(server), "old", "new")
