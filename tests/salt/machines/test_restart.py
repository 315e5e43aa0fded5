"""Salt's own state compiler over our `k3s.running`: one restart, and its cause by name."""

import os
from pathlib import Path
from typing import Any

import pytest
import salt.client
import salt.config

from tests.conftest import ROOT

SYSTEMCTL = """#!/bin/sh
echo "$*" >> "$F1_FAKE/calls"
[ "$1" = --version ] && echo "systemd 252"
[ "$1" = show ] && printf 'ActiveState=active\\nUnitFileState=enabled\\nNRestarts=0\\n'
exit 0
"""
SLS = """
{% for name in ['one', 'two', 'three'] %}
{{ folder }}/{{ name }}:
  file.managed:
    - contents: {{ contents[name] }}
{% endfor %}
k3s:
  k3s.running:
    - watch:
{%- for name in ['one', 'two', 'three'] %}
      - file: {{ folder }}/{{ name }}
{%- endfor %}
"""


def test_k3s_restarts_once_and_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "systemctl").write_text(SYSTEMCTL)
    (tmp_path / "systemctl").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("F1_FAKE", str(tmp_path))
    roots = tmp_path / "roots"
    roots.mkdir()
    opts = {
        **salt.config.minion_config(None),
        "id": "f1-master",
        "root_dir": str(tmp_path),
        "cachedir": str(tmp_path / "cache"),
        "file_client": "local",
        "file_roots": {"base": [str(roots)]},
        "module_dirs": [str(ROOT / "salt/ext/modules")],
        "states_dirs": [str(ROOT / "salt/ext/states")],
        "state_aggregate": False,
    }

    def apply(test: bool = False, **contents: str) -> dict[str, Any]:
        text = "".join(
            [
                f"{{% set folder = '{tmp_path}' %}}",
                f"{{% set contents = {contents | {'one': '1'}} %}}",
                SLS,
            ]
        )
        (roots / "it.sls").write_text(text)
        (tmp_path / "calls").write_text("")
        said = salt.client.Caller(mopts=dict(opts)).cmd("state.apply", "it", test=test)
        (state,) = [each for tag, each in said.items() if tag.startswith("k3s_|-")]
        return dict(state)

    def restarts() -> int:
        return (tmp_path / "calls").read_text().count("restart --no-block k3s.service")

    apply(two="a", three="a")
    same = apply(two="a", three="a")
    assert (same["changes"], restarts()) == ({}, 0)
    planned = apply(test=True, two="b", three="b")
    cause = [f"{tmp_path}/two", f"{tmp_path}/three"]
    assert (planned["result"], planned["changes"]["state"]["cause"]) == (None, cause)
    assert restarts() == 0
    done = apply(two="b", three="b")
    assert (done["result"], done["changes"]) == (True, planned["changes"])
    assert done["comment"] == f"restarted because of {cause[0]}, {cause[1]}"
    assert restarts() == 1
