"""Root file systems of Debian's packages, as layers."""

import shutil
import stat
import tarfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lab.build import cache, commands, oci, toolchain

SUITE = "bookworm"

# What differs from one installation to the next, and what no container reads.
REMOVED = (
    "dev/*",
    "etc/.pwd.lock",
    "etc/hostname",
    "etc/resolv.conf",
    "etc/ld.so.cache~",
    "etc/*-",
    "usr/share/doc/*",
    "usr/share/info/*",
    "usr/share/locale/*",
    "usr/share/man/*",
    "var/cache/*",
    "var/lib/apt/lists/*",
    "var/lib/dpkg/*-old",
    "var/log/*",
    "tmp/*",
    "run/*",
)
EMPTIED = ("etc/machine-id",)


@dataclass(frozen=True)
class Rootfs:
    """
    Debian's smallest system with ``packages``. ``kept`` are files that other images want as well:
    they lie beside the layer under their last name.
    """

    name: str
    packages: tuple[str, ...]
    kept: tuple[str, ...] = ()
    seconds: int = 60


ROOTFS = (
    # The app's image copies installed packages onto it; nothing is installed inside.
    Rootfs(
        "python",
        ("python3", "ca-certificates"),
        kept=("etc/ssl/certs/ca-certificates.crt",),
    ),
    Rootfs("redis", ("redis-server", "busybox-static"), kept=("bin/busybox",)),
)


def key(rootfs: Rootfs) -> str:
    """Return the key: what is asked for and how it is made, not what Debian offers today."""
    return cache.key(rootfs.name, toolchain.arch(), Path(__file__).read_bytes())


def place(rootfs: Rootfs) -> Path:
    """Return the folder where a root file system is, or will be."""
    return cache.root() / "rootfs" / rootfs.name / key(rootfs)


def build(rootfs: Rootfs) -> Path:
    """
    Return the folder with ``layer.tar`` and what is kept beside it. Needs root.

    Raises:
        BuildError: debootstrap failed.
    """

    def make(folder: Path) -> None:
        packages = cache.root() / "debian"
        packages.mkdir(exist_ok=True)
        tree = folder / "tree"
        began = time.time()
        # In a mount namespace of its own: killed at any time, it leaves nothing mounted.
        command = ["unshare", "--mount", "debootstrap", "--variant=minbase"]
        options = [f"--cache-dir={packages}", f"--include={','.join(rootfs.packages)}"]
        log = cache.logs() / f"build-{rootfs.name}-debian.log"
        commands.run(rootfs.name, [*command, *options, SUITE, tree], log)
        for name in rootfs.kept:
            shutil.copyfile(tree / name, folder / Path(name).name)
        _clean(tree)
        write_tree(folder / "layer.tar", tree, began)
        shutil.rmtree(tree)

    return cache.artifact(f"rootfs/{rootfs.name}", key(rootfs), make)


def _clean(tree: Path) -> None:
    for pattern in REMOVED:
        for path in tree.glob(pattern):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()
    for name in EMPTIED:
        (tree / name).write_bytes(b"")
    # The third field is the day of the installation.
    shadow = tree / "etc/shadow"
    lines = (line.split(":") for line in shadow.read_text().splitlines())
    shadow.write_text("".join(":".join([*line[:2], "1", *line[3:]]) + "\n" for line in lines))


def write_tree(target: Path, root: Path, began: float) -> None:
    """
    Write a layer of a root file system.

    What is older than ``began`` keeps its time, since Python's compiled files name it; what the
    installation itself made has none worth keeping.
    """
    links: dict[tuple[int, int], str] = {}
    with tarfile.open(target, "w", format=tarfile.GNU_FORMAT) as tar:
        for path in _walk(root):
            name = str(path.relative_to(root))
            status = path.lstat()
            if stat.S_ISCHR(status.st_mode) or stat.S_ISBLK(status.st_mode):
                continue  # the runtime makes its own /dev
            info = tarfile.TarInfo(name)
            info.mode, info.uid, info.gid = status.st_mode & 0o7777, status.st_uid, status.st_gid
            info.mtime = oci.TIME if status.st_mtime >= began else int(status.st_mtime)
            if stat.S_ISLNK(status.st_mode):
                info.type, info.linkname = tarfile.SYMTYPE, str(path.readlink())
                tar.addfile(info)
            elif stat.S_ISDIR(status.st_mode):
                # A folder's time is that of the last change in it: the installation's.
                info.type, info.mtime = tarfile.DIRTYPE, oci.TIME
                tar.addfile(info)
            elif first := links.get((status.st_dev, status.st_ino)):
                info.type, info.linkname = tarfile.LNKTYPE, first
                tar.addfile(info)
            else:
                if status.st_nlink > 1:
                    links[status.st_dev, status.st_ino] = name
                info.size = status.st_size
                with path.open("rb") as file:
                    tar.addfile(info, file)


def _walk(root: Path) -> Iterator[Path]:
    for path in sorted(root.iterdir()):
        yield path
        if path.is_dir() and not path.is_symlink():
            yield from _walk(path)
