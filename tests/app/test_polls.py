"""Poll files: the examples, and everything that can be wrong in one, told at once."""

import textwrap
from pathlib import Path

import jsonschema
import pytest

from f1vote import polls
from f1vote.problems import Problems
from tests.conftest import ROOT

EXAMPLES = ROOT / "app" / "polls"
# Two of its lines are told apart by `#1`, `#2` below: a line of a file is part of what is said.
POLL = """\
id: sprint
title: {en: Sprint, fr: Sprint}
question: {en: 'Who wins?', fr: 'Qui gagne ?'}
opens: 2026-03-08T15:00:00+11:00
closes: null
results: voted
points: [2, 1]
voters: cookie
listed: true
choices:
  - {code: NOR, name: Lando Norris, number: 1, team: McLaren, colour: '#ff8000'}
  - code: SAO23
    name: {en: On the outside, fr: Par l’extérieur}
    colour: '#229971'
"""
NORRIS = POLL.splitlines()[10]

# (what is written, instead of what, line, what is said of it: its beginning)
WRONG = [
    # the id
    ("id: Sprint 1", "id: sprint", 1, 'id: "Sprint 1" is not right; write 1 to 32 of a-z'),
    ("id: api", "id: sprint", 1, 'id: "api" is not right; write 1 to 32 of a-z, 0-9 and -'),
    ("id: 2026", "id: sprint", 1, "id: 2026 is not right; write"),
    ("", "id: sprint\n", 1, "id: missing; write 1 to 32"),
    ("id: a\nid: b", "id: sprint", 2, "id: is there twice; keep one"),
    # texts
    ("title: Sprint", "title: {en: Sprint, fr: Sprint}", 2,
     'title: "Sprint" is not right; write one text in each language: {en: …, fr: …}'),
    ("title: {en: Sprint}", "title: {en: Sprint, fr: Sprint}", 2,
     "title.fr: missing; write one line of text"),
    ("fr: Sprint, de: Sprint}", "fr: Sprint}", 2, "title.de: no such key; remove it; known"),
    ("en: '', fr", "en: Sprint, fr", 2, 'title.en: "" is not right; write one line of text'),
    ("en: ' x', fr", "en: Sprint, fr", 2, 'title.en: " x" is not right; write one line'),
    (f"en: {'x' * 141}, fr", "en: Sprint, fr", 2, "title.en: this is not right; write one line"),
    ("question:\n  en: Who?\n", "question: {en: 'Who wins?', fr: 'Qui gagne ?'}\n", 3,
     "question.fr: missing; write one line of text"),
    # moments
    ("opens: 2026-03-08\n", "opens: 2026-03-08T15:00:00+11:00\n", 4,
     'opens: "2026-03-08" is not right; write a moment with its offset, such as 2026-'),
    ("opens: 2026-03-08T15:00:00\n", "opens: 2026-03-08T15:00:00+11:00\n", 4,
     'opens: "2026-03-08T15:00:00" is not right; write a moment with its offset'),
    ("opens: 2026-02-30T15:00:00Z", "opens: 2026-03-08T15:00:00+11:00", 4, "opens: "),
    ("opens: null", "opens: 2026-03-08T15:00:00+11:00", 4, "opens: null is not right; write"),
    ("closes: never", "closes: null", 5,
     'closes: "never" is not right; write a moment with its offset, such as 2026-03-08T18:00:00+11'
     ":00, or null for none"),
    ("closes: 2026-03-08T04:00:00Z", "closes: null", 5, "closes: is not after opens; set a later"),
    ("", "closes: null\n", 1, "closes: missing; write a moment"),
    # how it is voted
    ("results: hidden", "results: voted", 6,
     'results: "hidden" is not right; write always, voted or closed'),
    ("points: []", "points: [2, 1]", 7, "points: this is not right; write one to three numbers"),
    ("points: [4, 3, 2, 1]", "points: [2, 1]", 7, "points: this is not right; write one to three"),
    ("points: [3, 2, 1]", "points: [2, 1]", 7,
     "points: 3 places for 2 choices; write fewer, or add choices"),
    ("points: [1, 2]", "points: [2, 1]", 7, "points: a lower place gets more than a higher"),
    ("points: [1, 0]", "points: [2, 1]", 7, "points.2: 0 is not right; write a whole number from"),
    ("points: [true]", "points: [2, 1]", 7, "points.1: true is not right; write a whole number"),
    ("points: 3", "points: [2, 1]", 7, "points: 3 is not right; write one to three numbers"),
    ("voters: members", "voters: cookie", 8, 'voters: "members" is not right; write cookie or'),
    ("listed: yes", "listed: true", 9, 'listed: "yes" is not right; write true or false'),
    ("result: voted", "results: voted", 6, "result: no such key; write results"),
    ("admins: [me]", "results: voted", 6, "admins: no such key; remove it; known here: id, title"),
    # the choices
    ("choices: []\nx: #", "choices:", 10, "choices: this is not right; write a list of 2 to 100"),
    ("choices: none", POLL[POLL.index("choices:"):], 10, "choices: no list none in "),
    (f"choices:\n{NORRIS}\n", POLL[POLL.index("choices:"):], 10, "choices: this is not right"),
    ("  - NOR", NORRIS, 11, 'choices.1: "NOR" is not right; write a choice such as {code: NOR'),
    ("code: nor", "code: NOR", 11, 'choices.1.code: "nor" is not right; write 2 to 8 of A-Z'),
    ("code: 44", "code: NOR", 11, "choices.1.code: 44 is not right; write 2 to 8 of A-Z and 0-9, "
     "in quotes if they are all digits"),
    ("{name", "{code: NOR, name", 11, "choices.1.code: missing; write 2 to 8"),
    ("code: NOR", "code: SAO23", 12, "choices.2.code: NOR is another's, too; give each its own"),
    ("{en: Lando Norris, fr: Par}", "{en: On the outside, fr: Par l’extérieur}", 13,
     "choices.2.name: Lando Norris is another's, too; give each its own"),
    ("{en: Outside}", "{en: On the outside, fr: Par l’extérieur}", 13,
     "choices.2.name.fr: missing; write one line of text"),
    ("name: [x]", "name: Lando Norris", 11, "choices.1.name: this is not right; write a name of"),
    ("number: '1'", "number: 1", 11, 'choices.1.number: "1" is not right; write the car\'s number'),
    ("number: 1000", "number: 1", 11, "choices.1.number: 1000 is not right; write the car's"),
    ("team: ''", "team: McLaren", 11, 'choices.1.team: "" is not right; write the team\'s name'),
    ("colour: #229971", "colour: '#229971'", 14, "choices.2.colour: null is not right; write "
     "'#rrggbb' in lower case and in quotes (without them YAML takes it for a comment)"),
    ("colour: '#F00'", "colour: '#229971'", 14, 'choices.2.colour: "#F00" is not right'),
    ("color: '#229971'", "colour: '#229971'", 14, "choices.2.color: no such key; write colour"),
    ("picture: ../x.png, team", "team", 11, 'choices.1.picture: "../x.png" is not right; write'),
    ("picture: nor.webp, team", "team", 11, "choices.1.picture: no file nor.webp in "),
    # not YAML at all
    ("title: {en: Sprint", "title: {en: Sprint, fr: Sprint}", 2, "is not YAML: "),
    ("  - {code: X1, name: X, colour: #ff8000}", POLL[POLL.index("  - code"):], 12,
     "is not YAML: "),
    ("id: *none", "id: sprint", 1, "is not YAML: found undefined alias"),
    ("? [a]\n: b\nid: sprint", "id: sprint", 1, "is not YAML: a key is a text; look for"),
    ("id: !!python/name:os.system x", "id: sprint", 1, "is not YAML: could not determine"),
    ("---\nid: x\n---\nid: sprint", "id: sprint", 3, "is not YAML: "),
    ("[]\n", POLL, 1, "this is not right; write the keys of a poll: id, title"),
    ("", POLL, 1, "null is not right; write the keys of a poll"),
]  # fmt: skip


def problems(folder: Path) -> list[str]:
    with pytest.raises(Problems) as raised:
        polls.load(folder)
    return raised.value.lines


def broken(new: str, old: str) -> str:
    assert POLL.count(old) >= 1, old
    return POLL.replace(old, new, 1)


def test_the_table_covers_what_it_says():
    assert len(WRONG) == 58
    assert len({said for *_, said in WRONG}) >= 50


@pytest.mark.parametrize(("new", "old", "line", "said"), WRONG)
def test_what_is_wrong_is_told_by_file_line_key_and_fix(tmp_path, new, old, line, said):
    file = tmp_path / "sprint.yaml"
    file.write_text(broken(new, old))
    lines = problems(tmp_path)
    assert any(told.startswith(f"{file}:{line}: {said}") for told in lines), lines
    for told in lines:
        assert "; " in told, f"no fix: {told}"
        assert "Traceback" not in told
        assert "is not of type" not in told, f"jsonschema's own words: {told}"


def test_one_mistake_is_told_once(tmp_path):
    (tmp_path / "sprint.yaml").write_text(broken("code: nor", "code: NOR"))
    assert len(problems(tmp_path)) == 1


def test_all_that_is_wrong_in_all_files_is_told_at_once(tmp_path):
    text = POLL
    several = [
        wrong for wrong in WRONG if wrong[3].startswith(("results: ", "closes: is", "id: 2"))
    ]
    several += [wrong for wrong in WRONG if wrong[3].startswith(("voters: ", "choices.2.color: "))]
    for new, old, *_ in several:
        text = text.replace(old, new, 1)
    (tmp_path / "a.yaml").write_text(text)
    (tmp_path / "b.yaml").write_text("[")
    (tmp_path / "c.yaml").write_bytes(b"id: caf\xe9")
    (tmp_path / "d.yaml").mkdir()
    (tmp_path / "e.yml").write_text(POLL)
    lines = problems(tmp_path)
    for *_, line, said in several:
        assert any(told.startswith(f"{tmp_path}/a.yaml:{line}: {said}") for told in lines), lines
    # A key of another name is one that is missing, too.
    assert sum("a.yaml" in told for told in lines) == len(several) + 1 == 6
    assert "b.yaml:" in lines[-4]
    assert lines[-3] == f"{tmp_path}/c.yaml:1: is not a text in UTF-8; save it as one"
    assert "d.yaml:1: cannot be read: Is a directory" in lines[-2]
    assert lines[-1] == f"{tmp_path}/e.yml: would not be read; name it e.yaml"


def test_a_folder_without_polls_is_told(tmp_path):
    assert problems(tmp_path / "none") == [
        f"{tmp_path / 'none'}: holds no poll; add a file such as champion.yaml"
    ]


def test_two_polls_of_one_id_are_told_where_the_second_is(tmp_path):
    for name in "ab":
        (tmp_path / f"{name}.yaml").write_text(POLL)
    assert problems(tmp_path) == [
        f"{tmp_path}/b.yaml:1: id: sprint is the id of a.yaml, too; give each its own"
    ]


def test_a_shared_list_is_checked_once_and_by_its_own_lines(tmp_path):
    choices = POLL[POLL.index("choices:") :]
    (tmp_path / "choices").mkdir()
    shared = tmp_path / "choices" / "grid.yaml"
    shared.write_text(f"# The grid{textwrap.dedent(choices.removeprefix('choices:'))}")
    for name in "ab":
        text = POLL.replace(choices, "choices: grid\n").replace("id: sprint", f"id: {name}")
        (tmp_path / f"{name}.yaml").write_text(text)
    first, second = polls.load(tmp_path)
    assert first.choices == second.choices
    assert first.codes == ("NOR", "SAO23")

    shared.write_text(shared.read_text().replace("code: SAO23", "code: NOR"))
    assert problems(tmp_path) == [f"{shared}:3: 2.code: NOR is another's, too; give each its own"]
    shared.rename(shared.with_name("drivers.yaml"))
    assert problems(tmp_path) == [
        f"{tmp_path}/{name}.yaml:10: choices: no list grid in {tmp_path}/choices; use drivers"
        for name in "ab"
    ]


def test_a_poll_is_what_its_file_says(tmp_path):
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "nor.webp").write_bytes(b"x")
    text = POLL.replace("team: McLaren", "team: McLaren, picture: nor.webp")
    (tmp_path / "sprint.yaml").write_text(text.replace("null", "2026-03-08 16:00:00+11:00"))
    (poll,) = polls.load(tmp_path)
    assert (poll.opens, poll.closes) == (1772942400, 1772946000)
    assert (poll.results, poll.points, poll.voters, poll.listed) == (
        "voted",
        (2, 1),
        "cookie",
        True,
    )
    norris, outside = poll.choices
    assert [norris.label(language) for language in polls.LANGUAGES] == ["Lando Norris"] * 2
    assert (norris.number, norris.team, norris.picture) == (1, "McLaren", "nor.webp")
    assert outside.label("fr") == "Par l’extérieur"
    assert (outside.number, outside.team, outside.picture) == (None, None, None)


def test_what_a_file_does_not_say_is_the_schemas_default(tmp_path):
    short = "".join(
        line
        for line in POLL.splitlines(keepends=True)
        if not line.startswith(("results", "points", "voters", "listed"))
    )
    (tmp_path / "sprint.yaml").write_text(short)
    (poll,) = polls.load(tmp_path)
    assert (poll.results, poll.points, poll.voters, poll.listed) == ("always", (1,), "cookie", True)
    assert poll.closes == 0


def test_a_code_of_yaml_1_1_is_the_text_that_stands_there(tmp_path):
    (tmp_path / "sprint.yaml").write_text(POLL.replace("code: NOR", "code: NO"))
    assert polls.load(tmp_path)[0].codes == ("NO", "SAO23")


def test_a_file_that_leads_back_to_itself_is_only_wrong(tmp_path):
    (tmp_path / "sprint.yaml").write_text(
        broken("title: &t {en: *t, fr: x}", "title: {en: Sprint, fr: Sprint}")
    )
    assert any("title.en: this is not right" in line for line in problems(tmp_path))


def test_the_schema_is_one():
    jsonschema.Draft202012Validator.check_schema(polls.SCHEMA)


def test_the_examples():
    found = {poll.id: poll for poll in polls.load(EXAMPLES)}
    assert list(found) == ["driver-of-the-day", "best-overtake", "champion", "canary"]
    assert {name: poll.points for name, poll in found.items() if poll.points != (1,)} == {
        "champion": (3, 2, 1)
    }
    assert found["driver-of-the-day"].results == "voted"
    assert [name for name, poll in found.items() if not poll.listed] == ["canary"]
    # The proof of `up` votes in it: were it to close, that would end.
    assert all(poll.closes == 0 for poll in found.values())
    assert all(
        choice.label("en") != choice.label("fr") for choice in found["best-overtake"].choices
    )


def test_the_grid_of_2026():
    (champion,) = [poll for poll in polls.load(EXAMPLES) if poll.id == "champion"]
    assert len(champion.choices) == 22
    assert len({choice.number for choice in champion.choices}) == 22
    teams = {choice.team: choice.colour for choice in champion.choices}
    assert len(teams) == 11
    assert all(teams[choice.team] == choice.colour for choice in champion.choices)
