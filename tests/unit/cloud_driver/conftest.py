"""A cloud API in a thread, an empty account, and machines that boot by their user-data."""

import copy
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aws
import knobs
import pytest
import salt._logging
import yaml
from moto.server import ThreadedMotoServer

from lab.cloud import moto_fixes
from tests.conftest import ROOT
from tests.unit.cloud_driver.machines import Machines

IMAGE = "ami-12c6146b"  # one that moto knows


@pytest.fixture(scope="session", autouse=True)
def no_early_log() -> None:
    """Salt keeps early warnings for a log that tests never open, and complains at the end."""
    salt._logging.shutdown_temp_handler()


@pytest.fixture(scope="session")
def endpoint() -> Iterator[str]:
    moto_fixes.apply()
    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def platform(endpoint: str, monkeypatch, tmp_path: Path) -> dict[str, Any]:
    """The knobs of an empty account; state in a folder of its own."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "not-to-be-shown")
    monkeypatch.delenv("AWS_PROFILE", raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("F1_STATE", str(tmp_path / "state"))
    reset = urllib.request.Request(f"{endpoint}/moto-api/reset", method="POST")
    urllib.request.urlopen(reset, timeout=10).close()
    made = yaml.safe_load((ROOT / "salt/pillar/platform.sls").read_text())["platform"]
    made["aws"].update(endpoint_url=endpoint, s3_endpoint_url=endpoint)
    made["image"]["id"] = IMAGE
    made["operator"]["cidrs"] = ["203.0.113.7/32"]
    return copy.deepcopy(made)


@pytest.fixture
def opts(platform: dict[str, Any], monkeypatch) -> dict[str, Any]:
    """Salt's options as the driver sees them, the pillar compiled."""
    made = {"pillar_roots": {"base": ["here"]}, "test": False}
    monkeypatch.setattr(knobs, "_compiled", {("here",): {"platform": platform, "versions": {}}})
    return made


@pytest.fixture
def requests_seen(monkeypatch) -> list[str]:
    """The API requests made so far, in order."""
    seen: list[str] = []
    call = aws.call

    def counted(platform: dict[str, Any], service: str, request: str, **arguments: Any) -> Any:
        seen.append(request)
        return call(platform, service, request, **arguments)

    monkeypatch.setattr(aws, "call", counted)
    return seen


@pytest.fixture
def machines(platform: dict[str, Any], monkeypatch, tmp_path: Path) -> Iterator[Machines]:
    """Whatever is launched boots: its real first-boot.py, in a folder instead of a root."""
    made = Machines(platform, tmp_path / "machines")
    monkeypatch.setenv("PATH", str(made.programs), prepend=":")
    with made:
        yield made
