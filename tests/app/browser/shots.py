"""
Take the pictures of the documentation, with votes that are made up:
``python -m tests.app.browser.shots`` writes docs/pictures/.
"""

import io
import random
import sys
import tempfile
from pathlib import Path

import httpx
from PIL import Image
from playwright.sync_api import Page

from tests.app.browser import polls
from tests.app.browser.chromium import DESKTOP, PHONE, Visitor, browser
from tests.app.servers import App, Redis
from tests.conftest import ROOT

FOLDER = ROOT / "docs" / "pictures"
ADDRESS = "https://vote.example.org"
VOTERS = 120
MOST_BYTES = 1_000_000  # of all pictures together


def vote(app: App, poll: str, codes: list[str], places: int) -> None:
    """Let VOTERS vote in ``poll``; the choices of small rank are liked more."""
    chance = random.Random(7)
    liked = chance.sample(codes, len(codes))
    for _ in range(VOTERS):
        with app.browser() as voter:
            voter.get(f"/{poll}").raise_for_status()
            picks: list[str] = []
            while len(picks) < places:
                pick = liked[min(int(chance.expovariate(0.35)), len(liked) - 1)]
                if pick not in picks:
                    picks.append(pick)
            fields = ("choice",) if places == 1 else ("first", "second", "third")
            voter.post(f"/{poll}/vote", data=dict(zip(fields, picks, strict=True)))


def save(page: Page, name: str, full: bool = False) -> int:
    """Write the picture of ``page``; return its size in bytes."""
    page.evaluate("document.fonts.ready")
    image = Image.open(io.BytesIO(page.screenshot(full_page=full, animations="disabled")))
    file = FOLDER / f"{name}.webp"
    image.save(file, quality=82, method=6)
    return file.stat().st_size


def main() -> int:
    """Return the exit code."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    total = 0
    with tempfile.TemporaryDirectory() as name, browser() as chromium:
        folder = Path(name)
        redis = Redis(folder)
        site = polls.write(folder / "polls")
        # All these voters come from one address: to the guard a crowd.
        app = App(folder, redis.url, polls=site, F1_CHALLENGE="never", F1_PUBLIC_URL=ADDRESS)
        try:
            codes = [c["code"] for c in httpx.get(f"{app.url}/api/polls/race").json()["choices"]]
            for poll, places in (("race", 1), ("podium", 3)):
                vote(app, poll, codes, places)
            now, _ = redis.client.time()
            redis.client.hset("poll:race:meta", mapping={"closes": int(now) + 3 * 3600 + 754})

            voter = Visitor(chromium, app.url, "en", PHONE, "dark", scale=2)
            page = voter.open("/race")
            total += save(page, "vote-phone-en")
            page.get_by_role("button", name="Hülkenberg").tap()
            page.locator("#ticket .code").wait_for()
            page.locator("#board").scroll_into_view_if_needed()
            page.locator("#said").evaluate("said => { said.textContent = ''; }")
            page.evaluate("scrollTo(0, document.getElementById('board').offsetTop - 80)")
            total += save(page, "standings-phone-en")
            voter.close()

            voter = Visitor(chromium, app.url, "fr", DESKTOP, "light")
            page = voter.open("/race")
            page.get_by_role("button", name="Gasly").click()
            page.locator("#ticket .code").wait_for()
            page.locator("#said").evaluate("said => { said.textContent = ''; }")
            page.evaluate("scrollTo(0, 0)")
            total += save(page, "vote-desktop-fr")
            page.goto("/")
            total += save(page, "home-desktop-fr")
            voter.close()

            voter = Visitor(chromium, app.url, "fr", PHONE, "light", scale=2)
            page = voter.open("/podium")
            for name in ("Gasly", "Norris", "Leclerc"):
                page.locator(".slot button", has_text=name).tap()
            page.evaluate("scrollTo(0, 0)")
            total += save(page, "podium-phone-fr")
            redis.client.hset("poll:race:meta", mapping={"closes": int(now) - 60})
            page.goto("/race")
            total += save(page, "result-phone-fr")
            voter.close()
        finally:
            app.stop()
            redis.kill()
    print(f"{FOLDER}: {total} bytes")
    return int(total > MOST_BYTES)


if __name__ == "__main__":
    sys.exit(main())
