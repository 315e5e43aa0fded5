"""
Files that only the holder of one private key can open: who makes them cannot read them again.

Format, version 1 (integers are big-endian)::

    8 bytes    ``F1SEAL`` 0x00 0x01: what this is, and the version
    32 bytes   the recipient's X25519 public key, so that a wrong key can be told from damage
    32 bytes   the sender's X25519 public key, made for this file alone
    then       chunks of 65536 bytes (the last one: 0 to 65536), each followed by its 16-byte tag

    key   = HKDF-SHA256(X25519(sender, recipient), salt: those 72 bytes, info: ``f1-vote seal``)
    chunk = ChaCha20-Poly1305(key, nonce: 11 bytes of the chunk's number, then 1 if it is the last
            one, else 0; no associated data)

Chunks are those of age's payload (https://age-encryption.org/v1, "Payload", the STREAM
construction): one that is missing, moved, changed or not the last is found out before its content
is used. Nothing says who sealed a file: anybody who knows the public key can.
"""

import base64
import os
from pathlib import Path
from typing import BinaryIO

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from salt.exceptions import SaltException

MAGIC = b"F1SEAL\0"
VERSION = 1
KEY = 32
CHUNK = 65536
TAG = 16


class SealError(SaltException):
    """A file that cannot be opened, or a key that is none; the text says which and why."""


def make_key(path: Path) -> bool:
    """Have a private key (PKCS 8, PEM, 0600) in ``path``; return whether it was made now."""
    if path.exists():
        return False
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    text = X25519PrivateKey.generate().private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    new = path.with_name(f".{path.name}.{os.getpid()}")
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(text)
        os.fsync(file.fileno())
    new.replace(path)
    return True


def public(path: Path) -> str:
    """Return the public key (base64) that belongs to the private key in ``path``."""
    return base64.b64encode(_raw(_private(path).public_key())).decode()


def seal(source: BinaryIO, target: BinaryIO, recipient: str) -> None:
    """Write ``source`` to ``target``, for the holder of the private key of ``recipient``."""
    try:
        theirs = base64.b64decode(recipient, validate=True)
        whose = X25519PublicKey.from_public_bytes(theirs)
    except ValueError:
        raise SealError(f"{recipient[:60]!r} is no public key (base64 of {KEY} bytes)") from None
    ours = X25519PrivateKey.generate()
    header = MAGIC + bytes([VERSION]) + theirs + _raw(ours.public_key())
    target.write(header)
    cipher = _cipher(ours.exchange(whose), header)
    number, chunk = 0, source.read(CHUNK)
    while True:
        following = source.read(CHUNK) if len(chunk) == CHUNK else b""
        target.write(cipher.encrypt(_nonce(number, not following), chunk, None))
        if not following:
            return
        number, chunk = number + 1, following


def open_sealed(source: BinaryIO, target: BinaryIO, key: Path) -> None:
    """
    Write what is sealed in ``source`` to ``target``, with the private key in ``key``.

    What was written is of no use if this raises SealError: of another format or version, for
    another key, changed, or truncated.
    """
    private = _private(key)
    header = source.read(len(MAGIC) + 1 + 2 * KEY)
    if not header.startswith(MAGIC):
        raise SealError("this is no sealed file")
    if (version := header[len(MAGIC)]) != VERSION:
        raise SealError(f"it is sealed in format {version}; this tree knows format {VERSION}")
    if len(header) < len(MAGIC) + 1 + 2 * KEY:
        raise SealError("the sealed file is truncated: it ends in its header")
    theirs, senders = header[len(MAGIC) + 1 : -KEY], header[-KEY:]
    if theirs != _raw(private.public_key()):
        raise SealError(
            f"it is sealed for another key ({base64.b64encode(theirs).decode()}) than the one in "
            f"{key}: copy the key from the machine that made it"
        )
    try:
        cipher = _cipher(private.exchange(X25519PublicKey.from_public_bytes(senders)), header)
    except ValueError:
        raise SealError("the sealed file was changed: its header holds no key") from None
    number, chunk = 0, source.read(CHUNK + TAG)
    while True:
        following = source.read(CHUNK + TAG)
        try:
            target.write(cipher.decrypt(_nonce(number, not following), chunk, None))
        except InvalidTag:
            raise SealError(_why(cipher, number, chunk, bool(following))) from None
        if not following:
            return
        number, chunk = number + 1, following


def _why(cipher: ChaCha20Poly1305, number: int, chunk: bytes, followed: bool) -> str:
    """Say what is wrong with a chunk that does not open."""
    if not followed and len(chunk) < TAG:
        return f"the sealed file is truncated, after {number} chunks"
    try:
        # With the other flag.
        cipher.decrypt(_nonce(number, followed), chunk, None)
    except InvalidTag:
        short = not followed and len(chunk) < CHUNK + TAG
        return f"the sealed file was changed{' or truncated' if short else ''}, in chunk {number}"
    if followed:
        return f"the sealed file goes on after its end, in chunk {number}"
    return f"the sealed file is truncated, after {number + 1} chunks"


def _cipher(shared: bytes, header: bytes) -> ChaCha20Poly1305:
    kdf = HKDF(hashes.SHA256(), length=32, salt=header, info=b"f1-vote seal")
    return ChaCha20Poly1305(kdf.derive(shared))


def _nonce(number: int, last: bool) -> bytes:
    return number.to_bytes(11, "big") + bytes([last])


def _raw(key: X25519PublicKey) -> bytes:
    return key.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)


def _private(path: Path) -> X25519PrivateKey:
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), None)
    except OSError as error:
        raise SealError(
            f"{path} cannot be read ({error.strerror}): it is the only key that opens the backups; "
            f"copy it from the machine that made it"
        ) from None
    except (ValueError, TypeError):
        raise SealError(f"{path} holds no private key") from None
    if not isinstance(key, X25519PrivateKey):
        raise SealError(f"{path} holds another kind of key than X25519")
    return key
