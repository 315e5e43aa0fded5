"""The command line of k3s. Kept light: ``k3s kubectl`` starts through here."""

import os
import sys
from collections.abc import Sequence

from .build import Build, load

KUBECONFIG = "/etc/rancher/k3s/k3s.yaml"
SOCKET = "/run/k3s/containerd/containerd.sock"
LACKING = {"check-config", "completion", "crictl", "etcd-snapshot"}
USAGE = """\
usage: k3s server|agent [OPTION...]   run a server or an agent (--help lists the options)
       k3s kubectl ARG...             run kubectl with the server's kubeconfig
       k3s ctr ARG...                 run ctr on k3s's containerd
       k3s certificate check|rotate   certificates on disk: until when, and new ones
       k3s token rotate               replace the server token
       k3s secrets-encrypt status     how Secrets are encrypted at rest
       k3s --version"""


def main(argv: Sequence[str]) -> int:
    """Run one command; give the exit status."""
    build = load()
    command, rest = (argv[0] if argv else "--help"), list(argv[1:])
    if command in {"server", "agent"}:
        from . import command as run

        return run.main("server" if command == "server" else "agent", rest, build)
    if command in {"certificate", "token", "secrets-encrypt"}:
        from . import tools

        return tools.main(command, rest)
    if command == "kubectl":
        return _kubectl(rest, build)
    if command == "ctr":
        return _execute("ctr", ["--address", SOCKET, "--namespace", "k8s.io", *rest])
    if command in {"--version", "-v"}:
        print(f"k3s version {build.version} ({build.content})")
        print(f"stand-in: upstream Kubernetes {build.kubernetes} under K3s's contract")
        return 0
    if command in {"--help", "-h", "help"}:
        print(USAGE)
        return 0
    why = "K3s has it, the stand-in does not" if command in LACKING else "unknown command"
    print(f"k3s: {command}: {why}\n{USAGE}", file=sys.stderr)
    return 1


def _kubectl(rest: list[str], build: Build) -> int:
    given = any(argument.startswith("--kubeconfig") for argument in rest)
    if not given and "KUBECONFIG" not in os.environ:
        os.environ["KUBECONFIG"] = KUBECONFIG
        if not os.access(KUBECONFIG, os.R_OK):
            print(
                f"k3s: {KUBECONFIG} cannot be read: is this a server, and are you root?",
                file=sys.stderr,
            )
            return 1
    return _execute(str(build.components / "kubectl"), rest)


def _execute(program: str, arguments: list[str]) -> int:
    try:
        os.execvp(program, [os.path.basename(program), *arguments])  # noqa: S606, PTH119
    except OSError as error:
        print(f"k3s: {program}: {error.strerror}", file=sys.stderr)
        return 1
