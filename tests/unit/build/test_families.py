"""The table of families, and the key of one."""

import os
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from lab.build import compile
from lab.build.families import FAMILIES, MODULES, Family
from lab.build.toolchain import Go

GO = Go(Path("/nowhere/go"), "go1.26.8")


@pytest.fixture
def family(tmp_path: Path) -> Family:
    folder = tmp_path / "module"
    folder.mkdir()
    (folder / "go.mod").write_text("module m\n\ngo 1.26.5\n\nrequire example.com/a v1.2.3\n")
    (folder / "go.sum").write_text("example.com/a v1.2.3 h1:x\n")
    (folder / "main.go").write_text("package main\n")
    return Family("m", ("m",), 1, module="example.com/a", folder=folder)


def append(name: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        with (folder / name).open("a") as file:
            file.write("// changed\n")

    return change


@pytest.mark.parametrize(
    "change",
    [
        append("go.mod"),
        append("go.sum"),
        append("main.go"),
        append("new.go"),
        lambda folder: (folder / "main.go").rename(folder / "other.go"),
    ],
)
def test_key_changes_with_its_sources(family: Family, change: Callable[[Path], None]):
    before = compile.key(family, GO)
    change(family.path)
    assert compile.key(family, GO) != before


def test_key_changes_with_what_builds(family: Family, monkeypatch: pytest.MonkeyPatch):
    keys = {
        compile.key(family, GO),
        compile.key(family, replace(GO, version="go1.26.9")),
        compile.key(replace(family, stamps=("main.x={version}",)), GO),
        compile.key(replace(family, programs=("m", "n")), GO),
    }
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    keys.add(compile.key(family, GO))
    assert len(keys) == 5


@pytest.mark.parametrize(
    "change",
    [
        lambda folder: (folder / "README.md").write_text("text"),
        lambda folder: os.utime(folder / "main.go", (1, 1)),
        lambda folder: (folder / "main.go").chmod(0o600),
    ],
)
def test_key_changes_with_nothing_else(family: Family, change: Callable[[Path], object]):
    before = compile.key(family, GO)
    change(family.path)
    assert compile.key(family, GO) == before


def test_key_knows_no_place(family: Family, tmp_path: Path):
    before = compile.key(family, GO)
    moved = tmp_path / "elsewhere"
    family.path.rename(moved)
    assert compile.key(replace(family, folder=moved), GO) == before


def test_version_is_what_go_mod_requires(family: Family):
    stamped = replace(family, stamps=("main.v={version}", "main.minor={minor}"))
    assert family.version == "v1.2.3"
    assert stamped.ldflags == "-s -w -X main.v=v1.2.3 -X main.minor=2"
    with pytest.raises(ValueError, match=r"does not require example\.com/b"):
        _ = replace(family, module="example.com/b").version


def test_every_folder_is_a_family_and_the_other_way_round():
    assert {path.name for path in MODULES.iterdir() if path.is_dir()} == {
        family.name for family in FAMILIES
    }
    for family in FAMILIES:
        assert family.version or not family.module
        assert family.target == ("." if (family.path / "main.go").exists() else "tool")


def test_kubernetes_libraries_have_one_version():
    replaced = set()
    for family in FAMILIES:
        text = (family.path / "go.mod").read_text()
        replaced |= set(re.findall(r"=> k8s\.io/\S+ (v\S+)", text))
        for library in ("api", "apimachinery", "client-go"):
            if f"k8s.io/{library} v" in text:
                assert f"k8s.io/{library} => k8s.io/{library} v" in text, family.name
    (version,) = replaced
    kubernetes = next(family for family in FAMILIES if family.name == "kubernetes")
    assert kubernetes.version == version.replace("v0.", "v1.")
