"""
OCI images without Docker: the same input gives the same digest, on any day and machine.

Layers are plain tar: they are made, pushed and unpacked on one machine, where compressing costs
more than it saves.
"""

import hashlib
import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab.build import cache

TIME = 1  # of everything whose own time says nothing
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"
INDEX = "application/vnd.oci.image.index.v1+json"


@dataclass(frozen=True)
class Entry:
    """A file (``content``: its bytes, or where they are), a symlink or a folder of a layer."""

    content: bytes | Path = b""
    mode: int = 0o644
    uid: int = 0
    gid: int = 0
    symlink: str = ""
    folder: bool = False


@dataclass(frozen=True)
class Config:
    """How a container of the image starts."""

    entrypoint: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    env: tuple[str, ...] = ("PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",)
    user: str = ""
    workdir: str = "/"

    def as_dict(self) -> dict[str, Any]:
        """Return it as an image's ``config`` spells it, without what is empty."""
        named = {
            "Entrypoint": list(self.entrypoint),
            "Cmd": list(self.command),
            "Env": list(self.env),
            "User": self.user,
            "WorkingDir": self.workdir,
        }
        return {name: value for name, value in named.items() if value}


@dataclass(frozen=True)
class Descriptor:
    """What an index says of an image: its full name (with tag), its manifest's digest and size."""

    name: str
    digest: str
    size: int


def write_layer(target: Path, entries: Mapping[str, Entry]) -> None:
    """Write a layer of ``{path: entry}``; folders above an entry are made, owned by root."""
    folders = {str(parent) for path in entries for parent in Path(path).parents} - {"."}
    full = {**dict.fromkeys(folders, Entry(folder=True, mode=0o755)), **entries}
    with tarfile.open(target, "w", format=tarfile.GNU_FORMAT) as tar:
        for path, entry in sorted(full.items()):
            info = tarfile.TarInfo(path)
            info.mode, info.uid, info.gid, info.mtime = entry.mode, entry.uid, entry.gid, TIME
            if entry.folder:
                info.type = tarfile.DIRTYPE
                tar.addfile(info)
            elif entry.symlink:
                info.type, info.linkname, info.mode = tarfile.SYMTYPE, entry.symlink, 0o777
                tar.addfile(info)
            elif isinstance(entry.content, Path):
                info.size = entry.content.stat().st_size
                with entry.content.open("rb") as file:
                    tar.addfile(info, file)
            else:
                info.size = len(entry.content)
                tar.addfile(info, io.BytesIO(entry.content))


def write_layout(
    target: Path, name: str, layers: Sequence[Path], config: Config, arch: str
) -> Descriptor:
    """
    Write an image as an OCI layout.

    Args:
        target: an empty folder.
        name: with registry and tag, as ``docker.io/library/redis:7.0``.
        layers: plain tars, the lowest first; linked, not copied, where that is possible.
    """
    blobs = target / "blobs/sha256"
    blobs.mkdir(parents=True)
    parts = []
    for layer in layers:
        digest = cache.digest(layer)
        if not (blobs / digest).exists():
            cache.link(layer, blobs / digest)
        parts.append(_part(LAYER, digest, layer.stat().st_size))
    image = {
        "architecture": arch,
        "os": "linux",
        "config": config.as_dict(),
        "rootfs": {"type": "layers", "diff_ids": [part["digest"] for part in parts]},
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": _blob(blobs, CONFIG, _json(image)),
        "layers": parts,
    }
    made = _blob(blobs, MANIFEST, _json(manifest))
    described = Descriptor(name, made["digest"], made["size"])
    (target / "oci-layout").write_bytes(_json({"imageLayoutVersion": "1.0.0"}))
    (target / "index.json").write_bytes(_index([described]))
    return described


def read_layout(layout: Path) -> Descriptor:
    """Return what an OCI layout of one image holds."""
    (entry,) = json.loads((layout / "index.json").read_text())["manifests"]
    return Descriptor(
        entry["annotations"]["io.containerd.image.name"], entry["digest"], entry["size"]
    )


def blob(layout: Path, digest: str) -> Path:
    """Return where a layout keeps the blob of this digest."""
    return layout / "blobs" / digest.replace(":", "/")


def write_archive(target: Path, layouts: Sequence[Path]) -> None:
    """
    Write one tar of several images, as ``ctr images import`` reads it.

    It is an OCI layout whose index gives every image its full name: containerd takes the names
    from there.
    """
    images = sorted((read_layout(layout) for layout in layouts), key=lambda image: image.name)
    paths: dict[str, Path] = {}
    for layout in layouts:
        for path in (layout / "blobs/sha256").iterdir():
            paths[f"blobs/sha256/{path.name}"] = path
    entries = {name: Entry(path) for name, path in paths.items()}
    entries["oci-layout"] = Entry(_json({"imageLayoutVersion": "1.0.0"}))
    entries["index.json"] = Entry(_index(images))
    write_layer(target, entries)


def _index(images: Sequence[Descriptor]) -> bytes:
    return _json(
        {
            "schemaVersion": 2,
            "mediaType": INDEX,
            "manifests": [
                {
                    **_part(MANIFEST, image.digest.partition(":")[2], image.size),
                    "annotations": {
                        "io.containerd.image.name": image.name,
                        "org.opencontainers.image.ref.name": image.name.rpartition(":")[2],
                    },
                }
                for image in images
            ],
        }
    )


def _part(media_type: str, digest: str, size: int) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": size}


def _blob(blobs: Path, media_type: str, data: bytes) -> dict[str, Any]:
    digest = hashlib.sha256(data).hexdigest()
    (blobs / digest).write_bytes(data)
    return _part(media_type, digest, len(data))


def _json(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()
