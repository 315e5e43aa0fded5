"""``k3s server`` and ``k3s agent`` as processes: read, check, start, stay, end."""

import os
import socket
from collections.abc import Sequence
from pathlib import Path

from . import agent, config, host, join, node, server, settings, tokens
from .build import Build
from .options import Role, options_of
from .supervisor import (
    ChildDied,
    CommandFailed,
    Stopped,
    Supervisor,
    TimedOut,
    notify,
    say,
)

LOGS = Path("/var/log/k3s")
CHILDREN = Path("/run/k3s/children.json")
FAILURES = (
    ChildDied,
    CommandFailed,
    TimedOut,
    tokens.TokenError,
    join.JoinRefused,
    node.NodeRefused,
    OSError,
)


def usage(role: Role) -> str:
    """The options of a role, one line each."""
    lines = [f"usage: k3s {role} [OPTION...]"]
    for option in options_of(role).values():
        short = f", -{option.short}" if option.short else ""
        env = f" [${option.env}]" if option.env else ""
        default = f" (default {option.default})" if option.default else ""
        lines.append(f"  --{option.name}{short}: {option.what}{default}{env}")
    return "\n".join(lines)


def main(role: Role, argv: Sequence[str], build: Build) -> int:
    """Run a server or an agent until it is told to end, or something of it does.

    Returns:
        0 when asked to end, 1 after an error, which is told on stderr.
    """
    if "--help" in argv or "-h" in argv:
        print(usage(role))
        return 0
    try:
        given, problems = config.read(role, argv, os.environ)
        options = settings.resolve(
            role, given, problems, socket.gethostname().partition(".")[0], host.address()
        )
        names = host.NODE_COMPONENTS + (host.SERVER_COMPONENTS if role == "server" else ())
        host.check(build.components, names)
        held = host.lock(who=f"k3s {role}")
    except config.ConfigError as error:
        for problem in error.problems:
            say(problem)
        return 1
    except host.Locked as error:
        say(str(error))
        return 1
    with held:
        return _run(role, options, build)


def _run(role: Role, options: settings.Settings, build: Build) -> int:
    supervisor = Supervisor(LOGS, CHILDREN)
    supervisor.catch_signals()
    say(f"starting k3s {role} {build.version} ({build.content}, stand-in)")
    try:
        supervisor.end_strays()
        host.tune()
        if role == "server":
            server.start(supervisor, options, build.components, build.kubernetes)
        else:
            agent.start(supervisor, options, build.components)
        notify("READY=1\nSTATUS=running")
        say(f"k3s {role} is up and running")
        supervisor.watch()
    except Stopped:
        say("asked to end")
        return 0
    except config.ConfigError as error:
        for problem in error.problems:
            say(problem)
        return 1
    except FAILURES as error:
        say(str(error))
        return 1
    finally:
        notify("STOPPING=1")
        supervisor.end(last=server.LAST if role == "server" else agent.LAST)
    return 1
