"""
What differs, and the acts that put it right: one list for a plan and for a run.

A state describes what is there, notes each difference with its act, and finishes. With
``test=True`` the same differences are reported and no act is called, so that a plan is exact.
"""

import functools
import inspect
from collections.abc import Callable
from typing import Any, ParamSpec

from salt.exceptions import SaltException

P = ParamSpec("P")


class Steps:
    """The differences of one state, in the order in which they are put right."""

    def __init__(self, name: str, test: bool) -> None:
        self.name = name
        self.test = test
        self.changes: dict[str, dict[str, Any]] = {}
        self._acts: list[Callable[[], Any]] = []

    def differs(self, what: str, old: Any, new: Any, act: Callable[[], Any]) -> None:
        """Note that ``what`` is ``old`` and shall be ``new``; ``act`` makes it so."""
        self.changes[what] = {"old": old, "new": new}
        self._acts.append(act)

    def finish(self, right: str) -> dict[str, Any]:
        """Act unless this is a plan; return Salt's result. ``right`` is said of no difference."""
        if not self.changes:
            return {"name": self.name, "result": True, "changes": {}, "comment": right}
        if self.test:
            comment = f"would change: {', '.join(self.changes)}"
            return {"name": self.name, "result": None, "changes": self.changes, "comment": comment}
        done: dict[str, Any] = {}
        for (what, change), act in zip(self.changes.items(), self._acts, strict=True):
            try:
                act()
            except SaltException as error:
                comment = f"{what}: {error}"
                return {"name": self.name, "result": False, "changes": done, "comment": comment}
            done[what] = change
        comment = f"changed: {', '.join(done)}"
        return {"name": self.name, "result": True, "changes": done, "comment": comment}


def failed(name: str, error: Exception) -> dict[str, Any]:
    """Return Salt's result for a state that could not even describe what is there."""
    return {"name": name, "result": False, "changes": {}, "comment": str(error)}


def guarded(function: Callable[P, dict[str, Any]]) -> Callable[P, dict[str, Any]]:
    """Make a state function return its CloudError (or any SaltException) as a failed result."""

    @functools.wraps(function)
    def state(*args: P.args, **kwargs: P.kwargs) -> dict[str, Any]:
        try:
            return function(*args, **kwargs)
        except SaltException as error:
            return failed(str(args[0] if args else kwargs["name"]), error)

    # Salt reads the arguments that it may pass from the signature.
    state.__signature__ = inspect.signature(function)  # type: ignore[attr-defined]
    return state
