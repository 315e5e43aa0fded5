"""The bookkeeping of lab/faults.py: votes against the tally, times, the table; and that a fault is
undone whatever happens."""

import contextlib
import json
import ssl
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from lab import faults
from lab.faults import Fault, Row, Sample, Votes
from tests.conftest import ROOT

MACHINES = ["f1-master", "f1-worker-1"]
READY = dict.fromkeys(MACHINES, True)


def vote(state: str, choice: str = "ham", at: float = 0) -> dict[str, Any]:
    return {"kind": "vote", "state": state, "choice": choice, "at": at}


def test_every_accepted_vote_must_be_in_the_tally():
    lines = [vote("accepted"), vote("accepted"), vote("accepted", "lec"), vote("unsent", "lec")]
    lines.append({"kind": "page", "at": 1.0, "ok": True})
    before = {"ham": 5, "ver": 1}
    assert faults.account(lines, before, {"ham": 7, "lec": 1, "ver": 1}) == Votes(3, 0, 1, 0, 0)
    assert faults.account(lines, before, {"ham": 6, "lec": 1, "ver": 1}).lost == 1
    assert faults.account(lines, before, {}).lost == 3 + 5 + 1, "old votes are votes too"


def test_a_vote_too_many_for_one_does_not_hide_one_that_is_lost():
    lines = [vote("accepted", "ham"), vote("accepted", "lec")]
    found = faults.account(lines, {}, {"ham": 2, "lec": 0})
    assert (found.lost, found.unasked) == (1, 1)


def test_a_vote_without_an_answer_may_count_or_not():
    lines = [vote("accepted"), vote("unknown")]
    for counted in (1, 2):
        found = faults.account(lines, {}, {"ham": counted})
        assert (found.unknown, found.lost, found.unasked) == (1, 0, 0)
    assert faults.account(lines, {}, {"ham": 3}).unasked == 1


@pytest.mark.parametrize(
    ("moments", "seconds"),
    [
        ([(9, False), (10, True), (11, True)], 0.0),
        ([(10, True), (12, False), (13, True)], 3.0),
        ([(10, False), (12, True), (13, False), (17.25, True)], 7.2),
        ([(10, True), (12, False)], None),
        ([], 0.0),
    ],
)
def test_right_again_is_for_good(moments, seconds):
    assert faults.back(moments, 10) == seconds


def test_the_story_tells_what_was_seen():
    gone = {"f1-master": True, "f1-worker-1": False}
    samples = [Sample(5, gone, 2), Sample(10, READY, 2), Sample(12, None)]
    samples += [Sample(13, None), Sample(14, gone, 1), Sample(20, gone, 1), Sample(25, READY, 2)]
    assert faults.story(samples, 10, MACHINES) == [
        "the API was silent from 2 to 3 s",
        "f1-worker-1 was no Ready node from 4 to 10 s",
        "ready app pods: 2 → 1 at 4 s → 2 at 15 s",
    ]
    (nothing,) = faults.story([Sample(10, READY, 2), Sample(11, READY, 2)], 10, MACHINES)
    assert nothing.startswith("nothing was seen")
    assert not faults.all_ready(Sample(1, {"f1-master": True}), MACHINES)
    assert not faults.all_ready(Sample(1, None), MACHINES)


def row(**more: Any) -> Row:
    given: dict[str, Any] = {
        "fault": "x",
        "did": ["a | b"],
        "page": 0.0,
        "ready": 41.5,
        "votes": Votes(100, 1, 2, 0, 0),
        "broken": [],
        **more,
    }
    return Row(**given)


def test_the_table_and_what_makes_the_command_fail():
    good = row()
    *_, line = faults.table([good]).splitlines()
    assert line == "| x | a \\| b | was never away | 41.5 | 100 | 1 | 2 | 0 | yes |"
    assert faults.failures([good]) == []
    bad = row(page=None, ready=None, votes=Votes(9, 0, 0, 3, 1), broken=["ham: 1, 2"], wrong=["w"])
    *_, line = faults.table([bad]).splitlines()
    assert line.endswith("**w** | never | never | 9 | 0 | 0 | 3, 1 unasked | **no**: ham: 1, 2 |")
    assert faults.failures([bad]) == [
        "x: w",
        "x: 3 votes lost",
        "x: 1 votes too many",
        "x: ham: 1, 2",
        "x: the page never came back",
        "x: not all nodes are Ready",
    ]


class Ballot:
    """A voter whose page and whose vote fail as told."""

    def __init__(self, page: Exception | None = None, vote: Exception | None = None) -> None:
        self.errors = {"page": page, "vote": vote}

    def wait_for_page(self, seconds: float) -> None:
        if self.errors["page"]:
            raise self.errors["page"]

    def vote(self, choice: str) -> None:
        if self.errors["vote"]:
            raise self.errors["vote"]


def test_every_tally_is_compared_with_its_votes():
    polls = {
        "f1": {"voters": 3, "counted": {"ham": 6, "lec": 1}, "tally": {"ham": 6, "lec": 2}},
        # Lua has one empty table for both.
        "old": {"voters": 0, "counted": [], "tally": {"ver": 0, "ham": 1}},
    }
    assert faults.compared(polls) == {
        "voters": 3,
        "votes": {"ham": 7, "lec": 2},
        "broken": ["f1, lec: tally 2, votes 1", "old, ham: tally 1, votes 0"],
    }
    assert faults.compared({}) == {"voters": 0, "votes": {}, "broken": []}


def test_what_a_voter_was_told():
    assert faults.cast(Ballot(), "ham") == "accepted"
    assert faults.cast(Ballot(page=faults.voter.Failed("503")), "ham") == "unsent"
    # Redis may have had it before the answer was lost.
    assert faults.cast(Ballot(vote=faults.voter.Failed("HTTP 503")), "ham") == "unknown"
    assert faults.cast(Ballot(vote=TimeoutError()), "ham") == "unknown"


class FakeLab:
    """Everything is whole and all votes are accepted, but for what a test takes away."""

    machines = MACHINES

    def __init__(self) -> None:
        self.did: list[str] = []
        self.lines: list[dict[str, Any]] = []
        self.lose = 0
        self.open = False

    def sample(self) -> Sample:
        return Sample(time.time(), READY, 2)

    def tally(self) -> dict[str, Any]:
        votes = sum(line["kind"] == "vote" for line in self.lines)
        return {"votes": {"ham": max(0, votes - self.lose)}, "broken": []}

    @contextlib.contextmanager
    def load(self) -> Iterator[Any]:
        lab = self

        class Lines(list[Any]):
            """Each look finds more votes."""

            def __iter__(self) -> Iterator[Any]:
                if lab.open:
                    lab.lines += [vote("accepted", at=time.time()) for _ in range(6)]
                return iter(list(lab.lines))

        lab.open = True
        yield Lines()
        lab.open = False

    @contextlib.contextmanager
    def watch(self) -> Iterator[Any]:
        lab = self

        class Samples(list[Any]):
            def __len__(self) -> int:
                self.append(lab.sample())
                return super().__len__()

        yield Samples()


def fault(lab: FakeLab, error: BaseException | None = None) -> Fault:
    def inject(given: Any) -> str:
        lab.did.append("inject")
        if error:
            raise error
        return "it broke"

    def undo(given: Any) -> str:
        lab.did.append("undo")
        return "it was mended"

    return Fault("x", "something breaks", 0, inject, undo)


def measured(lab: FakeLab, one: Fault) -> Row:
    given: Any = lab
    return faults.measure(given, one)


def test_a_fault_is_done_undone_and_accounted():
    lab = FakeLab()
    found = measured(lab, fault(lab))
    assert lab.did == ["inject", "undo"]
    assert found.did[-2:] == ["it broke", "it was mended"]
    assert (found.page, found.ready, found.wrong) == (0.0, 0.0, [])
    assert faults.failures([found]) == []
    assert found.votes.accepted == len(lab.lines) > 0


def test_a_lost_vote_is_seen():
    lab = FakeLab()

    def lose(given: Any) -> str:
        lab.lose = 1
        return ""

    found = measured(lab, Fault("x", "something breaks", 0, lose, lambda given: ""))
    assert faults.failures([found]) == ["something breaks: 1 votes lost"]


def test_a_fault_that_cannot_be_done_is_undone_and_told():
    lab = FakeLab()
    found = measured(lab, fault(lab, RuntimeError("no such machine")))
    assert lab.did == ["inject", "undo"]
    assert found.wrong == ["no such machine"]


def test_an_interrupted_fault_is_undone():
    lab = FakeLab()
    with pytest.raises(KeyboardInterrupt):
        measured(lab, fault(lab, KeyboardInterrupt()))
    assert lab.did == ["inject", "undo"]


def test_what_was_waited_for_is_told_with_the_last_thing_seen():
    with pytest.raises(TimeoutError, match=r"waited 0.1 s for a miracle; last seen: none yet"):
        faults.wait_for("a miracle", 0.1, lambda: "none yet")


def test_an_unknown_fault_is_refused_before_anything_is_touched():
    with pytest.raises(SystemExit, match="no such fault: fire; use worker, reboot"):
        faults.main(["fire"])


class Page(BaseHTTPRequestHandler):
    """A page that counts votes, and answers every third one with 503 after it counted it."""

    counted: list[str]

    def do_GET(self) -> None:
        if self.path.endswith("/results"):
            self.answer(200, {"points": {"ham": 0, "lec": 0}})
        else:
            self.answer(200, {}, cookie="f1vote=a.b")

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.counted.append(body["choices"][0])
        self.answer(503 if len(self.counted) % 3 == 0 else 200, {})

    def answer(self, code: int, body: Any, cookie: str = "") -> None:
        text = json.dumps(body).encode()
        self.send_response(code)
        if cookie:
            self.send_header("Set-Cookie", cookie)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def page(tmp_path: Path) -> Iterator[ThreadingHTTPServer]:
    key, crt = str(tmp_path / "key"), str(tmp_path / "crt")
    words = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    words += ["-nodes", "-days", "1", "-subj", "/CN=x", "-keyout", key, "-out", crt]
    subprocess.run(words, check=True, capture_output=True, timeout=30)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(crt, key)
    Page.counted = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), Page)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def test_voters_tell_what_they_were_told(page):
    words = [sys.executable, "-m", "lab.faults", "--voters", f"127.0.0.1:{page.server_port}"]
    pipe = subprocess.PIPE
    outside = subprocess.Popen(words, cwd=ROOT, stdin=pipe, stdout=pipe, text=True)
    assert outside.stdout is not None
    assert outside.stdin is not None
    lines = []
    while sum(line["kind"] == "vote" for line in lines) < 6:
        lines.append(json.loads(outside.stdout.readline()))
    outside.stdin.close()
    lines += [json.loads(line) for line in outside.stdout]
    assert outside.wait(30) == 0
    assert all(line["ok"] for line in lines if line["kind"] == "page")
    found = faults.account(lines, {}, dict(Counter(Page.counted)))
    assert (found.lost, found.unasked, found.unsent) == (0, 0, 0)
    assert found.unknown == len(Page.counted) // 3 > 0
    assert found.accepted + found.unknown == len(Page.counted)
