"""
One voter, run inside the outside world's network namespace.

    voter.py DOMAIN STEP…

A step is ``resolve``, ``page``, ``page:fr``, ``tally``, ``vote:CODE`` or ``withdraw``; prints
what each step saw as a JSON list.
"""

import json
import socket
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "salt" / "ext" / "utils"))

from voter import Voter


def main() -> None:
    domain, *steps = sys.argv[1:]
    voter = Voter(f"https://{domain}", domain, verify_tls=False)
    seen: list[Any] = []
    for step in steps:
        verb, _, what = step.partition(":")
        if verb == "resolve":
            found = socket.getaddrinfo(domain, 443, socket.AF_INET)
            seen.append(sorted({str(entry[4][0]) for entry in found}))
        elif verb == "page":
            seen.append(voter.call(f"/?lang={what}" if what else "/"))
        elif verb == "tally":
            seen.append(voter.tally())
        elif verb == "vote":
            seen.append(voter.vote(what))
        elif verb == "withdraw":
            seen.append(voter.withdraw())
        else:
            raise SystemExit(f"no such step: {step}")
    print(json.dumps(seen))


main()
