"""
May the platform be removed? Asked before anything is: removal cannot be undone. And what machines
leave that would keep the network from going.

.. code-block:: yaml

    may be removed:
      cloud_removal.allowed:
        - name: f1
        - confirm: {{ pillar.get('confirm') | json }}

    interfaces:
      cloud_removal.interfaces_absent:
        - name: f1

What is ours, and what keeps the VPC from going: utils ``belongings``.
"""

from functools import partial
from typing import Any

import aws
import belongings
import machine
from steps import Steps, failed, guarded

__opts__: dict[str, Any]
__pillar__: dict[str, Any]


@guarded
def allowed(name: str, confirm: str | None) -> dict[str, Any]:
    """
    Fail unless ``confirm`` is the platform's ``name``, nobody else's things are in its VPC, and no
    machine of it is protected. What would be removed, or what is in the way, is named.

    A plan needs no confirmation.
    """
    platform = __pillar__["platform"]
    ours, theirs = belongings.inside(platform)
    if theirs:
        raise aws.CloudError(
            f"in the VPC of {name} there is what it did not make: {', '.join(theirs)}; "
            "nothing was removed; remove these or move them, then run it again"
        )
    protected = belongings.protected(platform)
    if protected:
        raise aws.CloudError(
            f"protected from termination: {', '.join(protected)}; nothing was removed; to lift "
            f"that: salt-cloud -a disable_term_protect {' '.join(protected)}"
        )
    if confirm != name and not __opts__["test"]:
        there = [*ours, *belongings.around(platform), f"bucket {aws.bucket(platform)}"]
        said = f" (CONFIRM is {confirm!r})" if confirm else ""
        words = (
            f"this would remove for good, if it is there: {', '.join(there)}, the DNS record, the "
            f"operator's key; nothing was removed{said}; to do so type: "
            f"make down CLOUD=aws CONFIRM={name}"
        )
        return failed(name, aws.CloudError(words))
    comment = f"nothing in the VPC of {name} belongs to anybody else"
    return {"name": name, "result": True, "changes": {}, "comment": comment}


@guarded
def interfaces_absent(name: str) -> dict[str, Any]:
    """Remove the interfaces of the platform ``name`` that its machines leave when they go."""
    platform = __pillar__["platform"]
    steps = Steps(name, __opts__["test"])
    for ident in belongings.left_by_machines(platform):
        act = partial(machine.remove_interface, platform, ident)
        steps.differs(f"interface {ident}", "there", None, act)
    return steps.finish("machines have left no interface")
