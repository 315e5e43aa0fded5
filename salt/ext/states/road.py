"""
The steps of ``orch.up`` that are neither cloud resources nor states of a machine.

Each calls the runner of the same step and tells exactly whether something changed; with
``test=True`` nothing is touched. (``salt.runner`` would report every return as a change.)
"""

from typing import Any

import salt.loader
from salt.exceptions import SaltException

Result = dict[str, Any]

__opts__: dict[str, Any]
__context__: dict[str, Any]
__utils__: dict[str, Any]

# What the master's timers start, under the name by which it holds the lock. It ends by itself.
SCHEDULED = ("heal", "cluster.backup")


def alone(
    name: str, path: str | None = None, who: str | None = None, seconds: float = 600
) -> Result:
    """
    No other walk of the road is under way; none begins before this process ends.

    ``path``: the lock, the operator's if none is given. ``who`` is told to whoever is refused. What
    the master's timers run is waited for, at most ``seconds``, and on the master what ``who``
    began: the operator's lock lets one walk at a time begin, so that one was interrupted and ends
    by itself. Anything else refuses at once.
    """
    if not __opts__["test"]:
        where = path or __utils__["knobs.state_dir"]() / "lock"
        try:
            __utils__["lock.hold"](
                where,
                name,
                who=who,
                wait_for=SCHEDULED,
                seconds=seconds,
                wait_for_own=path is not None,
            )
        except SaltException as error:
            return _result(name, False, {}, str(error))
    return _result(name, True, {}, "")


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
    """
    The Salt master ran the orchestration ``sls``; its states are this state's changes.

    It is told who asked (``pillar["asked"]``), for its lock (salt/states/cluster/alone.sls), and
    which machines the cloud has (``pillar["machines"]``), for what is left of others.
    """
    asked = {
        "asked": {"by": __utils__["lock.me"](), "what": sls},
        "machines": sorted(__utils__["ec2.machines"]()),
    }
    return _run(name, "master.orchestrate", sls=sls, test=bool(__opts__["test"]), pillar=asked)


def proved(name: str) -> Result:
    """A vote is counted behind the domain. A plan casts none."""
    if __opts__["test"]:
        return _result(name, True, {}, "a plan casts no vote")
    return _run(name, "proof.vote")


def _run(name: str, runner: str, **kwargs: Any) -> Result:
    # Straight from the loader: `saltutil.runner` fires events at a master that is not there, and
    # waits two seconds for it each time.
    if "road.runners" not in __context__:
        utils = salt.loader.utils(__opts__)
        __context__["road.runners"] = salt.loader.runner(__opts__, utils=utils)
    runners = __context__["road.runners"]
    try:
        value = runners[runner](**kwargs)
    except SaltException as error:
        return _result(name, False, {}, str(error))
    if isinstance(value, dict):
        return _result(name, value["result"], value["changes"], value["comment"])
    return _result(name, True, {}, str(value))


def _result(name: str, result: bool | None, changes: dict[str, Any], comment: str) -> Result:
    return {"name": name, "result": result, "changes": changes, "comment": comment}
