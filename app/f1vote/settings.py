"""What the app is told by its environment: typed, and wrong in every way at once or not at all."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from f1vote.problems import Problems

# HMAC-SHA256 gains nothing from a key longer than its 32-byte output; a shorter one weakens it.
MIN_KEY_BYTES = 32
CHALLENGES = ("never", "attack", "always")
# Kubernetes gives a pod a few minutes at most to end.
MOST_DRAIN_SECONDS = 300
MOST_PROXIES = 8


@dataclass(frozen=True)
class Settings:
    """
    ``cookie_keys`` sign ballots (the first) and verify them (all); ``admin_token`` None: there is
    no organiser's area; ``sign_key`` None: exports are not signed. ``proxies`` is how many trusted
    proxies stand before the app, ``drain`` how long (s) it serves after SIGTERM, ``public_url`` its
    address without a path, '' if each request tells it. No secret is in its repr.
    """

    redis_url: str = field(repr=False)
    redis_password: str | None = field(repr=False)
    cookie_keys: tuple[bytes, ...] = field(repr=False)
    admin_token: bytes | None = field(repr=False)
    sign_key: bytes | None = field(repr=False)
    polls_dir: Path
    version: str
    image: str
    port: int
    ops_port: int
    proxies: int
    public_url: str
    challenge: str
    drain: int


def load(environ: Mapping[str, str]) -> Settings:
    """
    Return the settings in ``environ``; raise Problems with everything that is wrong.

    ``F1_REDIS_URL`` redis://host:port/db or unix:///path, ``F1_REDIS_PASSWORD_FILE`` its password
    (optional), ``F1_COOKIE_KEY_FILE`` a key of at least 32 bytes a line, the first signs,
    ``F1_ADMIN_TOKEN_FILE`` the organiser's token (optional), ``F1_SIGN_KEY_FILE`` the secret of the
    key that signs exports (optional), ``F1_POLLS_DIR`` the folder of polls, ``F1_VERSION`` and
    ``F1_IMAGE`` (digest, optional) what ``/version`` says, ``F1_PORT`` (8000) and ``F1_OPS_PORT``
    (the next one) TCP ports of voters and operators, ``F1_PROXIES`` (0), ``F1_PUBLIC_URL`` (''),
    ``F1_CHALLENGE`` never, attack (default) or always, ``F1_DRAIN_SECONDS`` (0).
    """
    reader = _Reader(environ)
    settings = Settings(
        redis_url=reader.redis_url(),
        redis_password=reader.password(),
        cookie_keys=reader.keys(),
        admin_token=reader.optional("F1_ADMIN_TOKEN_FILE", "the token in"),
        sign_key=reader.optional("F1_SIGN_KEY_FILE", "the key in"),
        polls_dir=reader.folder(),
        version=reader.version(),
        image=environ.get("F1_IMAGE", ""),
        port=(port := reader.number("F1_PORT", 8000, 1, 65535)),
        ops_port=reader.number("F1_OPS_PORT", port + 1, 1, 65535),
        proxies=reader.number("F1_PROXIES", 0, 0, MOST_PROXIES),
        public_url=reader.public_url(),
        challenge=reader.challenge(),
        drain=reader.number("F1_DRAIN_SECONDS", 0, 0, MOST_DRAIN_SECONDS),
    )
    if settings.port == settings.ops_port:
        reader.say("F1_OPS_PORT", "is the voters' port, too; set another one")
    if reader.wrong:
        raise Problems(reader.wrong)
    return settings


class _Reader:
    """Reads variables and gathers all that is wrong with them; what is wrong reads as empty."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self.environ = environ
        self.wrong: list[str] = []

    def say(self, name: str, text: str) -> None:
        self.wrong.append(f"{name}: {text}")

    def redis_url(self) -> str:
        url = self.environ.get("F1_REDIS_URL", "")
        try:
            parts = urlsplit(url)
            tcp = parts.scheme in ("redis", "rediss") and parts.hostname and parts.port != 0
        except ValueError:
            parts, tcp = urlsplit(""), False
        if not tcp and not (parts.scheme == "unix" and parts.path):
            self.say("F1_REDIS_URL", "set it to redis://host:6379/0 or unix:///path/to/socket")
        return url

    def password(self) -> str | None:
        secret = self._secret("F1_REDIS_PASSWORD_FILE")
        if not secret:
            return None
        try:
            return secret.decode()
        except UnicodeDecodeError:
            self.say("F1_REDIS_PASSWORD_FILE", "is not a text in UTF-8; write the password as one")
            return None

    def keys(self) -> tuple[bytes, ...]:
        name = "F1_COOKIE_KEY_FILE"
        if not self.environ.get(name):
            self.say(name, "set it to a file that holds the secret")
            return ()
        if (secret := self._secret(name)) is None:
            return ()
        keys = tuple(line.strip() for line in secret.splitlines() if line.strip())
        for number, key in enumerate(keys, 1):
            if len(key) < MIN_KEY_BYTES:
                self._too_short(name, f"key {number} of", key)
        return keys

    def optional(self, name: str, which: str) -> bytes | None:
        secret = self._secret(name)
        if secret and len(secret) < MIN_KEY_BYTES:
            self._too_short(name, which, secret)
        return secret

    def folder(self) -> Path:
        name = "F1_POLLS_DIR"
        folder = Path(self.environ.get(name, ""))
        if not self.environ.get(name) or not folder.is_dir():
            self.say(name, "set it to the folder that holds the polls (*.yaml)")
        return folder

    def version(self) -> str:
        version = self.environ.get("F1_VERSION", "")
        if not version:
            self.say("F1_VERSION", "set it to the version of this build")
        return version

    def public_url(self) -> str:
        url = self.environ.get("F1_PUBLIC_URL", "")
        if url and not re.fullmatch(r"https?://[a-z0-9.-]+(:[0-9]{1,5})?", url):
            self.say(
                "F1_PUBLIC_URL",
                f"{url!r}: write https://vote.example.org: small letters, no path, no slash",
            )
        return url

    def challenge(self) -> str:
        challenge = self.environ.get("F1_CHALLENGE", "attack")
        if challenge not in CHALLENGES:
            self.say("F1_CHALLENGE", f"{challenge!r}: write one of {', '.join(CHALLENGES)}")
        return challenge

    def number(self, name: str, default: int, least: int, most: int) -> int:
        text = self.environ.get(name, str(default))
        if text.isascii() and text.isdigit() and len(text) < 9 and least <= int(text) <= most:
            return int(text)
        self.say(name, f"{text!r}: write a number from {least} to {most}")
        return default

    def _secret(self, name: str) -> bytes | None:
        """Return what the file named by ``name`` holds; None if there is none, or it is wrong."""
        file = self.environ.get(name)
        if not file:
            return None
        try:
            secret = Path(file).read_bytes().strip()
        except OSError as error:
            self.say(name, f"{file}: {error.strerror}; mount the secret")
            return None
        if not secret:
            self.say(name, f"{file} is empty; write the secret into it")
            return None
        return secret

    def _too_short(self, name: str, which: str, secret: bytes) -> None:
        self.say(
            name,
            f"{which} {self.environ[name]} holds {len(secret)} bytes; "
            f"write at least {MIN_KEY_BYTES} random ones",
        )
