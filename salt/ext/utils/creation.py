"""
The creation of a machine from its launch to the point where Salt runs on it; one that fails goes.
"""

import logging
from datetime import UTC, datetime, timedelta
from typing import Any

import aws
import drift
import ec2
import environment
import firstcontact
import launch
import machine
import userdata
from profiles import Spec

log = logging.getLogger(__name__)

# A machine younger than this that cannot be introduced is one whose creation failed.
_NEW = timedelta(hours=1)


def create(platform: dict[str, Any], spec: Spec) -> dict[str, Any]:
    """
    Launch the machine and finish it; one that exists is only finished. Raises CloudError.

    Returned is all that is known of it, with what came otherwise than asked (``note``).
    """
    found = ec2.instance(platform, spec.name)
    if found is not None:
        return finish(platform, spec, found)
    look = launch.Lookup(platform)
    item, said = _launched(platform, spec, look)
    made = finish(platform, spec, item, look)
    return {**made, "note": said} if said else made


def _launched(
    platform: dict[str, Any], spec: Spec, look: launch.Lookup
) -> tuple[dict[str, Any], str | None]:
    """Launch the machine; return its instance and what came otherwise than asked."""
    ids = launch.resolve(platform, spec, look)
    built = environment.build()
    key = environment.publish(platform, built)
    firstcontact.forget(platform, spec.name)
    text = userdata.render(
        platform,
        spec.name,
        spec.role,
        {"url": firstcontact.object_url(platform, key), "sha256": built.sha256},
        spec.user_data,
    )
    return launch.run(platform, spec, ids, text)


def finish(
    platform: dict[str, Any],
    spec: Spec,
    item: dict[str, Any],
    look: launch.Lookup | None = None,
) -> dict[str, Any]:
    """
    Bring an existing machine to where a creation ends; say whether it had been there before.

    A new machine that never got there and does not now is removed: it would fail in every run.
    (An interrupted run is no failure: what it leaves is finished by the next.) One that is older
    may only have lost its tag, and is left to the operator.
    """
    instance_id = item["InstanceId"]
    is_known = ec2.tag(item, firstcontact.INTRODUCED) == instance_id
    try:
        item = _running(platform, spec.name, item)
        found = drift.differences(platform, spec, item, look)
        if not is_known:
            # Part of its creation, and needed by the first contact: its address, its forwarding.
            for difference in found:
                if difference.act:
                    difference.act()
            found = [each for each in found if not each.act]
            firstcontact.introduce(platform, spec.name, spec.role, instance_id)
    except Exception as error:
        if is_known:
            raise
        raise aws.CloudError(_removed(platform, spec, item, error)) from error
    answer = {**ec2.full(ec2.by_id(platform, instance_id)), "existed": is_known}
    if found:
        answer["differences"] = {each.what: {"old": each.old, "new": each.new} for each in found}
        words = ", ".join(f"{each.what} is {each.old}, not {each.new}" for each in found)
        log.warning("%s differs from its profile and was left so: %s", spec.name, words)
    return answer


def _removed(platform: dict[str, Any], spec: Spec, item: dict[str, Any], error: Exception) -> str:
    """Remove the failed machine unless it is old or to be kept; return the words of its error."""
    instance_id = item["InstanceId"]
    what = f"{spec.name} ({instance_id})"
    born = _born(item)
    if datetime.now(UTC) - born > _NEW:
        return (
            f"{what} is of {born:%Y-%m-%d %H:%M} UTC and has no tag {firstcontact.INTRODUCED}; it "
            f"could not be introduced anew and was left as it is: {error}; look at it, or replace "
            f"it (salt-cloud -d {spec.name})"
        )
    if spec.keep_failed:
        return f"{what} failed and is kept; remove it with salt-cloud -d {spec.name}: {error}"
    try:
        gone = launch.remove(platform, spec, instance_id)
    except aws.CloudError as refused:
        return (
            f"{what} failed: {error}; and it could not be removed, so that it still costs: "
            f"{refused}; remove it with salt-cloud -d {spec.name}"
        )
    return f"{what} was terminated again (removed: {', '.join(gone)}): {error}"


def _born(item: dict[str, Any]) -> datetime:
    """Return when the machine was made: a start renews its launch time, its first disk tells."""
    disks = [device.get("Ebs", {}) for device in item.get("BlockDeviceMappings", [])]
    times = [item["LaunchTime"], *(disk["AttachTime"] for disk in disks if "AttachTime" in disk)]
    return min(times)


def _running(platform: dict[str, Any], name: str, item: dict[str, Any]) -> dict[str, Any]:
    """Start the machine if it is not running; return it as it then is."""
    instance_id, state = item["InstanceId"], item["State"]["Name"]
    if state == "stopping":
        machine.until(platform, name, instance_id, "stopped")
        state = "stopped"
    if state == "stopped":
        aws.call(platform, "ec2", "start_instances", InstanceIds=[instance_id])
    # What RunInstances answers is not yet all that there will be: its address, its state.
    return machine.until(platform, name, instance_id, "running")
