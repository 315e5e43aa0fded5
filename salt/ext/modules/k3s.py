"""
K3s on this machine: its agent token, its unit and the wait until it is ready, its certificates.

Paths and token format are K3s's (https://docs.k3s.io/cli/token):
``K10<sha256 of the CA certificate>::<user>:<secret>``.
"""

import base64
import os
import re
import shutil
import ssl
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from cryptography import x509
from salt.exceptions import CommandExecutionError

AGENT_TOKEN = Path("/var/lib/rancher/k3s/server/agent-token")
TOKEN = re.compile(r"K10([0-9a-f]{64})::[a-z-]+:\S+")

# Everything that K3s leaves on a machine, besides what `absent` unmounts and unlinks.
LEFT = (
    "/etc/rancher/k3s",
    "/etc/rancher/node",
    "/var/lib/rancher/k3s",
    "/var/lib/kubelet",
    "/var/lib/cni",
    "/run/k3s",
    "/run/flannel",
)
MOUNTED_UNDER = ("/run/k3s/", "/var/lib/kubelet/", "/var/lib/rancher/k3s/", "/run/netns/cni-")
LINKS = ("cni0", "flannel.1")
# Packet rules, as k3s-killall.sh tells them from others.
RULES = re.compile("KUBE-|CNI-|flannel", re.IGNORECASE)
AUXILIARY = "/var/lib/rancher/k3s/data/current/bin/aux"

BINARY = "/usr/local/bin/k3s"
# Where K3s keeps certificates (https://docs.k3s.io/cli/certificate), in files of this suffix.
DATA = Path("/var/lib/rancher/k3s")
CERTIFICATES = ("server/tls/**/*.crt", "agent/*.crt")
ASK_SECONDS = 10

# A unit that K3s's Restart=always brought up again this often will not come up by itself.
RESTARTS = 5
PAUSE = 0.3


def __virtual__() -> bool | tuple[bool, str]:
    if not shutil.which("systemctl"):
        return False, "K3s runs as a systemd unit, and there is no systemctl"
    return True


def agent_token() -> str:
    """
    Return the token with which agents join; the mine of the server offers it to the workers.

    Raises CommandExecutionError if K3s's server has not written it; the mine keeps what it has.
    Called by hand the token would be stored in the job cache: use it in the mine only.

    CLI Example:

    .. code-block:: bash

        salt-call --local k3s.agent_token
    """
    try:
        token = AGENT_TOKEN.read_text(encoding="ascii").strip()
    except OSError as error:
        raise CommandExecutionError(
            f"{AGENT_TOKEN} cannot be read ({error.strerror}): is k3s.service up?"
        ) from None
    if not TOKEN.fullmatch(token):
        raise CommandExecutionError(f"{AGENT_TOKEN} holds no K10<hash>::<user>:<secret>")
    return token


def version() -> str:
    """
    Return the version of the K3s that is installed here, as ``v1.36.4+k3s1``; empty if there is
    none. What a node runs is another question: its kubelet reports it.

    CLI Example:

    .. code-block:: bash

        salt '*' k3s.version
    """
    if not Path(BINARY).exists():
        return ""
    done = subprocess.run(
        [BINARY, "--version"], capture_output=True, text=True, timeout=30, check=False
    )
    found = re.match(r"k3s version (\S+)", done.stdout)
    if not found:
        raise CommandExecutionError(f"{BINARY} --version: {(done.stderr or done.stdout).strip()}")
    return found[1]


def admits(server: str, path: str) -> int:
    """
    Return the HTTP status with which ``server`` (``https://<address>:6443``) answers an agent that
    shows the secret in the file ``path``: 200 if it may join, 401 or 403 if not.

    It asks what an agent asks first (``/v1-k3s/config`` as the user ``node``, as in
    pkg/clientaccess of k3s-io/k3s). Raises CommandExecutionError if there is no answer.

    CLI Example:

    .. code-block:: bash

        salt f1-master k3s.admits https://10.20.1.10:6443 /etc/rancher/k3s/agent-token
    """
    try:
        secret = Path(path).read_text(encoding="ascii").strip()
    except OSError as error:
        raise CommandExecutionError(f"{path} cannot be read ({error.strerror})") from None
    shown = base64.b64encode(f"node:{secret}".encode()).decode()
    request = urllib.request.Request(  # noqa: S310 - always https
        f"{server}/v1-k3s/config", headers={"Authorization": f"Basic {shown}"}
    )
    # K3s's own authority: known to this machine from the server itself, which is this machine.
    context = ssl.create_default_context(cafile=str(DATA / "server/tls/server-ca.crt"))
    try:
        with urllib.request.urlopen(request, timeout=ASK_SECONDS, context=context) as answer:  # noqa: S310
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return int(error.code)
    except OSError as error:
        raise CommandExecutionError(f"{server} does not answer: {error}") from None


def certificates() -> list[dict[str, Any]]:
    """
    Return the certificates that K3s keeps on this machine, those that end first in front:
    ``{"name", "not_after", "days", "authority", "serial", "written"}``. ``name`` is the file below
    K3s's folder, ``not_after`` and ``written`` (when the file was) are Unix seconds.

    Of a file that holds a chain, the first one: the certificate itself.

    CLI Example:

    .. code-block:: bash

        salt '*' k3s.certificates
    """
    now = time.time()
    found = []
    for path in (path for pattern in CERTIFICATES for path in DATA.glob(pattern)):
        try:
            one = x509.load_pem_x509_certificate(path.read_bytes())
        except (OSError, ValueError):
            continue  # made or removed at this moment, or empty
        ends = one.not_valid_after_utc.timestamp()
        found.append(
            {
                "name": str(path.relative_to(DATA)),
                "not_after": int(ends),
                "days": int((ends - now) // 86400),
                "authority": _authority(one),
                "serial": f"{one.serial_number:x}",
                "written": path.stat().st_mtime,
            }
        )
    return sorted(found, key=lambda each: (each["not_after"], each["name"]))


def rotate_certificates() -> None:
    """
    Take K3s's certificates away, so that it makes new ones when it starts; its unit must be
    stopped. K3s keeps a copy of the old ones beside them.

    CLI Example:

    .. code-block:: bash

        salt f1-worker-1 k3s.rotate_certificates
    """
    done = subprocess.run(
        [BINARY, "certificate", "rotate"], capture_output=True, text=True, timeout=60, check=False
    )
    if done.returncode:
        raise CommandExecutionError(f"k3s certificate rotate: {done.stderr.strip()[-1000:]}")


def unit(name: str) -> dict[str, str]:
    """
    Return what systemd knows of the unit ``name`` (``k3s`` or ``k3s-agent``).

    CLI Example:

    .. code-block:: bash

        salt f1-master k3s.unit k3s
    """
    wanted = "ActiveState,SubState,Result,NRestarts,UnitFileState,Job,NeedDaemonReload"
    wanted += ",ExecMainStartTimestampMonotonic"
    said = _systemctl("show", f"--property={wanted}", f"{name}.service")
    return dict(line.split("=", 1) for line in said.splitlines() if "=" in line)


def start(name: str, restart: bool = False) -> None:
    """
    Enable the unit ``name`` and ask systemd to start (or restart) it, without waiting for it.

    A Type=notify unit with no start timeout would otherwise hold the caller forever.

    CLI Example:

    .. code-block:: bash

        salt f1-worker-1 k3s.start k3s-agent restart=True
    """
    if unit(name).get("NeedDaemonReload") == "yes":
        _systemctl("daemon-reload")
    _systemctl("enable", "--quiet", f"{name}.service")
    _systemctl("restart" if restart else "start", "--no-block", f"{name}.service")


def stop(name: str, deadline: float = 60) -> None:
    """
    Stop the unit ``name``; its pods go on. Raises CommandExecutionError if it will not.

    CLI Example:

    .. code-block:: bash

        salt f1-worker-1 k3s.stop k3s-agent
    """
    _systemctl("stop", "--no-block", f"{name}.service")
    end = time.monotonic() + deadline
    while (now := unit(name)).get("ActiveState") not in ("inactive", "failed"):
        if time.monotonic() >= end:
            raise CommandExecutionError(
                f"{name}.service did not stop in {deadline:g} s; last seen: "
                f"{now.get('ActiveState')}/{now.get('SubState')}"
            )
        time.sleep(PAUSE)


def started(name: str) -> float:
    """
    Return when the process of the unit ``name`` started, in Unix seconds; 0 if never.

    CLI Example:

    .. code-block:: bash

        salt f1-master k3s.started k3s
    """
    micros = int(unit(name).get("ExecMainStartTimestampMonotonic") or 0)
    return time.time() - time.monotonic() + micros / 1e6 if micros else 0.0


def wait_ready(name: str, deadline: float = 180) -> None:
    """
    Wait until the unit ``name`` says that it is ready, at most ``deadline`` seconds.

    Raises CommandExecutionError with the unit's state and its last journal lines.

    CLI Example:

    .. code-block:: bash

        salt f1-master k3s.wait_ready k3s deadline=60
    """
    end = time.monotonic() + deadline
    before = int(unit(name).get("NRestarts") or 0)
    while True:
        now = unit(name)
        # While a restart is queued the unit is still the old, active one.
        if now.get("ActiveState") == "active" and now.get("Job", "0") in ("", "0"):
            return
        restarts = int(now.get("NRestarts") or 0) - before
        if restarts >= RESTARTS or time.monotonic() >= end:
            cause = (
                f"restarted {restarts} times" if restarts >= RESTARTS else f"waited {deadline:g} s"
            )
            raise CommandExecutionError(
                f"{name}.service is not ready ({cause}); last seen: {now.get('ActiveState')}/"
                f"{now.get('SubState')}, result {now.get('Result')}; last logged:\n{journal(name)}"
            )
        time.sleep(PAUSE)


def journal(name: str = "", lines: int = 8) -> str:
    """
    Return the last ``lines`` log lines of the unit ``name`` (or of the one that is here), tokens
    hidden.

    CLI Example:

    .. code-block:: bash

        salt f1-worker-1 k3s.journal k3s-agent lines=30
    """
    units = [f"--unit={each}.service" for each in ([name] if name else ["k3s", "k3s-agent"])]
    done = subprocess.run(
        ["journalctl", "-q", "--no-pager", "-o", "cat", "-n", str(lines), *units],
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    return TOKEN.sub("K10<hidden>", done.stdout).rstrip() or "nothing"


def remains() -> list[str]:
    """
    Return what K3s has left on this machine: folders, mounts, network links.

    CLI Example:

    .. code-block:: bash

        salt f1-worker-1 k3s.remains
    """
    links = [name for name in LINKS if Path("/sys/class/net", name).exists()]
    return [*filter(_holds, LEFT), *_mounts(), *links]


def clear() -> None:
    """
    End every pod of this machine and remove what K3s left: data, mounts, network links.

    As K3s's own k3s-killall.sh and k3s-uninstall.sh do. The units must be stopped.

    CLI Example:

    .. code-block:: bash

        salt f1-worker-1 k3s.clear
    """
    for pid in _shims():
        subprocess.run(["kill", "-KILL", str(pid)], capture_output=True, check=False)
    for mount in sorted(_mounts(), reverse=True):
        subprocess.run(["umount", "-l", mount], capture_output=True, check=False)
    for link in LINKS:
        subprocess.run(["ip", "link", "delete", link], capture_output=True, check=False)
    for command in ("iptables", "ip6tables"):
        _forget_rules(command)
    for path in LEFT:
        shutil.rmtree(path, ignore_errors=True)


def _authority(one: x509.Certificate) -> bool:
    """Say whether this certificate may sign others."""
    try:
        return bool(one.extensions.get_extension_for_class(x509.BasicConstraints).value.ca)
    except x509.ExtensionNotFound:
        return False


def _forget_rules(command: str) -> None:
    """
    Remove the packet rules of pods and services: one that leads a port of the host to a pod that
    is gone would win over that of the pod that comes.
    """
    # K3s brings its own programs; they are preferred to the machine's, as it does itself.
    path = f"{AUXILIARY}:{os.environ.get('PATH', '')}"
    programs = [shutil.which(f"{command}-{verb}", path=path) for verb in ("save", "restore")]
    if None in programs:
        return
    save, restore = programs
    done = subprocess.run([str(save)], capture_output=True, text=True, timeout=60, check=False)
    kept = [line for line in done.stdout.splitlines() if not RULES.search(line)]
    if kept:
        rules = "\n".join([*kept, ""])
        subprocess.run(
            [str(restore)], input=rules, capture_output=True, text=True, timeout=60, check=False
        )


def _systemctl(*arguments: str) -> str:
    done = subprocess.run(
        ["systemctl", *arguments], capture_output=True, text=True, timeout=60, check=False
    )
    if done.returncode:
        raise CommandExecutionError(f"systemctl {' '.join(arguments)}: {done.stderr.strip()}")
    return done.stdout


def _holds(path: str) -> bool:
    """Say whether there is something: an empty mount point is the machine's own."""
    folder = Path(path)
    return folder.exists() and (any(folder.iterdir()) or not folder.is_mount())


def _mounts() -> list[str]:
    lines = Path("/proc/self/mounts").read_text(encoding="utf-8").splitlines()
    targets = (line.split(" ")[1].replace("\\040", " ") for line in lines)
    return [target for target in targets if target.startswith(MOUNTED_UNDER)]


def _shims() -> list[int]:
    """Return the process groups' leaders of K3s's pods: shims, and all that came from them."""
    parents: dict[int, int] = {}
    found: set[int] = set()
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            command = (folder / "cmdline").read_bytes()
            stat = (folder / "stat").read_text(encoding="utf-8", errors="replace")
        except OSError:
            continue  # it ended meanwhile
        pid = int(folder.name)
        parents[pid] = int(stat.rpartition(")")[2].split()[1])
        if b"containerd-shim" in command and b"/run/k3s/containerd" in command:
            found.add(pid)
    grown = True
    while grown:
        children = {pid for pid, parent in parents.items() if parent in found} - found
        found |= children
        grown = bool(children)
    return sorted(found)
