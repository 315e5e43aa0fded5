"""
The machines of the platform: those of the map, running, introduced, the master at its address.

.. code-block:: yaml

    machines:
      cloud_machines.present: []

A machine that is not there is made by salt-cloud, all at once; one that was stopped, or whose
creation was interrupted, is finished. One failure fails the state, whatever salt-cloud's exit
code: it reports failed machines inside a success.
"""

from functools import partial
from pathlib import Path
from typing import Any

import aws
import ec2
import firstcontact
import salt.cloud
from steps import Steps, failed, guarded

__opts__: dict[str, Any]
__pillar__: dict[str, Any]

TERMINATED_SECONDS = 300


@guarded
def present(name: str) -> dict[str, Any]:
    """Make sure that every machine of the map runs and is known, and no more than that."""
    platform = __pillar__["platform"]
    fleet = ec2.fleet(platform)
    wanted = [machine for machines in fleet.values() for machine in machines]
    found = {ec2.name_of(item): item for item in ec2.instances(platform)}
    absent = [machine for machine in wanted if machine not in found]
    unfinished = [m for m in wanted if m in found and _state(found[m]) != "running"]
    changes: dict[str, Any] = {m: {"old": None, "new": "running"} for m in absent}
    changes.update({m: {"old": _state(found[m]), "new": "running"} for m in unfinished})
    _address(platform, found, changes)
    extra = sorted(set(found) - set(wanted))
    comment = f"{len(wanted)} machines run" + (f"; not of the map: {extra}" if extra else "")
    if not changes:
        return {"name": name, "result": True, "changes": {}, "comment": comment}
    if __opts__["test"]:
        comment = f"would change: {', '.join(changes)}"
        return {"name": name, "result": None, "changes": changes, "comment": comment}
    done, errors = _make(fleet, absent, [m for m in changes if m not in absent])
    result = {"name": name, "result": True, "changes": {m: changes[m] for m in done}}
    if errors:
        words = "\n".join(f"{machine}: {error}" for machine, error in sorted(errors.items()))
        return {**failed(name, aws.CloudError(words)), "changes": result["changes"]}
    return {**result, "comment": comment}


@guarded
def absent(name: str) -> dict[str, Any]:
    """Terminate every machine of the platform, of the map or not, and wait until they are."""
    platform = __pillar__["platform"]
    steps = Steps(name, __opts__["test"])
    found = ec2.present(platform)
    for item in found:
        what = f"{ec2.name_of(item)} ({item['InstanceId']})"
        steps.differs(what, item["State"]["Name"], None, partial(_terminated, what, item))
    if found and not steps.test:
        # All at once: each step then waits for one.
        ids = [item["InstanceId"] for item in found]
        aws.call(platform, "ec2", "terminate_instances", InstanceIds=ids)
    return steps.finish(f"no machine of {platform['name']} is there")


def _terminated(what: str, item: dict[str, Any]) -> None:
    def probe() -> tuple[bool | None, str]:
        try:
            state = ec2.by_id(__pillar__["platform"], item["InstanceId"])["State"]["Name"]
        except aws.CloudError as error:
            if aws.code(error) != "InvalidInstanceID.NotFound":
                raise
            return True, "gone"
        return (True if state == "terminated" else None), f"it is {state}"

    aws.wait(f"{what} to be terminated", TERMINATED_SECONDS, probe)


def _state(item: dict[str, Any]) -> str:
    """Return the machine's state; ``unknown`` if it runs but was never introduced."""
    state = str(item["State"]["Name"])
    known = ec2.tag(item, firstcontact.INTRODUCED) == item["InstanceId"]
    return state if known or state != "running" else "unknown"


def _address(
    platform: dict[str, Any], found: dict[str, dict[str, Any]], changes: dict[str, Any]
) -> None:
    """Note as a change that the master has lost its elastic address."""
    master = f"{platform['name']}-master"
    if master not in found or master in changes:
        return
    address = ec2.address(platform, master)
    if not ec2.has_address(found[master], address):
        ip = address["PublicIp"] if address else None
        changes[master] = {"old": found[master].get("PublicIpAddress"), "new": ip}


def _make(
    fleet: dict[str, dict[str, dict[str, Any]]], absent: list[str], others: list[str]
) -> tuple[list[str], dict[str, str]]:
    """Create ``absent`` in parallel and finish ``others``; return the done ones and the errors."""
    client = salt.cloud.CloudClient(str(Path(__opts__["config_dir"]) / "cloud"))
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
            profile: {machine: {} for machine in machines if machine in absent}
            for profile, machines in fleet.items()
        }
        wanted = {profile: machines for profile, machines in data.items() if machines}
        answers.update(client.map_run(map_data=wanted, parallel=True) or {})
    done, errors = [], {}
    for machine in [*others, *absent]:
        answer = answers.get(machine)
        if isinstance(answer, dict) and "id" in answer and "Error" not in answer:
            done.append(machine)
        else:
            said = answer.get("Error") if isinstance(answer, dict) else answer
            errors[machine] = str(
                said
                or "salt-cloud did not say why; see .state/root/var/cache/salt/master/proc/log/salt"
            )
    return done, errors
