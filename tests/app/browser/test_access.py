"""axe finds nothing on any page, in both languages, on both screens, by day and by night."""

import pytest
from axe_playwright_python.sync_playwright import Axe  # type: ignore[import-untyped]
from playwright.sync_api import expect

from tests.app.browser.chromium import DESKTOP, PHONE

# The states of a page that look different from each other.
PAGES = ["/", "/race", "/podium", "/overtake", "/invited", "/soon", "/past",
         "/race/receipt?code=7K2M", "/privacy", "/nowhere"]  # fmt: skip


def violations(page) -> str:
    results = Axe().run(page)
    return results.generate_report() if results.violations_count else ""


# Every pair of a language, a screen and a scheme; nothing depends on all three.
@pytest.mark.parametrize(
    ("language", "size", "scheme"),
    [
        ("en", PHONE, "light"),
        ("en", DESKTOP, "dark"),
        ("fr", PHONE, "dark"),
        ("fr", DESKTOP, "light"),
    ],
)
def test_axe(visitor, language, size, scheme):
    voter = visitor(language=language, size=size, scheme=scheme)
    for path in PAGES:
        page = voter.open(path)
        assert violations(page) == "", path
        page.close()
    page = voter.open("/race")
    page.locator(".slot button", has_text="Antonelli").click()
    expect(page.locator("#ticket")).to_contain_text("Antonelli")
    assert violations(page) == "", "voted"
    page.locator("#ticket .code").click()
    expect(page.locator(".pick")).to_be_visible()
    assert violations(page) == "", "receipt"
