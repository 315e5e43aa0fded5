"""
A copy of everything in a Redis, of one moment, as an append-only file that any Redis can start
from; and what is in it, to be compared.

Read by one Lua script, which nothing comes between, over Redis's own protocol (RESP 2,
https://redis.io/docs/latest/develop/reference/protocol-spec/): neither half a copy nor counts of
another moment than the copy's. The file holds ``RESTORE`` commands, as an append-only file may
(https://redis.io/docs/latest/commands/restore/). With its manifest it is a whole ``appendonlydir``
(Redis 7 and later, https://redis.io/docs/latest/operate/oss_and_stack/management/persistence/),
from which a Redis with ``appendonly yes`` starts: it never runs with other data, so no vote is lost
or counted twice. A value whose checksum is wrong Redis leaves out when it starts, and says nothing:
whoever starts one compares its ``facts``.
"""

import hashlib
import json
import socket
from pathlib import Path
from typing import Any, BinaryIO

from salt.exceptions import SaltException

PORT = 6379
CONNECT_SECONDS = 5
SECONDS = 60

FOLDER = "appendonlydir"
BASE = "appendonly.aof.1.base.aof"
MANIFEST = "appendonly.aof.manifest"
MANIFEST_TEXT = f"file {BASE} seq 1 type b\n"

# Of each key: name, type, when it expires (Unix ms, -1 never), the value as RESTORE takes it, and
# the fields of a hash. Keys are sorted so that two copies of the same data are the same.
_SCRIPT = """\
local keys = redis.call('KEYS', '*')
table.sort(keys)
local found = {}
for _, key in ipairs(keys) do
  local kind = redis.call('TYPE', key).ok
  local fields = kind == 'hash' and redis.call('HGETALL', key) or {}
  found[#found + 1] = {key, kind, redis.call('PEXPIRETIME', key), redis.call('DUMP', key), fields}
end
return found
"""

Facts = dict[str, Any]


class RedisError(SaltException):
    """Redis does not answer, or refuses; the text says what was asked."""


class Client:
    """One connection to a Redis at ``(host, port)`` or at the path of its socket."""

    def __init__(self, address: tuple[str, int] | str) -> None:
        self.name = address if isinstance(address, str) else "{}:{}".format(*address)
        try:
            if isinstance(address, str):
                self._socket = socket.socket(socket.AF_UNIX)
                self._socket.settimeout(CONNECT_SECONDS)
                self._socket.connect(address)
            else:
                self._socket = socket.create_connection(address, CONNECT_SECONDS)
        except OSError as error:
            raise RedisError(f"Redis at {self.name} does not answer: {error}") from None
        self._socket.settimeout(SECONDS)
        self._file: BinaryIO = self._socket.makefile("rb")

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: Any) -> None:
        self._file.close()
        self._socket.close()

    def call(self, *words: bytes | str) -> Any:
        """Return what Redis answers: bytes, int, None or a list of these. Raises RedisError."""
        try:
            self._socket.sendall(command(*words))
            return self._answer()
        except (OSError, ValueError) as error:
            raise RedisError(f"Redis at {self.name}: {_word(words[0])}: {error}") from None

    def _answer(self) -> Any:
        line = self._file.readline()
        if not line.endswith(b"\r\n"):
            raise ValueError("the connection ended")
        kind, rest = line[:1], line[1:-2]
        if kind == b"+":
            return rest
        if kind == b"-":
            raise ValueError(rest.decode(errors="replace"))
        if kind not in (b":", b"$", b"*"):
            raise ValueError(f"an answer that is none: {line[:40]!r}")
        number = int(rest)
        if kind == b":":
            return number
        if number < 0:
            return None
        if kind == b"*":
            return [self._answer() for _ in range(number)]
        data = self._file.read(number + 2)
        if len(data) < number + 2:
            raise ValueError("the connection ended")
        return data[:-2]


def command(*words: bytes | str) -> bytes:
    """Return a command as Redis reads it, from a connection or an append-only file."""
    parts = [b"*%d\r\n" % len(words)]
    for word in words:
        raw = word.encode() if isinstance(word, str) else word
        parts.append(b"$%d\r\n%s\r\n" % (len(raw), raw))
    return b"".join(parts)


def copy(client: Client, folder: Path) -> Facts:
    """
    Write all of database 0 to ``folder`` (made here), an ``appendonlydir``; return its facts.

    Raises RedisError if there is data in another database, or a tally is not that of its votes.
    """
    spaces = client.call("INFO", "keyspace").decode().split("\r\n")
    others = [line.split(":")[0] for line in spaces if line[:2] == "db" and line[:4] != "db0:"]
    if others:
        raise RedisError(f"Redis has data in {', '.join(others)}, of which this knows no copy")
    found = client.call("EVAL", _SCRIPT, "0")
    folder.mkdir(mode=0o700)
    with (folder / BASE).open("wb") as file:
        # A base of a log begins with the database that it speaks of.
        file.write(command("SELECT", "0"))
        for key, _, expires, value, _ in found:
            lasts = b"0" if expires < 0 else b"%d" % expires
            file.write(command("RESTORE", key, lasts, value, "ABSTTL"))
    (folder / MANIFEST).write_text(MANIFEST_TEXT, encoding="ascii")
    facts = _facts(found)
    if wrong := faults(facts):
        raise RedisError("\n".join(wrong))
    return facts


def facts(client: Client) -> Facts:
    """
    Return what a Redis holds at one moment: ``{"keys": n, "polls": {id: {"voters": n, "tally":
    {code: n}, "counted": {code: n}}}, "digest": str}``.

    ``counted`` are the votes counted one by one, ``digest`` is one number of all keys and values:
    it is the same if and only if every voter's vote is the same. Keys that expire do not count:
    they may be gone when this is compared.
    """
    return _facts(client.call("EVAL", _SCRIPT, "0"))


def faults(facts: Facts) -> list[str]:
    """Return where a tally is not that of its votes."""
    return [
        f"poll {poll}: its tally is {told['tally']}, its votes are {told['counted']}"
        for poll, told in facts["polls"].items()
        if told["tally"] != told["counted"]
    ]


def _facts(found: list[Any]) -> Facts:
    digest = hashlib.sha256()
    polls: dict[str, dict[str, Any]] = {}
    worth: dict[str, str] = {}
    # A recount goes on by itself; what it found is no vote.
    lasting = [one for one in found if one[2] < 0 and not one[0].endswith(b":recount")]
    for key, kind, _, value, flat in lasting:
        pairs = sorted(zip(flat[::2], flat[1::2], strict=True))
        # The serialised form of a hash depends on how it grew; its fields do not.
        content = command(*(word for pair in pairs for word in pair)) if kind == b"hash" else value
        digest.update(command(key, kind, content))
        first, poll, what = (*key.decode(errors="replace").split(":", 2), "", "")[:3]
        if first != "poll" or kind != b"hash":
            continue
        told = polls.setdefault(poll, {"voters": 0, "tally": {}, "counted": {}})
        if what == "meta":
            worth[poll] = dict(pairs).get(b"points", b"1").decode()
        elif what == "tally":
            # A choice that lost its last vote is none that has votes.
            told["tally"] = {code.decode(): int(n) for code, n in pairs if int(n)}
        elif what.startswith("votes:"):
            # Keys are sorted: what a place is worth was read before.
            points = [int(n) for n in worth.get(poll, "1").split(">")]
            told["voters"] += len(pairs)
            for _, choices in pairs:
                for code, n in zip(choices.decode().split(">"), points, strict=False):
                    told["counted"][code] = told["counted"].get(code, 0) + n
    # As it is after a way through JSON, so that it can be compared with one.
    made = {"keys": len(lasting), "polls": polls, "digest": digest.hexdigest()}
    return dict(json.loads(json.dumps(made, sort_keys=True)))


def _word(word: bytes | str) -> str:
    return word if isinstance(word, str) else word.decode(errors="replace")
