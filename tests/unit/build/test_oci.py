"""The same input gives the same image, and containerd's importer finds what it looks for."""

import json
import os
import tarfile
import time
from dataclasses import replace
from pathlib import Path

from lab.build import oci, rootfs
from lab.build.oci import Config, Entry

ENTRIES = {
    "usr/bin/tool": Entry(b"#!/bin/sh\n", mode=0o755),
    "bin": Entry(symlink="usr/bin"),
    "tmp": Entry(folder=True, mode=0o1777),
    "home/vote/note": Entry(b"hello", uid=1000, gid=1000),
}
CONFIG = Config(entrypoint=("/usr/bin/tool",), user="1000:1000")
NAME = "docker.io/library/tool:1.0"


def layout(folder: Path, entries: dict[str, Entry], name: str = NAME) -> oci.Descriptor:
    folder.mkdir()
    oci.write_layer(folder / "layer.tar", entries)
    image = folder / "image"
    image.mkdir()
    return oci.write_layout(image, name, [folder / "layer.tar"], CONFIG, "amd64")


def test_digest_is_the_same_twice_and_in_any_order(tmp_path: Path):
    first = layout(tmp_path / "a", ENTRIES)
    time.sleep(1.1)  # a second later: no time leaks in
    second = layout(tmp_path / "b", dict(reversed(ENTRIES.items())))
    on_disk = {}
    for path, entry in ENTRIES.items():
        on_disk[path] = entry
        if isinstance(entry.content, bytes) and entry.content:
            file = tmp_path / path.replace("/", "_")
            file.write_bytes(entry.content)
            on_disk[path] = replace(entry, content=file)
    third = layout(tmp_path / "c", on_disk)
    assert first == second == third
    assert first == oci.read_layout(tmp_path / "a/image")


def test_digest_is_golden(tmp_path: Path):
    """Another digest is another image for everyone who pinned it: change it knowingly."""
    made = layout(tmp_path / "a", ENTRIES)
    assert made.digest == (
        "sha256:d9dcb20af01fa8d3ce61bed695e0c97e6aae67ff941207a96182562f2d6a3233"
    )


def test_digest_changes_with_content(tmp_path: Path):
    changed = {**ENTRIES, "home/vote/note": Entry(b"hello", uid=1001, gid=1000)}
    assert layout(tmp_path / "a", ENTRIES) != layout(tmp_path / "b", changed)


def test_structure(tmp_path: Path):
    described = layout(tmp_path / "a", ENTRIES)
    image = tmp_path / "a/image"
    assert json.loads((image / "oci-layout").read_text()) == {"imageLayoutVersion": "1.0.0"}
    index = json.loads((image / "index.json").read_text())
    assert index["manifests"] == [
        {
            "mediaType": oci.MANIFEST,
            "digest": described.digest,
            "size": described.size,
            "annotations": {
                "io.containerd.image.name": NAME,
                "org.opencontainers.image.ref.name": "1.0",
            },
        }
    ]
    manifest = json.loads(oci.blob(image, described.digest).read_text())
    config = json.loads(oci.blob(image, manifest["config"]["digest"]).read_text())
    (layer,) = manifest["layers"]
    assert layer["mediaType"] == "application/vnd.oci.image.layer.v1.tar"
    assert config["rootfs"] == {"type": "layers", "diff_ids": [layer["digest"]]}
    assert config["config"]["Entrypoint"] == ["/usr/bin/tool"]
    assert config["config"]["User"] == "1000:1000"
    assert "Cmd" not in config["config"]
    with tarfile.open(oci.blob(image, layer["digest"])) as tar:
        found = {member.name: member for member in tar}
    assert list(found) == sorted(found)
    assert found["home"].isdir()
    assert found["home"].mode == 0o755
    assert found["tmp"].mode == 0o1777
    assert found["bin"].linkname == "usr/bin"
    assert (found["home/vote/note"].uid, found["home/vote/note"].uname) == (1000, "")
    assert {member.mtime for member in found.values()} == {oci.TIME}


def test_archive_of_two_images(tmp_path: Path):
    layout(tmp_path / "a", ENTRIES)
    layout(tmp_path / "b", ENTRIES, "docker.io/library/other:2")
    images = [tmp_path / "a/image", tmp_path / "b/image"]
    oci.write_archive(tmp_path / "one.tar", images)
    oci.write_archive(tmp_path / "two.tar", images[::-1])
    assert (tmp_path / "one.tar").read_bytes() == (tmp_path / "two.tar").read_bytes()
    with tarfile.open(tmp_path / "one.tar") as tar:
        names = tar.getnames()
        index = json.load(tar.extractfile("index.json"))  # type: ignore[arg-type]
    assert len(names) == len(set(names))
    named = [entry["annotations"]["io.containerd.image.name"] for entry in index["manifests"]]
    assert named == ["docker.io/library/other:2", NAME]
    for entry in index["manifests"]:
        assert f"blobs/{entry['digest'].replace(':', '/')}" in names


def tree(root: Path) -> Path:
    (root / "usr/bin").mkdir(parents=True)
    (root / "bin").symlink_to("usr/bin")
    (root / "usr/bin/perl").write_text("perl")
    (root / "usr/bin/perl5").hardlink_to(root / "usr/bin/perl")
    return root


def test_tree_keeps_a_package_time_and_forgets_the_installation(tmp_path: Path):
    layers = []
    for name in ("a", "b"):
        root = tree(tmp_path / name)
        os.utime(root / "usr/bin/perl", (1234, 1234))
        (root / "made").write_text("now")
        layers.append(tmp_path / f"{name}.tar")
        rootfs.write_tree(layers[-1], root, time.time() - 100)
        time.sleep(1.1)
    assert layers[0].read_bytes() == layers[1].read_bytes()
    with tarfile.open(layers[0]) as tar:
        found = {member.name: member for member in tar}
    assert found["usr/bin/perl"].mtime == 1234
    assert found["made"].mtime == oci.TIME
    assert found["usr/bin/perl5"].islnk()
    assert found["usr/bin/perl5"].linkname == "usr/bin/perl"
    assert found["bin"].linkname == "usr/bin"
