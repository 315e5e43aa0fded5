"""A build that fails says what, how, and where to read on."""

from pathlib import Path

import pytest

from lab.build import BuildError, cache, commands, compile, everything, toolchain
from lab.build.families import Family
from lab.build.toolchain import Go

needs_go = pytest.mark.skipif(not toolchain.installed(), reason="no Go of a version that fits")


@pytest.fixture
def broken(tmp_path: Path) -> Family:
    folder = tmp_path / "broken"
    folder.mkdir()
    (folder / "go.mod").write_text("module example.com/broken\n\ngo 1.26.5\n")
    (folder / "main.go").write_text(
        'package main\n\nimport "example.com/broken/nowhere"\n\nfunc main() { nowhere.F() }\n'
    )
    return Family("broken", ("broken",), 1, folder=folder)


@needs_go
@pytest.mark.parametrize("step", [compile.build, compile.fetch])
def test_failure_names_family_command_output_and_log(
    broken: Family, cache_root: Path, step, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(compile, "ATTEMPTS", 1)
    go = toolchain.find()
    with pytest.raises(BuildError) as raised:
        step(broken, go)
    text = str(raised.value)
    assert text.startswith("broken: this failed (exit code 1):\n")
    assert f"  {go.command} {step.__name__.replace('fetch', 'list')} " in text
    assert "example.com/broken/nowhere" in text.partition("it ended with")[2]
    log = Path(text.rpartition("the whole output: ")[2])
    assert "nowhere" in log.read_text()
    assert not list((cache_root / "bin/broken").glob("[!.]*"))


@needs_go
def test_one_failure_ends_the_build(
    broken: Family, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(compile, "ATTEMPTS", 1)
    with pytest.raises(BuildError, match="broken: this failed"):
        everything.compile_all([broken], [])
    assert "▸ broken" in capfd.readouterr().err


def script(folder: Path, text: str) -> list[str]:
    path = folder / "script"
    path.write_text(text)
    return ["sh", str(path)]


def test_only_the_end_of_the_output_is_told(tmp_path: Path):
    command = script(tmp_path, "for i in $(seq 1 100); do echo line-$i; done; exit 3")
    with pytest.raises(BuildError, match=r"exit code 3") as raised:
        commands.run("x", command, tmp_path / "log")
    said = [line for line in str(raised.value).splitlines() if "line-" in line]
    assert said == [f"    line-{number}" for number in range(81, 101)]
    assert "line-1\n" in (tmp_path / "log").read_text()


def test_stop_ends_what_runs_with_its_children(tmp_path: Path):
    seen = []

    def each() -> None:
        seen.append(1)
        commands.stop()

    # Were the child left, its open end of the pipe would keep the reader waiting.
    command = script(tmp_path, "echo begun\nsleep 60 &\nwait")
    try:
        with pytest.raises(BuildError, match="exit code -15"):
            commands.run("x", command, tmp_path / "log", each=each)
        with pytest.raises(BuildError, match="the build was stopped"):
            commands.run("y", ["true"], tmp_path / "log")
    finally:
        commands.stopped.clear()
    assert seen == [1]


def test_program_that_did_not_come_is_an_error(tmp_path: Path):
    fake = tmp_path / "go"
    fake.write_text("#!/bin/sh\nexit 0\n")
    fake.chmod(0o755)
    folder = tmp_path / "module"
    folder.mkdir()
    (folder / "go.mod").write_text("module m\n\ngo 1.26.5\n")
    with pytest.raises(BuildError, match="m: the build left no prog"):
        compile.build(Family("m", ("prog",), 1, folder=folder), Go(fake, "go1.26.5"))


def test_programs_and_their_sums(tmp_path: Path):
    fake = tmp_path / "go"
    fake.write_text(
        '#!/bin/sh\nfor word; do case $word in */) echo built >"$word/prog";; esac; done\n'
    )
    fake.chmod(0o755)
    folder = tmp_path / "module"
    folder.mkdir()
    (folder / "go.mod").write_text("module m\n\ngo 1.26.5\n")
    family, go = Family("m", ("prog",), 1, folder=folder), Go(fake, "go1.26.5")
    made = compile.build(family, go)
    assert made == compile.place(family, go)
    assert cache.read_sums(made) == {"prog": cache.digest(made / "prog")}
