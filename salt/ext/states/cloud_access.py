"""
Who may reach what: security groups and the operator's key.

.. code-block:: yaml

    master group:
      cloud_access.group:
        - name: f1-master

    master rules:
      cloud_access.rules:
        - name: f1-master
        - ingress:
          - {protocol: tcp, ports: 443, from: 0.0.0.0/0}
          - {protocol: tcp, ports: 4505-4506, from: f1-worker}

Groups name each other, so all are made before any has rules: two states. Any rule that is not
declared is removed, IPv6 and prefix lists included; egress is left open. A group is ours by its
name and description (utils ``vpc``), which nobody can change.
"""

import shutil
import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import aws
import ec2
import knobs
from steps import Steps, guarded
from vpc import GROUPS, View, is_ours, shared

__opts__: dict[str, Any]
__pillar__: dict[str, Any]
__context__: dict[str, Any]

# (protocol, first port, last port, kind of source, source)
Rule = tuple[str, int, int, str, str]

_EVERYWHERE: Rule = ("-1", -1, -1, "cidr", "0.0.0.0/0")
_WITH_PORTS = {"tcp", "udp", "icmp", "icmpv6"}
_RANGES = {
    "cidr": ("IpRanges", "CidrIp"),
    "ipv6": ("Ipv6Ranges", "CidrIpv6"),
    "list": ("PrefixListIds", "PrefixListId"),
    "group": ("UserIdGroupPairs", "GroupId"),
}


def _begin(name: str) -> tuple[View, Steps]:
    return shared(__context__, __pillar__["platform"]), Steps(name, __opts__["test"])


def _tagged(kind: str, name: str) -> list[dict[str, Any]]:
    return [{"ResourceType": kind, "Tags": aws.tags(__pillar__["platform"], name)}]


@guarded
def group(name: str) -> dict[str, Any]:
    """Make sure that the VPC has the platform's security group ``name``, with its tags."""
    view, steps = _begin(name)
    platform = __pillar__["platform"]

    def create() -> None:
        view.change(
            "create_security_group",
            GroupName=name,
            Description=GROUPS[name.removeprefix(f"{platform['name']}-")],
            VpcId=view.needed_id(),
            TagSpecifications=_tagged("security-group", name),
        )
        view.until(f"security group {name} to be there", lambda: view.groups().get(name))

    found = view.groups().get(name)
    other = view.stranger(name)
    if other:
        raise aws.CloudError(
            f"the group {name} ({other['GroupId']}) of the VPC is described as "
            f"{other['Description']!r}, so it is not the platform's; remove it, then run it again"
        )
    if found:
        view.retag(steps, found, found["GroupId"], name)
    else:
        steps.differs("group", None, name, create)
    return steps.finish(f"{name} is there")


@guarded
def rules(name: str, ingress: list[dict[str, Any]]) -> dict[str, Any]:
    """
    Make the group ``name`` let in exactly ``ingress``, and let everything out.

    A rule is ``{protocol: tcp | udp | icmp, ports: 443 | 4505-4506, from: <CIDR or group name>}``;
    the ports of icmp are ``<type>-<code>``.
    """
    view, steps = _begin(name)
    groups = view.groups()
    names = {item["GroupId"]: key for key, item in groups.items()}
    found = groups.get(name)
    for direction, key, wanted in (
        ("ingress", "IpPermissions", {_declared(rule, groups) for rule in ingress}),
        ("egress", "IpPermissionsEgress", {_EVERYWHERE}),
    ):
        # A new group lets everything out and nothing in.
        new = {_EVERYWHERE} if direction == "egress" else set()
        there = set(_rules(found.get(key, []))) if found else new
        for rule in sorted(wanted - there):
            act = partial(_change, view, f"authorize_security_group_{direction}", name, rule)
            steps.differs(f"{direction} {_words(rule, names)}", None, "allowed", act)
        for rule in sorted(there - wanted):
            act = partial(_change, view, f"revoke_security_group_{direction}", name, rule)
            steps.differs(f"{direction} {_words(rule, names)}", "allowed", None, act)
    return steps.finish(f"lets in {len(ingress)} rules and nothing else")


def _declared(rule: dict[str, Any], groups: dict[str, dict[str, Any]]) -> Rule:
    first, _, last = str(rule["ports"]).partition("-")
    source = str(rule["from"])
    if "/" in source:
        return (rule["protocol"], int(first), int(last or first), "cidr", source)
    # In a plan of an empty account the group has no id yet: its name stands for it.
    source = groups[source]["GroupId"] if source in groups else source
    return (rule["protocol"], int(first), int(last or first), "group", source)


def _rules(permissions: list[dict[str, Any]]) -> Iterator[Rule]:
    for item in permissions:
        protocol = item["IpProtocol"]
        # A protocol without ports has none; of ICMP they are type and code, -1 for all.
        first, last = item.get("FromPort", -1), item.get("ToPort", -1)
        for kind, (ranges, key) in _RANGES.items():
            for source in item.get(ranges, []):
                yield (protocol, first, last, kind, source[key])


def _words(rule: Rule, names: dict[str, str]) -> str:
    protocol, first, last, _, source = rule
    if protocol == "-1":
        return f"all {names.get(source, source)}"
    ports = str(first) if first == last else f"{first}-{last}"
    if first == -1:
        return f"{protocol} {names.get(source, source)}"
    return f"{protocol}/{ports} {names.get(source, source)}"


def _change(view: View, request: str, name: str, rule: Rule) -> None:
    protocol, first, last, kind, source = rule
    groups = view.groups()
    if name not in groups:
        raise aws.CloudError(f"no security group named {name}")
    if kind == "group" and source in groups:
        source = groups[source]["GroupId"]
    ranges, key = _RANGES[kind]
    permission: dict[str, Any] = {"IpProtocol": protocol, ranges: [{key: source}]}
    if protocol in _WITH_PORTS:
        permission.update(FromPort=first, ToPort=last)
    view.change(request, GroupId=groups[name]["GroupId"], IpPermissions=[permission])


@guarded
def key(name: str) -> dict[str, Any]:
    """
    Make sure the operator has a key (``.state/ssh/id_ed25519``) and EC2 its public half.

    Machines keep the key that they were launched with: while there are any, a lost private key is
    a CloudError and never replaced, for a new one would open none of them.
    """
    platform = __pillar__["platform"]
    view, steps = _begin(name)
    private = _private_key()
    public = private.with_suffix(".pub")

    def make() -> None:
        private.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        comment = f"{platform['name']} operator"
        subprocess.run(
            ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", str(private)],
            check=True,
            capture_output=True,
            stdin=subprocess.DEVNULL,
            timeout=30,
        )

    def upload() -> None:
        if there:
            view.remove("delete_key_pair", KeyName=name)
        view.change(
            "import_key_pair",
            KeyName=name,
            PublicKeyMaterial=public.read_bytes(),
            TagSpecifications=_tagged("key-pair", name),
        )

    if not private.exists():
        alive = sorted(ec2.machines(platform))
        if alive:
            raise aws.CloudError(
                f"{private} is lost, and machines exist that let in no other key "
                f"({', '.join(alive)}): put .state/ssh/id_ed25519 back, or remove the machines "
                "first (salt-cloud -d)"
            )
        steps.differs("private key", None, str(private), make)
    there = _key_pair(name)
    if there is None or not private.exists() or not _same_key(there.get("PublicKey", ""), public):
        old = there["KeyPairId"] if there else None
        steps.differs("key pair", old, str(public), upload)
    else:
        view.retag(steps, there, there["KeyPairId"], name)
    return steps.finish("the operator's key is known")


def _private_key() -> Path:
    return knobs.state_dir() / "ssh" / "id_ed25519"


def _key_pair(name: str) -> dict[str, Any] | None:
    """Return the key pair ``name`` as EC2 knows it, its public half included, or None."""
    answer = aws.call(
        __pillar__["platform"],
        "ec2",
        "describe_key_pairs",
        Filters=[{"Name": "key-name", "Values": [name]}],
        IncludePublicKey=True,
    )
    return next(iter(answer["KeyPairs"]), None)


def _same_key(known: str, public: Path) -> bool:
    """Compare type and key; EC2 keeps its own comment."""
    return known.split()[:2] == public.read_text(encoding="utf-8").split()[:2]


# The reverse --------------------------------------------------------------------------------------


@guarded
def rules_absent(name: str) -> dict[str, Any]:
    """Make the group ``name`` let nothing in: what another group's rules name cannot go."""
    view, steps = _begin(name)
    groups = view.groups()
    names = {item["GroupId"]: key for key, item in groups.items()}
    for rule in sorted(_rules(groups.get(name, {}).get("IpPermissions", []))):
        revoke = partial(_change, view, "revoke_security_group_ingress", name, rule)
        steps.differs(f"ingress {_words(rule, names)}", "allowed", None, revoke)
    return steps.finish(f"{name} lets nothing in")


@guarded
def group_absent(name: str) -> dict[str, Any]:
    """
    Remove the security group ``name``.

    The VPC's own tags are put right first: without groups nothing else says whose it is, should
    this be interrupted.
    """
    view, steps = _begin(name)
    found = view.groups().get(name)
    if found:
        vpc = view.vpc()
        if vpc:
            view.retag(steps, vpc, vpc["VpcId"], __pillar__["platform"]["name"])
        ident = found["GroupId"]
        delete = partial(view.remove, "delete_security_group", GroupId=ident)
        steps.differs("group", ident, None, delete)
    return steps.finish(f"no group {name} is there")


@guarded
def key_absent(name: str) -> dict[str, Any]:
    """
    Remove the key pair ``name``, and what the operator's machine has for SSH: the private key,
    the client's configuration, the host keys. A key pair that is neither tagged as ours nor has
    our key stays.
    """
    view, steps = _begin(name)
    there = _key_pair(name)
    if there and _is_ours(there):
        delete = partial(view.remove, "delete_key_pair", KeyName=name)
        steps.differs("key pair", there["KeyPairId"], None, delete)
    folder = _private_key().parent
    if folder.exists():
        # A connection's socket may leave while the folder does.
        steps.differs(str(folder), "there", None, lambda: shutil.rmtree(folder, ignore_errors=True))
    for file in (knobs.state_dir() / "known_hosts", knobs.state_dir() / "known_hosts.lock"):
        if file.exists():
            steps.differs(str(file), "there", None, partial(file.unlink, missing_ok=True))
    return steps.finish("no key is there")


def _is_ours(pair: dict[str, Any]) -> bool:
    public = _private_key().with_suffix(".pub")
    if public.exists() and _same_key(pair.get("PublicKey", ""), public):
        return True
    return is_ours(__pillar__["platform"], pair)
