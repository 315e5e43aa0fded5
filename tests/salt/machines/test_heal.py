"""The scheduled highstate with a real master and real minions: a file edited behind our back."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import ROOT

from .conftest import Fleet, Make, arguments

TOP = "base: {'*': [drift]}"
DRIFT = """\
{folder}/{{{{ grains['id'] }}}}:
  file.managed:
    - contents: as it should be
"""
K3S = """\
#!/bin/sh
[ "$1" = --version ] && echo 'k3s version {version} (stand-in)' && exit
exit 1
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("heal")


@pytest.fixture(scope="module")
def fleet(folder: Path, salt_factories: Any) -> Iterator[Fleet]:
    lock = yaml.safe_load((ROOT / "salt/pillar/versions.sls").read_text())
    k3s = folder / "k3s"
    k3s.write_text(K3S.format(version=lock["versions"]["k3s"]["version"]))
    k3s.chmod(0o755)
    made = Fleet(
        salt_factories,
        folder,
        {"f1-master": {}, "f1-worker-1": {}},
        {
            "runners/heal.py": {"/var/lib/f1": str(folder / "f1"), "/usr/local/bin/k3s": str(k3s)},
            "utils/lock.py": {"/var/lib/f1": str(folder / "f1")},
            "utils/status.py": {"/usr/local/bin/k3s": str(k3s)},
        },
        {"workers": {"count": 1}},
    )
    config = Path(made.master.config_file)
    more = {f"{kind}_dirs": [str(folder / "ext" / f"{kind}s")] for kind in ("runner", "outputter")}
    config.write_text(yaml.safe_dump({**yaml.safe_load(config.read_text()), **more}))
    made.sls("top", TOP)
    made.sls("drift", DRIFT.format(folder=folder))
    # The lock's path is that of a master; the states' is the fixture's own.
    made.sls("cluster/alone", f"x:\n  road.alone:\n    - path: {folder}/f1/lock\n")
    with made.running():
        yield made


def heal(fleet: Fleet, code: int = 0) -> dict[str, Any]:
    done = fleet.master.salt_run_cli(timeout=120).run("heal.run")
    assert done.returncode == code, done
    return dict(json.loads((fleet.folder / "f1/heal/last.json").read_text()))


@pytest.mark.timeout(400)
def test_what_was_edited_is_put_right_and_told(fleet: Fleet, folder: Path) -> None:
    first = heal(fleet)
    assert (first["ok"], len(first["repaired"])) == (True, 2), first
    assert heal(fleet)["repaired"] == []
    edited = folder / "f1-worker-1"
    edited.write_text("by somebody\n")
    found = heal(fleet)
    assert found["repaired"] == [f"f1-worker-1: {edited} (diff)"]
    assert edited.read_text() == "as it should be\n"
    assert found["repaired_total"] == 3
    edited.unlink()
    edited.mkdir()
    found = heal(fleet, code=1)
    assert found["ok"] is False
    assert any("f1-worker-1" in line for line in found["failed"]), found
    metrics = (folder / "f1/metrics/heal.prom").read_text()
    assert f"f1_heal_failed_states {len(found['failed'])}\n" in metrics
    assert json.loads((folder / "f1/lock").read_text())["what"] == "heal"


def test_the_timer_follows_its_knob(tree: Make) -> None:
    data = tree(heal={"minutes": 5}).render("heal/init.sls")
    timer = arguments(data, "/etc/systemd/system/f1-heal.timer", "file.managed")["contents"]
    assert "OnActiveSec=5min\nOnUnitInactiveSec=5min\n" in timer


def test_half_an_hour_is_the_default(tree: Make) -> None:
    assert "OnActiveSec=30min" in str(tree().render("heal/init.sls"))


def test_never_is_its_reverse(tree: Make) -> None:
    assert tree(heal={"minutes": 0}).render("heal/init.sls") == {"include": ["heal.absent"]}


def test_everything_that_it_leaves_has_its_reverse(tree: Make) -> None:
    made = tree()
    absent = made.render("heal/absent.sls")
    present = [name for name in made.render("heal/init.sls") if name.startswith("/")]
    assert set(present) <= set(absent)
    assert {"/var/lib/f1/heal", "/var/lib/f1/metrics/heal.prom"} <= set(absent)
