"""Builds the Debian 12 machine image with debootstrap, once per content of its recipe."""

import hashlib
import os
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import docker
import docker.errors

SUITE = "bookworm"
REPOSITORY = "f1-lab/debian-12"
ROOTFS = Path(__file__).parent / "rootfs"
DEADLINE = 1200  # seconds for debootstrap

# The last is a virtual dependency of cloud-init's that debootstrap cannot see.
PACKAGES = """
systemd systemd-sysv dbus cloud-init openssh-server python3 python3-yaml sudo
iproute2 iptables nftables ipset conntrack ethtool socat kmod iputils-ping netcat-openbsd
ca-certificates curl openssl xz-utils zstd procps less logrotate
systemd-timesyncd unattended-upgrades
containerd runc containernetworking-plugins
python3-cffi-backend
""".split()  # noqa: SIM905  one word a line would hide the groups

# Units that wait for hardware, ask the internet, or would fight over what a user brings.
MASKED = """
console-getty.service getty@.service systemd-udevd.service
systemd-networkd.service systemd-resolved.service systemd-firstboot.service
apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer fstrim.timer
cloud-init-hotplugd.socket e2scrub_reap.service sys-kernel-debug.mount
sys-kernel-tracing.mount dev-hugepages.mount
""".split()  # noqa: SIM905
DISABLED = ["containerd.service", "nftables.service", "unattended-upgrades.service"]

# What a machine must not share with another, and what no machine needs.
REMOVED = [
    "etc/ssh/ssh_host_*",
    "var/lib/dbus/machine-id",
    "var/cache/apt/archives/*.deb",
    "var/cache/apt/*.bin",
    "var/lib/apt/lists/*",
    "var/log/*.log",
    "usr/share/doc/*",
    "usr/share/man/*",
    "usr/share/locale/*",
    "usr/sbin/policy-rc.d",
    "usr/lib/sysctl.d/*.conf",  # they would set the host's kernel
]
EMPTY = ["etc/machine-id"]  # made at first boot


class ImageError(RuntimeError):
    """The image could not be built; the message holds the tool's last words."""


def recipe_hash() -> str:
    """Twelve hex digits that change with anything the image is made of."""
    digest = hashlib.sha256()
    for part in (SUITE, PACKAGES, MASKED, DISABLED, REMOVED, EMPTY):
        digest.update(repr(part).encode())
    for path in sorted(p for p in ROOTFS.rglob("*") if p.is_file()):
        executable = os.access(path, os.X_OK)
        digest.update(f"{path.relative_to(ROOTFS)} {executable}\n".encode() + path.read_bytes())
    return digest.hexdigest()[:12]


def _say(message: str) -> None:
    print(f"  {message}", flush=True)


def _debootstrap(target: Path, log: Path) -> None:
    packages = log.parent / "packages"  # kept, for the next change of the recipe
    packages.mkdir(exist_ok=True)
    command = [
        "debootstrap",
        "--variant=minbase",
        f"--cache-dir={packages}",
        f"--include={','.join(PACKAGES)}",
        SUITE,
        str(target),
    ]
    with log.open("w") as out:
        try:
            done = subprocess.run(command, stdout=out, stderr=out, timeout=DEADLINE, check=False)
        except subprocess.TimeoutExpired as error:
            raise ImageError(f"debootstrap took over {DEADLINE} s; see {log}") from error
    if done.returncode:
        tail = "\n".join(log.read_text(errors="replace").splitlines()[-5:])
        raise ImageError(f"debootstrap failed ({done.returncode}); {log} ends with:\n{tail}")


def _customise(target: Path) -> None:
    shutil.copytree(ROOTFS, target, dirs_exist_ok=True)
    for name in EMPTY:
        (target / name).write_text("")
    (target / "var/log/journal").mkdir(parents=True, exist_ok=True)
    for unit in MASKED:
        link = target / "etc/systemd/system" / unit
        link.unlink(missing_ok=True)
        link.symlink_to("/dev/null")
    for unit in DISABLED:
        for link in (target / "etc/systemd/system").glob(f"*.wants/{unit}"):
            link.unlink()
    for pattern in REMOVED:
        for path in target.glob(pattern):
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


def build_tar(tar: Path) -> None:
    """Make the root file system and write it to ``tar`` (atomically). Needs root.

    Raises:
        ImageError: debootstrap failed or took too long.
    """
    tar.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="f1-machine-", dir=tar.parent) as work:
        target = Path(work) / "rootfs"
        target.mkdir()
        _debootstrap(target, tar.with_suffix(".log"))
        _customise(target)
        part = tar.with_suffix(".part")
        with tarfile.open(part, "w") as archive:
            for child in sorted(target.iterdir()):
                archive.add(child, arcname=child.name)
        part.replace(tar)


def ensure(engine: docker.DockerClient, cache: Path, say: Callable[[str], None] = _say) -> str:
    """Give the Docker tag of the machine image, building what is missing.

    Args:
        engine: the running Docker engine.
        cache: folder for root file system tars, kept between labs.
        say: told, in a line, of anything that takes longer than a second.

    Raises:
        ImageError: it could not be built.
    """
    name = recipe_hash()
    tag = f"{REPOSITORY}:{name}"
    try:
        engine.images.get(tag)
        return tag
    except docker.errors.ImageNotFound:
        pass
    tar = cache / "machine" / f"{name}.tar"
    if not tar.exists():
        say("building the machine image (Debian 12; two to three minutes, once)")
        build_tar(tar)
        for old in tar.parent.glob("*.tar"):
            if old != tar:
                old.unlink()
    say("loading the machine image into Docker")
    changes = ['CMD ["/sbin/f1-entry"]']
    with tar.open("rb") as stream:
        answer = engine.api.import_image(
            src=stream, repository=REPOSITORY, tag=name, changes=changes
        )
    if "sha256:" not in str(answer):
        raise ImageError(f"Docker refused the machine image {tar}: {answer}")
    for known in engine.images.list(REPOSITORY):
        for stale in set(known.tags) - {tag}:
            with suppress(docker.errors.APIError):  # a machine may still run on it
                engine.images.remove(stale)
    return tag
