"""The images that are made from the programs and the root file systems."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lab.build import cache, oci, toolchain
from lab.build.oci import Config, Entry

ProgramPath = Callable[[str, str], Path]
RootfsPath = Callable[[str], Path]

# What the stand-in's packaged components start, and what local-path's helper calls.
APPLETS = ("sh", "cat", "chmod", "chown", "echo", "env", "ls", "mkdir", "mv", "rm", "sleep", "stat")


@dataclass(frozen=True)
class Recipe:
    """An image: its layers as entries or as a tar that is there, the lowest first."""

    name: str
    tag: str
    config: Config
    layers: Sequence[Mapping[str, Entry] | Path]

    @property
    def full_name(self) -> str:
        """Its name with the tag."""
        return f"{self.name}:{self.tag}"


def _program(path: Path, source: Path) -> dict[str, Entry]:
    return {str(path).lstrip("/"): Entry(source, mode=0o755)}


def hub(program: ProgramPath, rootfs: RootfsPath, versions: Mapping[str, str]) -> dict[str, Recipe]:
    """Return what the lab's registry offers in Docker Hub's place."""
    certificates = Entry(rootfs("python") / "ca-certificates.crt")
    traefik = Path("/usr/local/bin/traefik")
    return {
        "traefik": Recipe(
            "docker.io/library/traefik",
            versions["traefik"],
            Config(entrypoint=(str(traefik),)),
            [
                {
                    **_program(traefik, program("traefik", "traefik")),
                    "etc/ssl/certs/ca-certificates.crt": certificates,
                    "tmp": Entry(folder=True, mode=0o1777),
                }
            ],
        ),
        "redis": Recipe(
            "docker.io/library/redis",
            "7.0-bookworm",
            Config(command=("redis-server",), workdir="/data"),
            [rootfs("redis") / "layer.tar"],
        ),
        "python": Recipe(
            "docker.io/library/python",
            "3.11-bookworm",
            Config(command=("python3",)),
            [rootfs("python") / "layer.tar"],
        ),
    }


def packaged(
    program: ProgramPath, rootfs: RootfsPath, versions: Mapping[str, str]
) -> dict[str, Recipe]:
    """
    Return the images of what K3s brings along, under K3s's names.

    Of pause and busybox the tags are names only: the content is ours and Debian's.
    """
    coredns = Path("/coredns")
    provisioner = Path("/usr/bin/local-path-provisioner")
    pause = Path("/pause")
    return {
        "coredns": Recipe(
            "docker.io/rancher/mirrored-coredns-coredns",
            versions["coredns"].lstrip("v"),
            Config(entrypoint=(str(coredns),)),
            [_program(coredns, program("coredns", "coredns"))],
        ),
        "local-path-provisioner": Recipe(
            "docker.io/rancher/local-path-provisioner",
            versions["localpath"],
            Config(entrypoint=(str(provisioner),)),
            [_program(provisioner, program("localpath", "local-path-provisioner"))],
        ),
        "pause": Recipe(
            "docker.io/rancher/mirrored-pause",
            "3.10",
            Config(entrypoint=(str(pause),), user="65535:65535"),
            [_program(pause, program("pause", "pause"))],
        ),
        "busybox": Recipe(
            "docker.io/rancher/mirrored-library-busybox",
            "1.37.0",
            Config(command=("sh",)),
            [
                {
                    **_program(Path("/bin/busybox"), rootfs("redis") / "busybox"),
                    **{f"bin/{applet}": Entry(symlink="busybox") for applet in APPLETS},
                    "tmp": Entry(folder=True, mode=0o1777),
                }
            ],
        ),
    }


def key(recipe: Recipe) -> str:
    """Return the key of an image. A file counts by its place in the cache: that is its content."""
    parts: list[str | bytes] = [Path(oci.__file__).read_bytes(), toolchain.arch()]
    parts += [recipe.full_name, repr(recipe.config)]
    for layer in recipe.layers:
        if isinstance(layer, Path):
            parts.append(_place(layer))
            continue
        for path, entry in sorted(layer.items()):
            content = entry.content
            parts += [path, f"{entry.mode:o} {entry.uid} {entry.gid} {entry.folder}"]
            parts += [entry.symlink, _place(content) if isinstance(content, Path) else content]
    return cache.key(*parts)


def _place(path: Path) -> str:
    return str(path.relative_to(cache.root()))


def place(name: str, recipe: Recipe) -> Path:
    """Return the folder of an image's OCI layout, made or not."""
    return cache.root() / "images" / name / key(recipe)


def build(name: str, recipe: Recipe) -> Path:
    """Return the OCI layout of an image, made unless it is there."""

    def make(folder: Path) -> None:
        layers = []
        for number, layer in enumerate(recipe.layers):
            if isinstance(layer, Path):
                layers.append(layer)
            else:
                layers.append(folder / f"layer-{number}.tar")
                oci.write_layer(layers[-1], layer)
        oci.write_layout(folder, recipe.full_name, layers, recipe.config, toolchain.arch())
        for made in folder.glob("layer-*.tar"):
            made.unlink()

    return cache.artifact(f"images/{name}", key(recipe), make)
