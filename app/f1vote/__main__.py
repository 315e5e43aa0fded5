"""
``python -m f1vote serve`` serves until SIGTERM, in one process: replicas are the business of
Kubernetes. Every other command is in cli.py.
"""

import os
import signal
import sys

# Before anything else is imported, which takes a second: nothing is served yet that could be lost.
if sys.argv[1:] == ["serve"]:
    for _number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(_number, lambda *_: os._exit(0))

from f1vote import logs, settings
from f1vote.problems import Problems


def main() -> int:
    """Return the exit code: 0 after SIGTERM, 2 if what the app was given is wrong."""
    if sys.argv[1:] != ["serve"]:
        from f1vote import cli

        return cli.main(sys.argv[1:])
    from f1vote import server

    logs.setup()
    try:
        server.run(settings.load(os.environ))
    except Problems as problems:
        print("f1vote cannot start:", *problems.lines, sep="\n  ", file=sys.stderr)
        return 2
    finally:
        # The interpreter's end would restore the default: a second signal would kill.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    return 0


if __name__ == "__main__":
    sys.exit(main())
