"""docs/aws.md is true: what it tells to type is typed here, in its order, in the lab."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.conftest import ROOT
from tests.e2e.conftest import make

pytestmark = pytest.mark.e2e

GUIDE = (ROOT / "docs/aws.md").read_text()
BLOCKS = re.findall(r"^```sh\n(.*?)^```$", GUIDE, re.MULTILINE | re.DOTALL)
SECONDS = 300


def test_the_guide_has_its_blocks():
    assert len(BLOCKS) >= 9
    assert "make up CLOUD=aws" in "".join(BLOCKS)
    assert "make down CLOUD=aws" in BLOCKS[-1]


def test_the_knobs_of_the_guide_are_right():
    import knobs_check
    from salt.utils.dictupdate import merge_recurse

    base = yaml.safe_load((ROOT / "salt/pillar/platform.sls").read_text())
    base["platform"]["app"]["digest"] = None
    versions = yaml.safe_load((ROOT / "salt/pillar/versions.sls").read_text())
    (least,) = re.findall(r"^```yaml\n(.*?)^```$", GUIDE, re.MULTILINE | re.DOTALL)
    site = merge_recurse(merge_recurse(base, versions), yaml.safe_load(least))
    assert knobs_check.problems(site) == []
    rows = [line for line in GUIDE.splitlines() if re.match(r"\| .* \| `\w+: [{]", line)]
    assert len(rows) == 5
    for row in rows:
        for knobs in re.findall(r"`(\w+: \{.*?\})`", row):
            changed = merge_recurse(site, {"platform": yaml.safe_load(knobs)})
            assert knobs_check.problems(changed) == [], knobs


@pytest.mark.timeout(900)
def test_what_the_guide_tells_to_type_works(platform):
    env = {key: value for key, value in os.environ.items() if not key.startswith("AWS_")}
    # A real operator's credentials; the lab's pillar, which `make up` has left, names its cloud.
    env |= {"AWS_ACCESS_KEY_ID": "lab", "AWS_SECRET_ACCESS_KEY": "lab", "PYTHONWARNINGS": "ignore"}
    env["PATH"] = f"{Path(sys.executable).parent}:{env['PATH']}"
    for block in BLOCKS:
        done = subprocess.run(
            ["bash", "-eu", "-c", block],
            cwd=ROOT,
            env=env,
            text=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=SECONDS,
        )
        print(f"$ {block}\n{done.stdout}")
        assert done.returncode == 0, f"$ {block}\n{done.stdout[-4000:]}"
    assert platform.machines() == {}, "the guide's end removed every machine"
    vpcs = platform.ec2.describe_vpcs()["Vpcs"]
    assert [v["CidrBlock"] for v in vpcs if not v["IsDefault"]] == []
    assert platform.ec2.describe_addresses()["Addresses"] == []
    # As it was found.
    make("up", timeout=300)
