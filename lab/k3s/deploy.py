"""K3s's deploy controller: what lies in ``server/manifests`` is applied when it changes.

Packaged components are written there at each start, unless disabled; disabling one that was
deployed deletes it. ``<name>.skip`` keeps K3s from applying ``<name>``. As with K3s, a file that
goes leaves its objects behind.
"""

import hashlib
import json
import pkgutil
from collections.abc import Callable, Mapping
from pathlib import Path

from .host import write
from .settings import PACKAGED, Settings
from .supervisor import CommandFailed, Supervisor, run, say

SUFFIXES = {".yaml", ".yml", ".json"}
EVERY = 2  # seconds between two looks
DEADLINE = 60  # seconds an apply

Kubectl = Callable[[list[str]], str]


def kubectl(program: Path, kubeconfig: Path) -> Kubectl:
    """A function that runs kubectl with these credentials."""

    def call(arguments: list[str]) -> str:
        return run([program, f"--kubeconfig={kubeconfig}", *arguments], DEADLINE)

    return call


def packaged(settings: Settings) -> dict[str, str]:
    """The manifests that come with k3s, by component, filled in."""
    values = {
        "CLUSTER_DNS": settings.cluster_dns,
        "CLUSTER_DOMAIN": settings.cluster_domain,
        "DEFAULT_LOCAL_STORAGE_PATH": settings.local_storage_path,
    }
    texts = {}
    for name in PACKAGED:
        data = pkgutil.get_data(__package__, f"manifests/{name}.yaml")
        if data is None:
            raise FileNotFoundError(f"manifests/{name}.yaml is not in this k3s")
        text = data.decode()
        for key, value in values.items():
            text = text.replace(f"%{{{key}}}%", value)
        texts[name] = text
    return texts


class Deployer:
    """Applies manifests with kubectl, and remembers across restarts what it applied.

    Args:
        server_dir: ``<data-dir>/server``.
        call: runs kubectl.
        manager: name in the objects' managed fields.
    """

    def __init__(self, server_dir: Path, call: Kubectl, manager: str) -> None:
        self.manifests = server_dir / "manifests"
        self._record = server_dir / "manifests-applied.json"
        self._call = call
        self._manager = manager
        self._failed: dict[str, str] = {}
        self._applied: dict[str, str] = (
            json.loads(self._record.read_text()) if self._record.exists() else {}
        )

    def _remember(self) -> None:
        write(self._record, json.dumps(self._applied, indent=1))

    def place(self, texts: Mapping[str, str], disabled: frozenset[str]) -> None:
        """Write the packaged manifests; take back those that are disabled now."""
        for name, text in texts.items():
            path = self.manifests / f"{name}.yaml"
            if name not in disabled:
                write(path, text)
                continue
            if path.name in self._applied:
                say(f"deleting the disabled component {name}")
                self._call(["delete", "--ignore-not-found", "--wait=false", f"--filename={path}"])
                del self._applied[path.name]
                self._remember()
            path.unlink(missing_ok=True)

    def look(self) -> list[str]:
        """Apply what changed since it was applied last; give the names of what was applied."""
        done = []
        paths = sorted(p for p in self.manifests.iterdir() if p.suffix in SUFFIXES)
        for path in paths:
            if path.with_name(f"{path.name}.skip").exists():
                continue
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            if self._applied.get(path.name) == digest:
                continue
            arguments = ["apply", "--server-side", "--force-conflicts"]
            try:
                self._call([*arguments, f"--field-manager={self._manager}", f"--filename={path}"])
            except CommandFailed as error:
                # Tried again at each look, told once: it may wait for another one's CRD.
                if self._failed.get(path.name) != str(error):
                    say(f"{path} was not applied: {error}")
                self._failed[path.name] = str(error)
                continue
            self._failed.pop(path.name, None)
            self._applied[path.name] = digest
            self._remember()
            say(f"applied {path}")
            done.append(path.name)
        return done

    def serve(self, supervisor: Supervisor) -> None:
        """Look until the process ends (in a thread of its own)."""
        while not supervisor.stop.is_set():
            try:
                self.look()
            except OSError as error:
                say(f"{self.manifests}: {error}")
            supervisor.stop.wait(EVERY)
