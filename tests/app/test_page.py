"""What the pages hold: in both languages, in every state of a poll, whatever a poll is called."""

import re
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from f1vote import pages
from f1vote.i18n import Texts
from f1vote.pages import Pages, Visit
from f1vote.polls import Choice, Poll, load
from f1vote.store import Standing
from tests.app.servers import ask
from tests.conftest import ROOT

POLLS = {poll.id: poll for poll in load(ROOT / "app" / "polls")}
RACE, PODIUM = POLLS["driver-of-the-day"], POLLS["champion"]
SETTINGS: Any = SimpleNamespace(polls_dir=ROOT / "app" / "polls", version="c-test")
PAGES = Pages(Texts(), SETTINGS, POLLS)
NOW = 1_780_000_000
RECEIPT = "7K2M9QXT4WPDR"
# Elements that have no end tag (HTML, 13.1.2), and those of SVG that the templates close at once.
VOID = {"meta", "link", "input", "img", "br"}


class Page(HTMLParser):
    """A page taken apart: fails where elements do not nest."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.heard: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.heard.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.heard).split(" "))

    def all(self, tag: str, **attributes: str) -> list[dict[str, str | None]]:
        return [
            found
            for name, found in self.elements
            if name == tag and attributes.items() <= found.items()
        ]


def standing(poll: Poll, points: dict[str, int] | None = None, **other: Any) -> Standing:
    every = dict.fromkeys(poll.codes, 0) | (points or {})
    values: dict[str, Any] = {
        "points": every, "voters": sum(every.values()) // sum(poll.points), "version": 7,
        "now": NOW, "opens": NOW - 3600, "closes": NOW + 3600, "frozen": False, "hidden": False,
    }  # fmt: skip
    return Standing(**values | other)


def visit(language: str = "en", asked: str | None = None, path: str = "/p") -> Visit:
    return Visit(language, asked, path, "https://vote.example.org")


def show(poll: Poll, now: Standing | None, *held: str, language: str = "en", **other: Any) -> Page:
    return Page(PAGES.poll(visit(language), poll, now, held, RECEIPT if held else None, **other))


STATES: dict[str, dict[str, Any]] = {
    "early": {"opens": NOW + 60},
    "open": {},
    "frozen": {"frozen": True},
    "closed": {"closes": NOW},
    "hidden": {"hidden": True},
}


@pytest.mark.parametrize("language", ["en", "fr"])
@pytest.mark.parametrize("state", [*STATES, "silent"])
@pytest.mark.parametrize("poll", [RACE, PODIUM, POLLS["best-overtake"]], ids=lambda poll: poll.id)
@pytest.mark.parametrize("voted", [False, True])
def test_every_state_is_a_whole_page(language, state, poll, voted):
    points = {poll.codes[0]: 6, poll.codes[1]: 12}
    now = None if state == "silent" else standing(poll, points, **STATES[state])
    held = poll.codes[: len(poll.points)] if voted and now else ()
    text = PAGES.poll(visit(language), poll, now, held, RECEIPT if held else None)
    page = Page(text)
    assert page.all("html") == [{"lang": language}]
    assert len(page.all("h1")) == 1
    ids = [found["id"] for _, found in page.elements if "id" in found]
    assert len(ids) == len(set(ids))
    for _, found in page.elements:
        assert "style" not in found
        assert not any(name.startswith("on") for name in found)
        assert found.get("aria-labelledby", ids[0]) in ids
    for label in page.all("label"):
        assert label["for"] in ids
    for script in page.all("script"):
        assert script.get("type") == "application/json" or str(script["src"]).startswith("/static/")
    assert not re.search(r'(?:src|href|action)="(?:https?:)?//(?!vote\.example\.org/)', text)
    # A button takes votes only while votes are taken.
    votes = [b for b in page.all("button") if "value" in b]
    assert all(("disabled" in button) == (state not in ("open", "hidden")) for button in votes)
    assert bool(votes) == (state != "closed")
    assert ("7K2M-9QXT-4WPDR" in page.text) == bool(held)
    assert bool(page.all("form", action=f"/{poll.id}/withdraw")) == (
        bool(held) and state in ("open", "hidden")
    )
    # Nothing is left in the other language.
    assert bool(re.search("Your vote|Standings|Result|counting room", text)) == (language == "en")


@pytest.mark.parametrize(
    ("results", "voted", "state", "seen"),
    [
        ("always", False, "open", True),
        ("always", False, "hidden", False),
        ("voted", False, "open", False),
        ("voted", True, "open", True),
        ("voted", False, "closed", True),
        ("closed", True, "open", False),
        ("closed", False, "closed", True),
    ],
)
def test_who_sees_the_standings(results, voted, state, seen):
    poll = replace(RACE, results=results)
    now = standing(poll, {"VER": 3}, **STATES[state])
    page = show(poll, now, *(["VER"] if voted else []))
    assert bool(page.all("ol", **{"class": "rows"})) == seen
    assert ("100%" in page.text) == seen


def test_the_closing_time_is_written_out_and_counted_down():
    page = show(RACE, standing(RACE))
    (time,) = page.all("time")
    assert time["datetime"] == "2026-05-28T21:26:40+00:00"
    assert "28 May 2026, 21:26 UTC" in page.text
    (main,) = page.all("main")
    assert (main["data-now"], main["data-closes"]) == (str(NOW), str(NOW + 3600))


def test_the_winner_is_named_at_the_end_only():
    points = {"LEC": 5, "HAM": 5, "NOR": 1}
    assert not show(RACE, standing(RACE, points)).all("div", **{"class": "winner c-LEC"})
    page = show(RACE, standing(RACE, points, closes=NOW))
    assert page.all("div", **{"class": "winner c-LEC"})
    assert page.all("div", **{"class": "winner c-HAM"})
    assert not page.all("div", **{"class": "winner c-NOR"})
    assert "winner" not in PAGES.poll(visit(), RACE, standing(RACE, closes=NOW))


def test_the_vote_held_is_the_one_that_is_pressed():
    page = show(RACE, standing(RACE), "HAM")
    pressed = page.all("button", **{"aria-pressed": "true"})
    assert [button["value"] for button in pressed] == ["HAM"]
    page = show(PODIUM, standing(PODIUM), "HAM", "VER")
    assert [option["value"] for option in page.all("option") if "selected" in option] == [
        "HAM",
        "VER",
    ]


def test_a_poll_by_invitation_asks_for_the_code():
    page = show(RACE, standing(RACE), admitted=False)
    assert page.all("form", action=f"/{RACE.id}/code")
    assert not page.all("button", name="choice")


@pytest.mark.parametrize("language", ["en", "fr"])
def test_what_is_written_into_a_poll_stays_text(language):
    evil = "</title><script>alert(1)</script>\"'&{{ 7 * 7 }}"
    both = {"en": evil, "fr": evil}
    choices = (
        Choice("AA", both, 1, evil, "#ffffff", None),
        Choice("BB", both, None, None, "#000000", None),
    )
    poll = replace(RACE, id="evil", title=both, question=both, choices=choices)
    mine = Pages(Texts(), SETTINGS, {"evil": poll})
    texts = [
        mine.poll(visit(language), poll, standing(poll, {"AA": 1}), ("AA",), RECEIPT),
        mine.poll(visit(language), poll, standing(poll, {"AA": 1}, closes=NOW), ("AA",), RECEIPT),
        mine.home(visit(language), [(poll, standing(poll, {"AA": 1}))]),
        mine.receipt(visit(language), poll, evil, None, ("AA",)),
        mine.receipt(visit(language, path=f"/{evil}"), poll, evil, RECEIPT, ("AA",)),
        mine.error(visit(language, path=f"/{evil}"), evil, evil),
    ]
    for text in texts:
        assert "<script>" not in text
        assert "49" not in text
        Page(text)


def test_equals_share_a_place_and_keep_their_order():
    rows = pages.rows(RACE.choices, dict.fromkeys(RACE.codes, 0) | {"VER": 2, "NOR": 1, "PIA": 1})
    assert [(row.choice.code, row.place) for row in rows[:4]] == [
        ("VER", 1), ("NOR", 2), ("PIA", 2), ("RUS", 4),
    ]  # fmt: skip
    assert [(row.share, row.bar) for row in rows[:4]] == [(50, 100), (25, 50), (25, 50), (0, 0)]
    assert [row.share for row in pages.rows(RACE.choices, dict.fromkeys(RACE.codes, 0))] == [0] * 22


@pytest.mark.parametrize(
    ("part", "whole", "n"), [(0, 0, 0), (1, 3, 33), (2, 3, 67), (1, 200, 1), (1, 201, 0)]
)
def test_percent(part, whole, n):
    assert pages.percent(part, whole) == n


@pytest.mark.parametrize(
    ("colour", "ink"),
    [("#ffffff", "#000000"), ("#000000", "#ffffff"), ("#ff8000", "#000000"), ("#e8002d", "#ffffff"),
     ("#757575", "#ffffff"), ("#777777", "#000000")],
)  # fmt: skip
def test_the_ink_on_a_team_s_colour(colour, ink):
    assert pages.ink(colour) == ink


def test_the_preview_of_a_link_is_absolute_and_in_its_language():
    page = show(RACE, standing(RACE), language="fr")
    properties = {m["property"]: m["content"] for m in page.all("meta") if "property" in m}
    assert properties["og:image"] == f"https://vote.example.org/{RACE.id}/card.fr.png"
    assert properties["og:url"] == f"https://vote.example.org/{RACE.id}"
    assert properties["og:title"] == RACE.title["fr"]


def test_the_language_chosen_stays_in_every_address_of_ours():
    page = Page(PAGES.poll(visit("fr", "fr"), RACE, standing(RACE), ("HAM",), RECEIPT))
    addresses = [a["href"] for a in page.all("a") if (a["href"] or "").startswith("/")]
    addresses += [f["action"] for f in page.all("form")]
    ours = [a for a in addresses if a and not a.startswith("/api") and "lang=en" not in a]
    assert len(ours) > 5
    assert [a for a in ours if "lang=fr" not in a] == []


def test_home_sorts_the_polls_by_what_can_be_done():
    page = PAGES.home(
        visit(),
        [
            (RACE, standing(RACE, closes=NOW)), (PODIUM, standing(PODIUM, {"NOR": 6})),
            (POLLS["best-overtake"], standing(POLLS["best-overtake"], opens=NOW + 9)),
        ],
    )  # fmt: skip
    places = [page.index(text) for text in ("Open now", 'href="/champion"', "Soon",
              'href="/best-overtake"', "Finished", 'href="/driver-of-the-day"')]  # fmt: skip
    assert places == sorted(places)
    assert "First: <b>Lando Norris</b>" in page
    Page(page)
    Page(PAGES.home(visit(), []))
    assert "does not answer" in PAGES.home(visit(), [(RACE, None)])


def test_home_tells_nobody_who_leads_a_covered_poll():
    page = PAGES.home(visit(), [(RACE, standing(RACE, {"NOR": 6}))])
    assert "Norris" not in page


@pytest.mark.parametrize(
    ("receipt", "held", "said"),
    [
        (RECEIPT, ("NOR",), "This vote is counted"),
        (RECEIPT, (), "No vote is counted under this receipt"),
        (None, (), "a character is mistyped"),
    ],
)
def test_a_receipt_is_answered(receipt, held, said):
    page = Page(PAGES.receipt(visit(), RACE, "7k2m", receipt, held))
    assert said in page.text
    assert ("Lando Norris" in page.text) == bool(held)


def test_a_choice_that_the_file_lost_is_counted_on_its_receipt():
    page = Page(PAGES.receipt(visit(), RACE, "7k2m", RECEIPT, ("OUT",)))
    assert "This vote is counted" in page.text
    assert "OUT" in page.text


def test_files_have_a_name_for_ever_and_name_only_each_other():
    for path, file in PAGES.files.items():
        assert re.fullmatch(r"/static/[\w-]+\.[0-9a-f]{12}\.\w+", path)
        if file.type.startswith("text/"):
            text = file.body.decode()
            assert "@@" not in text
            assert set(re.findall(r"/static/[\w.-]+", text)) <= set(PAGES.files)
            assert not re.search(r"https?://(?!www\.w3\.org|html\.spec)", text)
    suffixes = Counter(Path(path).suffix for path in PAGES.files)
    assert suffixes[".woff2"] == 3


def test_a_changed_file_has_another_name(tmp_path):
    red = replace(RACE, choices=(replace(RACE.choices[0], colour="#ff0000"), *RACE.choices[1:]))
    mine = Pages(Texts(), SETTINGS, {red.id: red})
    ours, theirs = (
        {path for path in one.files if path.startswith(f"/static/{RACE.id}.")}
        for one in (mine, PAGES)
    )
    assert len(ours) == len(theirs) == 1
    assert ours != theirs


# Over HTTP, by forms alone


def pressed(page: str) -> list[str]:
    return re.findall(r'value="(\w+)" aria-pressed="true"', page)


def test_vote_change_and_withdraw_by_forms_alone(app):
    with app.browser() as voter:
        assert f"/{RACE.id}/withdraw" not in voter.get(f"/{RACE.id}").text
        for choice in ("VER", "HAM", "HAM"):
            answer = voter.post(f"/{RACE.id}/vote", data={"choice": choice})
            assert (answer.status_code, answer.headers["location"]) == (303, f"/{RACE.id}")
            page = voter.get(f"/{RACE.id}").text
            assert pressed(page) == [choice]
        assert '<b data-voters="1">1</b>' in page
        (receipt,) = re.findall(r"receipt\?code=([\w-]+)", page)
        assert "Lewis Hamilton" in voter.get(f"/{RACE.id}/receipt", params={"code": receipt}).text
        assert voter.post(f"/{RACE.id}/withdraw").status_code == 303
        assert pressed(voter.get(f"/{RACE.id}").text) == []
        gone = voter.get(f"/{RACE.id}/receipt", params={"code": receipt}).text
        assert "No vote is counted under this receipt" in gone


def test_a_chosen_language_stays_while_voting(app):
    with app.browser(**{"accept-language": "en"}) as voter:
        assert f'action="/{RACE.id}/vote?lang=fr"' in voter.get(f"/{RACE.id}?lang=fr").text
        answer = voter.post(f"/{RACE.id}/vote?lang=fr", data={"choice": "GAS"})
        assert answer.headers["location"] == f"/{RACE.id}?lang=fr"


@pytest.mark.parametrize(
    ("picks", "counted"),
    [
        (("NOR", "VER", "HAM"), ["NOR", "VER", "HAM"]),
        (("NOR", "VER", ""), ["NOR", "VER"]),
        (("NOR", "", ""), ["NOR"]),
        (("NOR", "", "HAM"), None),
        (("", "VER", "HAM"), None),
        (("NOR", "NOR", ""), None),
        (("", "", ""), None),
        (("XXX", "", ""), None),
    ],
)
def test_a_podium_is_filled_from_the_first_place_down(app, picks, counted):
    with app.browser() as voter:
        voter.get(f"/{PODIUM.id}")
        data = dict(zip(("first", "second", "third"), picks, strict=True))
        answer = voter.post(f"/{PODIUM.id}/vote", data=data)
        assert answer.status_code == (303 if counted else 400)
        page = Page(voter.get(f"/{PODIUM.id}").text)
        held = [option["value"] for option in page.all("option") if "selected" in option]
        assert held == (counted or [])


@pytest.mark.parametrize("body", [{"data": {}}, {"data": {"choice": ""}}, {"content": b"\xff"}])
def test_a_form_without_a_choice_is_refused(app, body):
    with app.browser() as voter:
        voter.get(f"/{RACE.id}")
        assert voter.post(f"/{RACE.id}/vote", **body).status_code == 400


def test_files_are_kept_for_ever_and_pages_are_not(app):
    with app.browser() as voter:
        answer = voter.get("/")
        assert answer.headers["cache-control"] == "no-store"
        for path in set(re.findall(r"/static/[\w.-]+", voter.get(f"/{RACE.id}").text)):
            file = voter.get(path)
            assert file.status_code == 200
            assert "immutable" in file.headers["cache-control"]
            assert file.content == PAGES.files[path].body
        for path in ("/static/style.css", "/static/../settings.py", "/static/", "/nowhere"):
            assert voter.get(path).status_code == 404


def test_addresses_without_a_poll_are_told_so(app):
    with app.browser(**{"accept-language": "fr"}) as voter:
        for path in ("/nowhere", "/nowhere/receipt"):
            answer = voter.get(path)
            assert answer.status_code == 404
            assert '<html lang="fr">' in answer.text
        assert voter.post("/nowhere/vote", data={"choice": "VER"}).status_code == 404
        assert voter.get(f"/{RACE.id}/vote").status_code == 405
        assert voter.head(f"/{RACE.id}").status_code == 200


def test_no_link_leads_to_another_host(app):
    page = ask("GET", f"{app.url}//evil.example/x")
    assert page.status_code == 404
    assert not re.search(r'(href|action|content)="(https?:)?//evil', page.text)
    assert 'href="/evil.example/x?lang=fr"' in page.text


def test_a_ballot_is_given_once(app):
    with app.browser() as voter:
        assert "__Host-f1vote" in voter.get(f"/{RACE.id}").headers["set-cookie"]
        assert "set-cookie" not in voter.get(f"/{RACE.id}").headers
        assert "set-cookie" not in voter.get("/").headers
