"""
State runs on minions, from an orchestration on their master, and what became of each.

Salt's own ``salt.state`` gives a minion up that is away when it is asked about its job. Here a job
outlives its minion's restart: its return is looked up again by its id, and a job that died with
its minion is sent once more. Every wait ends, and says what was seen last.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import salt.client
import salt.loader

# A minion that says nothing of its job for this long is given up (it may be restarting).
SILENT_SECONDS = 120
# So often the silent ones are asked about their jobs, and their returns looked up.
LOOK_SECONDS = 5
ANSWER_SECONDS = 3
# A minion that runs another state is asked again after this long.
BUSY_SECONDS = 2
# How often a job that died with its minion is sent again.
RETRIES = 1

# What `state.*` returns, in a list, while another state run is under way on that minion.
_BUSY = "is running as PID"


@dataclass
class Outcome:
    """What minions returned, and why others did not: both by minion."""

    returned: dict[str, dict[str, Any]] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)


def ask(
    command: Callable[..., dict[str, Any]],
    minions: list[str],
    functions: list[str],
    arguments: list[list[Any]] | None = None,
    seconds: float = 15,
) -> dict[str, Any]:
    """
    Return what each minion that answered within ``seconds`` returned, by function.

    ``command`` is Salt's ``saltutil.cmd``.
    """
    said = command(
        minions,
        functions,
        arg=arguments or [[] for _ in functions],
        tgt_type="list",
        timeout=seconds,
        gather_job_timeout=seconds,
    )
    return {minion: told["ret"] for minion, told in said.items() if "ret" in told}


def states(
    opts: dict[str, Any],
    minions: list[str],
    sls: str | None = None,
    pillar: dict[str, Any] | None = None,
    deadline: float = 900,
) -> Outcome:
    """
    Run the highstate (or only ``sls``) on all ``minions`` at once, at most ``deadline`` seconds.

    A minion that runs states already is asked until it does not. With ``opts["test"]`` it is a
    plan. Raises SaltException if the master itself does not take the job.
    """
    # By the master's configuration: an orchestration's own options name who started it, by sudo
    # too, and the client would look for a key of that name.
    with salt.client.get_local_client(c_path=opts["conf_file"]) as client:
        return _Runs(opts, client, sls, pillar or {}).all(minions, time.monotonic() + deadline)


class _Runs:
    """One function on several minions; each may have its own job, if it had to be sent again."""

    def __init__(
        self, opts: dict[str, Any], client: Any, sls: str | None, pillar: dict[str, Any]
    ) -> None:
        self.opts = opts
        self.client = client
        self.function = "state.apply" if sls else "state.highstate"
        self.arguments = [sls] if sls else []
        # Salt's `queue` would lose sight of a job that waits.
        self.keywords = {"pillar": pillar, "queue": False, "test": bool(opts.get("test"))}
        self.outcome = Outcome()
        self.jobs: dict[str, str] = {}
        self.heard: dict[str, float] = {}
        self.again: dict[str, float] = {}
        self.gone: dict[str, int] = {}
        self.lost: dict[str, int] = {}
        self.busy: dict[str, str] = {}

    def all(self, minions: list[str], end: float) -> Outcome:
        started = time.monotonic()
        self._send(minions)
        look = time.monotonic() + LOOK_SECONDS
        while (self.jobs or self.again) and time.monotonic() < end:
            event = self.client.event.get_event(wait=0.5, tag="salt/job/", full=True)
            if event:
                self._returned(event["data"])
            if time.monotonic() >= look:
                self._look()
                look = time.monotonic() + LOOK_SECONDS
            due = [minion for minion, when in self.again.items() if when <= time.monotonic()]
            for minion in due:
                del self.again[minion]
            if due:
                self._send(due)
        waited = f"waited {time.monotonic() - started:.0f} s"
        for minion in [*self.jobs, *self.again]:
            last = self.busy.get(minion, "its state run still goes on")
            self.outcome.failed[minion] = f"{waited}; last seen: {last}"
        return self.outcome

    def _send(self, minions: list[str]) -> None:
        """Publish the job to ``minions``; those whose key is not accepted fail at once."""
        published = self.client.run_job(
            minions,
            self.function,
            arg=self.arguments,
            kwarg=self.keywords,
            tgt_type="list",
            listen=True,
        )
        taken = set(published.get("minions", []))
        for minion in minions:
            if minion in taken:
                self.jobs[minion] = published["jid"]
                self.heard[minion] = time.monotonic()
            else:
                self.outcome.failed[minion] = "the master has no accepted key of it (`salt-key -L`)"

    def _returned(self, data: dict[str, Any]) -> None:
        """Take the return of a job, from an event or from the job cache, if it is ours."""
        minion = data.get("id", "")
        if "return" not in data or not data.get("jid") or self.jobs.get(minion) != data["jid"]:
            return
        value = data["return"]
        del self.jobs[minion]
        words = "; ".join(map(str, value)) if isinstance(value, list) else str(value)
        if isinstance(value, dict) and value:
            self.outcome.returned[minion] = value
        elif isinstance(value, list) and _BUSY in words:
            self.busy[minion] = words
            self.again[minion] = time.monotonic() + BUSY_SECONDS
        else:
            self.outcome.failed[minion] = words

    def _look(self) -> None:
        """Look the missing returns up by job id, and ask for the jobs that have none."""
        returners = salt.loader.returners(self.opts, {})
        get = returners[f"{self.opts['master_job_cache']}.get_jid"]
        for jid in set(self.jobs.values()):
            for minion, told in get(jid).items():
                self._returned({**told, "id": minion, "jid": jid})
        for jid in set(self.jobs.values()):
            self._ask(jid, [minion for minion, its in self.jobs.items() if its == jid])

    def _ask(self, jid: str, minions: list[str]) -> None:
        """Ask ``minions`` about their job: one that it died with gets it again."""
        said = self.client.cmd(
            minions,
            "saltutil.find_job",
            arg=[jid],
            tgt_type="list",
            timeout=ANSWER_SECONDS,
            gather_job_timeout=ANSWER_SECONDS,
            full_return=True,
        )
        # For one that is silent Salt returns words of its own, or nothing.
        answers = {m: told["ret"] for m, told in said.items() if isinstance(told.get("ret"), dict)}
        for minion in minions:
            if minion not in answers:
                silent = time.monotonic() - self.heard[minion]
                if silent >= SILENT_SECONDS:
                    del self.jobs[minion]
                    self.outcome.failed[minion] = (
                        f"silent for {silent:.0f} s: `journalctl -u salt-minion` there tells why"
                    )
                continue
            self.heard[minion] = time.monotonic()
            if answers[minion]:
                self.busy.pop(minion, None)
            # The return of a job that has just ended may be on its way: asked twice.
            self.gone[minion] = 0 if answers[minion] else self.gone.get(minion, 0) + 1
            if self.gone[minion] < 2:
                continue
            self.gone[minion] = 0
            del self.jobs[minion]
            self.lost[minion] = self.lost.get(minion, 0) + 1
            if self.lost[minion] > RETRIES:
                self.outcome.failed[minion] = (
                    f"its state run ended {self.lost[minion]} times without a word, as when its "
                    f"minion is restarted: `journalctl -u salt-minion` there"
                )
            else:
                self.busy[minion] = "it had lost its job"
                self.again[minion] = time.monotonic()


def faults(value: dict[str, Any]) -> list[str]:
    """Return ``id: comment`` of each failed state in what a state run returned."""
    return [
        f"{state.get('__id__') or name.split('_|-')[1]}: {str(state.get('comment')).strip()}"
        for name, state in value.items()
        if isinstance(state, dict)
        and state.get("result") is False
        and not str(state.get("comment")).startswith("One or more requisite failed")
    ]


def changes(value: dict[str, Any]) -> dict[str, Any]:
    """Return the changes of a state run by the id of the state."""
    return {
        str(state.get("__id__") or name): state["changes"]
        for name, state in value.items()
        if isinstance(state, dict) and state.get("changes")
    }
