"""The table of families, and the key of one."""

import os
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from lab.build import compile
from lab.build.families import FAMILIES, MODULES, OLDER, TOOLS, Family
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


def test_other_modfile_is_another_family(family: Family):
    text = (family.path / "go.mod").read_text().replace("v1.2.3", "v1.2.2")
    (family.path / "old.mod").write_text(text)
    (family.path / "old.sum").write_text("example.com/a v1.2.2 h1:y\n")
    old = replace(family, modfile="old.mod")
    assert (old.version, family.version) == ("v1.2.2", "v1.2.3")
    keys = {compile.key(family, GO), compile.key(old, GO)}
    append("old.sum")(family.path)
    keys.add(compile.key(old, GO))
    assert len(keys) == 3
    append("main.go")(family.path)  # the sources are the same for both
    assert not keys & {compile.key(family, GO), compile.key(old, GO)}


def test_version_is_what_go_mod_requires(family: Family):
    stamped = replace(family, stamps=("main.v={version}", "main.minor={minor}"))
    assert family.version == "v1.2.3"
    assert stamped.ldflags == "-s -w -X main.v=v1.2.3 -X main.minor=2"
    with pytest.raises(ValueError, match=r"does not require example\.com/b"):
        _ = replace(family, module="example.com/b").version


def test_every_folder_is_a_family_and_the_other_way_round():
    assert {path.name for path in MODULES.iterdir() if path.is_dir()} == {
        family.name for family in (*FAMILIES, *TOOLS)
    }
    for family in (*FAMILIES, *TOOLS):
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


def test_older_kubernetes_differs_in_versions_only():
    current = next(family for family in FAMILIES if family.name == "kubernetes")
    for version, old in OLDER.items():
        assert old.version == version
        assert (old.programs, old.path, old.target) == (
            current.programs,
            current.path,
            current.target,
        )
        assert f"gitVersion={version}" in old.ldflags
        assert old.name not in {family.name for family in FAMILIES}
        old_lines, new_lines = (
            [re.sub(r" v\d\S*", "", line) for line in family.mod.read_text().splitlines()]
            for family in (old, current)
        )
        assert old_lines == new_lines
        assert current.version not in old.mod.read_text()
        assert current.version not in old.mod.with_suffix(".sum").read_text()


def test_an_upgrade_goes_one_patch_version():
    current = next(family for family in FAMILIES if family.name == "kubernetes")
    major, minor, patch = current.version.lstrip("v").split(".")
    assert f"v{major}.{minor}.{int(patch) - 1}" in OLDER
