"""
Options of a profile → what is wanted of one machine (`Spec`). The only place that checks them.

A profile of ``salt/cloud/profiles.conf`` says what EC2 gives a machine; what it leaves out comes
from the knobs. Its options are checked all at once, before anything is asked of EC2: each error
names the profile, the option and what to write instead. ``null`` is as if it were left out.
Limits: EC2 API reference, RunInstances.
"""

import difflib
import ipaddress
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aws
import jinja2
import knobs

# What salt-cloud itself puts into a profile before it gives it to a driver.
CORE = frozenset(
    {
        "name", "profile", "provider", "driver", "deploy", "script", "inline_script", "os",
        "minion", "master_finger", "make_master", "pub_key", "priv_key", "requires", "level",
        "sync_after_install", "start_action",
    }
)  # fmt: skip

# Sizes that earn and spend CPU credits: https://docs.aws.amazon.com/AWSEC2/latest/UserGuide
# "Burstable performance instances".
BURSTABLE = re.compile(r"t\d[a-z]*\.")
_SIZE = re.compile(r"[a-z][a-z0-9-]*\.[a-z0-9-]+")
_IMAGE = re.compile(r"ami-[0-9a-f]{8,17}|ssm:/[A-Za-z0-9_./-]+")
_IAM = re.compile(r"arn:aws[a-z-]*:iam::\d{12}:instance-profile/[\w+=,.@/-]+|[\w+=,.@-]{1,128}")
_DEVICE = re.compile(r"root|/dev/[a-z0-9]{2,20}|xvd[a-z]{1,2}")
_RESERVATION = re.compile(r"cr-[0-9a-f]{8,17}")
_TYPES = ("gp3", "gp2", "io1", "io2", "st1", "sc1", "standard")
_FOR_DATA = ("st1", "sc1")  # no machine starts from these


@dataclass(frozen=True)
class Image:
    """The machine image: ``id``, or the newest of ``owner`` that is named like ``name``."""

    id: str | None
    owner: str | None
    name: str | None


@dataclass(frozen=True)
class Device:
    """A volume of the machine. ``size`` in GiB, ``throughput`` in MiB/s; None: EC2's default."""

    device: str = "root"
    size: int | None = None
    type: str = "gp3"
    iops: int | None = None
    throughput: int | None = None
    encrypted: bool = True
    kms_key: str | None = None
    delete_on_termination: bool = True


@dataclass(frozen=True)
class Spot:
    """A machine of spare capacity, for at most ``max_price`` USD an hour (None: on demand's)."""

    max_price: str | None = None
    fallback: bool = False


@dataclass(frozen=True)
class Placement:
    """Where in the zone the machine lies, and whether alone; ``zone`` moves a worker."""

    group: str | None = None
    tenancy: str | None = None
    zone: str | None = None


@dataclass(frozen=True)
class Spec:
    """
    Everything wanted of one machine. `launch.resolve` turns names into what EC2 calls the things.

    ``subnet``, ``groups``, ``key`` and ``address`` are names or ids; ``subnet`` None is the one of
    the machine's place. ``termination_protection``, ``credit_mode`` and ``monitoring`` None are
    not ours to decide. ``user_data`` is the text of a template, None the platform's own.
    """

    name: str
    role: str
    profile: str
    image: Image
    size: str
    zone: str
    subnet: str | None
    groups: tuple[str, ...]
    key: str
    private_address: str | None
    public_address: bool
    address: str | None
    devices: tuple[Device, ...]
    iam_profile: str | None
    tokens: str
    hop_limit: int
    user_data: str | None
    tags: tuple[tuple[str, str], ...]
    spot: Spot | None
    placement: Placement
    capacity_reservation: str | None
    termination_protection: bool | None
    source_dest_check: bool
    credit_mode: str | None
    keep_failed: bool
    monitoring: bool | None
    ebs_optimized: bool


class _Wrong(ValueError):
    """A value that an option cannot have; the text says what is wrong and what to write."""


def _choice(*allowed: str) -> Callable[[Any], str]:
    def parse(value: Any) -> str:
        if value not in allowed:
            raise _Wrong(f"write {' or '.join(allowed)}")
        return str(value)

    return parse


def _switch(value: Any) -> bool:
    if not isinstance(value, bool):
        raise _Wrong("write true or false")
    return value


def _like(pattern: re.Pattern[str], fix: str) -> Callable[[Any], str]:
    def parse(value: Any) -> str:
        if not isinstance(value, str) or not pattern.fullmatch(value):
            raise _Wrong(f"write {fix}")
        return value

    return parse


_word = _like(re.compile(r"[!-~]([ -~]*[!-~])?"), "a name or an id")


def _number(low: int, high: int) -> Callable[[Any], int]:
    def parse(value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise _Wrong(f"write a whole number from {low} to {high}")
        return value

    return parse


def _table(value: Any, parsers: dict[str, Callable[[Any], Any]]) -> dict[str, Any]:
    """Return the mapping ``value`` with each of its values parsed; null ones are left out."""
    if not isinstance(value, dict):
        raise _Wrong(f"write a mapping of {', '.join(parsers)}")
    unknown = sorted(str(key) for key in value if key not in parsers)
    if unknown:
        raise _Wrong(f"{', '.join(unknown)} is unknown; known are {', '.join(parsers)}")
    made = {}
    for key, given in value.items():
        if given is not None:
            try:
                made[key] = parsers[key](given)
            except _Wrong as wrong:
                raise _Wrong(f"{key} {given!r}: {wrong}") from wrong
    return made


def _image(value: Any) -> Image:
    if isinstance(value, str):
        value = {"id": value}
    ident = _like(_IMAGE, "ami-… or ssm:/…")
    given = _table(value, {"id": ident, "owner": _word, "name": _word})
    if ("id" in given) == ("name" in given):
        raise _Wrong("write ami-…, ssm:/… (a public parameter), or {name: <pattern>, owner: <id>}")
    return Image(given.get("id"), given.get("owner"), given.get("name"))


def _groups(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not value or len(value) > 16:
        raise _Wrong("write a list of 1 to 16 groups, such as [worker]")
    return tuple(_word(item) for item in value)


def _ipv4(value: Any) -> str:
    try:
        return str(ipaddress.IPv4Address(value if isinstance(value, str) else ""))
    except ValueError as error:
        raise _Wrong("write an IPv4 address, such as 10.20.1.10") from error


def _devices(value: Any) -> tuple[Device, ...]:
    if not isinstance(value, list):
        raise _Wrong("write a list of {device, size, type, …}")
    made = [_device(item) for item in value]
    names = [item.device for item in made]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise _Wrong(f"{', '.join(twice)} is there more than once")
    return tuple(made)


def _device(value: Any) -> Device:
    given = _table(
        value,
        {
            "device": _like(_DEVICE, "root or /dev/…"),
            "size": _number(1, 65536),
            "type": _choice(*_TYPES),
            "iops": _number(100, 256000),
            "throughput": _number(125, 2000),
            "encrypted": _switch,
            "kms_key": _word,
            "delete_on_termination": _switch,
        },
    )
    if "device" not in given:
        raise _Wrong("device is missing: write root or /dev/…")
    made = Device(**given)
    if made.size is None and made.device != "root":
        raise _Wrong(f"size of {made.device} is missing: write it in GiB")
    if made.type in _FOR_DATA and (made.device == "root" or (made.size or 0) < 125):
        raise _Wrong(f"{made.type} is for further volumes of 125 GiB or more: write gp3")
    if made.iops and made.type not in ("gp3", "io1", "io2"):
        raise _Wrong(f"{made.type} takes no iops: leave it out, or write type gp3, io1 or io2")
    if not made.iops and made.type in ("io1", "io2"):
        raise _Wrong(f"{made.type} needs iops")
    if made.throughput and made.type != "gp3":
        raise _Wrong(f"{made.type} takes no throughput: leave it out, or write type gp3")
    if made.kms_key and not made.encrypted:
        raise _Wrong("kms_key without encryption: leave it out, or write encrypted true")
    return made


def _metadata(value: Any) -> dict[str, Any]:
    return _table(value, {"tokens": _choice("required", "optional"), "hop_limit": _number(1, 64)})


def _template(value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise _Wrong("write the text of a template")
    try:
        jinja2.Environment(line_statement_prefix="##", autoescape=True).parse(value)
    except jinja2.TemplateSyntaxError as error:
        raise _Wrong(f"line {error.lineno} is not Jinja: {error.message}") from error
    return value


def _template_file(value: Any) -> str:
    file = knobs.ROOT / Path(_word(value))
    try:
        return _template(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        if isinstance(error, _Wrong):
            raise
        raise _Wrong(
            "is not a file that can be read; write its path from the repository's root"
        ) from error


def _tags(value: Any) -> tuple[tuple[str, str], ...]:
    if not isinstance(value, dict) or not all(
        isinstance(part, str) for pair in value.items() for part in pair
    ):
        raise _Wrong("write a mapping of texts; a number or a yes in quotes")
    for key, text in value.items():
        if key == "Name" or key.lower().startswith(("f1:", "aws:")):
            raise _Wrong(f"the tag {key} is not yours to give: choose another key")
        if not 1 <= len(key) <= 128 or len(text) > 256:
            raise _Wrong(f"the tag {key[:40]} is too long: key 128, value 256 characters")
    if len(value) > 40:
        raise _Wrong("write 40 tags at the most")
    return tuple(sorted(value.items()))


def _price(value: Any) -> str:
    try:
        price = float(value) if isinstance(value, int | float | str) else 0.0
    except ValueError:
        price = 0.0
    if isinstance(value, bool) or not 0 < price < 1000:
        raise _Wrong("write a price in USD an hour, such as 0.02")
    return str(value)


def _spot(value: Any) -> Spot:
    return Spot(**_table(value, {"max_price": _price, "fallback": _switch}))


def _placement(value: Any) -> Placement:
    tenancy = _choice("default", "dedicated", "host")
    return Placement(**_table(value, {"group": _word, "tenancy": tenancy, "zone": _word}))


# Option of a profile → what makes a value of it, or raises _Wrong.
OPTIONS: dict[str, Callable[[Any], Any]] = {
    "role": _choice("master", "worker"),
    "image": _image,
    "size": _like(_SIZE, "an instance type, such as t3.small (salt-cloud --list-sizes aws)"),
    "subnet": _word,
    "groups": _groups,
    "key": _word,
    "private_address": _ipv4,
    "public_address": _switch,
    "address": _word,
    "block_devices": _devices,
    "iam_profile": _like(_IAM, "the name or the ARN of an instance profile"),
    "metadata": _metadata,
    "user_data": _template,
    "user_data_file": _template_file,
    "tags": _tags,
    "spot": _spot,
    "placement": _placement,
    "capacity_reservation": _like(_RESERVATION, "cr-…"),
    "termination_protection": _switch,
    "source_dest_check": _switch,
    "credit_mode": _choice("standard", "unlimited"),
    "keep_failed": _switch,
    "monitoring": _switch,
    "ebs_optimized": _switch,
}


def role_of(platform: dict[str, Any], name: str) -> str | None:
    """Return the role of the machine ``name`` (``master``, ``worker``), None if it has none."""
    if name == f"{platform['name']}-master":
        return "master"
    prefix, _, number = name.rpartition("-")
    is_worker = prefix == f"{platform['name']}-worker" and number.isdecimal()
    return "worker" if is_worker and not number.startswith("0") else None


def kept(profile: dict[str, Any]) -> list[str]:
    """Return the devices whose volumes stay when a machine of ``profile``, unchecked, goes."""
    return [
        str(device.get("device"))
        for device in profile.get("block_devices") or []
        if isinstance(device, dict) and device.get("delete_on_termination") is False
    ]


def spec(platform: dict[str, Any], name: str, profile: dict[str, Any]) -> Spec:
    """
    Return what ``profile`` and the knobs want of the machine ``name``; nothing is asked of EC2.

    ``profile`` holds `OPTIONS`, and what salt-cloud adds (`CORE`).
    Raises CloudError that names every wrong option, one a line.
    """
    title = str(profile.get("profile") or "profile")
    given: dict[str, Any] = {}
    problems: list[str] = []
    for key, value in profile.items():
        if key in CORE or value is None:
            continue
        if key not in OPTIONS:
            near = difflib.get_close_matches(str(key), OPTIONS, 1)
            guess = f"write {near[0]}; " if near else ""
            problems.append(f"{title}.{key}: unknown; {guess}known are {', '.join(OPTIONS)}")
            continue
        try:
            given[key] = OPTIONS[key](value)
        except _Wrong as wrong:
            # What a machine is given to run may hold what nobody else shall read.
            shown = "" if key == "user_data" else f"{value!r}: "
            problems.append(f"{title}.{key}: {shown}{wrong}")
    role = role_of(platform, name)
    said = given.get("role")
    # A role that is not one has been named above.
    if role is None or (said != role and (said or profile.get("role") is None)):
        problems.append(
            f"{name} cannot be made by the profile {title} (role {profile.get('role')!r}); the "
            f"master is {platform['name']}-master, workers are {platform['name']}-worker-1 …"
        )
    made = _filled(platform, name, role or "worker", title, given)
    problems += [f"{title}.{text}" for text in _together(platform, made, given)]
    if problems:
        raise aws.CloudError("\n".join(problems))
    return made


def _filled(
    platform: dict[str, Any], name: str, role: str, title: str, given: dict[str, Any]
) -> Spec:
    """Return the Spec of the options ``given``, the others from the knobs."""
    network, is_master = platform["network"], role == "master"
    wanted = platform["image"]
    metadata = given.get("metadata", {})
    devices = given.get("block_devices", ())
    if not any(item.device == "root" for item in devices):
        devices = (Device(), *devices)
    placement = given.get("placement", Placement())
    address = given.get("address") or (name if is_master else None)
    # Who forwards for others takes packets that are not for itself.
    forwards = is_master and network["egress"] == "master"
    size = given.get("size") or platform["master" if is_master else "workers"]["size"]
    return Spec(
        name=name,
        role=role,
        profile=title,
        image=given.get("image")
        or Image(wanted["id"], wanted["owner"], None if wanted["id"] else wanted["name"]),
        size=size,
        zone=placement.zone or _zone(platform, name),
        subnet=given.get("subnet"),
        groups=given.get("groups", (role,)),
        key=given.get("key") or platform["name"],
        private_address=given.get("private_address")
        or (network["master_ip"] if is_master else None),
        # An elastic address comes right after the launch: none is needed before.
        public_address=given.get("public_address", not address and network["egress"] == "public"),
        address=address,
        devices=devices,
        iam_profile=given.get("iam_profile"),
        tokens=metadata.get("tokens", "required"),
        hop_limit=metadata.get("hop_limit", 1),
        user_data=given.get("user_data") or given.get("user_data_file"),
        tags=given.get("tags", ()),
        spot=given.get("spot"),
        placement=placement,
        capacity_reservation=given.get("capacity_reservation"),
        termination_protection=given.get("termination_protection"),
        source_dest_check=given.get("source_dest_check", not forwards),
        # AWS's own default for most of them is unlimited, which is paid for.
        credit_mode=given.get("credit_mode", "standard" if BURSTABLE.match(size) else None),
        keep_failed=given.get("keep_failed", False),
        monitoring=given.get("monitoring"),
        ebs_optimized=given.get("ebs_optimized", False),
    )


def _zone(platform: dict[str, Any], name: str) -> str:
    """Return the zone of the machine's place: the master's is the first, worker N's (N-1) mod n."""
    zones = platform["aws"]["zones"]
    number = name.rpartition("-")[2]
    return str(zones[(int(number) - 1) % len(zones)] if number.isdecimal() else zones[0])


def _together(platform: dict[str, Any], made: Spec, given: dict[str, Any]) -> list[str]:
    """Return what is wrong about options that are right each by itself."""
    found = []
    zones = platform["aws"]["zones"]
    if "user_data" in given and "user_data_file" in given:
        found.append("user_data_file: there is user_data as well; leave one of them out")
    if made.credit_mode and not BURSTABLE.match(made.size):
        found.append(f"credit_mode: {made.size} has no credits (sizes t… have); leave it out")
    if made.placement.zone and made.placement.zone not in zones:
        found.append(
            f"placement: zone {made.placement.zone!r} has no subnet; write one of "
            f"platform.aws.zones ({', '.join(zones)}), or add it there"
        )
    if made.placement.zone and (made.subnet or made.role == "master"):
        found.append("placement: the subnet decides the zone; leave one of them out")
    if made.spot and made.capacity_reservation:
        found.append("spot: a spot machine takes no capacity_reservation; leave one of them out")
    if made.spot and made.termination_protection:
        found.append("spot: a spot machine cannot be protected; leave termination_protection out")
    if made.spot and made.placement.tenancy == "host":
        found.append("spot: no spot machine lies on a host of its own; write another tenancy")
    if "private_address" in given and made.subnet is None:
        cidr = ipaddress.IPv4Network(_cidr(platform, made))
        address = ipaddress.IPv4Address(given["private_address"])
        # EC2 keeps the first four and the last address of a subnet.
        if address not in cidr or address in (*list(cidr)[:4], cidr[-1]):
            found.append(
                f"private_address: {address} is none of {cidr}; write one from {cidr[4]} to "
                f"{cidr[-2]}"
            )
    return found


def place(platform: dict[str, Any], made: Spec) -> str:
    """Return the machine in whose place this one lies: its own, unless a zone is chosen."""
    zones = platform["aws"]["zones"]
    if made.placement.zone in zones and made.role == "worker":
        return f"{platform['name']}-worker-{zones.index(made.placement.zone) + 1}"
    return made.name


def _cidr(platform: dict[str, Any], made: Spec) -> str:
    network = platform["network"]
    if made.role == "master":
        return str(network["master_cidr"])
    cidrs = network["worker_cidrs"]
    return str(cidrs[(int(place(platform, made).rpartition("-")[2]) - 1) % len(cidrs)])
