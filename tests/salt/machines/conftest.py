"""Rendering of pillar and SLS files by Salt itself, for a minion of one's choice."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import salt.config
import salt.loader
import salt.pillar
import salt.template
import yaml

from tests.conftest import ROOT

STATES = ROOT / "salt" / "states"
DIGEST = "sha256:" + "a" * 64


class Tree:
    """The repository's pillar and states as a minion with these site values would see them."""

    def __init__(self, folder: Path, minion: str, written: dict[str, Any], arch: str) -> None:
        """``written``: what `.state/pillar` holds, by file; it shadows the repository's."""
        pillar = folder / "pillar"
        pillar.mkdir()
        for name, data in written.items():
            (pillar / f"{name}.sls").write_text(yaml.safe_dump(data))
        self.opts: dict[str, Any] = {
            **salt.config.minion_config(None),
            "id": minion,
            "root_dir": str(folder),
            "cachedir": str(folder / "cache"),
            "file_client": "local",
            "file_roots": {"base": [str(STATES)]},
            "pillar_roots": {"base": [str(pillar), str(ROOT / "salt" / "pillar")]},
            "grains": {"id": minion, "osarch": arch, "os": "Debian", "os_family": "Debian"},
        }
        compiler = salt.pillar.Pillar(dict(self.opts), self.opts["grains"], minion, "base")
        self.pillar: dict[str, Any] = compiler.compile_pillar()
        assert "_errors" not in self.pillar, self.pillar["_errors"]
        self.given()

    def given(self, **pillar: Any) -> None:
        """Have ``pillar`` besides, as given to an orchestration or a state run."""
        self.opts["pillar"] = {**self.pillar, **pillar}
        self.renderers = salt.loader.render(self.opts, salt.loader.minion_mods(self.opts))

    def render(self, sls: str) -> Any:
        """Return the data of the SLS file at this path under salt/states."""
        return salt.template.compile_template(
            str(STATES / sls),
            self.renderers,
            "jinja|yaml",
            None,
            None,
            saltenv="base",
            sls=sls.removesuffix(".sls").replace("/", "."),
        )


Make = Callable[..., Tree]


@pytest.fixture
def tree(tmp_path: Path) -> Make:
    """Make a Tree: ``tree("f1-master", workers=2, …)``."""

    def make(
        minion: str = "f1-master",
        *,
        arch: str = "amd64",
        workers: int = 2,
        digest: str | None = DIGEST,
        **knobs: Any,
    ) -> Tree:
        registry = {"pull": "registry.example.org/f1vote", **knobs.pop("registry", {})}
        site = {"workers": {"count": workers}, "registry": registry, **knobs}
        app = {"digest": digest}
        written = {"site": {"platform": site}, "app": {"platform": {"app": app}}}
        return Tree(tmp_path, minion, written, arch)

    return make


def arguments(data: dict[str, Any], name: str, function: str) -> dict[str, Any]:
    """Return the arguments of the state ``name`` (``function``: module.function) as one dict."""
    merged: dict[str, Any] = {}
    for each in data[name][function]:
        merged |= each
    return merged
