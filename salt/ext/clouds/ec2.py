"""
salt-cloud on EC2 for Salt 3008, which ships no such driver. boto3, and any compatible API.

Knobs come from the pillar (``platform``), credentials from boto3's usual chain. A provider needs
nothing but its driver; a profile says which role a machine has and what EC2 gives it:

.. code-block:: yaml

    # salt/cloud/providers.conf
    aws:
      driver: ec2

    # salt/cloud/profiles.conf
    k3s-worker:
      provider: aws
      role: worker           # master | worker: user-data, size
      groups: [worker]       # security groups, without the platform's name
      public_address: true   # a public address of its own at launch
      iam_profile: null      # name of an instance profile
      deploy: false          # nothing is installed over SSH: the machine does it (user-data)

Machines are ours by the tag ``f1:platform``; no other is listed or touched.
"""

import uuid
from typing import Any

import aws
import ec2
import environment
import firstcontact
import knobs
import salt.config
import salt.utils.cloud
import userdata
from salt.exceptions import SaltCloudNotFound, SaltCloudSystemExit

__opts__: dict[str, Any]
__active_provider_name__: Any

__virtualname__ = "ec2"

RUNNING_SECONDS = 300
STOPPED_SECONDS = 300


def __virtual__() -> str:
    return __virtualname__


def get_configured_provider() -> dict[str, Any] | bool:
    """Return the provider's configuration, False if there is none (asked by salt-cloud)."""
    try:
        active = __active_provider_name__.value()
    except AttributeError:
        active = __active_provider_name__
    provider: dict[str, Any] | bool = salt.config.is_provider_configured(
        __opts__, active or __virtualname__, ()
    )
    return provider


def _platform() -> dict[str, Any]:
    platform: dict[str, Any] = knobs.load(__opts__)["platform"]
    return platform


def _need(call: str | None, wanted: str, name: str) -> None:
    """Refuse a call made the other way round, with the words of the right one."""
    if call is not None and call != wanted:
        how = f"-a {name} <machine>" if wanted == "action" else f"-f {name} aws"
        raise SaltCloudSystemExit(f"{name} is called with: salt-cloud {how}")


# Lists ------------------------------------------------------------------------------------------


def list_nodes(call: str | None = None) -> dict[str, dict[str, Any]]:
    """
    Return the platform's machines by name, in short.

    CLI Example:

    .. code-block:: bash

        salt-cloud -Q
    """
    _need(call, "function", "list_nodes")
    return ec2.machines(_platform())


def list_nodes_min(call: str | None = None) -> dict[str, dict[str, Any]]:
    """
    Return name, id and state of the platform's machines (salt-cloud's check of existence).

    CLI Example:

    .. code-block:: bash

        salt-cloud -f list_nodes_min aws
    """
    _need(call, "function", "list_nodes_min")
    found = ec2.machines(_platform())
    return {name: {"id": item["id"], "state": item["state"]} for name, item in found.items()}


def list_nodes_full(call: str | None = None) -> dict[str, dict[str, Any]]:
    """
    Return all that EC2 knows of the platform's machines and matters here, by name.

    CLI Example:

    .. code-block:: bash

        salt-cloud -F
    """
    _need(call, "function", "list_nodes_full")
    return {ec2.name_of(item): ec2.full(item) for item in ec2.instances(_platform())}


def list_nodes_select(call: str | None = None) -> dict[str, dict[str, Any]]:
    """
    Return the fields of ``query.selection`` (``salt/config/cloud``) of every machine.

    CLI Example:

    .. code-block:: bash

        salt-cloud -S
    """
    selected: dict[str, dict[str, Any]] = salt.utils.cloud.list_nodes_select(
        list_nodes_full("function"), __opts__["query.selection"], call
    )
    return selected


def avail_images(call: str | None = None) -> dict[str, dict[str, Any]]:
    """
    Return the images that ``platform.image`` may mean, and the account's own, by id.

    CLI Example:

    .. code-block:: bash

        salt-cloud --list-images aws
    """
    _need(call, "function", "avail_images")
    platform = _platform()
    found = aws.call(platform, "ec2", "describe_images", Owners=["self"])["Images"]
    return {
        item["ImageId"]: {
            "name": item.get("Name"),
            "arch": item.get("Architecture"),
            "created": item.get("CreationDate"),
        }
        for item in [*found, ec2.image(platform)]
    }


def avail_sizes(call: str | None = None) -> dict[str, dict[str, Any]]:
    """
    Return the instance types of the region: virtual CPUs and memory in MiB, by name.

    CLI Example:

    .. code-block:: bash

        salt-cloud --list-sizes aws
    """
    _need(call, "function", "avail_sizes")
    found = aws.pages(_platform(), "ec2", "describe_instance_types", "InstanceTypes")
    return {
        item["InstanceType"]: {
            "cpus": item.get("VCpuInfo", {}).get("DefaultVCpus"),
            "memory": item.get("MemoryInfo", {}).get("SizeInMiB"),
        }
        for item in found
    }


def avail_locations(call: str | None = None) -> dict[str, dict[str, Any]]:
    """
    Return the regions of the account, by name.

    CLI Example:

    .. code-block:: bash

        salt-cloud --list-locations aws
    """
    _need(call, "function", "avail_locations")
    found = aws.call(_platform(), "ec2", "describe_regions")["Regions"]
    return {item["RegionName"]: {"endpoint": item["Endpoint"]} for item in found}


# One machine ------------------------------------------------------------------------------------


def _instance(platform: dict[str, Any], name: str) -> dict[str, Any]:
    """Return the machine called by its name, or by its id."""
    if name.startswith("i-"):
        found = [item for item in ec2.instances(platform) if item["InstanceId"] == name]
        item = found[0] if found else None
    else:
        item = ec2.instance(platform, name)
    if item is None:
        have = ", ".join(sorted(ec2.machines(platform))) or "none"
        raise SaltCloudNotFound(f"no machine named {name}; there are: {have}")
    return item


def _until(platform: dict[str, Any], name: str, instance_id: str, state: str) -> dict[str, Any]:
    def probe() -> tuple[dict[str, Any] | None, str]:
        try:
            item = ec2.by_id(platform, instance_id)
        except aws.CloudError as error:
            # EC2 may not find for a moment what it has just made.
            if aws.code(error) != "InvalidInstanceID.NotFound":
                raise
            return None, f"{instance_id} is not found"
        now = item["State"]["Name"]
        if now in {"shutting-down", "terminated"} and state != "terminated":
            why = item.get("StateReason", {}).get("Message") or item.get("StateTransitionReason")
            raise aws.CloudError(f"{name} ({instance_id}) is {now} instead of {state}: {why}")
        return (item if now == state else None), f"{instance_id} is {now}"

    seconds = RUNNING_SECONDS if state == "running" else STOPPED_SECONDS
    return aws.wait(f"{name} to be {state}", seconds, probe)


def show_instance(name: str, call: str | None = None) -> dict[str, Any]:
    """
    Return all that is known of one machine.

    CLI Example:

    .. code-block:: bash

        salt-cloud -a show_instance f1-master
    """
    _need(call, "action", "show_instance")
    return ec2.full(_instance(_platform(), name))


def start(name: str, call: str | None = None) -> dict[str, Any]:
    """
    Start a stopped machine and wait until it runs.

    CLI Example:

    .. code-block:: bash

        salt-cloud -a start f1-worker-1
    """
    _need(call, "action", "start")
    return _change(name, "start_instances", "running")


def stop(name: str, call: str | None = None) -> dict[str, Any]:
    """
    Stop a machine and wait until it has stopped.

    CLI Example:

    .. code-block:: bash

        salt-cloud -a stop f1-worker-1
    """
    _need(call, "action", "stop")
    return _change(name, "stop_instances", "stopped")


def _change(name: str, request: str, state: str) -> dict[str, Any]:
    platform = _platform()
    item = _instance(platform, name)
    before = item["State"]["Name"]
    if before != state:
        aws.call(platform, "ec2", request, InstanceIds=[item["InstanceId"]])
        item = _until(platform, name, item["InstanceId"], state)
    return {**ec2.brief(item), "before": before}


def reboot(name: str, call: str | None = None) -> dict[str, Any]:
    """
    Reboot a machine; returns at once, as EC2 does.

    CLI Example:

    .. code-block:: bash

        salt-cloud -a reboot f1-worker-1
    """
    _need(call, "action", "reboot")
    platform = _platform()
    item = _instance(platform, name)
    aws.call(platform, "ec2", "reboot_instances", InstanceIds=[item["InstanceId"]])
    return {**ec2.brief(item), "rebooting": True}


def destroy(name: str, call: str | None = None) -> dict[str, Any]:
    """
    Terminate a machine, and forget the keys by which it was known.

    CLI Example:

    .. code-block:: bash

        salt-cloud -d f1-worker-1
    """
    if call == "function":
        raise SaltCloudSystemExit("destroy is called with: salt-cloud -d <machine>")
    platform = _platform()
    item = _instance(platform, name)
    answer = aws.call(platform, "ec2", "terminate_instances", InstanceIds=[item["InstanceId"]])
    firstcontact.forget(platform, ec2.name_of(item), item["InstanceId"])
    change = answer["TerminatingInstances"][0]
    return {
        "id": item["InstanceId"],
        "before": change["PreviousState"]["Name"],
        "state": change["CurrentState"]["Name"],
    }


def introduce(name: str, call: str | None = None) -> dict[str, Any]:
    """
    Finish what a creation began: start the machine if it is stopped, make it known if it is not.

    CLI Example:

    .. code-block:: bash

        salt-cloud -a introduce f1-worker-1
    """
    _need(call, "action", "introduce")
    platform = _platform()
    return _finish(platform, name, _instance(platform, name))


# Creation ---------------------------------------------------------------------------------------


def create(vm_: dict[str, Any]) -> dict[str, Any]:
    """
    Launch the machine ``vm_["name"]`` of a profile and bring it to the point where Salt runs on it.

    One that exists is started, or finished, or left alone. One that this call launched and that
    does not get there is terminated, and the error says why.

    CLI Example:

    .. code-block:: bash

        salt-cloud -p k3s-worker f1-worker-1
    """
    platform = _platform()
    name, role = vm_["name"], vm_.get("role")
    if role is None or role != _role(platform, name):
        raise aws.CloudError(
            f"{name} cannot be made by the profile {vm_.get('profile')} (role {role!r}); the "
            f"master is {userdata.master_name(platform)}, workers are {platform['name']}-worker-1 …"
        )
    found = ec2.instance(platform, name)
    return _finish(platform, name, found or _launch(platform, name, role, vm_))


def _role(platform: dict[str, Any], name: str) -> str | None:
    if name == userdata.master_name(platform):
        return "master"
    prefix, _, number = name.rpartition("-")
    is_worker = prefix == f"{platform['name']}-worker" and number.isdecimal()
    return "worker" if is_worker and not number.startswith("0") else None


def _launch(platform: dict[str, Any], name: str, role: str, vm_: dict[str, Any]) -> dict[str, Any]:
    image = ec2.image(platform)
    if image.get("Architecture", "x86_64") != "x86_64":
        raise aws.CloudError(
            f"{image['ImageId']} is for {image['Architecture']}, the Salt environment for x86_64; "
            "check platform.image"
        )
    built = environment.build()
    key = environment.publish(platform, built)
    firstcontact.forget(platform, name)
    text = userdata.render(
        platform,
        name,
        role,
        {"url": firstcontact.object_url(platform, key), "sha256": built.sha256},
    )
    interface: dict[str, Any] = {
        "DeviceIndex": 0,
        "SubnetId": ec2.subnet(platform, f"{platform['name']}-public"),
        "Groups": ec2.groups(platform, [f"{platform['name']}-{group}" for group in vm_["groups"]]),
        "AssociatePublicIpAddress": bool(vm_["public_address"]),
        "DeleteOnTermination": True,
    }
    if role == "master":
        interface["PrivateIpAddress"] = platform["network"]["master_ip"]
    arguments: dict[str, Any] = {
        "ImageId": image["ImageId"],
        "InstanceType": platform["master" if role == "master" else "workers"]["size"],
        "MinCount": 1,
        "MaxCount": 1,
        "ClientToken": str(uuid.uuid4()),
        "KeyName": platform["name"],
        "NetworkInterfaces": [interface],
        "UserData": text,
        "MetadataOptions": {
            "HttpEndpoint": "enabled",
            "HttpTokens": "required",
            "HttpPutResponseHopLimit": 1,
        },
        "TagSpecifications": [
            {"ResourceType": kind, "Tags": aws.tags(platform, name)}
            for kind in ("instance", "volume", "network-interface")
        ],
    }
    if vm_.get("iam_profile"):
        arguments["IamInstanceProfile"] = {"Name": vm_["iam_profile"]}
    answer = aws.call(platform, "ec2", "run_instances", **arguments)
    launched: dict[str, Any] = answer["Instances"][0]
    return launched


def _finish(platform: dict[str, Any], name: str, item: dict[str, Any]) -> dict[str, Any]:
    """
    Bring an existing machine to where a creation ends; say whether it had been there before.

    A machine that never got there and does not now is terminated: it would fail in every run.
    (An interrupted run is no failure: what it leaves is finished by the next.)
    """
    is_known = ec2.tag(item, firstcontact.INTRODUCED) == item["InstanceId"]
    try:
        _complete(platform, name, item, is_known)
    except Exception as error:
        if is_known:
            raise
        aws.call(platform, "ec2", "terminate_instances", InstanceIds=[item["InstanceId"]])
        raise aws.CloudError(
            f"{name} ({item['InstanceId']}) was terminated again: {error}"
        ) from error
    return {**ec2.full(ec2.by_id(platform, item["InstanceId"])), "existed": is_known}


def _complete(platform: dict[str, Any], name: str, item: dict[str, Any], is_known: bool) -> None:
    instance_id, state = item["InstanceId"], item["State"]["Name"]
    if state == "stopping":
        _until(platform, name, instance_id, "stopped")
        state = "stopped"
    if state == "stopped":
        aws.call(platform, "ec2", "start_instances", InstanceIds=[instance_id])
    if state != "running":
        _until(platform, name, instance_id, "running")
    role = _role(platform, name)
    if role == "master":
        ec2.associate(platform, name, instance_id)
    if not is_known and role:
        firstcontact.introduce(platform, name, role, instance_id)


# Actions and functions --------------------------------------------------------------------------
