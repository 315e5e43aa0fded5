"""
Measure, and write what was measured to docs/evidence.

    python -m lab.bench              everything
    python -m lab.bench road         nothing → counted vote, beside a bare cluster
    python -m lab.bench machines     salt-cloud's map, beside a classic deployment over SSH
    python -m lab.bench growth       3, 10 and 30 machines against the API alone
    python -m lab.bench app          votes a second, latency, viewers, what a voter costs
"""

import argparse

from lab.bench import app, growth, machines, road

PARTS = {"machines": machines.main, "growth": growth.main, "road": road.main, "app": app.main}


def main() -> None:
    """Run the parts named, or all."""
    parser = argparse.ArgumentParser(
        prog="python -m lab.bench",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], metavar="|".join(PARTS))
    for name in parser.parse_args().parts or PARTS:
        PARTS[name]()


if __name__ == "__main__":
    main()
