"""
The machines of the platform: those of the map, running, introduced, and as their profile says.

.. code-block:: yaml

    machines:
      cloud_machines.present: []

What differs of a machine and can be changed in place is changed (tags, groups, forwarding,
metadata service, address, …: utils ``drift.differences``); what only a new machine can have is
told in the comment. A machine that is not there is made by salt-cloud, all at once; one that was
stopped, or whose creation was interrupted, is finished. One failure fails the state, whatever
salt-cloud's exit code: it reports failed machines inside a success.
"""

from functools import partial
from pathlib import Path
from typing import Any

import aws
import drift
import ec2
import firstcontact
import interrupts
import launch
import machine as machine_utils
import profiles
import salt.cloud
import salt.config
from salt.exceptions import SaltException
from steps import Steps, failed, guarded

__opts__: dict[str, Any]
__pillar__: dict[str, Any]


@guarded
def present(name: str) -> dict[str, Any]:
    """
    Make sure that every machine of the map runs, is known and is as its profile says.

    A plan (``test=True``) changes nothing. Each failure is told with its machine; the others go on.
    """
    platform = __pillar__["platform"]
    fleet = ec2.fleet(platform)
    specs = _specs(platform, fleet)
    found = _found(platform)
    absent = [machine for machine in specs if machine not in found]
    states = {m: _state(found[m]) for m in specs if m in found}
    unfinished = [machine for machine, state in states.items() if state != "running"]
    changes: dict[str, Any] = {m: {"old": None, "new": "running"} for m in absent}
    changes.update({m: {"old": states[m], "new": "running"} for m in unfinished})

    repairs: dict[str, drift.Difference] = {}
    lasting: list[str] = []
    look = launch.Lookup(platform, [found[machine] for machine in states])
    for machine in states:
        for each in drift.differences(platform, specs[machine], found[machine], look):
            if each.act:
                repairs[f"{machine} {each.what}"] = each
            else:
                lasting.append(f"{machine}: {each.what} is {each.old}, not {each.new}")
    changes.update({what: {"old": d.old, "new": d.new} for what, d in repairs.items()})

    extra = sorted(set(found) - set(specs))
    remarks = [f"not of the map: {', '.join(extra)}"] if extra else []
    if lasting:
        remarks.append(
            f"only a new machine can have it otherwise (salt-cloud -d): {', '.join(lasting)}"
        )
    comment = "; ".join([f"{len(specs)} machines run", *remarks])
    if not changes:
        return {"name": name, "result": True, "changes": {}, "comment": comment}
    if __opts__["test"]:
        comment = "; ".join([f"would change: {', '.join(changes)}", *remarks])
        return {"name": name, "result": None, "changes": changes, "comment": comment}

    # Made first: much of a machine can be changed only while it runs (its address, for one).
    errors = _make(fleet, absent, unfinished)
    missed = set(errors)
    errors.update(
        _repair({what: d for what, d in repairs.items() if what.partition(" ")[0] not in missed})
    )
    done = {
        what: change
        for what, change in changes.items()
        if what not in errors and what.partition(" ")[0] not in missed
    }
    if errors:
        words = "\n".join(f"{what}: {error}" for what, error in sorted(errors.items()))
        return {**failed(name, aws.CloudError(words)), "changes": done}
    return {"name": name, "result": True, "changes": done, "comment": comment}


@guarded
def released(name: str) -> dict[str, Any]:
    """
    Terminate the workers that are no longer of the map, with all that was made with them.

    Their nodes must have left the cluster by now (``fleet.shrunk``, which the master runs).
    """
    platform = __pillar__["platform"]
    steps = Steps(name, __opts__["test"])
    wanted = {machine for machines in ec2.fleet(platform).values() for machine in machines}
    for machine, item in sorted(_found(platform).items()):
        if machine not in wanted:
            end = partial(machine_utils.destroy, platform, machine, [])
            steps.differs(machine, item["State"]["Name"], None, end)
    return steps.finish("no machine is too many")


@guarded
def absent(name: str) -> dict[str, Any]:
    """Terminate every machine of the platform, of the map or not, and wait until they are."""
    platform = __pillar__["platform"]
    steps = Steps(name, __opts__["test"])
    found = ec2.present(platform)
    for item in found:
        what = f"{ec2.name_of(item)} ({item['InstanceId']})"
        steps.differs(what, item["State"]["Name"], None, partial(_terminated, item))
    if found and not steps.test:
        # All at once: each step then waits for one.
        ids = [item["InstanceId"] for item in found]
        aws.call(platform, "ec2", "terminate_instances", InstanceIds=ids)
    return steps.finish(f"no machine of {platform['name']} is there")


def _terminated(item: dict[str, Any]) -> None:
    launch.terminated(__pillar__["platform"], ec2.name_of(item), item["InstanceId"])


def _config() -> str:
    return str(Path(__opts__["config_dir"]) / "cloud")


def _specs(
    platform: dict[str, Any], fleet: dict[str, dict[str, dict[str, Any]]]
) -> dict[str, profiles.Spec]:
    """Return what is wanted of every machine of the map, or CloudError with all that is wrong."""
    known = salt.config.cloud_config(_config())["profiles"]
    specs: dict[str, profiles.Spec] = {}
    # Machines of one profile are wrong in the same way, which is said once.
    errors: dict[str, None] = {}
    for profile, machines in fleet.items():
        for machine, values in machines.items():
            wanted = {**known.get(profile, {}), **values, "profile": profile}
            try:
                specs[machine] = profiles.spec(platform, machine, wanted)
            except aws.CloudError as error:
                errors.update(dict.fromkeys(str(error).splitlines()))
    if errors:
        raise aws.CloudError("\n".join(errors))
    return specs


def _found(platform: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the living machines by name, or CloudError that names those that are there twice."""
    found: dict[str, list[dict[str, Any]]] = {}
    for item in ec2.instances(platform):
        found.setdefault(ec2.name_of(item), []).append(item)
    singles = {name: ec2.single(name, items) for name, items in found.items()}
    return {name: item for name, item in singles.items() if item}


def _state(item: dict[str, Any]) -> str:
    """Return the machine's state; ``unknown`` if it runs but was never introduced."""
    state = str(item["State"]["Name"])
    known = ec2.tag(item, firstcontact.INTRODUCED) == item["InstanceId"]
    return state if known or state != "running" else "unknown"


def _repair(repairs: dict[str, drift.Difference]) -> dict[str, str]:
    """Put each difference right; return the errors of those that cannot be."""
    errors: dict[str, str] = {}
    for what, difference in repairs.items():
        try:
            if difference.act:
                difference.act()
        except SaltException as error:
            errors[what] = str(error)
    return errors


def _make(
    fleet: dict[str, dict[str, dict[str, Any]]], absent: list[str], others: list[str]
) -> dict[str, str]:
    """Create ``absent`` in parallel and finish ``others``; return the errors by machine."""
    if not absent and not others:
        return {}
    client = salt.cloud.CloudClient(_config())
    answers: dict[str, Any] = {}
    for machine in others:
        answer = client.action(fun="introduce", names=[machine])
        answers[machine] = next(
            (
                machines[machine]
                for drivers in answer.values()
                if isinstance(drivers, dict)
                for machines in drivers.values()
                if isinstance(machines, dict) and machine in machines
            ),
            {"Error": str(answer)},
        )
    if absent:
        master = next(iter(fleet["k3s-master"]))
        if master in absent:
            # Workers must not meet what was known of a master that is gone.
            firstcontact.forget(__pillar__["platform"], master)
        data: dict[str, dict[str, Any]] = {
            profile: {m: values for m, values in machines.items() if m in absent}
            for profile, machines in fleet.items()
        }
        wanted = {profile: machines for profile, machines in data.items() if machines}
        with interrupts.parent_only():
            answers.update(client.map_run(map_data=wanted, parallel=True) or {})
    errors: dict[str, str] = {}
    for machine in [*others, *absent]:
        answer = answers.get(machine)
        if not isinstance(answer, dict) or "id" not in answer or "Error" in answer:
            said = answer.get("Error") if isinstance(answer, dict) else answer
            errors[machine] = str(
                said
                or "salt-cloud did not say why; see .state/root/var/cache/salt/master/proc/log/salt"
            )
    return errors
