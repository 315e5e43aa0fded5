"""What the API knows, kept on disk after every change so that no restart forgets it.

moto's backends pickle as they are (version locked, written and read by the same program on
the same machine; the folder is root's alone, as a pickle is code).
"""

import os
import pickle
import threading
from pathlib import Path
from typing import Any

from moto.ec2.models import ec2_backends
from moto.route53.models import route53_backends
from moto.s3.models import s3_backends

SERVICES: dict[str, Any] = {
    "ec2": ec2_backends,
    "route53": route53_backends,
    "s3": s3_backends,
}
_TRIES = 20


class StateError(RuntimeError):
    """The state on disk cannot be read; the message says what to do."""


class Store:
    """The folder of the state, one file per service."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock = threading.Lock()
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o700)

    def _dump(self, service: str) -> bytes:
        backends = SERVICES[service]
        # Plain dicts: the library's own look backends up by making them.
        accounts = {a: dict(dict.items(r)) for a, r in list(dict.items(backends))}
        extra = getattr(backends, "bucket_accounts", None)
        for left in reversed(range(_TRIES)):
            try:
                return pickle.dumps((accounts, extra), protocol=5)
            except RuntimeError:  # S3 is not locked: a dict grew meanwhile
                if not left:
                    raise
        raise AssertionError

    def save(self, service: str) -> None:
        """Write one service's state, atomically and durably."""
        if service not in SERVICES:
            return
        with self._lock:
            data = self._dump(service)
            part = self.folder / f"{service}.part"
            with part.open("wb") as out:
                out.write(data)
                out.flush()
                os.fsync(out.fileno())
            part.replace(self.folder / f"{service}.pickle")

    def load(self) -> None:
        """Put what was saved into moto's backends.

        Raises:
            StateError: a file is damaged or of another version.
        """
        for service, backends in SERVICES.items():
            file = self.folder / f"{service}.pickle"
            if not file.exists():
                continue
            try:
                accounts, extra = pickle.loads(file.read_bytes())  # noqa: S301  our own file
            except Exception as error:
                raise StateError(
                    f"{file} cannot be read ({error}); `python -m lab.cloud down` starts afresh"
                ) from error
            for account, regions in accounts.items():
                for region, backend in regions.items():
                    dict.__setitem__(backends[account], region, backend)
            if extra is not None:
                backends.bucket_accounts.update(extra)
