"""The command line: what each verb does to voters, in both languages, with exit codes."""

import io
import json
import re
import stat
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from f1vote import cli, codes, receipts
from f1vote.cli import REFUSED, SILENT, WRONG
from tests.app.organised import SECRET, TOKEN, write_polls
from tests.app.servers import App

BY = ("--by", "Ann")


@dataclass(frozen=True)
class Ended:
    returncode: int
    stdout: str
    stderr: str


def run(environ: dict[str, str], *arguments: str) -> Ended:
    """Run a command in this process: a new one each time would take most of the test's time."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        try:
            code = cli.main(arguments, environ)
        except SystemExit as ended:
            code = int(str(ended.code))
    return Ended(code, out.getvalue(), err.getvalue())


def command(app: App, *arguments: str) -> Ended:
    return run(app.environ, *arguments)


def admin(app: App, *arguments: str, code: int = 0) -> Any:
    """Run an organiser's verb; return what it answers as JSON."""
    ended = command(app, "admin", *arguments, *BY, "--json")
    assert ended.returncode == code, (ended.stdout, ended.stderr)
    assert ended.stderr == ""
    return json.loads(ended.stdout)


def vote(app: App, poll: str, *choices: str, code: str = "") -> tuple[int, str]:
    with app.browser() as client:
        client.get(f"/{poll}", params={"code": code} if code else None, follow_redirects=True)
        answer = client.post(f"/api/polls/{poll}/vote", json={"choices": choices})
    told = answer.json()
    return answer.status_code, told.get("outcome") or told["error"]


def test_opening_and_closing(clean):
    assert vote(clean, "early", "NOR") == (409, "early")
    assert admin(clean, "open", "early")["state"] == "open"
    assert vote(clean, "early", "NOR") == (200, "counted")
    assert admin(clean, "close", "early")["state"] == "closed"
    assert vote(clean, "early", "NOR") == (409, "closed")
    answer = admin(clean, "extend", "early", "+2h")
    assert (answer["done"], answer["state"], answer["voters"]) == ("extend", "open", 1)
    assert vote(clean, "early", "VER") == (200, "counted")
    answer = admin(clean, "extend", "early", "2091-03-08T15:00+01:00")
    assert answer["closes"] == 3824200800
    assert admin(clean, "revert", "early")["state"] == "early"


def test_pause_and_hiding(clean):
    assert admin(clean, "freeze", "sprint")["state"] == "frozen"
    assert vote(clean, "sprint", "NOR") == (409, "frozen")
    assert admin(clean, "unfreeze", "sprint")["state"] == "open"
    assert admin(clean, "hide", "sprint")["hidden"] is True
    with clean.browser() as client:
        assert client.get("/api/polls/sprint/results").status_code == 403
    assert admin(clean, "show", "sprint")["hidden"] is False


def test_reset_needs_the_name_twice(clean):
    vote(clean, "sprint", "NOR")
    assert "confirm it" in admin(clean, "reset", "sprint", code=REFUSED)["error"]
    assert "confirm it" in admin(clean, "reset", "sprint", "--confirm", "y", code=REFUSED)["error"]
    assert admin(clean, "status", "sprint")[0]["voters"] == 1
    assert admin(clean, "reset", "sprint", "--confirm", "sprint")["n"] == 1
    assert admin(clean, "status", "sprint")[0]["points"] == {"NOR": 0, "VER": 0, "LEC": 0}


def test_a_recount_that_differs_is_no_success(clean, redis_server):
    vote(clean, "sprint", "NOR")
    assert admin(clean, "recount", "sprint")["n"] == 0
    redis_server.client.hincrby("poll:sprint:tally", "VER", 2)
    assert admin(clean, "recount", "sprint", code=REFUSED)["n"] == 2


def test_status_and_bursts(clean, redis_server):
    assert [poll["poll"] for poll in admin(clean, "status")] == list_of(clean)
    vote(clean, "podium", "VER", "NOR")
    ended = command(clean, "admin", "status", "podium")
    assert ended.returncode == 0
    assert re.search(r"podium · Open · 1 vote\n +3  VER .*\n +2  NOR .*\n +0  LEC", ended.stdout)
    redis_server.client.xadd(
        "poll:sprint:bursts",
        {"burst": '{"address":"0badcafe","first":1772978400,"last":1772978460,"fresh":77,'
                  '"challenged":5,"choices":{"VER":70}}'},
    )  # fmt: skip
    assert admin(clean, "bursts", "sprint")[0]["fresh"] == 77
    assert "77 (+5)  VER 70" in command(clean, "admin", "bursts", "sprint").stdout


def list_of(app: App) -> list[str]:
    with app.browser() as client:
        return [poll["poll"] for poll in client.get("/api/polls").json()["polls"]]


def test_the_log_names_who_and_knows_no_secret(clean):
    admin(clean, "close", "sprint")
    made = codes.make(1)[0]
    (Path(clean.log).parent / "list").write_text(made)
    admin(clean, "admit", "invited", str(Path(clean.log).parent / "list"))
    command(clean, "admin", "freeze", "podium", "--by", "Bob")
    entries = admin(clean, "log")
    assert [(entry["who"], entry["action"]) for entry in entries] == [
        ("Bob", "freeze"), ("Ann", "admit"), ("Ann", "close"),
    ]  # fmt: skip
    assert entries[2]["facts"]["before"] == {"closes": 0}
    assert not [secret for secret in (TOKEN, SECRET, made) if secret in str(entries)]
    assert len(admin(clean, "log", "--count", "1")) == 1


def test_the_log_always_gets_a_name(clean, redis_server, monkeypatch):
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("os.getuid", lambda: 54321)  # as in a pod: nobody has that number
    for by in ([], ["--by", ""], ["--by", "x" * 65], ["--by", "\x1b[31m"]):
        ended = command(clean, "admin", "close", "sprint", *by)
        assert (ended.returncode, "Say who you are" in ended.stderr) == (REFUSED, True), by
    assert redis_server.client.exists("admin:log") == 0
    monkeypatch.setenv("USER", "carol")
    assert command(clean, "admin", "close", "sprint").returncode == 0
    assert admin(clean, "log")[0]["who"] == "carol"


@pytest.mark.parametrize("kind", ["csv", "json"])
def test_export_and_verify(clean, tmp_path, kind):
    for choices in (("NOR",), ("NOR", "VER"), ("LEC", "NOR", "VER")):
        vote(clean, "podium", *choices)
    file, key = tmp_path / "podium.zip", tmp_path / "key.pem"
    ask = ("admin", "export", "podium", "--kind", kind, *BY)
    refused = command(clean, *ask, "--out", str(file))
    assert (refused.returncode, "Pause or close" in refused.stderr) == (REFUSED, True)
    assert not file.exists()
    admin(clean, "close", "podium")
    assert command(clean, *ask, "--out", str(file)).returncode == 0
    # Never over another file.
    again = command(clean, *ask, "--out", str(file))
    assert (again.returncode, "File exists" in again.stderr) == (WRONG, True)

    with clean.browser() as client:
        key.write_text(client.get("/export-key.pem").text)
    stranger = {name: text for name, text in clean.environ.items() if not name.startswith("F1_")}
    ended = run(stranger, "verify", str(file), "--key", str(key), "--json")
    assert ended.returncode == 0, ended.stderr
    checked = json.loads(ended.stdout)
    assert checked["standing"] == {"NOR": 8, "LEC": 3, "VER": 3}
    assert checked["signature"] == "good"
    # On the platform its own key is at hand.
    assert command(clean, "verify", str(file)).returncode == 0
    unchecked = run(stranger, "verify", str(file))
    assert (unchecked.returncode, "--key" in unchecked.stderr) == (REFUSED, True)

    content = bytearray(file.read_bytes())
    content[content.index(b"votes.") + 45] ^= 1  # behind the header of that file
    file.write_bytes(content)
    ended = command(clean, "verify", str(file))
    assert ended.returncode == REFUSED
    assert ended.stderr.strip()


def test_the_program_itself_exports_to_standard_output(clean, tmp_path):
    admin(clean, "freeze", "sprint")
    program = [sys.executable, "-m", "f1vote"]
    with (tmp_path / "x.zip").open("wb") as file:
        export = [*program, "admin", "export", "sprint", "--kind", "csv", *BY]
        subprocess.run(export, env=clean.environ, stdout=file, check=True, timeout=30)
    ended = clean.command("verify", str(tmp_path / "x.zip"))
    assert (ended.returncode, ended.stderr) == (0, "")
    assert clean.command("verify", "/etc/passwd").returncode == REFUSED


def test_an_export_without_a_key_says_that_it_is_not_signed(clean, tmp_path):
    admin(clean, "freeze", "sprint")
    environ = {name: text for name, text in clean.environ.items() if name != "F1_SIGN_KEY_FILE"}
    file = str(tmp_path / "x.zip")
    ended = run(environ, "admin", "export", "sprint", "--kind", "csv", "--out", file, *BY)
    assert ended.returncode == 0
    ended = command(clean, "verify", file)
    assert (ended.returncode, "not signed" in ended.stderr) == (REFUSED, True)


def test_codes_are_made_and_only_in_the_sheet(clean, redis_server, tmp_path):
    sheet, table = tmp_path / "out.html", tmp_path / "out.csv"
    ended = command(
        clean, "codes", "make", "invited", "--count", "5", "--sheet", str(sheet),
        "--csv", str(table), "--language", "fr", *BY,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    for file in (sheet, table):
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
    lines = table.read_text().splitlines()
    assert lines[0] == "code,address"
    made = [line.split(",")[0] for line in lines[1:]]
    assert len(made) == 5
    assert lines[1].split(",")[1] == f"https://vote.example.org/invited?code={made[0]}"
    assert 'lang="fr"' in sheet.read_text()
    assert all(code in sheet.read_text() for code in made)
    plain = [codes.read(code) or "" for code in made]
    assert redis_server.client.smembers("poll:invited:codes") == {
        receipts.of("invited", code) for code in plain
    }
    assert vote(clean, "invited", "NOR", code=made[0]) == (200, "counted")
    assert not [code for code in made + plain if code in ended.stdout + ended.stderr]
    assert not [code for code in made + plain if code in str(admin(clean, "log"))]


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("invited", "--count", "0", "--sheet", "{}/a"), REFUSED, "Ask for 1 to"),
        (("invited", "--count", "99999", "--sheet", "{}/a"), REFUSED, "Ask for 1 to"),
        (("sprint", "--count", "1", "--sheet", "{}/a"), REFUSED, "Everybody may vote"),
        (("invited", "--count", "1"), REFUSED, "--sheet or --csv"),
        (("invited", "--count", "1", "--sheet", "{}/no/a"), WRONG, "No such file"),
        (("invited", "--count", "x", "--sheet", "{}/a"), WRONG, "invalid int"),
        (("nosuch", "--count", "1", "--sheet", "{}/a"), REFUSED, "There is no poll nosuch"),
    ],
)
def test_codes_that_cannot_be_made(clean, redis_server, tmp_path, arguments, code, said):
    ended = command(
        clean, "codes", "make", *(text.format(tmp_path) for text in arguments), *BY
    )  # fmt: skip
    assert (ended.returncode, said in ended.stderr) == (code, True), ended.stderr
    assert list(tmp_path.iterdir()) == []
    assert redis_server.client.exists("poll:invited:codes", "admin:log") == 0


def test_admitting_a_list(clean, tmp_path):
    made = codes.make(2)
    (tmp_path / "list").write_text(f"{receipts.show(made[0])}\n\n{made[1].lower()}\n")
    assert admin(clean, "admit", "invited", str(tmp_path / "list"))["n"] == 2
    assert vote(clean, "invited", "NOR", code=made[1]) == (200, "counted")
    (tmp_path / "list").write_text(f"{made[0]}\nnonsense\n")
    error = admin(clean, "admit", "invited", str(tmp_path / "list"), code=REFUSED)["error"]
    assert "in these lines: 2" in error


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        ((), WRONG, "usage"),
        (("explode",), WRONG, "invalid choice"),
        (("admin",), WRONG, "usage"),
        (("admin", "explode", "sprint"), WRONG, "invalid choice"),
        (("admin", "close"), WRONG, "required: POLL"),
        (("admin", "close", "nosuch"), REFUSED, "There is no poll nosuch. There are: "),
        (("admin", "close", "../sprint"), REFUSED, "There is no poll"),
        (("admin", "close", "over"), REFUSED, "closed already"),
        (("admin", "open", "sprint"), REFUSED, "open already"),
        (("admin", "unfreeze", "sprint"), REFUSED, "not paused"),
        (("admin", "extend", "sprint"), WRONG, "required: UNTIL"),
        (("admin", "extend", "sprint", "soon"), REFUSED, "soon is not a time"),
        (("admin", "extend", "sprint", "2026-03-08T15:00"), REFUSED, "is not a time"),
        (("admin", "extend", "sprint", "2026-03-08"), REFUSED, "is not a time"),
        (("admin", "extend", "sprint", "2001-03-08T15:00Z"), REFUSED, "later than now"),
        (("admin", "admit", "invited", "/nosuch"), WRONG, "/nosuch: No such file"),
        (("admin", "export", "sprint", "--kind", "xml"), WRONG, "invalid choice"),
        (("admin", "log", "--count", "many"), WRONG, "invalid int"),
        (("admin", "status", "nosuch"), REFUSED, "There is no poll"),
        (("verify", "/nosuch"), WRONG, "/nosuch: No such file"),
        (("verify", "/etc/passwd"), REFUSED, "not an export"),
        (("verify", "/etc/passwd", "--key", "/etc/passwd"), REFUSED, "holds no public key"),
        (("check",), WRONG, "required: FOLDER"),
        (("check", "/nosuch"), WRONG, "/nosuch: "),
    ],
)
def test_nonsense_is_told(clean, redis_server, arguments, code, said):
    ended = command(clean, *arguments)
    assert (ended.returncode, ended.stdout) == (code, "")
    assert said in ended.stderr
    assert "Traceback" not in ended.stderr
    assert redis_server.client.exists("admin:log") == 0


def test_check_says_all_that_is_wrong(tmp_path, clean):
    folder = write_polls(tmp_path)
    assert command(clean, "check", str(folder)).stdout.split()[-1]
    (folder / "sprint.yaml").write_text("id: sprint\nopens: soon\n")
    (folder / "over.yaml").write_text("[")
    ended = command(clean, "check", str(folder))
    assert ended.returncode == WRONG
    assert f"{folder}/sprint.yaml:2: opens" in ended.stderr
    assert f"{folder}/over.yaml:" in ended.stderr


def test_settings_that_are_wrong_are_told_all_at_once(clean):
    environ = {name: text for name, text in clean.environ.items() if not name.startswith("F1_")}
    ended = run(environ, "admin", "status")
    assert ended.returncode == WRONG
    for name in ("F1_REDIS_URL", "F1_COOKIE_KEY_FILE", "F1_POLLS_DIR"):
        assert name in ended.stderr


def test_redis_that_is_silent_is_told(clean, tmp_path):
    environ = {**clean.environ, "F1_REDIS_URL": f"unix://{tmp_path}/nothing.sock"}
    ended = run(environ, "admin", "close", "sprint", *BY)
    assert (ended.returncode, "Redis does not answer" in ended.stderr) == (SILENT, True)


@pytest.mark.parametrize("name", ["LC_ALL", "LC_MESSAGES", "LANG"])
def test_french(clean, name):
    environ = {
        **{key: text for key, text in clean.environ.items() if not key.startswith(("LC_", "LANG"))},
        name: "fr_FR.UTF-8",
    }
    assert "ce que peut faire un organisateur" in run(environ, "--help").stdout
    ended = run(environ, "admin", "open", "sprint", *BY)
    assert "Le vote est déjà ouvert." in ended.stderr
    # The first that is set decides.
    assert "open already" in run({**environ, "LC_ALL": "C"}, "admin", "open", "sprint", *BY).stderr
