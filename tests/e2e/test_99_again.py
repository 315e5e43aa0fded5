"""After `down`, and after what else the lab was used for, everything comes up again."""

import json
import os
import signal
import subprocess
import time

import pytest

from tests.conftest import ROOT
from tests.e2e.conftest import make, wait_for

pytestmark = pytest.mark.e2e


def interrupt_when_begins(stage: str) -> None:
    """Start `make up` and press Ctrl-C as ``stage`` begins."""
    events = ROOT / ".state/events.jsonl"
    began = time.time()
    up = subprocess.Popen(
        ["make", "--no-print-directory", "up"],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        # A shell's background job ignores Ctrl-C, and so would its children.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )

    def begun() -> tuple[bool, list[str]]:
        lines = events.read_text().splitlines() if events.exists() else []
        seen = [event["stage"] for line in lines if (event := json.loads(line))["at"] > began]
        return stage in seen, seen

    wait_for(f"the stage {stage}", 120, begun)
    time.sleep(1)  # well into it
    os.killpg(up.pid, signal.SIGINT)
    assert up.wait(60) != 0


@pytest.mark.timeout(500)
def test_interrupted_twice_on_the_way_from_nothing_up_goes_on(platform):
    interrupt_when_begins("machines")
    interrupt_when_begins("cluster")
    make("up", timeout=300)
    assert sorted(platform.machines()) == ["f1-master", "f1-worker-1", "f1-worker-2"]
    assert " 0 changed, 0 failed" in make("up", timeout=120).stdout
