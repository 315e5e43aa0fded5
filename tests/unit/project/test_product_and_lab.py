"""The product never mentions the lab; the lab differs from AWS only in pillar."""

import re
import subprocess

from tests.conftest import ROOT

PRODUCT = ("salt", "k8s", "grafana", "app", "ci")


def test_the_product_never_mentions_the_lab():
    tracked = subprocess.run(
        ["git", "ls-files", "-z", *PRODUCT, "Saltfile"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split("\0")
    guilty = [
        f"{name}:{number}: {line.strip()}"
        for name in filter(None, tracked)
        if not (ROOT / name).is_symlink() and (ROOT / name).is_file()
        for number, line in enumerate((ROOT / name).read_text(errors="replace").splitlines(), 1)
        if re.search(r"\b(lab|moto|stand-in)\b", line, re.IGNORECASE)
    ]
    assert guilty == []
