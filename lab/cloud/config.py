"""What the lab's cloud can be told, and where it keeps things."""

import hashlib
import json
import os
from dataclasses import asdict, dataclass, field, fields
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any

import yaml

LABEL = "f1.lab"
GUARD = Path("/run/f1-lab.lock")  # held by the one lab of a machine
ACCOUNT = "123456789012"

# The "internet": the two halves of the benchmark network (RFC 2544), which no real host has.
# (Documentation networks, RFC 5737, turned out to be in use behind some hosts' default route.)
INTERNET = IPv4Network("198.18.0.0/24")
HOST_ADDRESS = IPv4Address("198.18.0.1")
OUTSIDE_ADDRESSES = (IPv4Address("198.18.0.10"), IPv4Address("198.18.0.11"))
DNS_ADDRESS = IPv4Address("198.18.0.53")
ROUTER_ADDRESS = IPv4Address("198.18.0.254")
PUBLIC = IPv4Network("198.19.0.0/24")
METADATA_ADDRESS = IPv4Address("169.254.169.254")
RESOLVER_ADDRESS = IPv4Address("169.254.169.253")

DEBIAN = "debian-12-amd64-f1lab"
DEBIAN_OWNER = "136693071363"  # the account under which Debian publishes its images on AWS


class ConfigError(ValueError):
    """Every wrong key of a configuration at once, each with its fix."""


def home() -> Path:
    """The runtime folder of this machine's only lab (``F1_LAB_HOME``)."""
    return Path(os.environ.get("F1_LAB_HOME", "/var/lib/f1-lab"))


def cache() -> Path:
    """The folder of what is costly to make and survives `down` (``F1_CACHE``)."""
    return Path(os.environ.get("F1_CACHE", Path.home() / ".cache" / "f1-vote"))


@dataclass(frozen=True)
class Image:
    """A machine image of the API.

    ``tag``: Docker image, None = the Debian of `lab.machine`. ``mounts``: read-only
    {path on the host: path in the machine}. ``volumes``: paths kept off the machine's
    layered root file system.
    """

    name: str = DEBIAN
    tag: str | None = None
    owner: str = DEBIAN_OWNER
    mounts: dict[str, str] = field(default_factory=dict)
    volumes: list[str] = field(default_factory=list)

    @property
    def ami(self) -> str:
        """The image id: always the same for a name."""
        return "ami-" + hashlib.sha256(self.name.encode()).hexdigest()[:17]


@dataclass(frozen=True)
class Publish:
    """A TCP port of the operator's loopback, led to the machine with that ``Name`` tag."""

    listen: str
    machine: str
    port: int

    @property
    def address(self) -> tuple[str, int]:
        host, _, port = self.listen.rpartition(":")
        return host, int(port)


@dataclass(frozen=True)
class Process:
    """A further service to keep alive; ``ready_url`` answers when it is up."""

    name: str
    argv: list[str]
    ready_url: str | None = None
    env: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Config:
    """The whole of it. Ports are TCP; ``files`` is a folder served read-only to the machines."""

    region: str = "eu-west-3"
    api_port: int = 5001
    s3_port: int = 9000
    files_port: int = 9080
    files: str | None = None
    images: list[Image] = field(default_factory=lambda: [Image()])
    publish: list[Publish] = field(default_factory=list)
    processes: list[Process] = field(default_factory=list)

    @property
    def api_url(self) -> str:
        return f"http://127.0.0.1:{self.api_port}"

    @property
    def s3_url(self) -> str:
        return f"http://{HOST_ADDRESS}:{self.s3_port}"

    @property
    def files_url(self) -> str:
        return f"http://{HOST_ADDRESS}:{self.files_port}"

    def dump(self) -> str:
        """The configuration as JSON that `load` reads."""
        return json.dumps(asdict(self), indent=1)


_PARTS: dict[str, type] = {"images": Image, "publish": Publish, "processes": Process}


def _unknown(given: dict[str, Any], known: type, where: str, errors: list[str]) -> None:
    names = {f.name for f in fields(known)}
    for key in given.keys() - names:
        errors.append(f"{where}{key}: unknown; one of {', '.join(sorted(names))}")


def _part(kind: type, given: Any, where: str, errors: list[str]) -> Any:
    if not isinstance(given, dict):
        errors.append(f"{where.rstrip('.')}: must be a mapping")
        return None
    before = len(errors)
    _unknown(given, kind, where, errors)
    if len(errors) > before:
        return None
    try:
        return kind(**given)
    except TypeError as error:
        errors.append(f"{where.rstrip('.')}: {str(error).split(') ')[-1]}")
        return None


def parse(data: dict[str, Any]) -> Config:
    """Build a `Config` from plain data.

    Raises:
        ConfigError: naming every wrong key and its fix.
    """
    errors: list[str] = []
    _unknown(data, Config, "", errors)
    values = {k: v for k, v in data.items() if k in {f.name for f in fields(Config)}}
    for key, kind in _PARTS.items():
        given = values.get(key, [])
        if not isinstance(given, list):
            errors.append(f"{key}: must be a list")
            given = []
        parts = [_part(kind, item, f"{key}[{i}].", errors) for i, item in enumerate(given)]
        values[key] = [p for p in parts if p is not None]
    if "images" not in data:
        values.pop("images")
    config = Config(**values)
    errors += _check(config)
    if errors:
        raise ConfigError("\n".join(errors))
    return config


def _check(config: Config) -> list[str]:
    errors = []
    for name in ("api_port", "s3_port", "files_port"):
        value = getattr(config, name)
        if not isinstance(value, int) or not 0 < value < 65536:
            errors.append(f"{name}: {value!r} is no TCP port; use 1 … 65535")
    if config.files is not None and not Path(config.files).is_dir():
        errors.append(f"files: {config.files} is no folder; make it or leave the key out")
    for i, rule in enumerate(config.publish):
        try:
            host, port = rule.address
            ok = IPv4Address(host).is_loopback and 0 < port < 65536
        except ValueError:
            ok = False
        if not ok:
            errors.append(
                f"publish[{i}].listen: {rule.listen!r} must be 127.x.x.x:<port>, "
                "so that only this machine sees it"
            )
        if not isinstance(rule.port, int) or not 0 < rule.port < 65536:
            errors.append(f"publish[{i}].port: {rule.port!r} is no TCP port; use 1 … 65535")
    listens = [rule.listen for rule in config.publish]
    for listen in {x for x in listens if listens.count(x) > 1}:
        errors.append(f"publish: {listen} is used twice; give each its own port")
    for i, image in enumerate(config.images):
        for source in image.mounts:
            if not Path(source).exists():
                errors.append(f"images[{i}].mounts: {source} does not exist; build it first")
    for i, process in enumerate(config.processes):
        if not process.argv or not all(isinstance(a, str) for a in process.argv):
            errors.append(f"processes[{i}].argv: must be a list of words, the program first")
    return errors


def load(path: Path) -> Config:
    """Read a YAML or JSON file.

    Raises:
        ConfigError: the file is missing, is no mapping, or holds wrong keys.
    """
    try:
        data = yaml.safe_load(path.read_text()) or {}
    except (OSError, yaml.YAMLError) as error:
        raise ConfigError(f"{path}: {error}") from error
    if not isinstance(data, dict):
        raise ConfigError(f"{path}: must be a mapping of keys")
    return parse(data)
