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
      role: worker           # master | worker
      groups: [worker]       # security groups: names without the platform's, or sg-…
      deploy: false          # nothing is installed over SSH: the machine does it (user-data)

Everything else follows from the knobs, and may be said in a profile or an entry of a map:

.. code-block:: yaml

      image: ami-…                   # or ssm:/aws/service/…, or {name: debian-12-*, owner: …}
      size: t3.small
      subnet: f1-workers-a           # name or id
      key: f1                        # key pair, name or id
      private_address: 10.20.2.40
      public_address: false          # a public address of its own at launch
      address: f1-master             # an elastic address, by its name
      block_devices:                 # GiB, MiB/s; all encrypted unless said otherwise
        - {device: root, size: 20, type: gp3, iops: 3000, throughput: 125}
        - {device: /dev/sdf, size: 50, encrypted: true, kms_key: alias/x,
           delete_on_termination: false}
      iam_profile: f1-worker         # name or ARN of an instance profile
      metadata: {tokens: required, hop_limit: 1}
      user_data_file: salt/cloud/x   # or user_data: a Jinja template instead of the platform's
      tags: {team: red}              # on machine, volumes and interface
      spot: {max_price: 0.02, fallback: true}   # fallback: on demand if there is no spot
      placement: {group: near, tenancy: default, zone: eu-west-3b}   # zone: workers only
      capacity_reservation: cr-…
      termination_protection: true
      source_dest_check: false       # by default off where the master forwards for the workers
      credit_mode: standard          # or unlimited; sizes t…
      keep_failed: false             # keep a machine whose creation failed
      monitoring: false              # each minute instead of each five
      ebs_optimized: false

Machines are known by their client token (utils ``ec2``); no other is listed or touched. The
classical events (``salt/cloud/<name>/created`` …) are not fired: there is no master on the
operator's machine to hear them, and each takes a second to find that out.
"""

import logging
from typing import Any

import aws
import ec2
import environment
import firstcontact
import knobs
import launch
import salt.config
import salt.utils.cloud
import userdata
from salt.exceptions import SaltCloudNotFound, SaltCloudSystemExit

__opts__: dict[str, Any]
__active_provider_name__: Any

__virtualname__ = "ec2"

log = logging.getLogger(__name__)

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
    item = _instance(platform, name)
    name = ec2.name_of(item)
    spec = launch.spec(platform, name, _profile(f"k3s-{launch.role_of(platform, name)}"))
    return _finish(platform, spec, item)


# Creation ---------------------------------------------------------------------------------------


def _profile(name: str) -> dict[str, Any]:
    """Return the profile ``name`` of ``salt/cloud/profiles.conf``, or raise CloudError."""
    profiles = __opts__.get("profiles", {})
    if name not in profiles:
        raise aws.CloudError(
            f"no profile {name} in salt/cloud/profiles.conf; there are: {', '.join(profiles)}"
        )
    return {**profiles[name], "profile": name}


def _spec(platform: dict[str, Any], vm_: dict[str, Any]) -> launch.Spec:
    """Return what ``vm_`` wants; salt-cloud has put its own configuration into it as well."""
    own = {
        key: value
        for key, value in vm_.items()
        if key in launch.OPTIONS or key not in __opts__ or __opts__[key] != value
    }
    return launch.spec(platform, vm_["name"], own)


def create(vm_: dict[str, Any]) -> dict[str, Any]:
    """
    Launch the machine ``vm_["name"]`` of a profile and bring it to the point where Salt runs on it.

    One that exists is started, or finished, or left alone; what differs from its profile is told
    (``differences``) and left to ``orch.machines``. One that this call launched and that does not
    get there is removed with all it had, unless ``keep_failed``; the error says why, and what went.

    CLI Example:

    .. code-block:: bash

        salt-cloud -p k3s-worker f1-worker-1
    """
    platform = _platform()
    spec = _spec(platform, vm_)
    found = ec2.instance(platform, spec.name)
    if found is not None:
        return _finish(platform, spec, found)
    item, said = _launch(platform, spec)
    made = _finish(platform, spec, item)
    return {**made, "note": said} if said else made


def dry_run(kwargs: dict[str, Any] | None = None, call: str | None = None) -> dict[str, Any]:
    """
    Ask EC2 whether it would make a machine of a profile, without its being made.

    The profile is checked, everything it names is looked up, and RunInstances is sent with DryRun;
    returned is that request but for the user-data. Further arguments override the profile's.

    CLI Example:

    .. code-block:: bash

        salt-cloud -f dry_run aws profile=k3s-worker name=f1-worker-9
    """
    _need(call, "function", "dry_run")
    given = dict(kwargs or {})
    if not given.get("profile") or not given.get("name"):
        raise SaltCloudSystemExit(
            "dry_run needs both: salt-cloud -f dry_run aws profile=k3s-worker name=f1-worker-9"
        )
    platform = _platform()
    spec = _spec(platform, {**_profile(given["profile"]), **given})
    request = launch.request(platform, spec, launch.resolve(platform, spec), "")
    del request["UserData"]
    aws.dry_run(platform, "ec2", "run_instances", **request)
    return request


def _launch(platform: dict[str, Any], spec: launch.Spec) -> tuple[dict[str, Any], str | None]:
    """Launch the machine; return its instance and what came otherwise than asked."""
    ids = launch.resolve(platform, spec)
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


def _finish(platform: dict[str, Any], spec: launch.Spec, item: dict[str, Any]) -> dict[str, Any]:
    """
    Bring an existing machine to where a creation ends; say whether it had been there before.

    A machine that never got there and does not now is removed: it would fail in every run.
    (An interrupted run is no failure: what it leaves is finished by the next.)
    """
    instance_id = item["InstanceId"]
    is_known = ec2.tag(item, firstcontact.INTRODUCED) == instance_id
    try:
        item = _running(platform, spec.name, item)
        found = launch.differences(platform, spec, item)
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
        raise aws.CloudError(_removed(platform, spec, instance_id, error)) from error
    answer = {**ec2.full(ec2.by_id(platform, instance_id)), "existed": is_known}
    if found:
        answer["differences"] = {each.what: {"old": each.old, "new": each.new} for each in found}
        words = ", ".join(f"{each.what} is {each.old}, not {each.new}" for each in found)
        log.warning("%s differs from its profile and was left so: %s", spec.name, words)
    return answer


def _removed(
    platform: dict[str, Any], spec: launch.Spec, instance_id: str, error: Exception
) -> str:
    """Remove the failed machine unless it is to be kept; return the words of its error."""
    what = f"{spec.name} ({instance_id})"
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


def _running(platform: dict[str, Any], name: str, item: dict[str, Any]) -> dict[str, Any]:
    """Start the machine if it is not running; return it as it then is."""
    instance_id, state = item["InstanceId"], item["State"]["Name"]
    if state == "stopping":
        _until(platform, name, instance_id, "stopped")
        state = "stopped"
    if state == "stopped":
        aws.call(platform, "ec2", "start_instances", InstanceIds=[instance_id])
    # What RunInstances answers is not yet all that there will be: its address, its state.
    return _until(platform, name, instance_id, "running")


# Actions and functions --------------------------------------------------------------------------
