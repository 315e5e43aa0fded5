"""What was built, as others use it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Program:
    """An executable file in the cache."""

    family: str
    name: str
    path: Path
    sha256: str
    version: str


@dataclass(frozen=True)
class Image:
    """An OCI layout: ``name`` with registry and without tag, ``digest`` of its manifest."""

    name: str
    tag: str
    digest: str
    path: Path


@dataclass(frozen=True)
class Archive:
    """A file that holds several images."""

    path: Path
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """All artifacts of one state of the sources."""

    programs: tuple[Program, ...]
    images: dict[str, Image]
    images_of_k3s: Archive
    programs_of_k3s: Path
    k3s_version: str

    def binary(self, family: str, name: str) -> Path:
        """Return the path of a program."""
        for program in self.programs:
            if (program.family, program.name) == (family, name):
                return program.path
        raise KeyError(f"{family}/{name}")

    def image(self, name: str) -> Image:
        """Return an image by its short name: ``traefik``, ``redis``, ``python``."""
        return self.images[name]

    def airgap(self) -> Archive:
        """Return the archive that machines get as K3s's air-gap images."""
        return self.images_of_k3s

    def k3s_bin_dir(self) -> Path:
        """Return the one folder with all programs that the k3s stand-in starts."""
        return self.programs_of_k3s

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON can hold it."""
        return {
            "k3s": {"version": self.k3s_version, "programs": str(self.programs_of_k3s)},
            "airgap": {
                "path": str(self.images_of_k3s.path),
                "sha256": self.images_of_k3s.sha256,
            },
            "programs": [
                {
                    "family": program.family,
                    "name": program.name,
                    "version": program.version,
                    "path": str(program.path),
                    "sha256": program.sha256,
                }
                for program in self.programs
            ],
            "images": {
                name: {
                    "name": image.name,
                    "tag": image.tag,
                    "digest": image.digest,
                    "path": str(image.path),
                }
                for name, image in self.images.items()
            },
        }
