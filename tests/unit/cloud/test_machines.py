"""A machine that was stopped and one that switched itself off end alike; only the order tells."""

import types
from typing import Any

import pytest

from lab.cloud import machines
from tests.unit.cloud.builders import machine

ONE = machine(1)
LISTED = {"Id": "c", "State": "running"}


class Engine:
    """Docker, as far as a machine's power goes."""

    def __init__(self) -> None:
        self.did: list[str] = []
        self.api = self

    def start(self, container: str) -> None:
        self.did.append("start")

    def stop(self, container: str, timeout: float) -> None:
        self.did.append("stop")

    def inspect_container(self, container: str) -> dict[str, Any]:
        return {"State": {"ExitCode": machines.POWERED_OFF, "Pid": 1}}


@pytest.fixture
def driver(monkeypatch):
    engine: Any = Engine()
    monkeypatch.setattr(machines, "network", types.SimpleNamespace(plug=lambda *_: None))
    monkeypatch.setattr(machines, "bounding_set", set)
    monkeypatch.setattr(machines, "privileges", lambda _: {})
    return machines.Driver(engine, {}, lambda _: engine.did.append("told"), lambda: None)


def test_one_that_switches_itself_off_stays_off(driver):
    driver._power_on(ONE, "c")
    driver._start(ONE, "c")
    assert driver.engine.did == ["start", "told"]


def test_one_that_is_started_while_it_stops_is_started(driver):
    driver._power_on(ONE, "c")
    driver._stop(ONE, "c")
    # The list of containers is older than the stop, the wish to have it run is newer.
    assert driver._next(ONE, LISTED, True) is None
    driver._start(ONE, "c")
    assert driver.engine.did == ["start", "stop", "start"]
    driver._start(ONE, "c")
    assert driver.engine.did[-1] == "told"
