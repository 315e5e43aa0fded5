"""moto as a cloud with consequences: its backends under one lock, where it differs from AWS
in ways a machine would notice, and what they say as plain data (`view`, `zones`).
"""

import base64
import os
import threading
from collections.abc import Callable
from ipaddress import IPv4Address, IPv4Network
from typing import Any

# Read by moto when it is imported: no images but ours, and unknown ones are an error.
os.environ.update(
    MOTO_EC2_LOAD_DEFAULT_AMIS="false",
    MOTO_ENABLE_AMI_VALIDATION="true",
    MOTO_EC2_ENABLE_INSTANCE_TYPE_VALIDATION="true",
)

from moto.ec2.models import EC2Backend, ec2_backends
from moto.ec2.models import elastic_ip_addresses as moto_addresses
from moto.ec2.models import elastic_network_interfaces as moto_interfaces
from moto.ec2.models.amis import Ami
from moto.ec2.models.instances import Instance
from moto.ec2.responses import general as moto_general
from moto.ec2.utils import Base64EncodedString
from moto.route53.models import route53_backends

from lab.cloud import moto_fixes
from lab.cloud.config import ACCOUNT, PUBLIC, Image
from lab.cloud.model import Group, Igw, Machine, Nat, Rule, Through, View, Way

# Every call that reads or writes EC2 or Route 53 holds it: moto's own objects have no locks.
LOCK = threading.RLock()

Records = dict[tuple[str, str], tuple[int, tuple[str, ...]]]
Zones = dict[str, Records]
_original_reboot = Instance.reboot


class NoAddressLeft(RuntimeError):
    """All public addresses are taken."""


def _taken() -> set[str]:
    taken: set[str] = set()
    for _, _, backend in ec2_backends.iter_backends():
        taken |= {nic.public_ip for nic in list(backend.enis.values()) if nic.public_ip}
        taken |= {address.public_ip for address in backend.addresses}
    return taken


def free_public_address() -> str:
    """The lowest public address that neither an interface nor an elastic address holds.

    Raises:
        NoAddressLeft: all are taken.
    """
    taken = _taken()
    for address in list(PUBLIC.hosts())[9:]:
        if str(address) not in taken:
            return str(address)
    raise NoAddressLeft(f"all of {PUBLIC} is taken; release addresses")


def _reboot(self: Any) -> None:
    """Count reboots, so that a reboot is a difference between wanted and present."""
    self.f1_reboots = getattr(self, "f1_reboots", 0) + 1
    _original_reboot(self)


def bind(console: Callable[[str], str]) -> None:
    """Give moto the lab's behaviour.

    Args:
        console: gives a machine's console output by instance id.
    """
    moto_fixes.apply()
    moto_addresses.random_ip = free_public_address
    moto_interfaces.random_public_ip = free_public_address
    Instance.reboot = _reboot

    def get_console_output(self: Any) -> Any:
        instance = self.ec2_backend.get_instance(self._get_param("InstanceId"))
        text = Base64EncodedString.from_raw_string(console(instance.id)[-65536:])
        answer = {"InstanceId": instance.id, "Timestamp": moto_general.utcnow(), "Output": text}
        return moto_general.ActionResult(answer)

    moto_general.General.get_console_output = get_console_output


def backend(region: str) -> EC2Backend:
    """The EC2 backend of the lab's account."""
    return ec2_backends[ACCOUNT][region]


def register(images: list[Image], region: str) -> None:
    """Offer machine images; known ones stay as they are."""
    with LOCK:
        ec2 = backend(region)
        for image in images:
            if image.ami in ec2.amis:
                continue
            ec2.amis[image.ami] = Ami(
                ec2,
                image.ami,
                name=image.name,
                description="Debian 12 in the lab",
                owner_id=image.owner,
                public=True,
                virtualization_type="hvm",
                architecture="x86_64",
                root_device_type="ebs",
                root_device_name="/dev/xvda",
                hypervisor="xen",
                boot_mode="legacy-bios",
                region_name=f"{region}a",
            )


def power_off(instance_id: str, region: str) -> None:
    """Note that a machine switched itself off: stopped or terminated, as it was launched for."""
    with LOCK:
        instance = backend(region).get_instance(instance_id)
        if instance.instance_initiated_shutdown_behavior == "terminate":
            instance.terminate()
        else:
            instance.stop()


def _rule(rule: Any) -> Rule:
    network = rule.ip_range.get("CidrIp")
    group = rule.source_group.get("GroupId")
    return Rule(
        protocol=str(rule.ip_protocol or "-1"),
        from_port=rule.from_port,
        to_port=rule.to_port,
        networks=(IPv4Network(network, strict=False),) if network else (),
        groups=(group,) if group else (),
    )


def _route_table(ec2: EC2Backend, subnet: Any) -> Any:
    """The route table that holds for a subnet: its own, else the VPC's main one."""
    tables = [t for t in ec2.route_tables.values() if t.vpc_id == subnet.vpc_id]
    own = [t for t in tables if subnet.id in t._associations.values()]
    return (own or [t for t in tables if t.main_association_id] or [None])[0]


def _way(ec2: EC2Backend, subnet: Any) -> Way:
    """Where a subnet's route table leads 0.0.0.0/0; None if nowhere, or to something gone."""
    table = _route_table(ec2, subnet)
    routes = table.routes if table else []
    route = next((r for r in routes if r.destination_cidr_block == "0.0.0.0/0"), None)
    if route is None or route.state != "active":
        return None
    if route.instance_id:
        return Through(route.instance_id)
    if route.nat_gateway:
        public = route.nat_gateway._eni.public_ip
        above = _way(ec2, route.nat_gateway._eni.subnet)
        return Nat(IPv4Address(public)) if public and isinstance(above, Igw) else None
    return Igw() if (route.gateway_id or "").startswith("igw-") else None


def _has_s3(ec2: EC2Backend, subnet: Any) -> bool:
    """Whether S3's gateway endpoint is associated with the subnet's route table."""
    table = _route_table(ec2, subnet)
    return table is not None and any(
        e.vpc_endpoint_type == "Gateway"
        and e.service_name.endswith(".s3")
        and e.state == "available"
        and table.id in e.route_table_ids
        for e in ec2.vpc_end_points.values()
    )


def _user_data(data: Any) -> bytes | None:
    return base64.b64decode(str(data)) if data else None


def _text(data: Any) -> str:
    return data.decode() if isinstance(data, bytes) else str(data)


def _machine(ec2: EC2Backend, instance: Any) -> Machine:
    nic = instance.nics[0]
    subnet = nic.subnet
    vpc = ec2.vpcs[subnet.vpc_id]
    key = ec2.key_pairs.get(instance.key_name) if instance.key_name else None
    tags = {t["key"]: t["value"] for t in instance.get_tags()}
    options = instance.metadata_options
    networks = [IPv4Network(b["cidr_block"]) for b in vpc.get_cidr_block_association_set()]
    return Machine(
        id=instance.id,
        name=tags.get("Name", ""),
        state=instance.state,
        image=instance.image_id,
        type=instance.instance_type,
        zone=instance.placement.zone,
        address=IPv4Address(nic.private_ip_address),
        subnet=IPv4Network(subnet.cidr_block),
        vpc_networks=tuple(networks),
        mac=nic.mac_address,
        groups=tuple(sorted({g.id for g in nic.group_set})),
        public=IPv4Address(nic.public_ip) if nic.public_ip else None,
        way=_way(ec2, subnet),
        s3=_has_s3(ec2, subnet),
        source_check=str(instance.source_dest_check).lower() != "false",
        hostname=instance.private_dns_name,
        public_hostname=instance.public_dns_name or "",
        key_name=instance.key_name,
        public_key=_text(key.material_public).strip() if key else None,
        user_data=_user_data(instance.user_data),
        tokens_required=options.http_tokens == "required",
        hop_limit=options.http_put_response_hop_limit,
        metadata_enabled=options.http_endpoint == "enabled",
        tags_in_metadata=(
            tuple(sorted(tags.items())) if options.instance_metadata_tags == "enabled" else None
        ),
        launched=instance.launch_time.strftime("%Y-%m-%dT%H:%M:%SZ"),
        reboots=getattr(instance, "f1_reboots", 0),
    )


def view(region: str) -> View:
    """What the API says now, as plain data."""
    with LOCK:
        ec2 = backend(region)
        machines = [
            _machine(ec2, instance)
            for instance in ec2.all_instances()
            if instance.state != "terminated" and instance.nics
        ]
        groups = [
            Group(
                id=group.id,
                ingress=tuple(_rule(r) for r in group.ingress_rules),
                egress=tuple(_rule(r) for r in group.egress_rules),
            )
            for groups in ec2.groups.values()
            for group in groups.values()
        ]
    holders: dict[IPv4Address, Machine] = {}
    for machine in machines:
        holders.setdefault(machine.address, machine)
    clashing = tuple(m for m in machines if holders[m.address] is not m)
    return View(tuple(holders.values()), tuple(groups), clashing)


def zones() -> Zones:
    """The public names: zone → (name, type) → (TTL in seconds, values); all end in a dot."""
    result: Zones = {}
    with LOCK:
        for _, _, route53 in route53_backends.iter_backends():
            for zone in route53.zones.values():
                records = result.setdefault(_dotted(zone.name), {})
                for record in zone.rrsets:
                    values = tuple(r["Value"] for r in record.resource_records or [])
                    key = (_dotted(record.name), record.type)
                    records[key] = (int(record.ttl or 60), values)
    return result


def _dotted(name: str) -> str:
    return name.lower().rstrip(".") + "."
