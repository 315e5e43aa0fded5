"""
Faults, one after the other, under votes from outside: what the platform did, in how long.

    python -m lab.faults            all of them; writes docs/evidence/faults.md
    python -m lab.faults NAME …     those, and prints the table only

The platform must be up in the lab. Two votes a second come from the outside world, each of a voter
of its own; the page is asked for four times a second, the cluster every second. Every fault is
undone at the end, whatever happens, and only machines of the lab are touched.
"""

import datetime
import http.client
import itertools
import json
import os
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from docker.errors import DockerException

from lab import site
from lab.__main__ import ROOT, STATE
from lab.cloud import engine, firewall
from lab.cloud.machines import INSTANCE_LABEL, OURS, container_name
from lab.cloud.names import OUTSIDE

# `lab.__main__` has put the product's utilities on the path.
import events  # isort: skip
import voter  # isort: skip

EVIDENCE = ROOT / "docs" / "evidence" / "faults.md"

VOTE_SECONDS = 0.5
PAGE_SECONDS = 0.25
VOTER_PATIENCE = 5
SAMPLE_SECONDS = 1.0
# Votes that must have been accepted before a fault, and again after it.
WARM = 6
# How long anything may take to be whole again, and how long a `make up`.
LIMIT = 420
UP_SECONDS = 600
CUT = "f1_fault"
KUBELET = "/var/lib/kubelet"

Line = dict[str, Any]

# Tally and votes of each poll at one moment, each vote counted here and not by the app.
COUNT = """\
local found = {}
local function told(name)
  found[name] = found[name] or {voters = 0, counted = {}, tally = {}}
  return found[name]
end
for _, key in ipairs(redis.call('KEYS', 'poll:*:tally')) do
  local poll, flat = told(string.match(key, '^poll:([^:]*):')), redis.call('HGETALL', key)
  for i = 1, #flat, 2 do poll.tally[flat[i]] = tonumber(flat[i + 1]) end
end
for _, key in ipairs(redis.call('KEYS', 'poll:*:votes:*')) do
  local name = string.match(key, '^poll:([^:]*):')
  local poll, worth = told(name), {}
  local points = redis.call('HGET', 'poll:' .. name .. ':meta', 'points') or '1'
  for value in string.gmatch(points, '%d+') do worth[#worth + 1] = tonumber(value) end
  for _, vote in ipairs(redis.call('HVALS', key)) do
    local place = 0
    poll.voters = poll.voters + 1
    for code in string.gmatch(vote, '[^>]+') do
      place = place + 1
      poll.counted[code] = (poll.counted[code] or 0) + (worth[place] or 0)
    end
  end
end
return cjson.encode(found)
"""


# ---- What is made of what was seen: pure ----


def compared(polls: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """
    Return ``{"voters", "votes": {code: n}, "broken": [...]}`` of what ``COUNT`` found: the tally of
    every code must be the points of the votes that hold it.
    """
    broken, votes, voters = [], Counter[str](), 0
    for poll, found in sorted(polls.items()):
        # Lua has one empty table for both.
        held, tally = dict(found["counted"] or {}), dict(found["tally"] or {})
        voters += found["voters"]
        for code in sorted({*held, *tally}):
            told, counted = tally.get(code, 0), held.get(code, 0)
            votes[code] += told
            if told != counted:
                broken.append(f"{poll}, {code}: tally {told}, votes {counted}")
    return {"voters": voters, "votes": {c: n for c, n in votes.items() if n}, "broken": broken}


@dataclass(frozen=True)
class Votes:
    """
    ``accepted``: the page said that it counted them; ``unknown``: it did not answer the vote, or
    not with 200; ``unsent``: it gave no ballot. ``lost``: accepted and not in the tally.
    ``unasked``: in the tally, and neither accepted nor unknown.
    """

    accepted: int
    unknown: int
    unsent: int
    lost: int
    unasked: int


@dataclass(frozen=True)
class Sample:
    """The cluster at one moment: Ready by node, None if its API was silent; ready app pods."""

    at: float
    nodes: dict[str, bool] | None
    pods: int = 0


@dataclass
class Row:
    """One line of the table. ``page`` and ``ready``: seconds, None if it never came back."""

    fault: str
    did: list[str]
    page: float | None
    ready: float | None
    votes: Votes
    broken: list[str]
    wrong: list[str] = field(default_factory=list)


def account(lines: Iterable[Line], before: dict[str, int], after: dict[str, int]) -> Votes:
    """Hold what voters were told (``lines``) against the tallies by choice, before and after."""
    votes = [line for line in lines if line["kind"] == "vote"]
    by_state = Counter(line["state"] for line in votes)
    told = {
        state: Counter(line["choice"] for line in votes if line["state"] == state)
        for state in ("accepted", "unknown")
    }
    lost = unasked = 0
    for choice in {*before, *after, *told["accepted"]}:
        more = after.get(choice, 0) - before.get(choice, 0)
        lost += max(0, told["accepted"][choice] - more)
        unasked += max(0, more - told["accepted"][choice] - told["unknown"][choice])
    return Votes(by_state["accepted"], by_state["unknown"], by_state["unsent"], lost, unasked)


def back(moments: list[tuple[float, bool]], begin: float) -> float | None:
    """
    Return how many seconds after ``begin`` things were right again for good: 0 if they never were
    wrong, None if they still are.
    """
    later = [(at, good) for at, good in moments if at >= begin]
    wrong = [place for place, (_, good) in enumerate(later) if not good]
    if not wrong:
        return 0.0
    place = wrong[-1] + 1
    return round(later[place][0] - begin, 1) if place < len(later) else None


def all_ready(sample: Sample, machines: Iterable[str]) -> bool:
    """Say whether each of ``machines`` was a Ready node."""
    nodes = sample.nodes or {}
    return all(nodes.get(machine, False) for machine in machines)


def story(samples: list[Sample], begin: float, machines: list[str]) -> list[str]:
    """Return what became of the nodes and of the app's pods after ``begin``, in phrases."""
    later = [sample for sample in samples if sample.at >= begin]

    def spans(what: str, is_so: Callable[[Sample], bool]) -> list[str]:
        found = []
        for so, group in itertools.groupby(later, is_so):
            members = list(group)
            if so:
                end = members[-1].at - begin
                found.append(f"{what} from {members[0].at - begin:.0f} to {end:.0f} s")
        return found

    told = spans("the API was silent", lambda sample: sample.nodes is None)
    for machine in machines:
        told += spans(
            f"{machine} was no Ready node",
            lambda sample, its=machine: (  # type: ignore[misc]
                sample.nodes is not None and not sample.nodes.get(its, False)
            ),
        )
    pods = [(sample.pods, sample.at) for sample in later if sample.nodes is not None]
    steps = [next(group) for _, group in itertools.groupby(pods, lambda each: each[0])]
    if len(steps) > 1:
        words = [str(steps[0][0])] + [f"{n} at {at - begin:.0f} s" for n, at in steps[1:]]
        told.append(f"ready app pods: {' → '.join(words)}")
    return told or ["nothing was seen of it: nodes stayed Ready, pods stayed"]


def table(rows: list[Row]) -> str:
    """Return the rows as Markdown."""
    lines = [
        "| fault | what the platform did | page again (s) | all nodes Ready (s) | votes accepted "
        "| not answered | no page | lost | tally = voters |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        did = "; ".join([*row.did, *(f"**{each}**" for each in row.wrong)]).replace("|", "\\|")
        votes = row.votes
        lost = f"{votes.lost}" + (f", {votes.unasked} unasked" if votes.unasked else "")
        holds = "yes" if not row.broken else f"**no**: {'; '.join(row.broken)}"
        cells = [row.fault, did, _seconds(row.page), _seconds(row.ready)]
        cells += [str(votes.accepted), str(votes.unknown), str(votes.unsent), lost, holds]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def failures(rows: list[Row]) -> list[str]:
    """Return what a fault must not do, and did."""
    found = []
    for row in rows:
        found += [f"{row.fault}: {each}" for each in row.wrong]
        found += [f"{row.fault}: {row.votes.lost} votes lost"] if row.votes.lost else []
        found += [f"{row.fault}: {row.votes.unasked} votes too many"] if row.votes.unasked else []
        found += [f"{row.fault}: {each}" for each in row.broken]
        found += [f"{row.fault}: the page never came back"] if row.page is None else []
        found += [f"{row.fault}: not all nodes are Ready"] if row.ready is None else []
    return found


def _seconds(value: float | None) -> str:
    return "never" if value is None else "was never away" if value == 0 else f"{value:.1f}"


# ---- The lab ----


class Lab:
    """The lab that runs: its machines, its cluster, its outside world."""

    def __init__(self) -> None:
        client = engine.connect()
        if client is None:
            raise SystemExit("faults: no Docker engine answers; `make up` first")
        self.client = client
        self.ec2 = site.client("ec2")
        self.machines = sorted(self.instances())
        self.master = next((name for name in self.machines if name.endswith("-master")), "")
        self.workers = [name for name in self.machines if "-worker-" in name]
        if not self.master or not self.workers:
            raise SystemExit("faults: the lab has no master and workers; `make up` first")

    def instances(self) -> dict[str, str]:
        """Return the instance ids of the lab's running machines, by name."""
        found = self.client.api.containers(filters=OURS)
        return {each["Labels"]["f1.name"]: each["Labels"][INSTANCE_LABEL] for each in found}

    def on(self, machine: str, *words: str, seconds: float = 30) -> str:
        """Run ``words`` on ``machine`` as root; raise CalledProcessError or TimeoutExpired."""
        container = container_name(self.instances()[machine])
        return subprocess.run(
            ["docker", "exec", container, *words],
            check=True,
            capture_output=True,
            text=True,
            timeout=seconds,
        ).stdout

    def started(self, machine: str) -> str:
        """Return when ``machine`` was switched on last."""
        container = container_name(self.instances()[machine])
        return str(self.client.api.inspect_container(container)["State"]["StartedAt"])

    def sample(self) -> Sample:
        """Return the cluster of now."""
        words = ["k3s", "kubectl", "--request-timeout=3s", "get", "nodes,pods", "-n", "f1"]
        try:
            items = json.loads(self.on(self.master, *words, "-o", "json", seconds=5))["items"]
        except (subprocess.SubprocessError, DockerException, ValueError, KeyError):
            return Sample(time.time(), None)
        nodes = {one["metadata"]["name"]: _true(one) for one in items if one["kind"] == "Node"}
        pods = sum(
            _true(one)
            for one in items
            if one["kind"] == "Pod"
            and one["metadata"]["labels"].get("app.kubernetes.io/name") == "vote"
        )
        return Sample(time.time(), nodes, pods)

    def tally(self) -> dict[str, Any]:
        """Return what Redis holds, every vote counted (see `compared`)."""
        words = ["k3s", "kubectl", "-n", "f1", "exec", "redis-0", "--"]
        words += ["redis-cli", "--raw", "EVAL", COUNT, "0"]
        return compared(dict(json.loads(self.on(self.master, *words)) or {}))

    @contextmanager
    def load(self) -> Iterator[list[Line]]:
        """Votes and requests from outside as long as this lasts; what became of each."""
        words = ["ip", "netns", "exec", OUTSIDE, sys.executable, "-m", "lab.faults", "--voters"]
        outside = subprocess.Popen(
            [*words, site.DOMAIN],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        lines: list[Line] = []
        reader = threading.Thread(target=_each_line, args=(outside.stdout, lines), daemon=True)
        reader.start()
        try:
            yield lines
        finally:
            # It ends with its stdin, once every voter has heard or given up.
            if outside.stdin:
                outside.stdin.close()
            try:
                outside.wait(4 * VOTER_PATIENCE)
            except subprocess.TimeoutExpired:
                outside.kill()
                outside.wait()
            reader.join(5)

    @contextmanager
    def watch(self) -> Iterator[list[Sample]]:
        """The cluster, looked at every second as long as this lasts."""
        samples: list[Sample] = []
        ended = threading.Event()

        def look() -> None:
            while not ended.is_set():
                samples.append(self.sample())
                ended.wait(SAMPLE_SECONDS)

        watcher = threading.Thread(target=look, daemon=True)
        watcher.start()
        try:
            yield samples
        finally:
            ended.set()
            watcher.join(10)

    def up(self) -> tuple[int, float]:
        """Run ``make up``; return its exit code and seconds."""
        began = time.monotonic()
        done = subprocess.run(
            ["make", "--no-print-directory", "up"],
            cwd=ROOT,
            stdout=sys.stderr,
            timeout=UP_SECONDS,
            check=False,
        )
        return done.returncode, time.monotonic() - began


def _each_line(stream: Any, lines: list[Line]) -> None:
    for line in stream:
        lines.append(json.loads(line))


def _true(one: dict[str, Any]) -> bool:
    conditions = one.get("status", {}).get("conditions", [])
    return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)


def wait_for(what: str, seconds: float, probe: Callable[[], Any]) -> None:
    """Call ``probe`` until it returns nothing wrong; raise TimeoutError with the last it said."""
    end = time.monotonic() + seconds
    while wrong := probe():
        if time.monotonic() >= end:
            raise TimeoutError(f"waited {seconds:g} s for {what}; last seen: {wrong}")
        time.sleep(0.2)


# ---- The faults ----


@dataclass(frozen=True)
class Fault:
    """
    ``inject`` does it, ``seconds`` later ``undo`` undoes it; both return what is worth a phrase.
    ``undo`` comes in every case, and must bear that ``inject`` did nothing.
    """

    name: str
    text: str
    seconds: float
    inject: Callable[[Lab], str]
    undo: Callable[[Lab], str]


def _nothing(lab: Lab) -> str:
    return ""


def _kill_worker(lab: Lab) -> str:
    lab.ec2.terminate_instances(InstanceIds=[lab.instances()[lab.workers[-1]]])
    return ""


def _up_again(lab: Lab) -> str:
    code, seconds = lab.up()
    if code:
        raise RuntimeError(f"`make up` ended with {code} after {seconds:.0f} s")
    return f"`make up` in {seconds:.0f} s"


def _reboot_master(lab: Lab) -> str:
    before = lab.started(lab.master)
    lab.ec2.reboot_instances(InstanceIds=[lab.instances()[lab.master]])

    def same() -> str:
        try:
            return "it has not been switched off" if lab.started(lab.master) == before else ""
        except (KeyError, DockerException):
            return "it is off"

    wait_for(f"the reboot of {lab.master}", 90, same)
    return ""


def _cut(lab: Lab) -> str:
    # The cable's name at the router, as lab.cloud.model has it.
    link = "m" + lab.instances()[lab.workers[-1]].removeprefix("i-")[-14:]
    firewall.apply(
        f"table inet {CUT} {{\n"
        f"  chain from {{ type filter hook prerouting priority -400; iifname {link} drop; }}\n"
        f"  chain to {{ type filter hook postrouting priority 400; oifname {link} drop; }}\n"
        "}\n"
    )
    return ""


def _mend(lab: Lab) -> str:
    firewall.apply(f"add table inet {CUT}\ndelete table inet {CUT}\n")
    return ""


def _fill_disk(lab: Lab) -> str:
    # All machines' disks are this host's: what is full is a small disk of the kubelet's own.
    script = f"""set -eu
mount -t tmpfs -o size=64m,mode=755 f1-full {KUBELET}
head -c 63m /dev/zero >{KUBELET}/full
systemctl restart --no-block k3s-agent"""
    lab.on(lab.workers[-1], "sh", "-c", script)
    return ""


def _free_disk(lab: Lab) -> str:
    script = f"""if grep -q '^f1-full {KUBELET} ' /proc/mounts; then
umount -l {KUBELET}; systemctl restart --no-block k3s-agent; fi"""
    lab.on(lab.workers[-1], "sh", "-c", script)
    return ""


def _kill_salt(lab: Lab) -> str:
    """Kill the Salt master while the operator's `up` lets it orchestrate."""
    log = STATE / "faults-up.log"
    with log.open("w") as out:
        began = time.time()
        up = subprocess.Popen(
            ["make", "--no-print-directory", "up"], cwd=ROOT, stdout=out, stderr=out
        )
    try:

        def not_yet() -> str:
            if up.poll() is not None:
                return f"`make up` ended with {up.returncode} before: {log}"
            seen = [e["stage"] for e in events.read(STATE / "events.jsonl") if e["at"] > began]
            if "cluster" not in seen:
                return f"stages {seen}"
            words = ["sh", "-c", "pgrep -f '^/usr/bin/python3.*salt-run.*orch.cluster' || true"]
            return "" if lab.on(lab.master, *words).strip() else "no orchestration yet"

        wait_for("orch.cluster on the master", 180, not_yet)
        lab.on(lab.master, "systemctl", "kill", "--signal=KILL", "salt-master")
        killed = time.monotonic()
        code = up.wait(LIMIT)
    finally:
        if up.poll() is None:
            up.terminate()
            up.wait(30)
    return f"the `make up` under way ended with {code}, {time.monotonic() - killed:.0f} s later"


def _kill_k3s(lab: Lab) -> str:
    lab.on(lab.master, "systemctl", "kill", "--kill-whom=main", "--signal=KILL", "k3s")
    return ""


FAULTS = (
    Fault("worker", "a worker's machine is gone", 60, _kill_worker, _up_again),
    Fault("reboot", "the master is rebooted", 0, _reboot_master, _nothing),
    Fault("network", "a worker's network is cut for 60 s", 60, _cut, _mend),
    Fault("disk", "a worker's disk (the kubelet's) is full for 90 s", 90, _fill_disk, _free_disk),
    Fault("salt", "the Salt master is killed in mid-orchestration", 0, _kill_salt, _up_again),
    Fault("k3s", "K3s's server is killed with -9", 0, _kill_k3s, _nothing),
)


# ---- One after the other ----


def measure(lab: Lab, fault: Fault) -> Row:
    """Do one fault under votes, undo it, wait until everything is whole; say what was seen."""
    print(f"  ▸ {fault.name:<10} {fault.text}", file=sys.stderr, flush=True)
    _whole(lab)
    before = lab.tally()["votes"]
    did: list[str] = []
    wrong: list[str] = []
    with lab.load() as lines, lab.watch() as samples:
        wait_for("the first votes", 60, lambda: _accepted(lines, 0.0))
        begin = time.time()
        try:
            did += _said(fault.inject, lab, wrong)
            if not wrong:
                time.sleep(max(0.0, begin + fault.seconds - time.time()))
        finally:
            did += _said(fault.undo, lab, wrong)
        try:
            since = time.time()
            wait_for("votes to be accepted again", LIMIT, lambda: _accepted(lines, since))
            _whole(lab)
        except TimeoutError as error:
            wrong.append(str(error))
        # Two more looks, with everything as it is now.
        count = len(samples)
        wait_for("the last looks", 30, lambda: "" if len(samples) >= count + 2 else "none yet")
    after = lab.tally()
    pages = [(line["at"], line["ok"]) for line in lines if line["kind"] == "page"]
    ready = [(sample.at, all_ready(sample, lab.machines)) for sample in samples]
    row = Row(
        fault=fault.text,
        did=[*story(samples, begin, lab.machines), *did],
        page=back(pages, begin),
        ready=back(ready, begin),
        votes=account(lines, before, after["votes"]),
        broken=after["broken"],
        wrong=wrong,
    )
    print(f"  ✓ {fault.name:<10} {time.time() - begin:7.1f} s", file=sys.stderr, flush=True)
    return row


def _said(act: Callable[[Lab], str], lab: Lab, wrong: list[str]) -> list[str]:
    """Do it; what fails is noted, for the fault must be undone and the next one done."""
    try:
        said = act(lab)
    except (OSError, RuntimeError, LookupError, ValueError, subprocess.SubprocessError) as error:
        detail = getattr(error, "stderr", "") or ""
        wrong.append(f"{error} {detail}".strip())
        return []
    return [said] if said else []


def _accepted(lines: list[Line], since: float) -> str:
    votes = [each for each in lines if each["kind"] == "vote" and each["at"] >= since]
    good = sum(each["state"] == "accepted" for each in votes)
    return "" if good >= WARM else f"{good} of {len(votes)} accepted"


def _whole(lab: Lab) -> None:
    """Wait until all machines are Ready nodes and the app has its pods. Raises TimeoutError."""

    def wrong() -> str:
        found = lab.sample()
        if all_ready(found, lab.machines) and found.pods >= 2:
            return ""
        return f"nodes {found.nodes}, {found.pods} ready app pods"

    wait_for("all nodes Ready and two app pods", LIMIT, wrong)


def voters(domain: str) -> None:
    """
    Vote twice a second and look at the page four times a second, until stdin ends. Prints one JSON
    line each: ``{"kind": "vote", "at", "state", "choice"}``, ``{"kind": "page", "at", "ok"}``.
    """
    url = f"https://{domain}"
    mutex = threading.Lock()
    ended = threading.Event()

    def say(**line: Any) -> None:
        with mutex:
            print(json.dumps({**line, "at": time.time()}), flush=True)

    def one(choice: str) -> None:
        each = voter.Voter(url, domain, verify_tls=False, timeout=VOTER_PATIENCE)
        say(kind="vote", choice=choice, state=cast(each, choice))

    def look() -> None:
        while not ended.is_set():
            asks = voter.Voter(url, domain, verify_tls=False, timeout=2)
            try:
                good = asks.call(f"/{voter.CANARY}")[0] == 200
            except (OSError, http.client.HTTPException):
                good = False
            say(kind="page", ok=good)
            ended.wait(PAGE_SECONDS)

    first = voter.Voter(url, domain, verify_tls=False)
    first.wait_for_page(60)
    choices = itertools.cycle(sorted(first.tally()))

    def end() -> None:
        sys.stdin.read()
        ended.set()

    threading.Thread(target=end, daemon=True).start()
    threads = [threading.Thread(target=look)]
    threads[0].start()
    while not ended.is_set():
        threads.append(threading.Thread(target=one, args=(next(choices),)))
        threads[-1].start()
        ended.wait(VOTE_SECONDS)
    for thread in threads:
        thread.join()


def cast(each: Any, choice: str) -> str:
    """Let one voter vote; return ``accepted``, ``unknown`` or ``unsent`` (see `Votes`)."""
    try:
        each.wait_for_page(VOTER_PATIENCE)
    except (voter.Failed, OSError, http.client.HTTPException):
        return "unsent"
    try:
        each.vote(choice)
    except (voter.Failed, OSError, http.client.HTTPException):
        return "unknown"
    return "accepted"


def report(rows: list[Row]) -> str:
    """Return the evidence file for ``rows``."""
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    words = ["git", "rev-parse", "--short", "HEAD"]
    commit = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return f"""# Faults, measured

{today}, commit {commit.strip()}, {os.cpu_count()} cores. Repeat: `python -m lab.faults`.
Two votes a second from outside, each of a voter of its own. Seconds count from the fault.
Not answered: whether such a vote counts, its voter cannot know; lost: accepted, and not in the
tally. In the lab a machine is a container: its disk is the host's, so the disk that fills is a
small one of the kubelet's own.

{table(rows)}
"""


def main(words: list[str]) -> None:
    """Measure, print, write the evidence; exit code 1 if a vote was lost or something stays."""
    if words[:1] == ["--voters"]:
        voters(words[1])
        return
    known = {fault.name: fault for fault in FAULTS}
    unknown = [name for name in words if name not in known]
    if unknown:
        raise SystemExit(f"faults: no such fault: {', '.join(unknown)}; use {', '.join(known)}")
    lab = Lab()
    rows: list[Row] = []
    for name in words or known:
        try:
            rows.append(measure(lab, known[name]))
        except (TimeoutError, subprocess.SubprocessError) as error:
            print(table(rows))
            raise SystemExit(f"faults: {name}: {error}; `make up` repairs the lab") from None
    print(table(rows))
    if not words:
        EVIDENCE.write_text(report(rows))
    if wrong := failures(rows):
        raise SystemExit("\n".join(["faults:", *wrong]))


if __name__ == "__main__":
    main(sys.argv[1:])
