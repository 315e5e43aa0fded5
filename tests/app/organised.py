"""Polls in every state, and an app whose organiser has a token, for the tests of their tools."""

from pathlib import Path

from tests.app.servers import App

TOKEN = "a token of the tests, of more than 32 characters"
SECRET = "a secret of the tests that signs exports"

CHOICES = """\
choices:
  - {code: NOR, name: Lando Norris, colour: '#ff8000'}
  - {code: VER, name: '=Max+Verstappen', colour: '#3671c6'}
  - {code: LEC, name: {en: 'Leclerc, on the outside', fr: Leclerc dehors}, colour: '#e8002d'}
"""
# id → when it opens and closes, and what differs from an open poll of one choice.
POLLS = {
    "sprint": ("2026-01-01T00:00:00Z", "null", ""),
    "podium": ("2026-01-01T00:00:00Z", "null", "points: [3, 2, 1]"),
    "early": ("2090-01-01T00:00:00Z", "null", ""),
    "over": ("2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z", ""),
    "invited": ("2026-01-01T00:00:00Z", "null", "voters: codes"),
}


def write_polls(folder: Path) -> Path:
    """Write the poll files and return their folder."""
    polls = folder / "polls"
    polls.mkdir()
    for name, (opens, closes, more) in POLLS.items():
        (polls / f"{name}.yaml").write_text(
            f"id: {name}\ntitle: {{en: The {name}, fr: Le {name}}}\n"
            f"question: {{en: 'Who?', fr: 'Qui ?'}}\n"
            f"opens: {opens}\ncloses: {closes}\n{more}\n{CHOICES}"
        )
    return polls


def organised(folder: Path, redis_url: str, older_key: bytes = b"") -> App:
    """Start an app with these polls, a token and a key to sign with."""
    (folder / "admin-token").write_text(TOKEN + "\n")
    (folder / "sign-key").write_text(SECRET + "\n")
    return App(
        folder,
        redis_url,
        write_polls(folder),
        older_key=older_key,
        F1_ADMIN_TOKEN_FILE=str(folder / "admin-token"),
        F1_SIGN_KEY_FILE=str(folder / "sign-key"),
        F1_CHALLENGE="never",
        F1_PUBLIC_URL="https://vote.example.org",
        LANG="C.UTF-8",
    )
