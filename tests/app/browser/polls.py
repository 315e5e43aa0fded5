"""The polls that the browser tests and the pictures vote in."""

from pathlib import Path
from typing import Any

import yaml

from tests.conftest import ROOT

SAMPLE = ROOT / "app" / "polls"


def write(folder: Path) -> Path:
    """Write them into ``folder``; return it."""
    drivers = yaml.safe_load((SAMPLE / "choices" / "drivers-2026.yaml").read_text())
    common = {"opens": "2026-03-06T00:00:00Z", "closes": None, "choices": drivers}
    best = ("Who drove the best race?", "Qui a fait la plus belle course ?")
    polls: dict[str, dict[str, Any]] = {
        "race": _called("Monaco Grand Prix", "Grand Prix de Monaco", *best),
        "podium": _called(
            "World champion 2026", "Champion du monde 2026",
            "Who is on your podium of the season?", "Qui est sur votre podium de la saison ?",
        ) | {"points": [3, 2, 1]},
        "covered": _called(
            "Rookie of the year", "Débutant de l’année",
            "Who surprised you most?", "Qui vous a le plus surpris ?",
        ) | {"results": "voted"},
        "invited": _called(
            "The paddock’s own vote", "Le vote du paddock",
            "Who would you sign for 2027?", "Qui engageriez-vous pour 2027 ?",
        ) | {"voters": "codes"},
        "soon": _called("Abu Dhabi Grand Prix", "Grand Prix d’Abou Dhabi", *best)
        | {"opens": "2099-01-01T00:00:00Z"},
        "past": _called("Australian Grand Prix", "Grand Prix d’Australie", *best)
        | {"closes": "2026-03-08T12:00:00Z"},
    }  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    for name, other in polls.items():
        text = yaml.safe_dump({"id": name} | common | other, allow_unicode=True, sort_keys=False)
        (folder / f"{name}.yaml").write_text(text, encoding="utf-8")
    (folder / "overtake.yaml").write_text(
        (SAMPLE / "best-overtake.yaml").read_text().replace("id: best-overtake", "id: overtake")
    )
    return folder


def _called(title: str, titre: str, question: str, la_question: str) -> dict[str, Any]:
    return {"title": {"en": title, "fr": titre}, "question": {"en": question, "fr": la_question}}
