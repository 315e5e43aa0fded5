"""The polls that the browser tests and the pictures vote in."""

from pathlib import Path
from typing import Any

import yaml

from tests.conftest import ROOT

SAMPLE = ROOT / "app" / "polls"


def write(folder: Path) -> Path:
    """Write them into ``folder``; return it."""
    drivers = yaml.safe_load((SAMPLE / "choices" / "drivers-2026.yaml").read_text())
    poll: dict[str, Any] = {
        "title": {"en": "Monaco Grand Prix", "fr": "Grand Prix de Monaco"},
        "question": {"en": "Who drove the best race?", "fr": "Qui a fait la plus belle course ?"},
        "opens": "2026-03-06T00:00:00Z",
        "closes": None,
        "choices": drivers,
    }
    polls: dict[str, dict[str, Any]] = {
        "race": {},
        "covered": {"results": "voted"},
        "podium": {"points": [3, 2, 1]},
        "invited": {"voters": "codes"},
        "soon": {"opens": "2099-01-01T00:00:00Z"},
        "past": {"closes": "2026-03-08T12:00:00Z"},
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name, other in polls.items():
        text = yaml.safe_dump({"id": name} | poll | other, allow_unicode=True, sort_keys=False)
        (folder / f"{name}.yaml").write_text(text, encoding="utf-8")
    (folder / "overtake.yaml").write_text(
        (SAMPLE / "best-overtake.yaml").read_text().replace("id: best-overtake", "id: overtake")
    )
    return folder
