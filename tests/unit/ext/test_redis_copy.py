"""Copies of a real Redis, from which a real Redis starts."""

import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis_copy

from tests.app.servers import Redis

# A vote as the app keeps it: what is held, and the tally of it, in one step.
VOTE = """\
local held = redis.call('HGET', KEYS[1], ARGV[1])
if held then redis.call('HINCRBY', KEYS[2], held, -1) end
if ARGV[2] == '' then return redis.call('HDEL', KEYS[1], ARGV[1]) end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
redis.call('HINCRBY', KEYS[2], ARGV[2], 1)
"""
CODES = ["VER", "HAM", "LEC"]


class Room:
    """Redis servers in folders of their own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.servers: list[Redis] = []

    def server(self, name: str) -> Redis:
        (self.folder / name).mkdir(exist_ok=True)
        self.servers.append(Redis(self.folder / name))
        return self.servers[-1]


def socket(server: Redis) -> str:
    return f"{server.folder}/redis.sock"


@pytest.fixture
def room(tmp_path: Path) -> Iterator[Room]:
    made = Room(tmp_path)
    yield made
    for server in made.servers:
        if server.process.poll() is None:
            server.kill()


def vote(server: Redis, voter: str, code: str) -> None:
    server.client.eval(VOTE, 2, "poll:2026:votes:7K2", "poll:2026:tally", voter, code)


def started_from(room: Room, name: str, copied: Path) -> Redis:
    (room.folder / name).mkdir()
    copied.rename(room.folder / name / redis_copy.FOLDER)
    return room.server(name)


def test_every_vote_comes_back_and_the_log_goes_on(room: Room, tmp_path: Path) -> None:
    server = room.server("one")
    # More than what Redis keeps in a listpack.
    for number in range(700):
        vote(server, f"voter-{number}", CODES[number % 3])
    vote(server, "voter-0", "")
    server.client.set("binary", b"\r\n\0\xff$3\r\n")
    server.client.set("short-lived", "x", ex=3600)
    server.client.zadd("ranks", {"a": 1, "b": 2})
    with redis_copy.Client(socket(server)) as client:
        facts = redis_copy.copy(client, tmp_path / "copy")
        assert redis_copy.facts(client) == facts
    expires = server.client.pexpiretime("short-lived")
    assert facts["keys"] == 4
    tally = {"HAM": 233, "LEC": 233, "VER": 233}
    assert facts["polls"] == {"2026": {"voters": 699, "tally": tally, "counted": tally}}
    before = server.client.hgetall("poll:2026:votes:7K2")

    again = started_from(room, "two", tmp_path / "copy")
    assert again.client.hgetall("poll:2026:votes:7K2") == before
    assert again.client.pexpiretime("short-lived") == expires
    with redis_copy.Client(socket(again)) as client:
        assert redis_copy.facts(client) == facts
    # Votes after a restore are as safe as before: they outlive a kill.
    vote(again, "voter-new", "HAM")
    again.kill()
    again.start()
    assert again.client.hlen("poll:2026:votes:7K2") == 700
    assert again.client.hget("poll:2026:tally", "HAM") == "234"


def test_a_ranked_vote_counts_by_its_places_and_a_recount_under_way_for_nothing(
    room: Room,
) -> None:
    server = room.server("one").client
    server.hset("poll:gp:meta", mapping={"points": "3>2>1", "voters": 2})
    server.hset("poll:gp:votes:7K2", "A", "VER>HAM>LEC")
    server.hset("poll:gp:votes:7K3", "B", "HAM")
    tally = {"VER": 3, "HAM": 5, "LEC": 1}
    server.hset("poll:gp:tally", mapping=tally)
    with redis_copy.Client(socket(room.servers[0])) as client:
        facts = redis_copy.facts(client)
        assert facts["polls"] == {"gp": {"voters": 2, "tally": tally, "counted": tally}}
        server.hset("poll:gp:recount", mapping={"cursor": 3})
        assert redis_copy.facts(client) == facts


def test_a_copy_is_of_one_moment_while_votes_come(room: Room, tmp_path: Path) -> None:
    server = room.server("one")
    stop = threading.Event()

    def voters(first: int) -> None:
        number = first
        while not stop.is_set():
            vote(server, f"voter-{number % 500}", CODES[number % 3])
            number += 1

    threads = [threading.Thread(target=voters, args=(n,)) for n in (0, 250)]
    for thread in threads:
        thread.start()
    try:
        with redis_copy.Client(socket(server)) as client:
            # `copy` itself refuses a tally that is not that of its votes.
            made = [redis_copy.copy(client, tmp_path / f"copy-{n}") for n in range(20)]
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert len({facts["digest"] for facts in made}) > 1
    again = started_from(room, "two", tmp_path / "copy-10")
    with redis_copy.Client(socket(again)) as client:
        assert redis_copy.facts(client) == made[10]


def test_nothing_is_something_too(room: Room, tmp_path: Path) -> None:
    with redis_copy.Client(socket(room.server("one"))) as client:
        facts = redis_copy.copy(client, tmp_path / "copy")
    assert (facts["keys"], facts["polls"]) == (0, {})
    again = started_from(room, "two", tmp_path / "copy")
    assert again.client.dbsize() == 0
    vote(again, "voter", "HAM")
    again.kill()
    again.start()
    assert again.client.hlen("poll:2026:votes:7K2") == 1


@pytest.mark.parametrize("change", ["vote", "swap", "voter", "expiry", "key"])
def test_any_difference_changes_the_digest(change: str, room: Room) -> None:
    server = room.server("one")
    vote(server, "a", "VER")
    vote(server, "b", "HAM")
    with redis_copy.Client(socket(server)) as client:
        before = redis_copy.facts(client)
        if change == "vote":
            vote(server, "a", "LEC")
        elif change == "swap":  # the tally stays the same
            vote(server, "a", "HAM")
            vote(server, "b", "VER")
        elif change == "voter":
            vote(server, "b", "")
            vote(server, "c", "HAM")
        elif change == "expiry":
            server.client.expire("poll:2026:votes:7K2", 1000)
        else:
            server.client.set("new", "x")
        assert redis_copy.facts(client)["digest"] != before["digest"]


def test_a_tally_that_is_not_that_of_its_votes_is_not_copied(room: Room, tmp_path: Path) -> None:
    server = room.server("one")
    vote(server, "a", "VER")
    server.client.hincrby("poll:2026:tally", "VER", 1)
    with (
        redis_copy.Client(socket(server)) as client,
        pytest.raises(redis_copy.RedisError, match=r"tally is \{'VER': 2\}, its votes are"),
    ):
        redis_copy.copy(client, tmp_path / "copy")


def test_another_database_is_not_left_out_silently(room: Room, tmp_path: Path) -> None:
    server = room.server("one")
    server.client.execute_command("SELECT 3")
    subprocess.run(["redis-cli", "-s", socket(server), "-n", "3", "set", "a", "b"], check=True)
    with (
        redis_copy.Client(socket(server)) as client,
        pytest.raises(redis_copy.RedisError, match="data in db3"),
    ):
        redis_copy.copy(client, tmp_path / "copy")


def test_a_changed_copy_is_found_out(room: Room, tmp_path: Path) -> None:
    """Redis leaves out a value whose checksum is wrong, and goes on: so what it has is compared."""
    server = room.server("one")
    vote(server, "voter-a", "VER")
    with redis_copy.Client(socket(server)) as client:
        facts = redis_copy.copy(client, tmp_path / "copy")
    base = tmp_path / "copy" / redis_copy.BASE
    base.write_bytes(base.read_bytes().replace(b"voter-a", b"voter-b"))
    again = started_from(room, "two", tmp_path / "copy")
    assert again.client.exists("poll:2026:votes:7K2") == 0
    with redis_copy.Client(socket(again)) as client:
        assert redis_copy.facts(client) != facts


def test_what_expires_is_copied_but_not_compared(room: Room, tmp_path: Path) -> None:
    server = room.server("one")
    vote(server, "a", "VER")
    with redis_copy.Client(socket(server)) as client:
        before = redis_copy.facts(client)
        server.client.set("short-lived", "x", px=1500)
        assert redis_copy.copy(client, tmp_path / "copy") == before
    deadline = time.monotonic() + 10
    while server.client.exists("short-lived"):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    again = started_from(room, "two", tmp_path / "copy")
    with redis_copy.Client(socket(again)) as client:
        assert redis_copy.facts(client) == before


def test_errors_are_told(room: Room, tmp_path: Path) -> None:
    with pytest.raises(redis_copy.RedisError, match="does not answer"):
        redis_copy.Client(str(tmp_path / "none.sock"))
    server = room.server("one")
    with redis_copy.Client(socket(server)) as client:
        with pytest.raises(redis_copy.RedisError, match="NOSUCH: ERR unknown command"):
            client.call("NOSUCH")
        server.kill()
        with pytest.raises(redis_copy.RedisError, match="PING"):
            client.call("PING")
