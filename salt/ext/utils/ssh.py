"""
The OpenSSH client as the operator's machine uses it: one configuration file, keys pinned,
one connection kept for a while, never a question asked.

The file is ``.state/ssh/config``; ``ssh -F .state/ssh/config f1-master`` works by hand as well.
"""

import os
import shlex
import subprocess
import tempfile
from pathlib import Path

import aws
import knobs

USER = "admin"
# Exit code of OpenSSH when it is the connection that failed (ssh(1)).
_CONNECTION = 255

_CONFIG = """\
# Written by salt/ext/utils/ssh.py.
Host {name}
  HostName {address}
  HostKeyAlias {instance}
  User {user}
  IdentityFile {state}/ssh/id_ed25519
  IdentitiesOnly yes
  BatchMode yes
  StrictHostKeyChecking yes
  UserKnownHostsFile {state}/known_hosts
  GlobalKnownHostsFile /dev/null
  ConnectTimeout 5
  ServerAliveInterval 5
  ServerAliveCountMax 6
  LogLevel ERROR
  ControlMaster auto
  ControlPath {short}/ssh/{instance}
  ControlPersist 15
"""


class Unreachable(aws.CloudError):
    """The connection failed, not the command: worth another attempt."""


class CommandFailed(aws.CloudError):
    """The command ran and failed; ``stdout`` is what it said all the same."""

    def __init__(self, message: str, stdout: bytes = b"") -> None:
        super().__init__(message)
        self.stdout = stdout.decode(errors="replace")


def config() -> Path:
    """Return the path of the client's configuration file."""
    return knobs.state_dir() / "ssh" / "config"


def configure(name: str, address: str, instance_id: str) -> None:
    """Write the configuration with which ``name`` is reached at ``address``."""
    state = knobs.state_dir().resolve()
    # A socket's path has room for 107 bytes: short where it can be, relative to the root.
    short = state.relative_to(knobs.ROOT) if state.is_relative_to(knobs.ROOT) else state
    text = _CONFIG.format(
        name=name, address=address, user=USER, state=state, short=short, instance=instance_id
    )
    if config().exists() and config().read_text(encoding="utf-8") == text:
        return
    config().parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    new = config().with_name(f"config.{os.getpid()}")
    new.write_text(text, encoding="utf-8")
    new.replace(config())


def command(name: str, argv: list[str]) -> list[str]:
    """Return the local command line that runs ``argv`` on ``name``."""
    return ["ssh", "-F", str(config()), name, "--", shlex.join(argv)]


def run(
    name: str,
    argv: list[str],
    *,
    stdin: str | bytes = b"",
    seconds: float = 60,
    show: bool = False,
) -> str:
    """
    Run ``argv`` on ``name`` and return what it says; with ``show`` its stderr is ours, live.

    Raises Unreachable if the connection failed, CloudError if the command did or took longer
    than ``seconds``; neither ever holds what went in by ``stdin``.
    """
    if show:
        # The connection that stays behind must not hold our stderr: whoever reads it would wait.
        run(name, ["true"])
    data = stdin.encode() if isinstance(stdin, str) else stdin
    words = shlex.join(argv).splitlines()[0][:120]
    # A file, not a pipe, for the same reason.
    with tempfile.TemporaryFile() as complaints:
        try:
            done = subprocess.run(
                command(name, argv),
                input=data,
                stdout=subprocess.PIPE,
                stderr=None if show else complaints,
                timeout=seconds,
                cwd=knobs.ROOT,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise aws.CloudError(f"{name}: {words}: no end in {seconds:g} s") from error
        except FileNotFoundError as error:
            raise aws.CloudError("ssh is not installed; install openssh-client") from error
        complaints.seek(0)
        said = complaints.read().decode(errors="replace").strip()[-2000:]
    if done.returncode == _CONNECTION:
        raise Unreachable(f"ssh to {name} failed: {said or 'no connection'}")
    if done.returncode:
        last = said or done.stdout.decode(errors="replace").strip()[-2000:]
        raise CommandFailed(f"{name}: {words} ended with {done.returncode}: {last}", done.stdout)
    return done.stdout.decode(errors="replace")
