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

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import addresses
import asked
import aws
import belongings
import creation
import ec2
import images
import keypairs
import knobs
import launch
import machine
import prices
import profiles
import salt.config
import salt.utils.cloud
import storage
import yaml
from salt.exceptions import SaltCloudSystemExit

__opts__: dict[str, Any]
__active_provider_name__: Any

__virtualname__ = "ec2"


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


def _action(function: Callable[..., Any]) -> Callable[..., Any]:
    """
    Make of ``function(platform, name, …)`` what salt-cloud calls for ``-a``: with the machine and,
    if there are any, its arguments in a dictionary before ``call``.
    """
    title = function.__name__

    @functools.wraps(function)
    def called(
        name: str | None = None, kwargs: dict[str, Any] | None = None, call: str | None = None
    ) -> Any:
        _need(call, "action", title)
        given = asked.read(function, kwargs, f"salt-cloud -a {title} {name or '<machine>'}", 2)
        return function(_platform(), name, **given)

    return called


def _function(function: Callable[..., Any]) -> Callable[..., Any]:
    """
    Make of ``function(platform, …)`` what salt-cloud calls for ``-f``: with its arguments in
    ``kwargs``, if there are any. (As an action it would be given a machine as well.)
    """
    title = function.__name__

    @functools.wraps(function)
    def called(kwargs: dict[str, Any] | None = None, *_: Any, call: str | None = None) -> Any:
        _need(call, "function", title)
        return function(
            _platform(), **asked.read(function, kwargs, f"salt-cloud -f {title} aws", 1)
        )

    return called


# Lists ------------------------------------------------------------------------------------------


@_function
def list_nodes(platform: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """
    Return the platform's machines by name, in short.

    CLI Example:

    .. code-block:: bash

        salt-cloud -Q
    """
    return ec2.machines(platform)


@_function
def list_nodes_min(platform: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """
    Return name, id and state of the platform's machines (salt-cloud's check of existence).

    CLI Example:

    .. code-block:: bash

        salt-cloud -f list_nodes_min aws
    """
    found = ec2.machines(platform)
    return {name: {"id": item["id"], "state": item["state"]} for name, item in found.items()}


@_function
def list_nodes_full(platform: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """
    Return all that EC2 knows of the platform's machines and matters here, by name.

    CLI Example:

    .. code-block:: bash

        salt-cloud -F
    """
    return ec2.described(platform)


@_function
def list_nodes_select(platform: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """
    Return the fields of ``query.selection`` (``salt/config/cloud``) of every machine.

    CLI Example:

    .. code-block:: bash

        salt-cloud -S
    """
    selected: dict[str, dict[str, Any]] = salt.utils.cloud.list_nodes_select(
        ec2.described(platform), __opts__["query.selection"]
    )
    return selected


# One machine ------------------------------------------------------------------------------------


@_action
def introduce(platform: dict[str, Any], name: str) -> dict[str, Any]:
    """
    Finish what a creation began: start the machine if it is stopped, make it known if it is not.

    CLI Example:

    .. code-block:: bash

        salt-cloud -a introduce f1-worker-1
    """
    item = machine.find(platform, name)
    name = ec2.name_of(item)
    spec = profiles.spec(platform, name, _profile(f"k3s-{profiles.role_of(platform, name)}"))
    return creation.finish(platform, spec, item)


# Creation ---------------------------------------------------------------------------------------


def _profile(name: str) -> dict[str, Any]:
    """Return the profile ``name`` of ``salt/cloud/profiles.conf``, or raise CloudError."""
    known = __opts__.get("profiles", {})
    if name not in known:
        raise aws.CloudError(
            f"no profile {name} in salt/cloud/profiles.conf; there are: {', '.join(known)}"
        )
    return {**known[name], "profile": name}


def _spec(platform: dict[str, Any], vm_: dict[str, Any]) -> profiles.Spec:
    """
    Return what ``vm_`` wants. With ``-p``, salt-cloud leaves out the profile's name and puts its
    own configuration (``salt/config/cloud``) into it as well.
    """
    file = Path(__opts__.get("conf_file") or "")
    config = yaml.safe_load(file.read_text(encoding="utf-8")) if file.is_file() else None
    strange = set(config or {}) - set(profiles.OPTIONS)
    own = {key: value for key, value in vm_.items() if key not in strange}
    own["profile"] = vm_.get("profile") or __opts__.get("profile")
    return profiles.spec(platform, vm_["name"], own)


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
    return creation.create(platform, _spec(platform, vm_))


@_function
def dry_run(
    platform: dict[str, Any], profile: asked.Profile, name: asked.Machine, **options: asked.Option
) -> dict[str, Any]:
    """
    Ask EC2 whether it would make a machine of a profile, without its being made.

    The profile is checked, everything it names is looked up, and RunInstances is sent with DryRun;
    returned is that request but for the user-data. Further arguments override the profile's.

    CLI Example:

    .. code-block:: bash

        salt-cloud -f dry_run aws profile=k3s-worker name=f1-worker-9
    """
    return launch.dry_run(platform, _spec(platform, {**_profile(profile), **options, "name": name}))


# Actions and functions --------------------------------------------------------------------------


@_action
def show_instance(platform: dict[str, Any], name: str) -> dict[str, Any]:
    """
    Return all that is known of one machine.

    CLI Example:

    .. code-block:: bash

        salt-cloud -a show_instance f1-master
    """
    return ec2.full(machine.find(platform, name))


@_action
def start(platform: dict[str, Any], name: str) -> dict[str, Any]:
    """
    Start a stopped machine and wait until it runs.

    CLI Example:

    .. code-block:: bash

        salt-cloud -a start f1-worker-1
    """
    return machine.start(platform, name)


@_action
def stop(platform: dict[str, Any], name: str, force: asked.Flag = False) -> dict[str, Any]:
    """
    Stop a machine and wait until it has stopped; ``force`` as if its plug were pulled.

    CLI Example:

    .. code-block:: bash

        salt-cloud -a stop f1-worker-1
    """
    return machine.stop(platform, name, force)


@_action
def reboot(platform: dict[str, Any], name: str) -> dict[str, Any]:
    """
    Reboot a running machine; returns at once, as EC2 does, which never says when it is back.

    CLI Example:

    .. code-block:: bash

        salt-cloud -a reboot f1-worker-1
    """
    return machine.reboot(platform, name)


def destroy(
    name: str | None = None, kwargs: dict[str, Any] | None = None, call: str | None = None
) -> dict[str, Any]:
    """
    Terminate a machine, wait for it, remove what was made with it, and forget its keys.

    Interfaces, volumes and addresses that were made with it go (``removed``), but for volumes of
    which its profile says ``delete_on_termination: false``. What is left and costs money, its
    snapshots and images included, is told (``remains``). One that is protected is refused.

    CLI Example:

    .. code-block:: bash

        salt-cloud -d f1-worker-1
    """
    if call == "function" or name is None:
        raise SaltCloudSystemExit("destroy is called with: salt-cloud -d <machine>")
    if kwargs:
        raise aws.CloudError(
            "destroy takes no arguments; it is called with: salt-cloud -d <machine>"
        )
    platform = _platform()
    return machine.destroy(platform, name, _kept(platform, name))


def _kept(platform: dict[str, Any], name: str) -> list[str]:
    """Return the devices of which the machine's profile says that their volumes stay."""
    role = profiles.role_of(platform, ec2.name_of(machine.find(platform, name)))
    return profiles.kept(__opts__.get("profiles", {}).get(f"k3s-{role}") or {})


# Tags, protection, console, spot


@_action
def get_tags(platform: dict[str, Any], name: str) -> dict[str, str]:
    """
    Return the tags of a machine.

    CLI Example:

    .. code-block:: bash

        salt-cloud -a get_tags f1-worker-1
    """
    return machine.get_tags(platform, name)


@_action
def set_tags(platform: dict[str, Any], name: str, /, **tags: asked.Text) -> dict[str, Any]:
    """
    Give a machine tags; those that the platform relies on are refused.

    CLI Example:

    .. code-block:: bash

        salt-cloud -a set_tags f1-worker-1 team=red cost-center=42
    """
    return machine.set_tags(platform, name, tags)


@_action
def del_tags(platform: dict[str, Any], name: str, keys: asked.Keys) -> dict[str, Any]:
    """
    Take tags from a machine; those that the platform relies on are refused.

    CLI Example:

    .. code-block:: bash

        salt-cloud -a del_tags f1-worker-1 keys=team,cost-center
    """
    return machine.del_tags(platform, name, keys)


@_action
def show_term_protect(platform: dict[str, Any], name: str) -> dict[str, Any]:
    """
    Return whether a machine is protected from termination.

    CLI Example:

    .. code-block:: bash

        salt-cloud -a show_term_protect f1-master
    """
    return machine.protection(platform, name)


@_action
def enable_term_protect(platform: dict[str, Any], name: str) -> dict[str, Any]:
    """
    Protect a machine: nobody can terminate it before that is lifted, ``make down`` neither.

    CLI Example:

    .. code-block:: bash

        salt-cloud -a enable_term_protect f1-master
    """
    return machine.protection(platform, name, True)


@_action
def disable_term_protect(platform: dict[str, Any], name: str) -> dict[str, Any]:
    """
    Lift a machine's protection from termination.

    CLI Example:

    .. code-block:: bash

        salt-cloud -a disable_term_protect f1-master
    """
    return machine.protection(platform, name, False)


@_action
def console_output(
    platform: dict[str, Any], name: str, lines: asked.Whole = machine.CONSOLE_LINES
) -> dict[str, Any]:
    """
    Return the last lines of a machine's console; signed URLs, keys and tokens are not shown.

    CLI Example:

    .. code-block:: bash

        salt-cloud -a console_output f1-worker-1 lines=200
    """
    return machine.console(platform, name, lines)


@_action
def show_spot(platform: dict[str, Any], name: str) -> dict[str, Any]:
    """
    Return whether a machine is a spot one, and how its request stands.

    CLI Example:

    .. code-block:: bash

        salt-cloud -a show_spot f1-worker-1
    """
    return machine.spot(platform, name)


@_function
def spot_prices(
    platform: dict[str, Any],
    size: asked.Size | None = None,
    zone: asked.Zone | None = None,
    hours: asked.Whole = 24,
) -> dict[str, Any]:
    """
    Return what spot machines cost by size and zone: now, and the extremes of the last hours.

    CLI Example:

    .. code-block:: bash

        salt-cloud -f spot_prices aws size=t3.small zone=eu-west-3a hours=48
    """
    return images.spot_prices(platform, size, zone, hours)


# Volumes and snapshots


@_action
def show_volumes(platform: dict[str, Any], name: str) -> dict[str, Any]:
    """
    Return the volumes that a machine holds, by id.

    CLI Example:

    .. code-block:: bash

        salt-cloud -a show_volumes f1-worker-1
    """
    return storage.of_machine(platform, name)


@_function
def list_volumes(platform: dict[str, Any]) -> dict[str, Any]:
    """
    Return all volumes of the platform, those that no machine holds included, by id.

    CLI Example:

    .. code-block:: bash

        salt-cloud -f list_volumes aws
    """
    return storage.volumes(platform)


@_action
def create_volume(
    platform: dict[str, Any],
    name: str,
    size: asked.Whole | None = None,
    label: asked.Label = "data",
    type: asked.Kind = "gp3",
    snapshot: asked.Snapshot | None = None,
    iops: asked.Whole | None = None,
    encrypted: asked.Flag = True,
    device: asked.Device | None = None,
) -> dict[str, Any]:
    """
    Make sure that a machine holds the volume ``<machine>-<label>``, of ``size`` GB or a snapshot.

    It stays when the machine goes.

    CLI Example:

    .. code-block:: bash

        salt-cloud -a create_volume f1-worker-1 size=20 label=data
    """
    return storage.create(platform, name, size, label, type, snapshot, iops, encrypted, device)


@_action
def attach_volume(
    platform: dict[str, Any],
    name: str,
    volume: asked.Volume,
    device: asked.Device | None = None,
) -> dict[str, Any]:
    """
    Give a volume of the platform to a machine in its zone; wait until it is there.

    CLI Example:

    .. code-block:: bash

        salt-cloud -a attach_volume f1-worker-1 volume=vol-0123456789abcdef0
    """
    return storage.attach(platform, name, volume, device)


@_action
def detach_volume(platform: dict[str, Any], name: str, volume: asked.Volume) -> dict[str, Any]:
    """
    Take a volume from a machine; unmount it there first.

    CLI Example:

    .. code-block:: bash

        salt-cloud -a detach_volume f1-worker-1 volume=vol-0123456789abcdef0
    """
    return storage.detach(platform, name, volume)


@_function
def delete_volume(platform: dict[str, Any], volume: asked.Volume) -> dict[str, Any]:
    """
    Delete a volume of the platform that no machine holds, for good.

    CLI Example:

    .. code-block:: bash

        salt-cloud -f delete_volume aws volume=vol-0123456789abcdef0
    """
    return storage.delete(platform, volume)


@_action
def create_snapshots(
    platform: dict[str, Any], name: str, text: asked.Text = "by salt-cloud"
) -> dict[str, Any]:
    """
    Take snapshots of all volumes of a machine at one moment, and wait for them.

    CLI Example:

    .. code-block:: bash

        salt-cloud -a create_snapshots f1-master text='before the upgrade'
    """
    return storage.create_snapshots(platform, name, text)


@_function
def list_snapshots(platform: dict[str, Any]) -> dict[str, Any]:
    """
    Return the snapshots of the platform, by id.

    CLI Example:

    .. code-block:: bash

        salt-cloud -f list_snapshots aws
    """
    return storage.snapshots(platform)


@_function
def delete_snapshot(platform: dict[str, Any], snapshot: asked.Snapshot) -> dict[str, Any]:
    """
    Delete a snapshot of the platform that is part of no image.

    CLI Example:

    .. code-block:: bash

        salt-cloud -f delete_snapshot aws snapshot=snap-0123456789abcdef0
    """
    return storage.delete_snapshot(platform, snapshot)


# Images, sizes, places


@_function
def avail_images(
    platform: dict[str, Any],
    owner: asked.Owner | None = None,
    name: asked.Text | None = None,
    arch: asked.Arch | None = None,
) -> dict[str, Any]:
    """
    Return images by id: a search by owner, name and architecture, the newest first. Without any,
    those of the account, that of ``platform.image`` and the current ones of Debian and Amazon.

    CLI Example:

    .. code-block:: bash

        salt-cloud --list-images aws
        salt-cloud -f avail_images aws owner=136693071363 name='debian-12-*' arch=arm64
    """
    return images.available(platform, owner, name, arch)


@_function
def avail_sizes(platform: dict[str, Any]) -> dict[str, Any]:
    """
    Return the sizes of the region: virtual CPUs, MiB, architectures, whether burstable, the price.

    CLI Example:

    .. code-block:: bash

        salt-cloud --list-sizes aws
    """
    return images.sizes(platform)


@_function
def avail_locations(platform: dict[str, Any]) -> dict[str, Any]:
    """
    Return the regions of the account, and the zones of the platform's own.

    CLI Example:

    .. code-block:: bash

        salt-cloud --list-locations aws
    """
    return images.locations(platform)


@_action
def create_image(
    platform: dict[str, Any],
    name: str,
    image: asked.ImageName | None = None,
    reboot: asked.Flag = False,
) -> dict[str, Any]:
    """
    Make an image of a machine and wait until it can be used.

    Without ``reboot`` it holds what a machine holds that lost its power at that moment.

    CLI Example:

    .. code-block:: bash

        salt-cloud -a create_image f1-master image=before-upgrade
    """
    return images.create(platform, name, image, reboot)


@_function
def list_images(platform: dict[str, Any]) -> dict[str, Any]:
    """
    Return the images that were made of the platform's machines, by id.

    CLI Example:

    .. code-block:: bash

        salt-cloud -f list_images aws
    """
    return images.made(platform)


@_function
def delete_image(platform: dict[str, Any], image: asked.Image) -> dict[str, Any]:
    """
    Delete an image that was made of a machine of the platform, and its snapshots.

    CLI Example:

    .. code-block:: bash

        salt-cloud -f delete_image aws image=ami-0123456789abcdef0
    """
    return images.delete(platform, image)


# Elastic addresses


@_function
def list_addresses(platform: dict[str, Any]) -> dict[str, Any]:
    """
    Return the elastic addresses of the platform, by address.

    CLI Example:

    .. code-block:: bash

        salt-cloud -f list_addresses aws
    """
    return addresses.addresses(platform)


@_function
def allocate_address(platform: dict[str, Any], label: asked.Label) -> dict[str, Any]:
    """
    Make sure that there is the elastic address ``<platform>-<label>``.

    One that has the name of a machine (``label=worker-1``) goes when that is destroyed.

    CLI Example:

    .. code-block:: bash

        salt-cloud -f allocate_address aws label=worker-1
    """
    return addresses.allocate(platform, label)


@_action
def associate_address(
    platform: dict[str, Any], name: str, address: asked.Address
) -> dict[str, Any]:
    """
    Give an elastic address of the platform to a machine that has none.

    CLI Example:

    .. code-block:: bash

        salt-cloud -a associate_address f1-worker-1 address=203.0.113.9
    """
    return addresses.associate(platform, name, address)


@_function
def disassociate_address(platform: dict[str, Any], address: asked.Address) -> dict[str, Any]:
    """
    Take an elastic address from whatever has it; it is kept, and paid.

    CLI Example:

    .. code-block:: bash

        salt-cloud -f disassociate_address aws address=203.0.113.9
    """
    return addresses.disassociate(platform, address)


@_function
def release_address(platform: dict[str, Any], address: asked.Address) -> dict[str, Any]:
    """
    Give an elastic address that nothing has back to AWS, for good.

    CLI Example:

    .. code-block:: bash

        salt-cloud -f release_address aws address=203.0.113.9
    """
    return addresses.release(platform, address)


# Key pairs


@_function
def list_keypairs(platform: dict[str, Any]) -> dict[str, Any]:
    """
    Return the key pairs of the platform, by name.

    CLI Example:

    .. code-block:: bash

        salt-cloud -f list_keypairs aws
    """
    return keypairs.keypairs(platform)


@_function
def show_keypair(platform: dict[str, Any], key: asked.Text) -> dict[str, Any]:
    """
    Return a key pair of the platform: type, fingerprint and the public key.

    CLI Example:

    .. code-block:: bash

        salt-cloud -f show_keypair aws key=f1
    """
    return keypairs.show(platform, key)


@_function
def import_keypair(platform: dict[str, Any], key: asked.Text, file: asked.Text) -> dict[str, Any]:
    """
    Make sure that there is a key pair with the public key of a file.

    CLI Example:

    .. code-block:: bash

        salt-cloud -f import_keypair aws key=f1-ann file=~/.ssh/id_ed25519.pub
    """
    return keypairs.import_(platform, key, file)


@_function
def delete_keypair(platform: dict[str, Any], key: asked.Text) -> dict[str, Any]:
    """
    Delete a key pair of the platform; machines that have the key keep it.

    CLI Example:

    .. code-block:: bash

        salt-cloud -f delete_keypair aws key=f1-ann
    """
    return keypairs.delete(platform, key)


# Costs


@_function
def left(platform: dict[str, Any]) -> list[str]:
    """
    Return, a line each, what is ours, costs money and is no machine's, and what has one of our
    names or lies in our VPC and is not ours.

    CLI Example:

    .. code-block:: bash

        salt-cloud -f left aws
    """
    return belongings.left(platform)


@_function
def cost(platform: dict[str, Any], sizes: asked.Sizes | None = None) -> dict[str, Any]:
    """
    Return what the platform of the knobs costs a month, or one of the guide's sizes.

    CLI Example:

    .. code-block:: bash

        salt-cloud -f cost aws
        salt-cloud -f cost aws sizes=small
    """
    return prices.monthly(prices.sized(platform, sizes) if sizes else platform)
