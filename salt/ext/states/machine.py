"""
What a machine has of its own unless it is a container: a kernel and a clock.

A container shares both with its host, whose they are (but for the network's part of the kernel).
There these states write down what the machine wants, say how the host has it, and touch nothing:
a plan and a run tell the same.
"""

import subprocess
from pathlib import Path
from typing import Any

from salt.exceptions import SaltException

Result = dict[str, Any]

__opts__: dict[str, Any]
__salt__: dict[str, Any]

PROC_SYS = Path("/proc/sys")
SECONDS = 30


def kernel(name: str, settings: dict[str, Any]) -> Result:
    """
    The kernel is set so, and will be after a boot: ``name`` is the file of sysctl.d that says so.

    .. code-block:: yaml

        /etc/sysctl.d/90-kubelet.conf:
          machine.kernel:
            - settings: {kernel.panic: 10}
    """
    wanted = {key: str(value) for key, value in settings.items()}
    text = "".join(f"{key} = {value}\n" for key, value in wanted.items())
    path = Path(name)
    changes: dict[str, Any] = {}
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        changes[name] = "written"
    now = {key: _sysctl(key) for key in wanted}
    other = {key: now[key] for key in wanted if now[key] != wanted[key]}
    said = "the kernel is set so"
    try:
        foreign = {key for key in other if not key.startswith("net.")}
        if foreign and _contained():
            words = ", ".join(f"{key} is {now[key]}, not {wanted[key]}" for key in sorted(foreign))
            said = f"a container: the kernel is its host's, and there {words}"
            other = {key: old for key, old in other.items() if key not in foreign}
        changes |= {key: {"old": old, "new": wanted[key]} for key, old in other.items()}
        if __opts__["test"]:
            return _result(name, None if changes else True, changes, said)
        if name in changes:
            path.write_text(text, encoding="utf-8")
            path.chmod(0o644)
        for key in other:
            _set(key, wanted[key])
    except SaltException as error:
        return _result(name, False, {}, str(error))
    return _result(name, True, changes, said)


def clock(name: str) -> Result:
    """
    The unit ``name`` keeps the clock right: it is enabled and runs, and restarts when a state that
    it watches has changes.

    .. code-block:: yaml

        systemd-timesyncd:
          machine.clock: []
    """
    try:
        enabled = _systemctl("is-enabled", name) == "enabled"
        changes: dict[str, Any] = {} if enabled else {"enabled": {"old": False, "new": True}}
        said = "runs"
        if _contained():
            said = "a container: the clock is its host's"
        elif _systemctl("is-active", name) != "active":
            changes["running"] = {"old": False, "new": True}
        if __opts__["test"]:
            return _result(name, None if changes else True, changes, said)
        if "enabled" in changes:
            _systemctl("enable", "--quiet", name, check=True)
        if "running" in changes:
            _systemctl("start", name, check=True)
    except SaltException as error:
        return _result(name, False, {}, str(error))
    return _result(name, True, changes, said)


def mod_watch(name: str, **kwargs: Any) -> Result:
    """Restart the clock's unit ``name``: what it reads has changed."""
    try:
        if _contained():
            return _result(name, True, {}, "a container: the clock is its host's")
        changes = {"running": {"old": True, "new": "restarted"}}
        if __opts__["test"]:
            return _result(name, None, changes, "would restart")
        _systemctl("restart", name, check=True)
    except SaltException as error:
        return _result(name, False, {}, str(error))
    return _result(name, True, changes, "restarted")


def _contained() -> bool:
    """Say whether this machine is a container (systemd-detect-virt(1))."""
    return _run(["systemd-detect-virt", "--container", "--quiet"]).returncode == 0


def _sysctl(key: str) -> str | None:
    try:
        said = PROC_SYS.joinpath(*key.split(".")).read_text(encoding="ascii")
    except OSError:
        return None
    return " ".join(said.split())


def _set(key: str, value: str) -> None:
    try:
        PROC_SYS.joinpath(*key.split(".")).write_text(value, encoding="ascii")
    except OSError as error:
        raise SaltException(f"{key} cannot be set to {value}: {error.strerror}") from None


def _systemctl(verb: str, *words: str, check: bool = False) -> str:
    done = _run(["systemctl", verb, *words])
    if check and done.returncode:
        raise SaltException(f"systemctl {verb} {' '.join(words)}: {done.stderr.strip()}")
    return done.stdout.strip()


def _run(argv: list[str]) -> "subprocess.CompletedProcess[str]":
    try:
        return subprocess.run(argv, capture_output=True, text=True, timeout=SECONDS, check=False)
    except subprocess.TimeoutExpired:
        raise SaltException(f"{' '.join(argv)}: no end in {SECONDS} s") from None
    except OSError as error:
        raise SaltException(f"{argv[0]}: {error.strerror}") from None


def _result(name: str, result: bool | None, changes: dict[str, Any], comment: str) -> Result:
    return {"name": name, "result": result, "changes": changes, "comment": comment}
