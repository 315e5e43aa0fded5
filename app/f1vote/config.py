"""What the app is told by its environment."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from f1vote.problems import Problems

# HMAC-SHA256 gains nothing from a key longer than its 32-byte output; a shorter one weakens it.
MIN_KEY_BYTES = 32


@dataclass(frozen=True)
class Config:
    """``cookie_key`` is the secret that signs ballots; it never leaves this process."""

    redis_url: str
    cookie_key: bytes
    polls_dir: Path
    version: str
    port: int

    def __repr__(self) -> str:
        return f"Config(version={self.version!r}, port={self.port})"


def load(environ: Mapping[str, str]) -> Config:
    """
    Return the configuration in ``environ``; raise Problems with everything that is wrong.

    ``F1_REDIS_URL`` redis://host:port/db or unix:///path, ``F1_COOKIE_KEY_FILE`` a file of at
    least 32 bytes, ``F1_POLLS_DIR`` the folder of polls, ``F1_VERSION`` what ``/version`` says,
    ``F1_PORT`` the TCP port (8000 if unset).
    """
    wrong: list[str] = []

    redis_url = environ.get("F1_REDIS_URL", "")
    parts = urlsplit(redis_url)
    if not (parts.scheme in ("redis", "rediss") and parts.hostname) and not (
        parts.scheme == "unix" and parts.path
    ):
        wrong.append("F1_REDIS_URL: set it to redis://host:6379/0 or unix:///path/to/socket")

    key_file, cookie_key = environ.get("F1_COOKIE_KEY_FILE", ""), b""
    if not key_file:
        wrong.append("F1_COOKIE_KEY_FILE: set it to a file that holds the secret")
    else:
        try:
            cookie_key = Path(key_file).read_bytes().strip()
        except OSError as error:
            wrong.append(f"F1_COOKIE_KEY_FILE: {key_file}: {error.strerror}; mount the secret")
        else:
            if len(cookie_key) < MIN_KEY_BYTES:
                wrong.append(
                    f"F1_COOKIE_KEY_FILE: {key_file} holds {len(cookie_key)} bytes; "
                    f"write at least {MIN_KEY_BYTES} random ones"
                )

    polls_dir = Path(environ.get("F1_POLLS_DIR", ""))
    if not environ.get("F1_POLLS_DIR") or not polls_dir.is_dir():
        wrong.append("F1_POLLS_DIR: set it to the folder that holds the polls (*.yaml)")

    version = environ.get("F1_VERSION", "")
    if not version:
        wrong.append("F1_VERSION: set it to the version of this build")

    port = environ.get("F1_PORT", "8000")
    if not (port.isdigit() and 1 <= int(port) <= 65535):
        wrong.append(f"F1_PORT: {port!r} is not a port; set a number from 1 to 65535")

    if wrong:
        raise Problems(wrong)
    return Config(redis_url, cookie_key, polls_dir, version, int(port))
