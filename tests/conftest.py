"""What every test may lean on."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[1]


def load_ext(path: str) -> ModuleType:
    """Import ``salt/ext/<path>`` as a plain module, as Salt's loader would: by file."""
    file = ROOT / "salt" / "ext" / path
    spec = importlib.util.spec_from_file_location(f"ext_{file.parent.name}_{file.stem}", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def root() -> Path:
    return ROOT
