"""What the API says the cloud should be, as plain data: the border between moto and the lab."""

from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network


@dataclass(frozen=True)
class Rule:
    """One permission of a security group; ``protocol`` is tcp, udp, icmp, -1 or a number.

    For icmp the two ports are type and code, -1 = any. Peers are networks and group ids.
    """

    protocol: str
    from_port: int | None = None
    to_port: int | None = None
    networks: tuple[IPv4Network, ...] = ()
    groups: tuple[str, ...] = ()


@dataclass(frozen=True)
class Group:
    """A security group: what it lets in and out."""

    id: str
    ingress: tuple[Rule, ...] = ()
    egress: tuple[Rule, ...] = ()


@dataclass(frozen=True)
class Igw:
    """To an internet gateway attached to the VPC: needs a public address of one's own."""


@dataclass(frozen=True)
class Nat:
    """To a NAT gateway that has a way out itself: seen outside as its address."""

    public: IPv4Address


@dataclass(frozen=True)
class Through:
    """To another machine's interface, given by the machine's id."""

    machine: str


Way = Igw | Nat | Through | None  # None: what is not of the VPC is dropped


@dataclass(frozen=True)
class Machine:
    """An instance that is not terminated.

    ``way``: where its subnet's route table leads what is for the internet. ``s3``: that table
    has S3's gateway endpoint. ``reboots``: how often the API was asked to reboot it.
    """

    id: str
    name: str
    state: str
    image: str
    type: str
    zone: str
    address: IPv4Address
    subnet: IPv4Network
    vpc_networks: tuple[IPv4Network, ...]
    mac: str
    groups: tuple[str, ...] = ()
    public: IPv4Address | None = None
    way: Way = None
    s3: bool = False
    source_check: bool = True
    hostname: str = ""
    public_hostname: str = ""
    key_name: str | None = None
    public_key: str | None = None
    user_data: bytes | None = field(default=None, repr=False)  # may hold secrets
    tokens_required: bool = False
    hop_limit: int = 1
    metadata_enabled: bool = True
    tags_in_metadata: tuple[tuple[str, str], ...] | None = None
    launched: str = ""
    reboots: int = 0

    @property
    def running(self) -> bool:
        return self.state in ("pending", "running")

    @property
    def gateway(self) -> IPv4Address:
        """The subnet's router: its first address, as in a VPC."""
        return self.subnet.network_address + 1

    @property
    def outside(self) -> IPv4Address | None:
        """The address under which the internet sees what it sends by itself; None = no way."""
        if isinstance(self.way, Igw):
            return self.public
        return self.way.public if isinstance(self.way, Nat) else None

    @property
    def link(self) -> str:
        """The name of the machine's cable at the router's end (at most 15 characters)."""
        return "m" + self.id.removeprefix("i-")[-14:]


@dataclass(frozen=True)
class View:
    """Everything at one moment. ``clashing``: machines left out because an older one holds
    their private address (networks of the same range cannot both have it here)."""

    machines: tuple[Machine, ...] = ()
    groups: tuple[Group, ...] = ()
    clashing: tuple[Machine, ...] = ()

    def by_address(self, address: IPv4Address) -> Machine | None:
        return next((m for m in self.machines if m.address == address), None)

    def by_name(self, name: str) -> Machine | None:
        return next((m for m in self.machines if m.name == name and m.running), None)
