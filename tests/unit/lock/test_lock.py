"""One operation at a time, and no lock outlives its process."""

import subprocess
import sys

import pytest
from salt.exceptions import SaltException

from tests.conftest import ROOT, load_ext

HOLD = """
import sys; sys.path.insert(0, {utils!r})
import lock
lock.hold({path!r}, "orch.up")
print("held", flush=True)
sys.stdin.read()
"""


def test_a_second_one_is_told_who_holds_it_and_a_dead_one_holds_nothing(tmp_path):
    path = str(tmp_path / "state" / "lock")
    lock = load_ext("utils/lock.py")
    other = subprocess.Popen(
        [sys.executable, "-c", HOLD.format(utils=str(ROOT / "salt/ext/utils"), path=path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert other.stdout is not None
    assert other.stdout.readline() == "held\n"
    with pytest.raises(SaltException, match=rf"orch.up runs since .* as process {other.pid}"):
        lock.hold(path, "orch.down")
    other.kill()
    other.wait()
    lock.hold(path, "orch.down")
    lock.hold(path, "orch.down")  # the same process may ask again
