"""
The steps of ``orch.up`` that are neither cloud resources nor states of a machine.

Each calls the runner of the same step and tells exactly whether something changed; with
``test=True`` nothing is touched. (``salt.runner`` would report every return as a change.)
"""

from typing import Any

Result = dict[str, Any]

__opts__: dict[str, Any]
__salt__: dict[str, Any]


def checked(name: str) -> Result:
    """Everything that can be known to be wrong before anything is touched is right."""
    return _run(name, "check.everything")


def imaged(name: str) -> Result:
    """The registry holds the app's image, the pillar its digest."""
    return _run(name, "image.present", test=bool(__opts__["test"]))


def pushed(name: str) -> Result:
    """The Salt master holds this tree and this pillar."""
    return _run(name, "master.push", test=bool(__opts__["test"]))


def orchestrated(name: str, sls: str) -> Result:
    """The Salt master ran the orchestration ``sls``; its states are this state's changes."""
    return _run(name, "master.orchestrate", sls=sls, test=bool(__opts__["test"]))


def proved(name: str) -> Result:
    """A vote is counted behind the domain. A plan casts none."""
    if __opts__["test"]:
        return _result(name, True, {}, "a plan casts no vote")
    return _run(name, "proof.vote")


def _run(name: str, runner: str, **kwargs: Any) -> Result:
    out = __salt__["saltutil.runner"](runner, full_return=True, **kwargs)
    value = out.get("return")
    if not out.get("success", False):
        return _result(name, False, {}, _cause(value))
    if isinstance(value, dict):
        return _result(name, value["result"], value["changes"], value["comment"])
    return _result(name, True, {}, str(value))


def _cause(value: Any) -> str:
    """The words of the exception, without the trace that Salt's runner puts around them."""
    text = str(value)
    marker = "Traceback (most recent call last):"
    if marker not in text:
        return text
    last = text.rsplit("\n  File ", 1)[-1].splitlines()
    # After the source line of the innermost frame comes `Type: words`, over as many lines as need be.
    words = "\n".join(line for line in last[2:] if set(line.strip()) - {"^", "~"})
    return words.partition(": ")[2] or words


def _result(name: str, result: bool | None, changes: dict[str, Any], comment: str) -> Result:
    return {"name": name, "result": result, "changes": changes, "comment": comment}
