"""What the master keeps in mind between two runs: small files, each whole at every moment."""

import json
from pathlib import Path
from typing import Any


def read(path: Path) -> dict[str, Any] | None:
    """Return the JSON object in ``path``; None if there is none that can be read."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def write(path: Path, text: str, mode: int = 0o644) -> None:
    """Give ``path`` this content and ``mode``, in one step for whoever reads it, and its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f".{path.name}.new")
    new.touch(mode=mode)
    new.chmod(mode)
    new.write_text(text, encoding="utf-8")
    new.replace(path)
