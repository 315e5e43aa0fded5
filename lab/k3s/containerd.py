"""containerd as K3s runs it: its own socket, registries and air-gap images."""

import json
import shutil
import socket
import threading
from collections.abc import Callable, Iterable
from pathlib import Path

from . import registries
from .host import CNI_PLUGINS, cgroup_v2, write
from .settings import Settings
from .supervisor import CommandFailed, Supervisor, run, say

SOCKET = Path("/run/k3s/containerd/containerd.sock")
STATE = Path("/run/k3s/containerd")
START_DEADLINE = 60  # seconds
IMPORT_DEADLINE = 600  # seconds an archive
ARCHIVES = (".tar", ".tar.gz", ".tgz", ".tar.zst", ".tzst")
SMALL = 16 << 20  # bytes; such an archive (the pause image) is worth waiting for
CTR = ("ctr", "--address", SOCKET, "--namespace", "k8s.io")


def config(agent_dir: Path, pause_image: str, known: registries.Registries, systemd: bool) -> str:
    """containerd's configuration file (it may hold credentials).

    ``restrict_oom_score_adj``: without CAP_SYS_RESOURCE, as in a lab machine, runc could not
    start a sandbox.
    """
    cri = 'plugins."io.containerd.grpc.v1.cri"'
    lines = [
        "version = 2",
        f'root = "{agent_dir}/containerd"',
        f'state = "{STATE}"',
        "[grpc]",
        f'  address = "{SOCKET}"',
        f"[{cri}]",
        f"  sandbox_image = {json.dumps(pause_image)}",
        "  restrict_oom_score_adj = true",
        "  enable_unprivileged_ports = true",
        "  enable_unprivileged_icmp = true",
        f"[{cri}.containerd.runtimes.runc]",
        '  runtime_type = "io.containerd.runc.v2"',
        f"[{cri}.containerd.runtimes.runc.options]",
        f"  SystemdCgroup = {str(systemd).lower()}",
        f"[{cri}.cni]",
        f'  bin_dir = "{CNI_PLUGINS}"',
        f'  conf_dir = "{agent_dir}/etc/cni/net.d"',
        f"[{cri}.registry]",
        f'  config_path = "{agent_dir}/etc/containerd/certs.d"',
    ]
    for host, auth in sorted(registries.credentials(known).items()):
        lines.append(f"[{cri}.registry.configs.{json.dumps(host)}.auth]")
        lines += [f"  {key} = {json.dumps(value)}" for key, value in sorted(auth.items())]
    return "\n".join(lines) + "\n"


def start(supervisor: Supervisor, settings: Settings) -> None:
    """Write the configuration and start containerd; it is not waited for.

    Raises:
        ConfigError: ``registries.yaml`` is wrong.
    """
    agent_dir = settings.data_dir / "agent"
    known = registries.load(settings.private_registry)
    certs = agent_dir / "etc/containerd/certs.d"
    shutil.rmtree(certs, ignore_errors=True)
    for name, text in registries.hosts(known).items():
        write(certs / name / "hosts.toml", text)
    (agent_dir / "etc/cni/net.d").mkdir(parents=True, exist_ok=True)
    path = agent_dir / "etc/containerd/config.toml"
    write(path, config(agent_dir, settings.pause_image, known, cgroup_v2()))
    # A socket left by a containerd that was killed would look like a running one.
    SOCKET.unlink(missing_ok=True)
    supervisor.spawn("containerd", ["containerd", "--config", path])


def wait(supervisor: Supervisor) -> None:
    """Wait until containerd answers."""

    def probe() -> str | None:
        # containerd listens once its plugins are up.
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
            try:
                client.connect(str(SOCKET))
            except OSError as error:
                return f"{SOCKET}: {error.strerror}"
        return None

    supervisor.wait("containerd", probe, START_DEADLINE)


def archives(folder: Path) -> list[Path]:
    """The air-gap archives of a folder, the small ones first; others are named and left out."""
    if not folder.is_dir():
        return []
    files = [path for path in folder.iterdir() if path.is_file()]
    for path in files:
        if not path.name.endswith(ARCHIVES):
            say(f"{path} is no image archive ({', '.join(ARCHIVES)}): left alone")
    wanted = (path for path in files if path.name.endswith(ARCHIVES))
    return sorted(wanted, key=lambda path: (path.stat().st_size, path.name))


def _import(path: Path) -> None:
    run([*CTR, "images", "import", path], IMPORT_DEADLINE)


def import_images(paths: Iterable[Path], marks: Path, load: Callable[[Path], None]) -> None:
    """Import archives that were not imported yet; failures are told.

    An archive counts as known by its name, size and time of change.
    """
    for path in paths:
        stat = path.stat()
        mark = marks / path.name
        stamp = f"{stat.st_size} {stat.st_mtime_ns}\n"
        if mark.exists() and mark.read_text() == stamp:
            continue
        try:
            load(path)
        except CommandFailed as error:
            say(f"images of {path} were not imported: {error}")
            continue
        write(mark, stamp, 0o644)
        say(f"imported images of {path}")


class Images:
    """Imports ``agent/images`` behind the back of the start.

    Small archives as soon as containerd answers, large ones when they are waited for: unpacking
    takes seconds of both cores, which the API server and kubelet have better use for until then.
    """

    def __init__(self, supervisor: Supervisor, agent_dir: Path) -> None:
        self._supervisor = supervisor
        self._agent_dir = agent_dir
        self._small = threading.Event()
        self._large = threading.Event()
        self._all = threading.Event()
        self._error: Exception | None = None
        threading.Thread(target=self._work, daemon=True).start()

    def _work(self) -> None:
        marks = self._agent_dir / "images-imported"
        try:
            wait(self._supervisor)
            paths = archives(self._agent_dir / "images")
            small = [path for path in paths if path.stat().st_size < SMALL]
            import_images(small, marks, _import)
            self._small.set()
            self._large.wait()
            import_images(paths[len(small) :], marks, _import)
            self._all.set()
        except Exception as error:  # handed to whoever waits
            self._error = error

    def _wait(self, event: threading.Event, what: str) -> None:
        def probe() -> str | None:
            if self._error is not None:
                raise self._error
            return None if event.is_set() else "containerd or `ctr images import` at work"

        self._supervisor.wait(what, probe, START_DEADLINE + IMPORT_DEADLINE)

    def wait_small(self) -> None:
        """Wait for containerd and for small archives: pods need the pause image first."""
        self._wait(self._small, "containerd and its small image archives")

    def wait_all(self) -> None:
        """Import the large archives and wait for them."""
        self._large.set()
        self._wait(self._all, "the images of agent/images")
