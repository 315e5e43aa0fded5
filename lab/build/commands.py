"""Runs the commands of a build: output to a log, and all of them ended when one fails."""

import contextlib
import os
import shlex
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from lab.build.errors import BuildError

TAIL = 20  # lines of a failed command's output

stopped = threading.Event()
_running: set[subprocess.Popen[str]] = set()


def stop() -> None:
    """End what runs and let nothing new begin: somebody else failed, or the user had enough."""
    stopped.set()
    for process in list(_running):
        _end(process, signal.SIGTERM)


def _end(process: subprocess.Popen[str], how: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):  # it ended by itself
        os.killpg(process.pid, how)  # with its children: debootstrap's dpkg, go's compilers


def run(
    name: str,
    command: Sequence[str | Path],
    log: Path,
    folder: Path | None = None,
    env: dict[str, str] | None = None,
    each: Callable[[], None] = lambda: None,
) -> list[str]:
    """
    Run a command; return the lines of its output.

    Args:
        name: of what is built, for messages.
        log: where the output goes, as it comes.
        each: called after each line.

    Raises:
        BuildError: it failed; the text has the command, the last lines of the output and the log.
    """
    if stopped.is_set():
        raise BuildError(f"{name}: not begun, the build was stopped")
    words = [str(word) for word in command]
    where = folder or Path.cwd()
    output = []
    process = subprocess.Popen(
        words,
        cwd=where,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    _running.add(process)
    try:
        with log.open("w", buffering=1) as out:
            out.write(f"{time.strftime('%F %T')} in {where}: {shlex.join(words)}\n")
            for line in process.stdout or ():
                out.write(line)
                output.append(line.rstrip("\n"))
                each()
        process.wait()
    finally:
        if process.poll() is None:
            _end(process, signal.SIGKILL)
            process.wait()
        _running.discard(process)
    if process.returncode:
        tail = "\n".join(f"    {line}" for line in output[-TAIL:])
        raise BuildError(
            f"{name}: this failed (exit code {process.returncode}):\n  {shlex.join(words)}\n"
            f"  in {where}; it ended with\n{tail}\n  the whole output: {log}"
        )
    return output
