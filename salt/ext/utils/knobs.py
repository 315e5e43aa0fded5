"""
The compiled pillar, for whoever runs on the operator's machine: runners, the cloud driver.

States have ``__pillar__``; a runner and salt-cloud's driver have not. This gives them the same
values, rendered and merged by Salt itself, so that no knob is ever written down twice.
"""

import os
from pathlib import Path
from typing import Any

import salt.pillar
from salt.exceptions import SaltException

# Set by Salt's loader; absent when imported as a plain module.
__opts__: dict[str, Any]

ROOT = Path(__file__).resolve().parents[3]

_compiled: dict[tuple[str, ...], dict[str, Any]] = {}


def state_dir() -> Path:
    """Return the folder of everything that the operator's machine remembers (``.state``)."""
    return Path(os.environ.get("F1_STATE") or ROOT / ".state")


def load(opts: dict[str, Any] | None = None) -> dict[str, Any]:
    """
    Return the pillar of this machine: ``platform`` (the knobs) and ``versions`` (the lock).

    ``opts`` are Salt's options; those of the loader when called as ``__utils__["knobs.load"]``.
    Compiled once a process. Raises SaltException that names every file that does not render.
    """
    opts = __opts__ if opts is None else opts
    key = tuple(str(root) for roots in opts["pillar_roots"].values() for root in roots)
    if key not in _compiled:
        local = {**opts, "file_client": "local", "pillar_cache": False, "grains": {}}
        pillar = salt.pillar.Pillar(local, {}, local["id"], "base")
        try:
            compiled = pillar.compile_pillar()
        finally:
            pillar.destroy()
        if compiled.get("_errors"):
            raise SaltException("\n".join(["the pillar does not render:", *compiled["_errors"]]))
        if "platform" not in compiled:
            raise SaltException(
                f"the pillar has no `platform` (looked in {', '.join(key)}); "
                "run from the repository's root"
            )
        _compiled[key] = compiled
    return _compiled[key]
