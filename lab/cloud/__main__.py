"""python -m lab.cloud: the lab's cloud by hand."""

import argparse
import json
import sys
from pathlib import Path

from lab import cloud
from lab.cloud import config as configuration
from lab.cloud import requests
from lab.cloud.engine import EngineError
from lab.cloud.lifecycle import running_config
from lab.machine.image import ImageError


def _config(file: Path | None) -> cloud.Config:
    return configuration.load(file) if file else running_config() or cloud.Config()


def _show(status: dict[str, object]) -> None:
    for key, value in status.items():
        if isinstance(value, list):
            print(f"{key}:")
            for item in value:
                words = item.values() if isinstance(item, dict) else [item]
                print("  " + "  ".join(str(w) for w in words if w is not None))
        else:
            print(f"{key}: {value}")


def main() -> int:
    """Run one command; the exit code says whether it worked."""
    parser = argparse.ArgumentParser(prog="python -m lab.cloud", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    start = commands.add_parser("start", help="start it, or make the running one be as configured")
    start.add_argument("--config", type=Path, help="YAML or JSON file (default: as last time)")
    commands.add_parser("serve", help="the process itself, in the foreground")
    commands.add_parser("stop", help="stop the process; machines run on")
    commands.add_parser("down", help="remove everything it made")
    status = commands.add_parser("status", help="what runs")
    status.add_argument("--json", action="store_true")
    asked = commands.add_parser("requests", help="what was asked of the API, one JSON line each")
    asked.add_argument("--since", type=float, default=0.0, help="seconds since 1970")
    outside = commands.add_parser("outside", help="run a command as a voter: outside -- curl …")
    outside.add_argument("argv", nargs="+")
    args = parser.parse_args()
    try:
        return _run(args)
    except (cloud.LabError, cloud.ConfigError, EngineError, ImageError) as error:
        print(error, file=sys.stderr)
        return 1


def _run(args: argparse.Namespace) -> int:
    if args.command == "serve":
        from lab.cloud import server  # moto takes a second to import: only here

        server.main(_config(None), configuration.home())
    elif args.command == "start":
        config = _config(args.config)
        problems = cloud.preflight(config)
        if problems:
            raise cloud.LabError("\n".join(problems))
        cloud.start(config)
    elif args.command == "stop":
        cloud.stop()
    elif args.command == "down":
        report = cloud.down()
        _show({key: value for key, value in report.items() if value})
    elif args.command == "requests":
        for line in requests.read(configuration.home(), args.since):
            print(json.dumps(line))
    elif args.command == "outside":
        return cloud.outside(args.argv)
    else:
        found = cloud.status()
        print(json.dumps(found, indent=1)) if args.json else _show(found)
        return 0 if found["running"] else 3
    return 0


if __name__ == "__main__":
    sys.exit(main())
