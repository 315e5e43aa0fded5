"""What a server must not lose, kept in its datastore: CAs, keys, encryption configuration.

As K3s does (k3s-io/k3s ``pkg/cluster/{storage,bootstrap,encrypt}.go``): encrypted with the server
token as passphrase, so that the datastore and the token are all that a restore needs; and a file
on disk that is newer than the datastore's copy and differs is refused, never overwritten. K3s
keeps it in kine's table under ``/bootstrap/<hash of the token>``, the stand-in in one of its own.
"""

import base64
import hashlib
import hmac
import json
import os
import secrets
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TypedDict

from .config import ConfigError
from .host import write
from .supervisor import CommandFailed, say

# Under <data-dir>/server; what is derived from these is made anew where it is missing.
FILES = (
    "tls/ca.crt",
    "tls/ca.key",
    "tls/front-proxy-ca.crt",
    "tls/front-proxy-ca.key",
    "tls/sa.key",
    "tls/sa.pub",
    "cred/encryption-config.json",
    "cred/encryption-state.json",
)
SKEW = 3  # seconds by which a file is still as old as its copy
ITERATIONS = 10_000
SALT, MAC = 16, 32  # bytes
OTHER_TOKEN = "bootstrap data already found and encrypted with different token"  # noqa: S105
TIMEOUT = 30  # seconds that another writer may hold the database


class Copy(TypedDict):
    """A file as the datastore has it; ``timestamp`` is the file's, in seconds."""

    content: str
    timestamp: int


Data = dict[str, Copy]


def load(db: Path, secret: str) -> Data | None:
    """Read what the datastore keeps; None if it keeps nothing yet.

    Raises:
        ConfigError: it was encrypted with another token.
    """
    if not db.exists():
        return None
    with _open(db) as connection:
        rows = dict(connection.execute("SELECT name, value FROM k3s_bootstrap"))
    if not rows:
        return None
    value = rows.get(_name(secret))
    if value is None:
        raise ConfigError([f"token: {OTHER_TOKEN}"])
    data: Data = json.loads(_decrypt(secret, value))
    return data


def restore(server_dir: Path, data: Data) -> list[str]:
    """Put on disk what the datastore has; return the names of the files that were written.

    Raises:
        ConfigError: files on disk differ and are newer; nothing was written.
    """
    wanted: list[str] = []
    newer: list[str] = []
    for name, copy in data.items():
        path = server_dir / name
        if not path.exists():
            wanted.append(name)
        elif path.read_text() != copy["content"]:
            is_newer = path.stat().st_mtime - copy["timestamp"] >= SKEW
            (newer if is_newer else wanted).append(name)
    if newer:
        raise ConfigError(
            [
                f"{', '.join(str(server_dir / name) for name in newer)} newer than datastore and "
                "could cause a cluster outage. Remove the file(s) from disk and restart to be "
                "recreated from datastore."
            ]
        )
    for name in wanted:
        path = server_dir / name
        write(path, data[name]["content"])
        os.utime(path, (data[name]["timestamp"],) * 2)
    if wanted:
        say(f"Updating bootstrap data on disk from datastore: {', '.join(wanted)}")
    return wanted


def save(db: Path, secret: str, server_dir: Path) -> None:
    """Keep the files as they are now, if they are not kept so already."""
    data: Data = {
        name: {"content": path.read_text(), "timestamp": int(path.stat().st_mtime)}
        for name in FILES
        if (path := server_dir / name).exists()
    }
    if load(db, secret) != data:
        _replace(db, secret, data)


def rotate(db: Path, old: str, new: str) -> None:
    """Encrypt what is kept with another token.

    Raises:
        ConfigError: nothing is kept, or not under the old token.
    """
    data = load(db, old)
    if data is None:
        raise ConfigError([f"{db} keeps no bootstrap data: has the server been up?"])
    _replace(db, new, data)


def _replace(db: Path, secret: str, data: Data) -> None:
    value = _encrypt(secret, json.dumps(data).encode())
    with _open(db) as connection, connection:
        connection.execute("DELETE FROM k3s_bootstrap")
        connection.execute("INSERT INTO k3s_bootstrap VALUES (?, ?)", (_name(secret), value))


@contextmanager
def _open(db: Path) -> Iterator[sqlite3.Connection]:
    try:
        with closing(sqlite3.connect(f"file:{db}?mode=rw", TIMEOUT, uri=True)) as connection:
            connection.execute(
                "CREATE TABLE IF NOT EXISTS k3s_bootstrap "
                "(name TEXT PRIMARY KEY, value BLOB NOT NULL)"
            )
            yield connection
    except sqlite3.Error as error:
        raise ConfigError([f"the datastore {db}: {error}"]) from error


def _name(secret: str) -> str:
    return f"/bootstrap/{hashlib.sha256(secret.encode()).hexdigest()[:12]}"


def _mac(secret: str, salt: bytes, data: bytes) -> bytes:
    key = hashlib.pbkdf2_hmac("sha256", secret.encode(), salt, ITERATIONS)
    return hmac.digest(key, data, "sha256")


def _encrypt(secret: str, data: bytes) -> bytes:
    salt = secrets.token_bytes(SALT)
    body = _openssl(secret, data, "-e")
    return salt + _mac(secret, salt, body) + body


def _decrypt(secret: str, value: bytes) -> bytes:
    salt, mac, body = value[:SALT], value[SALT : SALT + MAC], value[SALT + MAC :]
    if not hmac.compare_digest(mac, _mac(secret, salt, body)):
        raise ConfigError([f"token: {OTHER_TOKEN}, or damaged"])
    return _openssl(secret, body, "-d")


def _openssl(secret: str, data: bytes, direction: str) -> bytes:
    """AES-256-CBC by the openssl program: Debian's Python alone has no cipher."""
    reader, writer = os.pipe()  # the passphrase is no argument, which anybody could read
    try:
        os.write(writer, base64.b64encode(secret.encode()) + b"\n")
        os.close(writer)
        command = ["openssl", "enc", direction, "-aes-256-cbc", "-pbkdf2"]
        done = subprocess.run(
            [*command, "-iter", str(ITERATIONS), "-pass", f"fd:{reader}"],
            input=data,
            capture_output=True,
            pass_fds=[reader],
            timeout=TIMEOUT,
            check=False,
        )
    finally:
        os.close(reader)
    if done.returncode:
        raise CommandFailed(f"openssl enc failed: {done.stderr.decode(errors='replace').strip()}")
    return done.stdout
