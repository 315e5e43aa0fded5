"""Start, stop and remove the lab from another process; safe to call in any state."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import docker

from lab.cloud import engine, machines, network
from lab.cloud.config import GUARD, LABEL, Config, cache, home, parse
from lab.cloud.names import OUTSIDE, ROUTER
from lab.machine import ensure as ensure_machine_image

READY_DEADLINE = 90  # seconds
STOP_DEADLINE = 30  # seconds
ROOT = Path(__file__).resolve().parents[2]


class LabError(RuntimeError):
    """The lab could not do what was asked; the message says why and what to do."""


def _say(message: str) -> None:
    print(f"  {message}", file=sys.stderr, flush=True)


def _pid(folder: Path) -> int | None:
    """The lab process's pid, if the one in the file is alive and is indeed ours."""
    try:
        pid = int((folder / "run" / "pid").read_text())
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except (OSError, ValueError):
        return None
    return pid if b"lab.cloud" in words and b"serve" in words else None


def _tail(path: Path, lines: int = 6) -> str:
    try:
        return "\n".join(path.read_text(errors="replace").splitlines()[-lines:])
    except OSError:
        return "(no log)"


def running_config() -> Config | None:
    """What the running (or last) lab was started with."""
    try:
        return parse(json.loads((home() / "config.json").read_text()))
    except (OSError, ValueError):
        return None


def start(config: Config, say: Callable[[str], None] = _say) -> None:
    """Start the lab's process and come back when everything answers.

    A lab that runs with the same configuration is left alone; with another one its process is
    restarted, its machines run on.

    Raises:
        LabError: it is not up within the deadline, or ended; with the end of its log.
        EngineError, ImageError: no engine, no machine image.
    """
    folder = home()
    for name in ("run", "log", "state"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)
    client = engine.ensure(folder)
    if any(image.tag is None for image in config.images):
        ensure_machine_image(client, cache(), say)
    written = folder / "config.json"
    same = written.exists() and written.read_text() == config.dump()
    if _pid(folder) and same and (folder / "run" / "ready.json").exists():
        return
    stop()
    written.write_text(config.dump())
    _serve(folder)


def _serve(folder: Path) -> None:
    log = folder / "log" / "cloud.log"
    command = [sys.executable, "-m", "lab.cloud", "serve"]
    env = os.environ | {"F1_LAB_HOME": str(folder), "F1_CACHE": str(cache())}
    with log.open("ab") as out:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=env,
            stdout=out,
            stderr=out,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
    (folder / "run" / "pid").write_text(f"{process.pid}\n")
    deadline = time.monotonic() + READY_DEADLINE
    while not (folder / "run" / "ready.json").exists():
        if process.poll() is not None:
            raise LabError(f"the lab's process ended ({process.returncode}); {log}:\n{_tail(log)}")
        if time.monotonic() > deadline:
            stop()
            raise LabError(f"the lab was not ready in {READY_DEADLINE} s; {log}:\n{_tail(log)}")
        time.sleep(0.05)


def stop() -> bool:
    """Stop the lab's process; machines run on. Tells whether there was one."""
    folder = home()
    pid = _pid(folder)
    if pid is not None:
        os.kill(pid, signal.SIGTERM)
        deadline = time.monotonic() + STOP_DEADLINE
        while _pid(folder) and time.monotonic() < deadline:
            with suppress(ChildProcessError):  # reap it where it is our child
                os.waitpid(pid, os.WNOHANG)
            time.sleep(0.05)
        if _pid(folder):
            os.kill(pid, signal.SIGKILL)
    for name in ("pid", "ready.json"):
        (folder / "run" / name).unlink(missing_ok=True)
    return pid is not None


def stopped() -> bool:
    """Whether no process of this lab runs."""
    return _pid(home()) is None


def status() -> dict[str, Any]:
    """What runs: ``running`` (bool), ``pid``, URLs, ``machines``, ``processes``, ``problem``."""
    folder = home()
    pid = _pid(folder)
    ready = pid is not None and (folder / "run" / "ready.json").exists()
    result: dict[str, Any] = {"running": ready, "pid": pid, "home": str(folder)}
    config = running_config()
    if ready and config:
        result |= {"api": config.api_url, "s3": config.s3_url, "region": config.region}
        result["files"] = config.files_url if config.files else None
        result["publish"] = [f"{p.listen} → {p.machine}:{p.port}" for p in config.publish]
        try:
            result |= json.loads((folder / "run" / "status.json").read_text())
        except (OSError, ValueError):
            result |= {"machines": [], "processes": {}, "problem": "no round done yet"}
    return result


def outside(argv: list[str]) -> int:
    """Run a command as a voter: in the internet's namespace, with its resolver.

    Raises:
        LabError: there is no such namespace.
    """
    if OUTSIDE not in network.exists_names():
        raise LabError("there is no internet to stand in: start the lab first")
    return subprocess.run(["ip", "netns", "exec", OUTSIDE, *argv], check=False).returncode


def down() -> dict[str, list[str]]:
    """Remove everything the lab made, in whatever state it is.

    Returns:
        ``removed`` = what there was; ``foreign`` = what looks like the lab's by name but does
        not carry its label, and was left alone.
    """
    folder = home()
    removed = ["lab process"] if stop() else []
    client = engine.connect()
    if client is None and _left_behind():
        client = engine.ensure(folder)
    foreign: list[str] = []
    guests = 0
    if client is not None:
        removed += machines.remove_all(client)
        foreign = _foreign(client)
        guests = len(client.api.containers())
    removed += network.remove()
    if guests:
        foreign.append(f"{guests} running containers: the Docker engine is left to them")
    elif engine.stop(folder):
        removed.append("Docker engine that the lab had started")
    removed += _clear(folder)
    GUARD.unlink(missing_ok=True)
    return {"removed": removed, "foreign": foreign}


def _clear(folder: Path) -> list[str]:
    """Remove the runtime folder, but for what is known of our engine while it runs."""
    if not folder.exists():
        return []
    pid_file = folder / "run" / "dockerd.pid"
    kept = pid_file.read_text() if pid_file.exists() else ""
    shutil.rmtree(folder)
    if kept:
        pid_file.parent.mkdir(parents=True)
        pid_file.write_text(kept)
    return [str(folder)]


def _left_behind() -> bool:
    """Whether the data folder of our own engine, now dead, holds containers."""
    folder = cache() / "docker" / "containers"
    return folder.is_dir() and any(folder.iterdir())


def _foreign(client: docker.DockerClient) -> list[str]:
    found = []
    for container in client.api.containers(all=True):
        name = container["Names"][0].lstrip("/") if container["Names"] else container["Id"]
        if name.startswith("f1-") and LABEL not in container["Labels"]:
            found.append(f"container {name}")
    found += [f"Docker network {n.name}" for n in client.networks.list(names=["f1-"])]
    spaces = set(network.exists_names()) - {OUTSIDE, ROUTER}
    found += [f"network namespace {n}" for n in sorted(spaces) if n.startswith("f1-")]
    return found
