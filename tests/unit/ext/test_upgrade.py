"""Which way versions may go, as a table."""

from typing import Any

import pytest
import upgrade
from salt.exceptions import SaltException


@pytest.mark.parametrize(
    ("server", "kubelets", "wanted", "came_from", "words"),
    [
        ("v1.36.3+k3s1", {}, "v1.36.4+k3s1", None, []),
        ("v1.36.3+k3s1", {}, "v1.36.3+k3s2", None, []),
        ("v1.36.3", {"w": "v1.35.9+k3s1"}, "v1.37.0+k3s1", None, []),
        ("v1.36.3+k3s1", {"w": "v1.34.1+k3s1"}, "v1.37.0+k3s1", None, []),
        (
            "v1.36.3+k3s1",
            {"w": "v1.33.1+k3s1"},
            "v1.37.0+k3s1",
            None,
            ["w: its kubelet", "3 minor"],
        ),
        ("v1.36.3+k3s1", {}, "v1.38.0+k3s1", None, ["leaves out minor versions", "lock a v1.37"]),
        ("v1.36.3+k3s1", {}, "v2.0.0+k3s1", None, ["leaves out minor versions"]),
        ("v1.36.4+k3s1", {}, "v1.36.3+k3s1", None, ["is a downgrade", "restore a backup"]),
        ("v1.36.3+k3s2", {}, "v1.36.3+k3s1", None, ["is a downgrade"]),
        ("v1.36.3+k3s1", {"w": "v1.36.5+k3s1"}, "v1.36.4+k3s1", None, ["w: its kubelet", "newer"]),
        # An upgrade that did not end may go back to where it came from, but not over a minor.
        ("v1.36.4+k3s1", {"w": "v1.36.4+k3s1"}, "v1.36.3+k3s1", "v1.36.3+k3s1", []),
        ("v1.36.4+k3s1", {}, "v1.36.2+k3s1", "v1.36.3+k3s1", ["is a downgrade"]),
        ("v1.37.0+k3s1", {}, "v1.36.3+k3s1", "v1.36.3+k3s1", ["is a downgrade"]),
    ],
)
def test_skew(
    server: str, kubelets: dict[str, str], wanted: str, came_from: str | None, words: list[str]
) -> None:
    said = upgrade.skew(server, kubelets, wanted, came_from)
    assert len(said) == (1 if words else 0)
    for word in words:
        assert word in said[0]


@pytest.mark.parametrize("version", ["1.36.4", "v1.36", "latest", ""])
def test_what_is_no_version_is_said(version: str) -> None:
    with pytest.raises(SaltException, match="is no version of K3s"):
        upgrade.parsed(version)


def test_versions_compare_by_number() -> None:
    ordered = ["v1.9.1+k3s1", "v1.36.3", "v1.36.3+k3s1", "v1.36.10+k3s1", "v1.36.10+k3s10"]
    assert sorted(set(ordered), key=upgrade.parsed) == ordered
    assert upgrade.parsed("v1.37.0-rc.1+k3s1") == (1, 37, 0, 1)


@pytest.mark.parametrize(
    ("last", "words"),
    [
        (None, "there is no backup"),
        ({"at": 1000, "ok": False}, "the last backup failed"),
        ({"at": 1000, "ok": True}, "the last backup is 25 h old, older than 24 h"),
        ({"at": 1000 + 2 * 3600, "ok": True}, ""),
    ],
)
def test_a_backup_covers_an_upgrade_for_a_day(last: dict[str, Any] | None, words: str) -> None:
    assert upgrade.backup(last, now=1000 + 25 * 3600, oldest=24 * 3600) == words
