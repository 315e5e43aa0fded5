"""Pillar and SLS files as Salt itself renders them, and a fleet of real minions to run them."""

import contextlib
import shutil
import tempfile
from collections.abc import Callable, Iterator
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


class Fleet:
    """
    A real master and real minions with our extension, and states of the test's own.

    ``minions``: further settings by id. ``patched``: texts to be replaced in files of salt/ext
    (paths of a machine, mostly), by file.
    """

    def __init__(
        self,
        factories: Any,
        folder: Path,
        minions: dict[str, dict[str, Any]],
        patched: dict[str, dict[str, str]],
        site: dict[str, Any],
    ) -> None:
        self.folder = folder
        self.states = folder / "states"
        ext = folder / "ext"
        shutil.copytree(ROOT / "salt" / "ext", ext)
        for name, texts in patched.items():
            text = (ext / name).read_text()
            for old, new in texts.items():
                assert old in text, f"{name}: {old}"
                text = text.replace(old, new)
            (ext / name).write_text(text)
        self.states.mkdir()
        for kind in ("modules", "states"):
            (self.states / f"_{kind}").symlink_to(ext / kind)
        (folder / "pillar").mkdir()
        self.site(**site)
        self.master = factories.salt_master_daemon(
            f"salt-{folder.name}",
            overrides={
                "interface": "127.0.0.1",
                "file_roots": {"base": [str(self.states), str(STATES)]},
                "pillar_roots": {"base": [str(folder / "pillar"), str(ROOT / "salt" / "pillar")]},
                "module_dirs": [str(ext / "modules")],
                "states_dirs": [str(ext / "states")],
                "utils_dirs": [str(ext / "utils")],
                "fileserver_list_cache_time": 0,
            },
        )
        common = {"autoload_dynamic_modules": False, "mine_enabled": True}
        self.minions = {
            name: self.master.salt_minion_daemon(name, overrides={**common, **more})
            for name, more in minions.items()
        }
        self.roots = [
            Path(each.config["root_dir"]) for each in (self.master, *self.minions.values())
        ]
        self.cli = self.master.salt_cli(timeout=60)

    @contextlib.contextmanager
    def running(self) -> Iterator["Fleet"]:
        with contextlib.ExitStack() as stack:
            for daemon in (self.master, *self.minions.values()):
                stack.enter_context(daemon.started())
            yield self

    def site(self, **knobs: Any) -> None:
        """Set knobs, as the operator does in site.sls."""
        (self.folder / "pillar" / "site.sls").write_text(yaml.safe_dump({"platform": knobs}))

    def sls(self, name: str, text: str) -> None:
        """Have a state file of this name; it shadows the repository's."""
        path = self.states / f"{name}.sls"
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)

    def orchestrate(self, text: str) -> dict[str, Any]:
        """Return the result of the only state of the orchestration ``text``."""
        self.sls("orchestration", text)
        said = self.master.salt_run_cli(timeout=240).run("state.orchestrate", "orchestration")
        assert isinstance(said.data, dict), said
        (states,) = said.data["data"].values()
        (result,) = states.values()
        return dict(result)


@pytest.fixture(scope="session")
def salt_factories_config() -> Iterator[dict[str, Any]]:
    # Not pytest's folder: the names of Salt's sockets must stay below 108 characters.
    with tempfile.TemporaryDirectory(prefix="f1-") as folder:
        yield {"code_dir": None, "root_dir": folder}


def holders(roots: list[Path], *secrets: str) -> set[Path]:
    """
    Return the files under ``roots`` that hold one of ``secrets``, relative to their root.

    The plugin of the tests logs every event, as debug: what it writes by itself does not count.
    """
    found = set()
    for root in roots:
        for path in (path for path in root.rglob("*") if path.is_file()):
            lines = [
                line for line in path.read_bytes().splitlines() if b"pytest_engine" not in line
            ]
            if any(secret.encode() in line for secret in secrets for line in lines):
                found.add(path.relative_to(root))
    return found
