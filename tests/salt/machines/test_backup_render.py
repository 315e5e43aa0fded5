"""The SLS files of backup and restore: their order, their knobs, the timer."""

import json
import subprocess
from pathlib import Path
from typing import Any

from .conftest import Make, arguments


def test_nobody_joins_or_votes_before_the_restore_is_compared(tree: Make) -> None:
    data = tree().render("cluster/restore.sls")
    given = arguments(data, "backup is restored", "backup.restored")
    assert given["require"] == [{"fleet": "minions"}]
    assert {"fleet": "highstate"} in given["require_in"]
    assert arguments(data, "restore ends", "backup.ended")["require"] == [{"fleet": "highstate"}]
    assert given["workers"] == ["f1-worker-1", "f1-worker-2"]
    assert (given["platform"], given["paths"]) == ("f1", [])


def test_the_operators_part_has_an_order(tree: Make) -> None:
    made = tree("operator")
    for name in ("orch/backup", "orch/backup_key", "orch/restore"):
        assert made.render(f"{name}.sls")
    data = made.render("orch/restore.sls")
    handed = arguments(data, "backup on the master", "backup_copy.handed_over")
    assert handed["require"] == [{"road": "tree on the master"}]
    assert handed["source"] is None
    restored = arguments(data, "backup restored", "road.orchestrated")
    assert restored == {"sls": "cluster.restore", "require": [{"backup_copy": "backup key"}]}
    made.given(restore={"from": ""})
    data = made.render("orch/restore.sls")
    assert arguments(data, "backup on the master", "backup_copy.handed_over")["source"] is None
    made.given(restore={"from": "x.f1backup"})
    data = made.render("orch/restore.sls")
    handed = arguments(data, "backup on the master", "backup_copy.handed_over")
    assert handed["source"] == "x.f1backup"


def test_knobs_reach_their_states(tree: Make) -> None:
    made = tree(backup={"keep": 3, "every": "hourly", "paths": ["/var/lib/grafana"]})
    data = made.render("cluster/backup.sls")
    given = arguments(data, "backup", "backup.made")
    assert (given["keep"], given["paths"]) == (3, ["/var/lib/grafana"])
    copies = arguments(made.render("orch/backup.sls"), "copies", "backup_copy.fetched")
    assert copies["keep"] == 3
    handed = arguments(
        made.render("orch/restore.sls"), "backup on the master", "backup_copy.handed_over"
    )
    assert handed["roots"] == ["/var/lib/rancher/k3s", "/etc/rancher", "/var/lib/grafana"]
    name = "/etc/systemd/system/f1-backup.timer"
    text = arguments(made.render("backup/init.sls"), name, "file.managed")["contents"]
    assert "\nOnCalendar=hourly\n" in text
    assert "\nPersistent=true\n" in text


def test_both_units_are_sound(tree: Make, tmp_path: Path) -> None:
    data: dict[str, Any] = tree().render("backup/init.sls")
    for name in ("f1-backup.service", "f1-backup.timer"):
        text = arguments(data, f"/etc/systemd/system/{name}", "file.managed")["contents"]
        # The machine's own salt-run is not here.
        (tmp_path / name).write_text(text.replace("/opt/salt/bin/salt-run", "/bin/true"))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(tmp_path / "f1-backup.timer")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert "f1-backup" not in done.stderr, done.stderr
    assert json.dumps(data).count("f1-backup.timer") >= 3
