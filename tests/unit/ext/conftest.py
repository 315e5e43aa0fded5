"""Our modules and states wired to each other as Salt's loader would, over a fake kubectl."""

import inspect
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.conftest import load_ext


class Wired:
    """``salt["kube.apply"]`` and ``states["kube.applied"]``, and the fake cluster beneath."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.opts: dict[str, Any] = {"test": False, "id": "f1-master"}
        monkeypatch.setenv("F1_FAKE", str(folder))
        (folder / "objects.json").write_text("{}")
        self.salt: dict[str, Any] = {}
        kubectl = load_ext("modules/kubectl.py")
        fake = Path(__file__).with_name("fake_kubectl.py")
        monkeypatch.setattr(kubectl, "KUBECTL", (sys.executable, str(fake)))
        monkeypatch.setattr(kubectl, "KUBECONFIG", folder / "objects.json")
        self.kubectl = kubectl
        others = ("kube", "kube_health", "node")
        for module in (kubectl, *(load_ext(f"modules/{name}.py") for name in others)):
            module.__dict__["__salt__"] = self.salt
            self.salt |= _functions(module)
        states = load_ext("states/kube.py")
        states.__dict__.update(__salt__=self.salt, __opts__=self.opts, PAUSE=0)
        self.states = _functions(states)

    def orchestration(self, *names: str) -> list[ModuleType]:
        """Load these state modules as an orchestration on the master would; return them."""
        self.context: dict[str, Any] = {}
        self.drawn: list[str] = []
        utils = {
            "events.begin": lambda stage, text="": self.drawn.append(f"{stage}: {text}"),
            "events.end": lambda stage, text="": self.drawn.append(f"{stage} done"),
        }
        modules = [load_ext(f"states/{name}.py") for name in names]
        for module in modules:
            module.__dict__.update(
                __salt__=self.salt, __opts__=self.opts, __utils__=utils, __context__=self.context
            )
            self.states |= _functions(module)
        return modules

    @property
    def objects(self) -> dict[str, Any]:
        return dict(json.loads((self.folder / "objects.json").read_text()))

    def have(self, *objects: dict[str, Any]) -> None:
        """Put ``objects`` into the fake cluster."""
        names = {
            f"{o['kind']} {o['metadata'].get('namespace', '')}/{o['metadata']['name']}": o
            for o in objects
        }
        (self.folder / "objects.json").write_text(json.dumps({**self.objects, **names}))

    def rendered(self, *objects: dict[str, Any]) -> str:
        """Return a folder that kustomize renders to ``objects``."""
        text = "\n---\n".join(json.dumps(one) for one in objects)
        (self.folder / "rendered.yaml").write_text(text)
        return str(self.folder)

    def calls(self) -> list[list[str]]:
        path = self.folder / "calls"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def _functions(module: ModuleType) -> dict[str, Any]:
    prefix = Path(str(module.__file__)).stem
    return {
        f"{prefix}.{name}": each
        for name, each in vars(module).items()
        if inspect.isfunction(each) and not name.startswith("_")
    }


@pytest.fixture
def wired(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Wired:
    return Wired(tmp_path, monkeypatch)
