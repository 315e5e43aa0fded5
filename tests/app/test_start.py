"""What the app is given to start with: everything wrong is told at once, with its fix."""

import os
import re
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from f1vote import ballot, settings
from f1vote.problems import Problems
from tests.app.servers import App, ask, wait
from tests.conftest import ROOT

KEY = b"k" * 40


def environ(folder: Path, **more: str) -> dict[str, str]:
    (folder / "key").write_bytes(KEY)
    return {
        "F1_REDIS_URL": "redis://:hunter2@redis:6379/0",
        "F1_COOKIE_KEY_FILE": str(folder / "key"),
        "F1_POLLS_DIR": str(folder),
        "F1_VERSION": "1",
        **more,
    }


def told(given: dict[str, str]) -> list[str]:
    with pytest.raises(Problems) as raised:
        settings.load(given)
    return raised.value.lines


def test_every_wrong_variable_is_told_at_once(tmp_path):
    (tmp_path / "short").write_bytes(b"k" * 32 + b"\nshort\n")
    (tmp_path / "empty").write_bytes(b"\n")
    (tmp_path / "latin").write_bytes(b"\xe9")
    lines = told(
        {
            "F1_REDIS_URL": "http://redis",
            "F1_REDIS_PASSWORD_FILE": str(tmp_path / "latin"),
            "F1_COOKIE_KEY_FILE": str(tmp_path / "short"),
            "F1_ADMIN_TOKEN_FILE": str(tmp_path / "empty"),
            "F1_POLLS_DIR": str(tmp_path / "none"),
            "F1_PORT": "http",
            "F1_OPS_PORT": "70000",
            "F1_PROXIES": "-1",
            "F1_PUBLIC_URL": "https://vote.example.org/",
            "F1_CHALLENGE": "sometimes",
            "F1_DRAIN_SECONDS": "²",
        }
    )
    assert {line.partition(":")[0] for line in lines} == {
        "F1_REDIS_URL", "F1_REDIS_PASSWORD_FILE", "F1_COOKIE_KEY_FILE", "F1_ADMIN_TOKEN_FILE",
        "F1_POLLS_DIR", "F1_VERSION", "F1_PORT", "F1_OPS_PORT", "F1_PROXIES", "F1_PUBLIC_URL",
        "F1_CHALLENGE", "F1_DRAIN_SECONDS",
    }  # fmt: skip
    assert len(lines) == 12
    assert any("key 2 of" in line and "holds 5 bytes" in line for line in lines)


@pytest.mark.parametrize(
    "url", ["", "redis://", "redis://:6379", "redis://[", "redis://h:x", "unix://", "redis"]
)
def test_a_wrong_address_of_redis_is_told(tmp_path, url):
    assert "redis://host:6379/0" in told(environ(tmp_path, F1_REDIS_URL=url))[0]


def test_what_is_not_said(tmp_path):
    loaded = settings.load(environ(tmp_path))
    assert (loaded.port, loaded.ops_port, loaded.proxies, loaded.drain) == (8000, 8001, 0, 0)
    assert loaded.challenge == "attack"
    assert loaded.admin_token is None
    assert loaded.redis_password is None


def test_both_listeners_on_one_port_are_told(tmp_path):
    assert "F1_OPS_PORT" in told(environ(tmp_path, F1_PORT="9000", F1_OPS_PORT="9000"))[0]


def test_no_secret_is_shown(tmp_path):
    for name in ("token", "password"):
        (tmp_path / name).write_text(f"{name} that nobody may see, of 32 bytes")
    loaded = settings.load(
        environ(
            tmp_path,
            F1_ADMIN_TOKEN_FILE=str(tmp_path / "token"),
            F1_REDIS_PASSWORD_FILE=str(tmp_path / "password"),
        )
    )
    assert loaded.redis_password == "password that nobody may see, of 32 bytes"
    shown = repr(loaded)
    assert not any(secret in shown for secret in ("kkkk", "hunter2", "nobody may see"))


def test_the_program_ends_with_2_and_says_why():
    env = {name: value for name, value in os.environ.items() if not name.startswith("F1_")}
    ended = subprocess.run(
        [sys.executable, "-m", "f1vote", "serve"],
        env={**env, "PYTHONPATH": str(ROOT / "app")}, capture_output=True, text=True, timeout=30,
    )  # fmt: skip
    assert ended.returncode == 2
    assert ended.stderr.count("\n  F1_") == 4
    assert "Traceback" not in ended.stderr


def test_a_low_soft_limit_takes_no_seat(redis_server, tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
    try:
        app = App(tmp_path, redis_server.url, ready=False)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    try:
        wait("the app", lambda: ask("GET", f"{app.ops_url}/healthz"), app.process, app.log)
        seats = re.findall(r"live results: (\d+) viewers at most", app.log.read_text())
        assert [int(n) for n in seats] == [min(4000, hard - 512)]
    finally:
        app.stop()


def test_a_ballot_is_good_for_the_key_that_made_it_and_no_other():
    voter, value = ballot.issue((KEY,))
    assert ballot.read((KEY,), value) == voter
    assert ballot.read((b"K" * 32,), value) is None
    # The key is replaced: a new one before it, later without it.
    new = b"n" * 32
    assert ballot.read((new, KEY), value) == voter
    assert ballot.read((new,), value) is None
    assert ballot.read((new,), ballot.issue((new, KEY))[1]) is not None
    assert ballot.read((new,), ballot.sign((new, KEY), voter)) == voter
    assert len({ballot.issue((KEY,))[0] for _ in range(100)}) == 100


def test_a_code_is_signed_for_one_poll_and_is_no_ballot():
    value = ballot.sign_code((KEY,), "final", "ABCD-EFGH")
    assert ballot.read_code((KEY,), "final", value) == "ABCD-EFGH"
    assert ballot.read_code((KEY,), "other", value) is None
    voter = "A" * ballot.ID_LENGTH
    assert ballot.read((KEY,), ballot.sign_code((KEY,), "final", voter)) is None
    assert ballot.read_code((KEY,), "final", ballot.issue((KEY,))[1]) is None


@pytest.mark.parametrize("value", [None, "", ".", "x.", ".x", "é" * 30, "A" * 5000, "A" * 22 + "."])
def test_what_is_no_ballot(value):
    assert ballot.read((KEY,), value) is None
