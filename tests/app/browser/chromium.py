"""A voter's browser: Debian's Chromium, driven by Playwright, that looks after itself."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from playwright.sync_api import Browser, Page, sync_playwright

CHROMIUM = Path("/usr/bin/chromium")
PHONE, DESKTOP, NARROW = (390, 844), (1280, 900), (320, 640)
DEADLINE_MS = 15_000


@contextmanager
def browser() -> Iterator[Browser]:
    """Run Chromium; without it the tests fail, they are not passed over."""
    assert CHROMIUM.exists(), f"{CHROMIUM} is absent; run lab/bootstrap.sh, or apt install chromium"
    sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        yield playwright.chromium.launch(executable_path=CHROMIUM, args=sandbox)


class Visitor:
    """
    One browser profile at ``url``: cookies, language, screen and tastes of its own.

    ``faults`` collects what must not happen on any page: messages of the console, uncaught errors,
    requests to anybody else.
    """

    def __init__(
        self,
        chromium: Browser,
        url: str,
        language: str = "en",
        size: tuple[int, int] = PHONE,
        scheme: Literal["light", "dark"] = "light",
        script: bool = True,
        moving: bool = False,
        scale: float = 1,
    ) -> None:
        self.url = url
        self.faults: list[str] = []
        self.context = chromium.new_context(
            base_url=url,
            locale={"en": "en-GB", "fr": "fr-FR"}[language],
            viewport={"width": size[0], "height": size[1]},
            device_scale_factor=scale,
            has_touch=size[0] < 600,
            color_scheme=scheme,
            reduced_motion="no-preference" if moving else "reduce",
            java_script_enabled=script,
            timezone_id="Europe/Paris",
        )
        self.context.set_default_timeout(DEADLINE_MS)

    def open(self, path: str) -> Page:
        """Open ``path`` in a new tab."""
        page = self.context.new_page()
        page.on("console", self._console)
        page.on("pageerror", lambda error: self.faults.append(f"{page.url}: {error}"))
        page.on("request", self._request)
        page.goto(path)
        return page

    def close(self) -> None:
        """Close every tab; fail if a page did what none may."""
        self.context.close()
        assert not self.faults, self.faults

    def _console(self, message: Any) -> None:
        # A refused vote is an answer of ours; Chromium notes its status. So is a page that is not.
        if not re.search(r"status of (400|403|409|429|503)", message.text) and not (
            "status of 404" in message.text and message.location["url"] == f"{self.url}/nowhere"
        ):
            self.faults.append(f"console: {message.text} ({message.location})")

    def _request(self, request: Any) -> None:
        if not request.url.startswith((f"{self.url}/", "data:", "blob:")):
            self.faults.append(f"foreign request: {request.url}")
