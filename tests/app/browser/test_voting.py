"""A voter in a real browser: without scripts, by keyboard alone, by touch, while others vote."""

import re
import signal

import pytest
from playwright.sync_api import Page, Route, expect

from f1vote import codes, receipts
from tests.app.browser.chromium import DEADLINE_MS, DESKTOP, NARROW, PHONE


def order(page: Page) -> list[str]:
    """The order of the standings."""
    return page.locator(".row").evaluate_all("rows => rows.map(row => row.dataset.code)")


def grid(page: Page) -> list[str]:
    """The order of the grid, where a finger taps."""
    return page.locator(".slot button").evaluate_all("all => all.map(one => one.value)")


def close_in(redis_server, poll: str, seconds: float) -> None:
    """Let ``poll`` close in ``seconds`` by Redis's clock, as its organiser would."""
    now, _ = redis_server.client.time()
    say(redis_server, poll, closes=int(now + seconds))


def say(redis_server, poll: str, **overrides: int) -> None:
    """Override what the file of ``poll`` says, as its organiser would."""
    redis_server.client.hset(f"poll:{poll}:meta", mapping=overrides)
    redis_server.client.hincrby(f"poll:{poll}:meta", "version", 1)
    redis_server.client.publish("f1:changed", poll)


@pytest.mark.parametrize("language", ["en", "fr"])
def test_without_scripts_a_vote_is_cast_changed_and_taken_back(visitor, language):
    page = visitor(language=language, script=False).open("/race")
    pressed = page.locator('.slot [aria-pressed="true"]')
    expect(pressed).to_have_count(0)
    for name in ("Verstappen", "Hamilton"):
        page.get_by_role("button", name=name).click()
        expect(pressed).to_have_count(1)
        expect(pressed).to_contain_text(name)
        expect(page.locator("#ticket")).to_contain_text(name)
        expect(page.locator(".row").first).to_contain_text(name)
        expect(page.locator(".hero .count")).to_contain_text("1")
    page.get_by_role("button", name={"en": "Take my vote back", "fr": "Retirer"}[language]).click()
    expect(pressed).to_have_count(0)
    assert page.url.endswith("/race")


def test_without_scripts_a_podium(visitor):
    page = visitor(script=False).open("/podium")
    expect(page.locator(".slots")).to_be_hidden()
    for place, code in (("First", "NOR"), ("Second", "VER"), ("Third", "HAM")):
        page.get_by_label(f"{place} place").select_option(code)
    page.get_by_role("button", name="Vote for this podium").click()
    expect(page.locator(".pick")).to_have_text(
        [re.compile("Norris"), re.compile("Verstappen"), re.compile("Hamilton")]
    )
    assert order(page)[:3] == ["NOR", "VER", "HAM"]
    expect(page.get_by_label("Second place")).to_have_value("VER")


def test_a_podium_by_tapping(visitor):
    page = visitor().open("/podium")
    expect(page.locator(".selects")).to_be_hidden()
    send = page.get_by_role("button", name="Vote for this podium")
    expect(send).to_be_disabled()
    for name in ("Gasly", "Norris", "Leclerc"):
        page.locator(".slot button", has_text=name).click()
    page.locator(".slot button", has_text="Norris").click()
    page.locator(".slot button", has_text="Albon").click()
    expect(page.locator(".slot .medal:visible")).to_have_text(["2", "3", "1"])
    page.locator(".slot button", has_text="Bottas").click()
    expect(page.locator("#said")).to_contain_text("full")
    send.click()
    expect(page.locator(".pick")).to_have_text(
        [re.compile("Gasly"), re.compile("Leclerc"), re.compile("Albon")]
    )
    assert order(page)[:3] == ["GAS", "LEC", "ALB"]


def podium(page: Page, *names: str) -> None:
    """Expect ``names`` on the podium that is being filled."""
    for place, name in enumerate(names, 1):
        slot = page.locator(".slot button", has_text=name)
        expect(slot.locator(".medal")).to_have_text(str(place))
    expect(page.locator(".slot .medal:visible")).to_have_count(len(names))


def test_a_podium_that_is_not_sent_outlives_what_the_organiser_does(visitor, redis_server):
    page = visitor().open("/podium")
    for name in ("Gasly", "Norris"):
        page.locator(".slot button", has_text=name).click()
    close_in(redis_server, "podium", 3600)
    expect(page.locator("#strip .state")).to_contain_text("Closes on")
    podium(page, "Gasly", "Norris")
    say(redis_server, "podium", hidden=1)
    expect(page.locator("#board")).to_contain_text("covered")
    podium(page, "Gasly", "Norris")
    say(redis_server, "podium", frozen=1)
    expect(page.locator("#strip .state")).to_contain_text("paused")
    say(redis_server, "podium", frozen=0, hidden=0)
    expect(page.locator(".row").first).to_be_visible()
    podium(page, "Gasly", "Norris")
    page.locator(".slot button", has_text="Leclerc").click()
    page.get_by_role("button", name="Vote for this podium").click()
    expect(page.locator(".pick")).to_have_count(3)
    assert order(page)[:3] == ["GAS", "NOR", "LEC"]


def test_a_podium_that_is_not_touched_follows_the_vote(visitor, redis_server):
    one = visitor()
    here, there = one.open("/podium"), one.open("/podium")
    here.locator(".slot button", has_text="Gasly").click()
    here.get_by_role("button", name="Vote for this podium").click()
    expect(here.locator(".pick")).to_have_count(1)
    close_in(redis_server, "podium", 3600)
    expect(there.locator(".pick")).to_have_count(1)
    podium(there, "Gasly")
    # The vote is taken back: who thought of nothing else has an empty podium.
    here.get_by_role("button", name="Take my vote back").click()
    expect(here.locator(".pick")).to_have_count(0)
    podium(here)


def test_without_events_covered_standings_are_no_reason_for_a_new_page(visitor, redis_server):
    say(redis_server, "podium", hidden=1)
    one = visitor()
    one.context.route("**/events", lambda route: route.fulfill(status=503))
    page = one.open("/podium")
    for name in ("Gasly", "Norris"):
        page.locator(".slot button", has_text=name).click()
    loaded: list[str] = []
    page.on("request", lambda request: loaded.append(request.url.removeprefix(one.url)))
    for _ in range(2):
        with page.expect_response("**/results") as answer:
            pass
        assert answer.value.status == 403
    assert "/podium" not in loaded
    podium(page, "Gasly", "Norris")
    say(redis_server, "podium", hidden=0)
    expect(page.locator(".row").first).to_be_visible(timeout=DEADLINE_MS)
    podium(page, "Gasly", "Norris")


def test_one_tap_votes_without_a_new_page(visitor):
    page = visitor(language="fr").open("/race")
    page.evaluate("window.sameDocument = true")
    before = grid(page)
    page.get_by_role("button", name="Gasly").tap()
    expect(page.locator("#said")).to_have_text("Votre vote est compté.")
    expect(page.get_by_role("button", name="Gasly")).to_have_attribute("aria-pressed", "true")
    expect(page.locator("#ticket .code")).to_have_text(re.compile(r"^\w{4}-\w{4}-\w{5}$"))
    assert order(page)[0] == "GAS"
    assert grid(page) == before
    page.get_by_role("button", name="Retirer mon vote").tap()
    expect(page.locator("#said")).to_have_text("Votre vote est retiré.")
    expect(page.locator('.slot [aria-pressed="true"]')).to_have_count(0)
    assert page.evaluate("window.sameDocument")


def test_by_keyboard_alone(visitor):
    page = visitor(size=DESKTOP).open("/race")
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    expect(page.locator(".slot button").first).to_be_focused()
    page.keyboard.press("Tab")
    page.keyboard.press("Space")
    expect(page.locator("#ticket")).to_contain_text("Oscar Piastri")
    # Focus stays where it was, so the next key goes on from there.
    expect(page.locator(".slot button").nth(1)).to_be_focused()
    taken = page.get_by_role("button", name="Take my vote back")
    for _ in range(40):
        page.keyboard.press("Tab")
        if taken.evaluate("button => button === document.activeElement"):
            break
    expect(taken).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("#ticket")).to_contain_text("None yet")
    expect(page.locator("#ticket")).to_be_focused()


def test_a_vote_of_somebody_else_is_seen_live_and_moves_no_button(visitor):
    watching, voting = visitor(size=DESKTOP, moving=True).open("/race"), visitor().open("/race")
    expect(watching.locator(".live")).to_be_visible()
    before = grid(watching)
    voting.get_by_role("button", name="Bottas").tap()
    expect(watching.locator(".row").first).to_have_attribute("data-code", "BOT")
    expect(watching.locator(".row").first).to_contain_text("100%")
    expect(watching.locator(".hero .count")).to_have_text(re.compile(r"1\s+vote counted"))
    assert grid(watching) == before


def test_reduced_motion_moves_nothing(visitor):
    page = visitor(moving=False).open("/race")
    page.evaluate("""() => {
        window.animated = 0;
        const animate = Element.prototype.animate;
        Element.prototype.animate = function (...how) {
            window.animated++;
            return animate.apply(this, how);
        };
    }""")
    page.get_by_role("button", name="Bottas").tap()
    expect(page.locator(".row").first).to_have_attribute("data-code", "BOT")
    assert page.evaluate("window.animated") == 0
    assert page.evaluate("document.getAnimations().length") == 0


def test_the_standings_open_with_the_vote_and_stay_live(visitor):
    page, other = visitor().open("/covered"), visitor().open("/covered")
    expect(page.locator(".row")).to_have_count(0)
    page.get_by_role("button", name="Norris").tap()
    expect(page.locator(".row").first).to_have_attribute("data-code", "NOR")
    expect(page.locator(".live")).to_be_visible()
    for name in ("Ocon", "Hadjar"):
        other.get_by_role("button", name=name).tap()
        expect(other.locator("#ticket")).to_contain_text(name)
    expect(page.locator('[data-code="HAD"] .value')).to_contain_text("50%")


def test_the_clock_reaches_the_end_and_the_result_is_there(visitor, redis_server):
    page = visitor().open("/race")
    page.get_by_role("button", name="Sainz").tap()
    expect(page.locator("#ticket")).to_contain_text("Sainz")
    close_in(redis_server, "race", 5)
    expect(page.locator(".clock")).to_have_text(re.compile(r"^00:00:0\d$"))
    expect(page.locator(".winner")).to_contain_text("Sainz", timeout=DEADLINE_MS)
    expect(page.locator(".slot")).to_have_count(0)
    expect(page.locator("#board h2")).to_have_text("Result")


def test_a_late_vote_is_told_kindly(visitor, redis_server):
    page = visitor(script=False).open("/race")
    close_in(redis_server, "race", -10)
    page.get_by_role("button", name="Sainz").click()
    expect(page.locator("h1")).to_contain_text("closed")
    page.get_by_role("link", name="Back to the vote").click()
    expect(page.locator("#board h2")).to_have_text("Result")


def test_a_receipt_is_looked_up_and_a_mistyped_one_is_told(visitor):
    page = visitor(script=False).open("/race")
    page.get_by_role("button", name="Hülkenberg").click()
    code = page.locator("#ticket .code").inner_text()
    page.locator("#ticket .code").click()
    expect(page.locator(".notice")).to_contain_text("This vote is counted")
    expect(page.locator(".pick")).to_contain_text("Nico Hülkenberg")
    field = page.get_by_label("The code on your receipt")
    field.fill(code.lower().replace("-", " "))
    page.get_by_role("button", name="Check").click()
    expect(page.locator(".notice")).to_contain_text("This vote is counted")
    field.fill(("A" if code[0] != "A" else "B") + code[1:])
    page.get_by_role("button", name="Check").click()
    expect(page.locator(".notice")).to_contain_text("mistyped")


def test_the_page_comes_back_with_the_counting_room(visitor, redis_server):
    page = visitor().open("/race")
    redis_server.kill()
    try:
        page.get_by_role("button", name="Sainz").tap()
        expect(page.locator("#alarm")).to_contain_text("safe")
        page.reload()
        expect(page.locator(".notice")).to_contain_text("does not answer")
        expect(page.locator(".slot button").first).to_be_disabled()
    finally:
        redis_server.start()
    expect(page.locator(".slot button").first).to_be_enabled()
    page.get_by_role("button", name="Sainz").tap()
    expect(page.locator("#ticket")).to_contain_text("Sainz")


@pytest.mark.parametrize("ours", [True, False])
def test_a_vote_is_told_as_counted_when_its_page_cannot_be_shown(visitor, redis_server, ours):
    """Redis is silent right after the vote; ``ours``: is the 503 a page of the app?"""
    page = visitor().open("/race")

    def vote(route: Route) -> None:
        answer = route.fetch(max_redirects=0)
        assert answer.status == 303
        redis_server.process.send_signal(signal.SIGSTOP)
        route.fulfill(response=answer)

    page.route("**/race/vote", vote)
    if not ours:
        # Requests that follow a redirect pass Playwright by: the page is told of them itself.
        page.evaluate("""() => {
          const ask = fetch;
          globalThis.fetch = async (...all) => {
            const answer = await ask(...all);
            return answer.redirected
              ? { ok: false, redirected: true, status: 503, text: async () => "no upstream" }
              : answer;
          };
        }""")
    try:
        page.get_by_role("button", name="Sainz").tap()
        expect(page.locator("#said")).to_have_text("Your vote is counted.")
        expect(page.locator("#alarm")).to_be_empty()
    finally:
        redis_server.process.send_signal(signal.SIGCONT)
    # What it changed follows by itself.
    expect(page.locator("#ticket")).to_contain_text("Sainz")
    expect(page.locator('.slot [aria-pressed="true"]')).to_contain_text("Sainz")


@pytest.mark.parametrize(
    "path",
    ["/", "/race", "/podium", "/overtake", "/past", "/race/receipt?code=x", "/privacy", "/nowhere"],
)
@pytest.mark.parametrize(("size", "zoom"), [(NARROW, 1), (PHONE, 2), (DESKTOP, 2)])
def test_nothing_is_cut_off_when_it_is_narrow_or_enlarged(visitor, path, size, zoom):
    # Zooming in makes the page that many times narrower (WCAG 2.1, 1.4.10); text alone may grow.
    page = visitor(size=size, language="fr").open(path)
    page.evaluate(f"document.documentElement.style.fontSize = '{100 * zoom}%'")
    assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
    cut = page.evaluate("""() => [...document.querySelectorAll('.slot b, .row .name, h1, h2, p')]
        .filter(one => one.scrollWidth > one.clientWidth + 1)
        .filter(one => getComputedStyle(one).overflow !== 'visible')
        .map(one => one.textContent)""")
    assert cut == []


def test_on_paper_there_is_the_result_and_no_button(visitor):
    page = visitor().open("/race")
    page.get_by_role("button", name="Sainz").tap()
    expect(page.locator("#ticket")).to_contain_text("Sainz")
    page.emulate_media(media="print")
    expect(page.locator(".row").first).to_be_visible()
    expect(page.locator("#ticket .code")).to_be_visible()
    expect(page.locator(".qr")).to_be_visible()
    expect(page.locator("button:visible")).to_have_count(0)


def test_a_language_is_chosen_and_kept(visitor):
    page = visitor(script=False).open("/race")
    page.get_by_role("link", name="Français").click()
    page.get_by_role("button", name="Voter pour 1 Lando Norris").click()
    expect(page.locator("#ticket h2")).to_have_text("Votre vote")
    page.locator("#ticket .code").click()
    expect(page.locator("h1")).to_have_text("Vérifier un reçu")


def test_by_invitation_the_code_is_asked_for_once(visitor, redis_server):
    (code,) = codes.make(1)
    redis_server.client.sadd("poll:invited:codes", receipts.of("invited", code))
    page = visitor(script=False).open("/invited")
    expect(page.locator(".slot")).to_have_count(0)
    field = page.get_by_label("Your one-time code")
    field.fill(code[:-1] + ("A" if code[-1] != "A" else "B"))
    page.get_by_role("button", name="Use this code").click()
    expect(page.locator("h1")).to_contain_text("not a code")
    page.get_by_role("link", name="Back to the vote").click()
    field.fill(code.lower())
    page.get_by_role("button", name="Use this code").click()
    page.get_by_role("button", name="Ocon").click()
    expect(page.locator("#ticket")).to_contain_text("Esteban Ocon")
    # By the link that is printed, in another browser: the same vote, which it may change.
    other = visitor().open(f"/invited?code={code}")
    assert "code" not in other.url
    expect(other.locator("#ticket")).to_contain_text("Esteban Ocon")
    other.get_by_role("button", name="Norris").tap()
    expect(other.locator(".hero .count")).to_have_text(re.compile(r"^1\s+vote counted$"))
