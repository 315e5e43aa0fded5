"""What the lab tells the product is fit to build from, and is pillar only."""

import yaml
from salt.utils.dictupdate import merge_recurse

from lab import site
from tests.conftest import ROOT, load_ext


def test_the_labs_knobs_are_right():
    pillar = {}
    for name in ("platform", "versions", "app"):
        pillar = merge_recurse(
            pillar, yaml.safe_load((ROOT / "salt/pillar" / f"{name}.sls").read_text())
        )
    pillar = merge_recurse(pillar, {"platform": site.knobs()})
    assert load_ext("utils/knobs_check.py").problems(pillar) == []
