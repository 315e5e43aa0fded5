"""What is asked before a build, and what is there after one."""

from collections import namedtuple
from collections.abc import Iterable
from io import StringIO
from pathlib import Path

import pytest

from lab import build
from lab.build import everything, toolchain
from lab.build.families import OLDER, Family
from lab.build.progress import Progress

Usage = namedtuple("Usage", "total used free")


def test_too_small_a_disk_is_told_before(monkeypatch: pytest.MonkeyPatch, cache_root: Path):
    monkeypatch.setattr("shutil.disk_usage", lambda path: Usage(0, 0, 3_000_000_000))
    (problem,) = [text for text in build.preflight() if text.startswith("disk:")]
    assert "17.2 GB are needed" in problem
    assert "3.0 GB are free" in problem
    assert "F1_CACHE" in problem
    with pytest.raises(build.BuildError, match="nothing was built"):
        build.build()
    assert list(cache_root.glob("*")) == []


def test_manifest_of_an_empty_cache_says_what_to_run(monkeypatch: pytest.MonkeyPatch):
    go = toolchain.Go(Path("go"), "go1.26.8")
    monkeypatch.setattr(toolchain, "installed", lambda: go)
    with pytest.raises(build.BuildError, match=r"kubernetes, .*redis-base; run `python -m"):
        build.manifest()


def fill(families: Iterable[Family], go: toolchain.Go) -> None:
    """Put programs where the build would, each with its family's version for content."""
    for family in families:
        folder = everything.compile.place(family, go)
        folder.mkdir(parents=True)
        for name in family.programs:
            (folder / name).write_text(f"{name} {family.version}")
        everything.cache.write_sums(folder)


@pytest.fixture
def go(monkeypatch: pytest.MonkeyPatch) -> toolchain.Go:
    go = toolchain.Go(Path("go"), "go1.26.8")
    monkeypatch.setattr(toolchain, "installed", lambda: go)
    return go


def test_older_kubernetes_lies_beside_the_current(go: toolchain.Go, cache_root: Path):
    old = OLDER["v1.36.2"]
    shared = [f for f in everything.FAMILIES if f.name in ("kine", "netagent")]
    fill([old, *shared], go)
    folder = build.kubernetes("v1.36.2")
    assert {path.name for path in folder.iterdir()} == {*old.programs, "kine", "netagent"}
    assert (folder / "kubelet").read_text() == "kubelet v1.36.2"
    assert folder.parent == cache_root / "k3s"


def test_older_kubernetes_needs_no_image_and_little_disk(
    go: toolchain.Go, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("shutil.disk_usage", lambda path: Usage(0, 0, 3_000_000_000))
    with pytest.raises(build.BuildError, match="nothing was built") as raised:
        build.kubernetes("v1.36.2")
    (problem,) = str(raised.value).splitlines()[1:]
    assert problem.startswith("disk: ")


def test_unpinned_kubernetes_is_refused():
    with pytest.raises(build.BuildError, match=r"v1\.2\.3: not pinned here; there is v1\.36\.2"):
        build.kubernetes("v1.2.3")


def test_manifest_of_a_cache(go: toolchain.Go):
    """Programs and root file systems stand there; images and folders are made of them."""
    fill(everything.FAMILIES, go)
    for system in everything.ROOTFS:
        folder = everything.rootfs.place(system)
        folder.mkdir(parents=True)
        for name in ("layer.tar", *(Path(kept).name for kept in system.kept)):
            (folder / name).write_text(system.name)
    made = build.manifest()
    assert made.binary("kubernetes", "kubelet").read_text().startswith("kubelet v1.36.")
    with pytest.raises(KeyError):
        made.binary("kubernetes", "kubectl-who-can")
    assert {path.name for path in made.k3s_bin_dir().iterdir()} == {
        *("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet"),
        *("kube-proxy", "kubectl", "kubeadm", "kine", "netagent"),
    }
    assert made.k3s_version.startswith("v1.36.")
    assert made.k3s_version.endswith("+k3s1")
    assert made.airgap().sha256 == everything.cache.digest(made.airgap().path)
    assert made.airgap().path.name.startswith("k3s-airgap-images-")
    assert set(made.images) == {"traefik", "redis", "python"}
    for name, image in made.images.items():
        assert image.name == f"docker.io/library/{name}"
        assert image.digest.startswith("sha256:")
    assert build.manifest() == made


def test_progress_in_a_log(capfd: pytest.CaptureFixture[str]):
    progress = Progress({"a": 30, "b": 90})
    with progress.step("a", "v1 x"):
        progress.advance("a", 0.5)
    with pytest.raises(ValueError, match="no"), progress.step("b", "v2 y"):
        raise ValueError("no")
    lines = capfd.readouterr().err.splitlines()
    assert lines[0] == "    ▸ a           v1 x  (0%, 0 s so far, about 2 min left)"
    assert lines[1].startswith("    ✓ a              0.0 s")
    assert lines[2].startswith("    ▸ b           v2 y  (25%, ")
    assert lines[3].startswith("    ✗ b ")
    assert len(lines) == 4


def test_progress_on_a_terminal():
    class Terminal(StringIO):
        def isatty(self) -> bool:
            return True

    out = Terminal()
    progress = Progress({"a": 30, "b": 90}, out)
    with progress.step("a", "v1"):
        pass
    with progress.step("b", "v2"):
        pass
    clear, live = "\r\033[K", "      25%, 0 s so far, about 18 s left"
    text = out.getvalue()
    assert text.startswith("    ▸ a           v1  (0%, ")
    assert f"{clear}    ✓ a              0.0 s\n{live}{clear}    ▸ b " in text
    assert text.endswith(f"{clear}    ✓ b              0.0 s\n")
