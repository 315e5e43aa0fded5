"""
The stages of a long operation: written as one JSON line each, drawn as one line each.

An event is ``{"at": <unix seconds>, "kind": "begin" | "end", "stage": str, "text": str,
"seconds": float | null}``. They go to the file named by ``F1_EVENTS`` (the operator's machine
sets it; the master has none and only draws).
"""

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

Event = dict[str, Any]

# Begin times by stage: one orchestration runs in one process.
_began: dict[str, float] = {}


def begin(stage: str, text: str) -> Event:
    """Record that ``stage`` begins; ``text`` says what it is about to do."""
    _began[stage] = time.monotonic()
    return _emit({"kind": "begin", "stage": stage, "text": text, "seconds": None})


def end(stage: str, text: str) -> Event:
    """Record that ``stage`` is done; its seconds count from its ``begin`` in this process."""
    began = _began.pop(stage, None)
    seconds = None if began is None else round(time.monotonic() - began, 1)
    return _emit({"kind": "end", "stage": stage, "text": text, "seconds": seconds})


def _emit(event: Event) -> Event:
    event = {"at": round(time.time(), 2), **event}
    path = os.environ.get("F1_EVENTS")
    if path:
        with Path(path).open("a", encoding="utf-8") as file:
            file.write(json.dumps(event) + "\n")
    print(draw(event), file=sys.stderr, flush=True)
    return event


def draw(event: Event) -> str:
    """Return the one line that shows ``event`` to a person."""
    if event["kind"] == "begin":
        return f"  ▸ {event['stage']:<10} {event['text']}"
    seconds = "" if event["seconds"] is None else f"{event['seconds']:7.1f} s  "
    return f"  ✓ {event['stage']:<10} {seconds}{event['text']}".rstrip()


def read(path: str | os.PathLike[str]) -> list[Event]:
    """Return the events of the file ``path``, oldest first; none if there is no such file."""
    file = Path(path)
    if not file.exists():
        return []
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
