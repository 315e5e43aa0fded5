"""Builds the programs of a family."""

from collections.abc import Callable
from pathlib import Path

from lab.build import cache, commands, toolchain
from lab.build.errors import BuildError
from lab.build.families import Family
from lab.build.toolchain import Go

FLAGS = ("-trimpath", "-buildvcs=false")
ATTEMPTS = 3  # a module that did not come may come the second time


def key(family: Family, go: Go) -> str:
    """Return the key of a family: the same for the same sources, flags, Go and processor."""
    parts: list[str | bytes] = [*FLAGS, family.ldflags, family.target, go.version]
    parts += [toolchain.arch(), *family.programs]
    sources = [family.mod, family.mod.with_suffix(".sum"), *family.path.rglob("*.go")]
    for path in sorted(path for path in sources if path.exists()):
        parts += [str(path.relative_to(family.path)), path.read_bytes()]
    return cache.key(*parts)


def place(family: Family, go: Go) -> Path:
    """Return the folder where a family's programs are, or will be."""
    return cache.root() / "bin" / family.name / key(family, go)


def fetch(family: Family, go: Go) -> int:
    """Download the modules that a family needs; return its number of packages."""
    packages = [str(go.command), "list", *_modfile(family), "-deps"]
    for attempt in range(1, ATTEMPTS + 1):
        try:
            # It prints what is wrong and nothing else: a message would drown among the packages.
            _run(family, [*packages, "-f", "{{/* */}}", family.target], "fetch")
            break
        except BuildError:
            if attempt == ATTEMPTS or commands.stopped.wait(2 * attempt):
                raise
    return len(_run(family, [*packages, "-f", "{{.ImportPath}}", family.target], "list"))


def build(family: Family, go: Go, compiled: Callable[[], None] = lambda: None) -> Path:
    """
    Return the folder of a family's programs, built unless they are there.

    Args:
        compiled: called after each package.

    Raises:
        BuildError: with the family, the command, the end of its output and the log.
    """

    def make(folder: Path) -> None:
        command = [str(go.command), "build", *_modfile(family), "-v", *FLAGS]
        command += ["-ldflags", family.ldflags]
        _run(family, [*command, "-o", f"{folder}/", family.target], "build", compiled)
        missing = set(family.programs) - {path.name for path in folder.iterdir()}
        if missing:
            raise BuildError(f"{family.name}: the build left no {', '.join(sorted(missing))}")
        cache.write_sums(folder)

    return cache.artifact(f"bin/{family.name}", key(family, go), make)


def _modfile(family: Family) -> list[str]:
    return [] if family.modfile == "go.mod" else [f"-modfile={family.modfile}"]


def _run(
    family: Family, command: list[str], what: str, each: Callable[[], None] = lambda: None
) -> list[str]:
    return commands.run(
        family.name,
        command,
        cache.logs() / f"build-{family.name}-{what}.log",
        family.path,
        toolchain.environment(),
        each,
    )
