"""A vote that takes work: the browser does it by itself, and who cannot is told the truth."""

import hashlib
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe  # type: ignore[import-untyped]
from playwright.sync_api import Browser, Page, expect

from tests.app.browser import polls
from tests.app.browser.chromium import Visitor
from tests.app.servers import App, Redis


@pytest.fixture(scope="module")
def attacked(redis_server: Redis, tmp_path_factory: pytest.TempPathFactory) -> Iterator[App]:
    folder = tmp_path_factory.mktemp("attacked")
    app = App(folder, redis_server.url, polls=polls.write(folder / "polls"), F1_CHALLENGE="always")
    yield app
    app.stop()


@pytest.fixture
def visitor(
    chromium: Browser, attacked: App, redis_server: Redis
) -> Iterator[Callable[..., Visitor]]:
    """Return new visitors of the site where every new ballot takes work."""
    redis_server.client.flushall()
    visitors: list[Visitor] = []

    def new(**tastes: Any) -> Visitor:
        visitors.append(Visitor(chromium, attacked.url, **tastes))
        return visitors[-1]

    yield new
    for one in visitors:
        one.close()


def tally(redis_server: Redis, poll: str) -> dict[str, str]:
    held: Any = redis_server.client.hgetall(f"poll:{poll}:tally")
    return {code: n for code, n in held.items() if n != "0"}


def watch(page: Page) -> None:
    """Let the page note what it shows of the work."""
    page.evaluate(
        """() => {
          globalThis.noted = { values: [], label: null, live: null };
          new MutationObserver(() => {
            const bar = document.querySelector("progress");
            if (!bar) return;
            noted.label = bar.getAttribute("aria-label");
            noted.live = bar.closest("[role=status]") !== null;
            if (noted.values.at(-1) !== bar.value) noted.values.push(bar.value);
          }).observe(document, { subtree: true, childList: true, attributes: true });
        }"""
    )


@pytest.mark.parametrize("language", ["en", "fr"])
def test_the_browser_works_and_the_vote_is_counted(visitor, redis_server, language):
    page = visitor(language=language).open("/race")
    watch(page)
    page.get_by_role("button", name="Verstappen").click()
    expect(page.locator('.slot [aria-pressed="true"]')).to_contain_text("Verstappen")
    assert tally(redis_server, "race") == {"VER": "1"}
    noted = page.evaluate("noted")
    assert {"en": "short puzzle", "fr": "petite énigme"}[language] in noted["label"]
    assert noted["live"]
    assert noted["values"] == sorted(noted["values"])
    assert noted["values"][-1] == 1
    expect(page.locator("progress")).to_have_count(0)
    expect(page.locator("#alarm")).to_be_empty()
    # Done once: a change of mind, and a withdrawal, take none.
    page.evaluate("noted.values = []")
    page.get_by_role("button", name="Hamilton").click()
    expect(page.locator('.slot [aria-pressed="true"]')).to_contain_text("Hamilton")
    page.get_by_role("button", name={"en": "Take my vote back", "fr": "Retirer"}[language]).click()
    expect(page.locator('.slot [aria-pressed="true"]')).to_have_count(0)
    assert page.evaluate("noted.values") == []
    assert tally(redis_server, "race") == {}


@pytest.mark.parametrize("without", ["Worker", None])
def test_a_podium_with_and_without_a_worker(visitor, redis_server, without):
    page = visitor().open("/podium")
    if without:
        page.evaluate(f"globalThis.{without} = undefined")
    watch(page)
    for name in ("Norris", "Verstappen", "Hamilton"):
        page.get_by_role("button", name=re.compile(name)).first.click()
    page.get_by_role("button", name="Vote for this podium").click()
    expect(page.locator(".pick").first).to_contain_text("Norris")
    assert tally(redis_server, "podium") == {"NOR": "3", "VER": "2", "HAM": "1"}
    assert page.evaluate("noted.values.length") > 2


@pytest.mark.parametrize(
    ("language", "said"),
    [("en", "takes JavaScript for the moment"), ("fr", "demande JavaScript pour le moment")],
)
def test_who_has_no_script_is_told_so_and_nothing_is_counted(visitor, redis_server, language, said):
    page = visitor(language=language, script=False).open("/race")
    page.get_by_role("button", name="Verstappen").click()
    expect(page.get_by_role("heading", level=1)).to_contain_text(said)
    expect(page.locator(".lead")).to_contain_text("JavaScript")
    assert tally(redis_server, "race") == {}
    page.get_by_role(
        "link", name={"en": "Back to the vote", "fr": "Retour au vote"}[language]
    ).click()
    expect(page).to_have_url(re.compile("/race$"))


def test_the_solver_and_the_server_agree_on_every_difficulty(visitor):
    """Against hashlib, at each number of zero bits: the shift in work.js is easily wrong by one."""
    page = visitor().open("/race")
    source = page.evaluate(
        """async () => {
          const app = document.querySelector("script[type=module]").src;
          return (await (await fetch(app)).text()).match(/"([^"]*work[^"]*[.]js)"/)[1];
        }"""
    )
    for bits in range(1, 13):
        challenge = f"{bits}.1790000000.{'s' * 22}"
        answer = page.evaluate(
            "async ([source, challenge]) => (await import(source)).solve(challenge)",
            [source, challenge],
        )
        given, _, numbers = answer.rpartition(".")
        assert given == challenge
        for piece, number in enumerate(numbers.split("-")):
            digest = hashlib.sha256(f"{challenge}.{piece}.{number}".encode()).digest()
            assert int.from_bytes(digest, "big") >> (256 - bits) == 0


def test_the_bar_is_read_to_who_does_not_see_it(visitor):
    """No finding of axe (WCAG 2.1 AA) while the device works."""
    page = visitor().open("/race")
    # The worker never answers, so that there is time to look.
    page.evaluate("() => { globalThis.Worker = class extends EventTarget { postMessage() {} }; }")
    page.get_by_role("button", name="Verstappen").click()
    expect(page.get_by_role("progressbar")).to_be_visible()
    results = Axe().run(page)
    assert results.violations_count == 0, results.generate_report()
