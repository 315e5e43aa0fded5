"""
Who may reach what: security groups and the operator's key.

.. code-block:: yaml

    master group:
      cloud_access.group:
        - name: f1-master
        - vpc: f1
        - text: the master

    master rules:
      cloud_access.rules:
        - name: f1-master
        - ingress:
          - {protocol: tcp, ports: 443, from: 0.0.0.0/0}
          - {protocol: tcp, ports: 4505-4506, from: f1-worker}

Groups name each other, so all are made before any has rules: two states. Any rule that is not
declared is removed, IPv6 and prefix lists included; egress is left open.
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

__opts__: dict[str, Any]
__pillar__: dict[str, Any]

# (protocol, first port, last port, kind of source, source)
Rule = tuple[str, int, int, str, str]

_EVERYWHERE: Rule = ("-1", -1, -1, "cidr", "0.0.0.0/0")
_RANGES = {
    "cidr": ("IpRanges", "CidrIp"),
    "ipv6": ("Ipv6Ranges", "CidrIpv6"),
    "list": ("PrefixListIds", "PrefixListId"),
    "group": ("UserIdGroupPairs", "GroupId"),
}


def _ec2(request: str, **arguments: Any) -> dict[str, Any]:
    return aws.call(__pillar__["platform"], "ec2", request, **arguments)


def _groups() -> dict[str, dict[str, Any]]:
    platform = __pillar__["platform"]
    found = aws.pages(
        platform,
        "ec2",
        "describe_security_groups",
        "SecurityGroups",
        Filters=aws.mine(platform),
    )
    return {item["GroupName"]: item for item in found}


@guarded
def group(name: str, vpc: str, text: str) -> dict[str, Any]:
    """Make sure that the VPC has the security group ``name``, described by ``text``."""
    platform = __pillar__["platform"]
    steps = Steps(name, __opts__["test"])

    def create() -> None:
        found = aws.pages(platform, "ec2", "describe_vpcs", "Vpcs", Filters=aws.mine(platform, vpc))
        parent = aws.one(found, "VpcId", vpc)
        if parent is None:
            raise aws.CloudError(f"no VPC named {vpc}")
        _ec2(
            "create_security_group",
            GroupName=name,
            Description=text,
            VpcId=parent["VpcId"],
            TagSpecifications=[
                {"ResourceType": "security-group", "Tags": aws.tags(platform, name)}
            ],
        )

    if name not in _groups():
        steps.differs("group", None, name, create)
    return steps.finish(f"{name} is there")


@guarded
def rules(name: str, ingress: list[dict[str, Any]]) -> dict[str, Any]:
    """
    Make the group ``name`` let in exactly ``ingress``, and let everything out.

    A rule is ``{protocol: tcp | udp, ports: 443 | 4505-4506, from: <CIDR or group name>}``.
    """
    steps = Steps(name, __opts__["test"])
    groups = _groups()
    names = {item["GroupId"]: key for key, item in groups.items()}
    found = groups.get(name, {})
    # A new group lets everything out and nothing in.
    new_egress = [_EVERYWHERE] if not found else []
    for direction, key, wanted in (
        ("ingress", "IpPermissions", {_declared(rule, groups) for rule in ingress}),
        ("egress", "IpPermissionsEgress", {_EVERYWHERE}),
    ):
        there = set(_rules(found.get(key, [])))
        if direction == "egress":
            there |= set(new_egress)
        for rule in sorted(wanted - there):
            steps.differs(
                f"{direction} {_words(rule, names)}",
                None,
                "allowed",
                partial(_change, f"authorize_security_group_{direction}", name, rule),
            )
        for rule in sorted(there - wanted):
            steps.differs(
                f"{direction} {_words(rule, names)}",
                "allowed",
                None,
                partial(_change, f"revoke_security_group_{direction}", name, rule),
            )
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
        first, last = (-1, -1) if protocol == "-1" else (item["FromPort"], item["ToPort"])
        for kind, (ranges, key) in _RANGES.items():
            for source in item.get(ranges, []):
                yield (protocol, first, last, kind, source[key])


def _words(rule: Rule, names: dict[str, str]) -> str:
    protocol, first, last, _, source = rule
    if protocol == "-1":
        return f"all {names.get(source, source)}"
    ports = str(first) if first == last else f"{first}-{last}"
    return f"{protocol}/{ports} {names.get(source, source)}"


def _change(request: str, name: str, rule: Rule) -> None:
    protocol, first, last, kind, source = rule
    groups = _groups()
    if kind == "group" and source in groups:
        source = groups[source]["GroupId"]
    ranges, key = _RANGES[kind]
    permission: dict[str, Any] = {"IpProtocol": protocol, ranges: [{key: source}]}
    if protocol != "-1":
        permission.update(FromPort=first, ToPort=last)
    _ec2(request, GroupId=groups[name]["GroupId"], IpPermissions=[permission])


@guarded
def key(name: str) -> dict[str, Any]:
    """Make sure the operator has a key (``.state/ssh/id_ed25519``) and EC2 its public half."""
    platform = __pillar__["platform"]
    steps = Steps(name, __opts__["test"])
    private = knobs.state_dir() / "ssh" / "id_ed25519"
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
            _ec2("delete_key_pair", KeyName=name)
        _ec2(
            "import_key_pair",
            KeyName=name,
            PublicKeyMaterial=public.read_bytes(),
            TagSpecifications=[{"ResourceType": "key-pair", "Tags": aws.tags(platform, name)}],
        )

    if not private.exists():
        steps.differs("private key", None, str(private), make)
    there = _ec2(
        "describe_key_pairs",
        Filters=[{"Name": "key-name", "Values": [name]}],
        IncludePublicKey=True,
    )["KeyPairs"]
    if not there or not private.exists() or not _same_key(there[0].get("PublicKey", ""), public):
        steps.differs("key pair", there[0]["KeyPairId"] if there else None, str(public), upload)
    return steps.finish("the operator's key is known")


def _same_key(known: str, public: Path) -> bool:
    """Compare type and key; EC2 keeps its own comment."""
    return known.split()[:2] == public.read_text(encoding="utf-8").split()[:2]


# The reverse --------------------------------------------------------------------------------------


@guarded
def rules_absent(name: str) -> dict[str, Any]:
    """Make the group ``name`` let nothing in: what another group's rules name cannot go."""
    steps = Steps(name, __opts__["test"])
    groups = _groups()
    names = {item["GroupId"]: key for key, item in groups.items()}
    for rule in sorted(_rules(groups.get(name, {}).get("IpPermissions", []))):
        revoke = partial(_change, "revoke_security_group_ingress", name, rule)
        steps.differs(f"ingress {_words(rule, names)}", "allowed", None, revoke)
    return steps.finish(f"{name} lets nothing in")


@guarded
def group_absent(name: str) -> dict[str, Any]:
    """Remove the security group ``name``."""
    platform = __pillar__["platform"]
    steps = Steps(name, __opts__["test"])
    found = _groups().get(name)
    if found:
        ident = found["GroupId"]
        delete = partial(ec2.remove, platform, "delete_security_group", GroupId=ident)
        steps.differs("group", ident, None, delete)
    return steps.finish(f"no group {name} is there")


@guarded
def key_absent(name: str) -> dict[str, Any]:
    """
    Remove the key pair ``name``, and what the operator's machine has for SSH: the private key,
    the client's configuration, the host keys. A key pair without our tag stays.
    """
    steps = Steps(name, __opts__["test"])
    filters = aws.mine(__pillar__["platform"])
    for item in _ec2("describe_key_pairs", Filters=filters)["KeyPairs"]:
        if item["KeyName"] == name:
            delete = partial(_ec2, "delete_key_pair", KeyName=name)
            steps.differs("key pair", item["KeyPairId"], None, delete)
    folder = knobs.state_dir() / "ssh"
    if folder.exists():
        # A connection's socket may leave while the folder does.
        steps.differs(str(folder), "there", None, lambda: shutil.rmtree(folder, ignore_errors=True))
    for file in (knobs.state_dir() / "known_hosts", knobs.state_dir() / "known_hosts.lock"):
        if file.exists():
            steps.differs(str(file), "there", None, partial(file.unlink, missing_ok=True))
    return steps.finish("no key is there")
