"""kine, the API server and its supervisor paths for real: tokens, restart, restore.

In a network namespace of its own: nothing here needs, or touches, a machine of the lab.
"""

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing

import pytest

from lab import build
from lab.build import compile, toolchain
from lab.build.families import OLDER

DEADLINE = 120  # seconds for one start and all questions
OPTIONS = ("--token=s3cret", "--secrets-encryption")


@pytest.fixture(scope="module")
def programs():
    if os.geteuid() != 0:
        pytest.skip("needs root for a network namespace")
    try:
        return build.manifest().k3s_bin_dir()
    except build.BuildError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def older(programs):
    version, family = max(OLDER.items())
    if not compile.place(family, toolchain.find()).exists():
        pytest.skip(f"not built: python -m lab.build --kubernetes {version}")
    return version, build.kubernetes(version)


@pytest.fixture(scope="module")
def up(programs):
    def run(data, *options, programs=programs):
        command = [sys.executable, "-m", "tests.unit.k3s.control_plane"]
        done = subprocess.run(
            [
                *("unshare", "--net", "sh", "-ec", 'ip link set lo up; exec "$@"', "sh"),
                *(*command, str(programs), str(data), *options),
            ],
            capture_output=True,
            text=True,
            timeout=DEADLINE,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-3000:]
        return json.loads(done.stdout)

    return run


@pytest.fixture(scope="module")
def first(up, tmp_path_factory):
    data = tmp_path_factory.mktemp("server") / "data"
    return data, up(data, *OPTIONS, "--agent-token=agents")


def test_agents_may_join_with_the_agent_token_alone(first):
    _, seen = first
    assert seen["statuses"] == {
        "agents": 200,
        "later": 401,
        "server": 403,
        "nobody": 403,
        "version": 401,
        "readyz": 401,
    }
    assert seen["network"]["cluster_cidr"] == "10.42.0.0/16"
    assert seen["ca"]


def test_files_are_for_root_alone(first):
    data, _ = first
    for folder in ("server/tls", "server/cred", "agent"):
        modes = {p.name: p.stat().st_mode & 0o777 for p in (data / folder).iterdir() if p.is_file()}
        assert set(modes.values()) == {0o600}, modes
    names = {path.name for path in (data / "server/cred").glob("*.kubeconfig")}
    assert names == {"admin.kubeconfig", "controller.kubeconfig", "scheduler.kubeconfig"}


def test_new_agent_token_refuses_the_old_one(up, first):
    data, seen = first
    again = up(data, *OPTIONS, "--agent-token=later")
    assert (again["statuses"]["agents"], again["statuses"]["later"]) == (401, 200)
    assert (again["uid"], again["secret"]) == (seen["uid"], seen["secret"])


def test_datastore_and_token_are_enough_to_restore(up, first, tmp_path):
    data, seen = first
    server = tmp_path / "data/server"
    (server / "db").mkdir(parents=True)
    shutil.copy(data / "server/token", server / "token")
    with (
        closing(sqlite3.connect(data / "server/db/state.db")) as source,
        closing(sqlite3.connect(server / "db/state.db")) as target,
    ):
        source.backup(target)
    again = up(tmp_path / "data", "--secrets-encryption", "--agent-token=agents")
    assert {key: again[key] for key in ("uid", "secret", "ca")} == {
        key: seen[key] for key in ("uid", "secret", "ca")
    }
    assert (server / "tls/server-ca.crt").read_bytes() == (
        data / "server/tls/server-ca.crt"
    ).read_bytes()


def test_next_patch_version_takes_over(up, older, tmp_path):
    version, programs = older
    options = (*OPTIONS, "--agent-token=agents")
    before = up(tmp_path / "data", *options, programs=programs)
    after = up(tmp_path / "data", *options)
    assert before.pop("version") == f"{version}+k3s1"
    assert after.pop("version") == build.manifest().k3s_version
    assert after == before
