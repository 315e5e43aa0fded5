"""Command line of the build: ``python -m lab.build --help``."""

import argparse
import json
import signal
import sys
from types import FrameType

from lab.build import BuildError, build, compile, everything, kubernetes, toolchain
from lab.build.families import FAMILIES, OLDER, TOOLS


def main() -> None:
    """Build what is named, or everything."""
    parser = argparse.ArgumentParser(
        prog="python -m lab.build", description="Build what the lab runs; nothing is built twice."
    )
    parser.add_argument("family", nargs="*", help="only these programs, no images")
    parser.add_argument(
        "--kubernetes",
        choices=OLDER,
        metavar="VERSION",
        help=f"only what a k3s of this older version starts ({', '.join(OLDER)})",
    )
    parser.add_argument("--list", action="store_true", help="what there is to build, and stop")
    parser.add_argument("--json", action="store_true", help="print every artifact as JSON")
    options = parser.parse_args()
    known = {family.name: family for family in (*FAMILIES, *TOOLS)}
    if unknown := sorted(set(options.family) - known.keys()):
        parser.error(f"no such family: {', '.join(unknown)}; there are {', '.join(known)}")
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        if options.list:
            _list()
        elif options.kubernetes:
            print(kubernetes(options.kubernetes))
        elif options.family:
            everything.compile_all([known[name] for name in options.family], [])
        else:
            made = build()
            if options.json:
                print(json.dumps(made.as_dict(), indent=2))
    except BuildError as error:
        sys.exit(f"build: {error}")
    except KeyboardInterrupt:
        sys.exit("build: interrupted; the next one goes on from here")


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _list() -> None:
    go = toolchain.installed()
    for family in (*FAMILIES, *OLDER.values(), *TOOLS):
        done = go and compile.place(family, go).exists()
        state = "built" if done else f"about {family.seconds} s"
        print(f"{family.name:<18} {family.version:<9} {state:<12} {' '.join(family.programs)}")


main()
