"""After `down`, and after what else the lab was used for, everything comes up again."""

import pytest

from tests.e2e.conftest import make

pytestmark = pytest.mark.e2e


@pytest.mark.timeout(400)
def test_up_again_from_nothing(platform):
    make("up", timeout=300)
    assert sorted(platform.machines()) == ["f1-master", "f1-worker-1", "f1-worker-2"]
