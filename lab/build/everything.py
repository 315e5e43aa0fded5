"""Builds all of it, in an order that keeps two cores busy."""

import os
import shutil
from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from lab.build import cache, commands, compile, images, oci, rootfs, toolchain
from lab.build.artifacts import Archive, Image, Manifest, Program
from lab.build.errors import BuildError
from lab.build.families import FAMILIES, OLDER, TOOLS, Family, k3s_version
from lab.build.progress import Progress
from lab.build.rootfs import ROOTFS, Rootfs
from lab.build.toolchain import Go

# What a build of everything from nothing needs: modules 6.3 GB, compiled packages 8.9 GB, results
# 1.5 GB (docs/evidence/builds.md). Less is asked for where part of it is built.
DISK = 16 << 30

# What the k3s stand-in starts.
K3S_FAMILIES = ("kubernetes", "kine", "netagent")


def preflight(
    families: Sequence[Family] = FAMILIES, systems: Sequence[Rootfs] = ROOTFS
) -> list[str]:
    """Return what stands in the way of building these, each with its fix; nothing is changed."""
    problems = []
    go = toolchain.installed()
    families = [f for f in families if not go or not compile.place(f, go).exists()]
    systems = [r for r in systems if not rootfs.place(r).exists()]
    if systems and os.geteuid():
        problems.append("root: Debian's packages can be installed into an image by root only")
    if systems and not shutil.which("debootstrap"):
        problems.append("debootstrap: it is missing; apt-get install debootstrap")
    total = sum(f.seconds for f in FAMILIES) + sum(r.seconds for r in ROOTFS)
    missing = sum(f.seconds for f in families) + sum(r.seconds for r in systems)
    need = DISK * missing // total
    # The cache may not be there yet: its disk is that of the nearest folder that is.
    there = next(path for path in (cache.root(), *cache.root().parents) if path.exists())
    free = shutil.disk_usage(there).free
    if free < need:
        problems.append(
            f"disk: {need / 1e9:.1f} GB are needed under {cache.root()} and {free / 1e9:.1f} GB "
            "are free; make room, or set F1_CACHE to a folder on a larger disk"
        )
    return problems


def build() -> Manifest:
    """
    Build what is missing; return what there is.

    Modules are downloaded while the family before compiles, and Debian's packages installed
    beside both. An interrupted build goes on where it was: compiled packages are kept.

    Raises:
        BuildError: with the name of what failed, the command and the end of its output.
    """
    _refuse(preflight())
    compile_all(FAMILIES, ROOTFS)
    return _pack(toolchain.find())


def kubernetes(version: str) -> Path:
    """
    Return the folder of programs for a k3s of this older Kubernetes, built unless it is there.

    It lies beside that of `Manifest.k3s_bin_dir`, with the same kine and netagent.

    Args:
        version: one of `OLDER`, such as ``v1.36.2``.

    Raises:
        BuildError: there is no such version, or as with `build`.
    """
    if version not in OLDER:
        raise BuildError(f"Kubernetes {version}: not pinned here; there is {', '.join(OLDER)}")
    others = [f for f in FAMILIES if f.name in K3S_FAMILIES and f.module != OLDER[version].module]
    families = [OLDER[version], *others]
    _refuse(preflight(families, ()))
    compile_all(families, ())
    return _k3s_programs(_programs(families, toolchain.find()))


def tool(name: str) -> Path:
    """
    Return the program of one of `TOOLS`, built unless it is there.

    Raises:
        BuildError: as with `build`.
    """
    family = next(family for family in TOOLS if name in family.programs)
    _refuse(preflight([family], ()))
    compile_all([family], ())
    return compile.place(family, toolchain.find()) / name


def _refuse(problems: list[str]) -> None:
    if problems:
        raise BuildError("nothing was built; put this right first:\n" + "\n".join(problems))


def compile_all(families: Iterable[Family], systems: Iterable[Rootfs]) -> None:
    """Build programs and root file systems, as far as they are missing."""
    go = toolchain.find()
    todo = [f for f in families if not compile.place(f, go).exists()]
    systems = [r for r in systems if not rootfs.place(r).exists()]
    progress = Progress({f.name: f.seconds for f in todo} | {_step(r): r.seconds for r in systems})
    try:
        with ThreadPoolExecutor(1) as downloads, ThreadPoolExecutor(1) as installs:
            fetched = [(f, downloads.submit(compile.fetch, f, go)) for f in todo]
            installed = [installs.submit(_install, r, progress) for r in systems]
            try:
                for family, packages in fetched:
                    for future in installed:
                        if future.done():
                            future.result()  # a failure is told now, not after the last family
                    _compile(family, go, packages, progress)
                for future in installed:
                    future.result()
            except BaseException:
                commands.stop()
                for pool in (downloads, installs):
                    pool.shutdown(wait=False, cancel_futures=True)
                raise
    finally:
        commands.stopped.clear()


def _compile(family: Family, go: Go, fetched: Future[int], progress: Progress) -> None:
    with progress.step(family.name, f"{family.version} {' '.join(family.programs)}".strip()):
        packages, compiled = fetched.result(), 0

        def count() -> None:
            nonlocal compiled
            compiled += 1
            progress.advance(family.name, min(compiled / packages, 0.95))

        compile.build(family, go, count)


def _install(system: Rootfs, progress: Progress) -> None:
    with progress.step(_step(system), f"Debian {rootfs.SUITE} with {' '.join(system.packages)}"):
        rootfs.build(system)


def _step(system: Rootfs) -> str:
    return f"{system.name}-base"


def manifest() -> Manifest:
    """
    Return what was built, without building anything.

    Raises:
        BuildError: something is missing.
    """
    go = toolchain.installed()
    missing = [f.name for f in FAMILIES if not go or not compile.place(f, go).exists()]
    missing += [_step(r) for r in ROOTFS if not rootfs.place(r).exists()]
    if missing or not go:
        raise BuildError(f"not built: {', '.join(missing)}; run `python -m lab.build`")
    return _pack(go)


def _pack(go: Go) -> Manifest:
    """Make of programs and root file systems what is missing: seconds, not minutes."""
    places = {family.name: compile.place(family, go) for family in FAMILIES}
    versions = {family.name: family.version for family in FAMILIES}
    systems = {system.name: rootfs.place(system) for system in ROOTFS}

    def program(family: str, name: str) -> Path:
        return places[family] / name

    made = {}
    for name, recipe in images.hub(program, systems.__getitem__, versions).items():
        layout = images.build(name, recipe)
        digest = oci.read_layout(layout).digest
        made[name] = Image(recipe.name, recipe.tag, digest, layout)
    packaged = images.packaged(program, systems.__getitem__, versions)
    layouts = [images.build(name, recipe) for name, recipe in packaged.items()]
    programs = _programs(FAMILIES, go)
    return Manifest(
        tuple(programs),
        made,
        _airgap(layouts),
        _k3s_programs([p for p in programs if p.family in K3S_FAMILIES]),
        k3s_version(versions["kubernetes"]),
    )


def _programs(families: Iterable[Family], go: Go) -> list[Program]:
    return [
        Program(family.name, name, compile.place(family, go) / name, made_sum, family.version)
        for family in families
        for name, made_sum in cache.read_sums(compile.place(family, go)).items()
    ]


def _airgap(layouts: list[Path]) -> Archive:
    name = f"k3s-airgap-images-{toolchain.arch()}.tar"

    def make(folder: Path) -> None:
        oci.write_archive(folder / name, layouts)
        cache.write_sums(folder)

    digests = [oci.read_layout(layout).digest for layout in layouts]
    key = cache.key(Path(oci.__file__).read_bytes(), *digests)
    folder = cache.artifact("airgap", key, make)
    return Archive(folder / name, cache.read_sums(folder)[name])


def _k3s_programs(programs: list[Program]) -> Path:
    def make(folder: Path) -> None:
        for program in programs:
            cache.link(program.path, folder / program.name)

    return cache.artifact("k3s", cache.key(*(f"{p.name} {p.sha256}" for p in programs)), make)
