"""
From what is wanted of one machine (`profiles.Spec`) to the machine: what EC2 calls the things that
it names, the request that makes it, its end. Requests and codes: EC2 API reference, RunInstances.
"""

import dataclasses
import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import aws
import ec2
import vpc
from profiles import BURSTABLE, Device, Image, Spec, place

log = logging.getLogger(__name__)

TERMINATED_SECONDS = 300

# What the network's states made a moment ago is seen everywhere only after another.
_NOT_SEEN_YET = {
    "InvalidGroup.NotFound",
    "InvalidKeyPair.NotFound",
    "InvalidSubnetID.NotFound",
}
SEEN_SECONDS = 60
_SPOT_REQUEST = "spot-instances-request"
# A spot request that finds no machine fails with one of these.
_NO_SPOT = {
    "InsufficientInstanceCapacity",
    "SpotMaxPriceTooLow",
    "MaxSpotInstanceCountExceeded",
}


# What EC2 calls things --------------------------------------------------------------------------


class Lookup:
    """
    What EC2 says of what specs name. Each question is asked once, however many machines there are.

    ``items`` are the instances that it may be asked about.
    """

    def __init__(self, platform: dict[str, Any], items: list[dict[str, Any]] | None = None) -> None:
        self.platform = platform
        self.items = items or []
        self._answers: dict[Any, Any] = {}
        self._view = vpc.View(platform)

    def _once(self, question: Any, ask: Callable[[], Any]) -> Any:
        if question not in self._answers:
            self._answers[question] = ask()
        return self._answers[question]

    def _pages(self, request: str, key: str, **arguments: Any) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self._once(
            (request, repr(arguments)),
            lambda: aws.pages(self.platform, "ec2", request, key, **arguments),
        )
        return found

    def image(self, wanted: Image) -> dict[str, Any]:
        """Return the image, which must be one that the Salt environment runs on."""
        found: dict[str, Any] = self._once(
            wanted, lambda: ec2.image(self.platform, dataclasses.asdict(wanted))
        )
        if found.get("Architecture", "x86_64") != "x86_64":
            raise aws.CloudError(
                f"{found['ImageId']} is for {found['Architecture']}, the Salt environment for "
                "x86_64; choose an image for x86_64"
            )
        return found

    def subnet(self, wanted: Spec) -> str:
        """Return the id of the machine's subnet: by its place, or named by the profile."""
        if wanted.subnet is None:
            machine = place(self.platform, wanted)
            cidr = vpc.subnet_cidr(self.platform, machine)
            ask = partial(vpc.subnet_id, self.platform, machine, self._view)
            return str(self._once(("subnet", cidr), ask))
        home = self._once("vpc", self._view.needed_id)
        inside = [{"Name": "vpc-id", "Values": [home]}]
        subnets = self._pages("describe_subnets", "Subnets", Filters=inside)
        found = [s for s in subnets if wanted.subnet in (s["SubnetId"], ec2.tag(s, "Name"))]
        item = aws.one(found, "SubnetId", wanted.subnet)
        if item is None:
            raise aws.CloudError(
                f"no subnet {wanted.subnet} in {home}; there are: "
                + ", ".join(sorted(ec2.tag(s, "Name") or s["SubnetId"] for s in subnets))
            )
        return str(item["SubnetId"])

    def groups(self, wanted: tuple[str, ...]) -> tuple[str, ...]:
        """Return the ids of the groups: ids as they are, names without the platform's."""
        names = [f"{self.platform['name']}-{g}" for g in wanted if not g.startswith("sg-")]
        ids = self._once(
            ("groups", *names), partial(vpc.group_ids, self.platform, names, self._view)
        )
        known = dict(zip(names, ids, strict=True))
        return tuple(known.get(f"{self.platform['name']}-{g}", g) for g in wanted)

    def key(self, wanted: str) -> str:
        """Return the name of the key pair, which may be given by its id."""
        if not wanted.startswith("key-"):
            return wanted
        pairs = self._once(
            "keys", lambda: aws.call(self.platform, "ec2", "describe_key_pairs")["KeyPairs"]
        )
        names = [str(pair["KeyName"]) for pair in pairs if pair["KeyPairId"] == wanted]
        if not names:
            raise aws.CloudError(f"no key pair {wanted} in {self.platform['aws']['region']}")
        return names[0]

    def address(self, name: str) -> dict[str, Any] | None:
        """Return the elastic address ``name``, or None."""
        found: dict[str, Any] | None = self._once(
            ("address", name), partial(self._view.address, name)
        )
        return found

    def credits(self, instance_id: str) -> str:
        """Return the credit mode of a machine of a burstable size."""
        ids = [i["InstanceId"] for i in self.items if BURSTABLE.match(i["InstanceType"])]
        answer = self._once(
            "credits",
            lambda: aws.call(
                self.platform,
                "ec2",
                "describe_instance_credit_specifications",
                InstanceIds=sorted({*ids, instance_id}),
            ),
        )
        modes = {i["InstanceId"]: i["CpuCredits"] for i in answer["InstanceCreditSpecifications"]}
        return str(modes[instance_id])

    def is_protected(self, instance_id: str) -> bool:
        """Say whether the machine may not be terminated; EC2 tells of one at a time."""
        return bool(
            self._once(("protected", instance_id), lambda: is_protected(self.platform, instance_id))
        )


@dataclass(frozen=True)
class Ids:
    """What EC2 calls what a Spec names; the image and the device it starts from only to launch."""

    image: str
    root: str
    root_size: int
    subnet: str
    groups: tuple[str, ...]
    key: str


def resolve(platform: dict[str, Any], spec: Spec, lookup: Lookup | None = None) -> Ids:
    """Return what EC2 calls the things that ``spec`` names, or CloudError with all it has not."""
    look = lookup or Lookup(platform)
    problems: list[str] = []

    def found(option: str, ask: Callable[[], Any]) -> Any:
        try:
            return ask()
        except aws.CloudError as error:
            # Of no answer at all, one is enough.
            if error.__cause__ is not None and not aws.code(error):
                raise
            problems.append(f"{spec.profile}.{option}: {error}")
            return None

    image = found("image", lambda: look.image(spec.image)) or {}
    subnet = found("subnet", lambda: look.subnet(spec))
    groups = found("groups", lambda: look.groups(spec.groups))
    key = found("key", lambda: look.key(spec.key))
    if spec.address and found("address", lambda: (look.address(spec.address or ""),)) == (None,):
        problems.append(
            f"{spec.profile}.address: no elastic address named {spec.address}; "
            "run `salt-run state.orchestrate orch.network` first"
        )
    if problems:
        raise aws.CloudError("\n".join(problems))
    devices = {
        item["DeviceName"]: item["Ebs"]
        for item in image.get("BlockDeviceMappings", [])
        if "Ebs" in item
    }
    root = image.get("RootDeviceName") or next(iter(devices), "/dev/xvda")
    size = devices.get(root, {}).get("VolumeSize", 8)
    return Ids(str(image["ImageId"]), str(root), int(size), subnet, groups, key)


# Creation ---------------------------------------------------------------------------------------


def request(
    platform: dict[str, Any], spec: Spec, ids: Ids, user_data: str | bytes
) -> dict[str, Any]:
    """Return the arguments of RunInstances that make the machine, but for its client token."""
    interface: dict[str, Any] = {
        "DeviceIndex": 0,
        "SubnetId": ids.subnet,
        "Groups": list(ids.groups),
        "AssociatePublicIpAddress": spec.public_address,
        "DeleteOnTermination": True,
    }
    if spec.private_address:
        interface["PrivateIpAddress"] = spec.private_address
    tags = [*aws.tags(platform, spec.name), *({"Key": k, "Value": v} for k, v in spec.tags)]
    made: dict[str, Any] = {
        "ImageId": ids.image,
        "InstanceType": spec.size,
        "MinCount": 1,
        "MaxCount": 1,
        "KeyName": ids.key,
        "NetworkInterfaces": [interface],
        "BlockDeviceMappings": [_mapping(device, ids) for device in spec.devices],
        "UserData": user_data,
        "MetadataOptions": {
            "HttpEndpoint": "enabled",
            "HttpTokens": spec.tokens,
            "HttpPutResponseHopLimit": spec.hop_limit,
        },
        "TagSpecifications": [
            {"ResourceType": kind, "Tags": tags}
            for kind in ("instance", "volume", "network-interface")
        ],
    }
    if spec.iam_profile:
        kind = "Arn" if spec.iam_profile.startswith("arn:") else "Name"
        made["IamInstanceProfile"] = {kind: spec.iam_profile}
    if spec.spot:
        options = {"SpotInstanceType": "one-time", "InstanceInterruptionBehavior": "terminate"}
        if spec.spot.max_price:
            options["MaxPrice"] = spec.spot.max_price
        made["InstanceMarketOptions"] = {"MarketType": "spot", "SpotOptions": options}
        made["TagSpecifications"].append({"ResourceType": _SPOT_REQUEST, "Tags": tags})
    where = {
        "AvailabilityZone": spec.placement.zone,
        "GroupName": spec.placement.group,
        "Tenancy": spec.placement.tenancy,
    }
    if any(where.values()):
        made["Placement"] = {key: value for key, value in where.items() if value}
    if spec.capacity_reservation:
        target = {"CapacityReservationId": spec.capacity_reservation}
        made["CapacityReservationSpecification"] = {"CapacityReservationTarget": target}
    if spec.termination_protection:
        made["DisableApiTermination"] = True
    if spec.credit_mode:
        made["CreditSpecification"] = {"CpuCredits": spec.credit_mode}
    if spec.monitoring is not None:
        made["Monitoring"] = {"Enabled": spec.monitoring}
    if spec.ebs_optimized:
        made["EbsOptimized"] = True
    return made


def dry_run(platform: dict[str, Any], spec: Spec) -> dict[str, Any]:
    """Ask EC2 whether it would make the machine; return the request but for the user-data."""
    asked = request(platform, spec, resolve(platform, spec), "")
    del asked["UserData"]
    aws.dry_run(platform, "ec2", "run_instances", **asked)
    return asked


def _mapping(device: Device, ids: Ids) -> dict[str, Any]:
    is_root = device.device == "root"
    volume: dict[str, Any] = {
        "VolumeType": device.type,
        "VolumeSize": device.size or ids.root_size,
        "Encrypted": device.encrypted,
        "DeleteOnTermination": device.delete_on_termination,
    }
    more = {"Iops": device.iops, "Throughput": device.throughput, "KmsKeyId": device.kms_key}
    volume.update({key: value for key, value in more.items() if value})
    return {"DeviceName": ids.root if is_root else device.device, "Ebs": volume}


def run(
    platform: dict[str, Any], spec: Spec, ids: Ids, user_data: str | bytes
) -> tuple[dict[str, Any], str | None]:
    """
    Launch the machine; return its instance, and what came otherwise than asked (or None).

    All repetitions of the request bear the same client token, so that one whose answer was lost
    makes no second machine. Raises CloudError; of no capacity, with zone, size and the way out.
    """
    arguments = request(platform, spec, ids, user_data)
    said = None
    try:
        answer = _launched(platform, spec, arguments)
    except aws.CloudError as error:
        if not (spec.spot and spec.spot.fallback and aws.code(error) in _NO_SPOT):
            raise
        said = f"on demand instead of spot: {aws.code(error)}"
        log.warning("%s: %s", spec.name, said)
        del arguments["InstanceMarketOptions"]
        # Refused on a request that makes none.
        arguments["TagSpecifications"] = [
            each for each in arguments["TagSpecifications"] if each["ResourceType"] != _SPOT_REQUEST
        ]
        answer = _launched(platform, spec, arguments)
    item: dict[str, Any] = answer["Instances"][0]
    return item, said


def _launched(platform: dict[str, Any], spec: Spec, arguments: dict[str, Any]) -> dict[str, Any]:
    token = ec2.token(spec.name)

    def probe() -> tuple[dict[str, Any] | None, str]:
        try:
            return aws.call(platform, "ec2", "run_instances", ClientToken=token, **arguments), ""
        except aws.CloudError as error:
            if aws.code(error) not in _NOT_SEEN_YET:
                raise
            return None, str(error)

    try:
        return aws.wait(f"EC2 to see what {spec.name} needs", SEEN_SECONDS, probe)
    except aws.CloudError as error:
        if aws.code(error) != "InsufficientInstanceCapacity":
            raise
        others = [zone for zone in platform["aws"]["zones"] if zone != spec.zone]
        elsewhere = f"of platform.aws.zones ({', '.join(others)})" if others else "(add one first)"
        knob = "master" if spec.role == "master" else "workers"
        raise aws.CloudError(
            f"{error} {spec.zone} has no {spec.size} left for {spec.name}: another zone "
            f"{elsewhere} by {spec.profile}.placement, or another size by platform.{knob}.size"
        ) from error.__cause__


def remove(platform: dict[str, Any], spec: Spec, instance_id: str) -> list[str]:
    """
    Terminate a machine whose creation failed, with what EC2 would leave of it; name what went.

    The elastic address, which is by name and not made by a creation, comes free by itself.
    Raises CloudError.
    """
    item = ec2.by_id(platform, instance_id)
    if spec.termination_protection:
        protect(platform, instance_id, False)
    aws.call(platform, "ec2", "terminate_instances", InstanceIds=[instance_id])
    gone = [instance_id]
    volumes = [
        device["Ebs"]["VolumeId"]
        for device in item.get("BlockDeviceMappings", [])
        if not device["Ebs"].get("DeleteOnTermination", True)
    ]
    interfaces = [
        nic["NetworkInterfaceId"]
        for nic in item.get("NetworkInterfaces", [])
        if not nic.get("Attachment", {}).get("DeleteOnTermination", True)
    ]
    if volumes or interfaces:
        terminated(platform, spec.name, instance_id)
    view = vpc.View(platform)
    for ident in volumes:
        view.remove("delete_volume", VolumeId=ident)
    for ident in interfaces:
        view.remove("delete_network_interface", NetworkInterfaceId=ident)
    return [*gone, *volumes, *interfaces]


def terminated(platform: dict[str, Any], name: str, instance_id: str) -> None:
    """Wait until the machine is terminated, or raise CloudError."""

    def probe() -> tuple[bool | None, str]:
        try:
            state = ec2.by_id(platform, instance_id)["State"]["Name"]
        except aws.CloudError as error:
            if aws.code(error) != "InvalidInstanceID.NotFound":
                raise
            return True, "gone"
        return (True if state == "terminated" else None), f"it is {state}"

    aws.wait(f"{name} ({instance_id}) to be terminated", TERMINATED_SECONDS, probe)


def is_protected(platform: dict[str, Any], instance_id: str) -> bool:
    """Say whether EC2 refuses to terminate the machine."""
    answer = aws.call(
        platform,
        "ec2",
        "describe_instance_attribute",
        InstanceId=instance_id,
        Attribute="disableApiTermination",
    )
    return bool(answer["DisableApiTermination"].get("Value"))


def protect(platform: dict[str, Any], instance_id: str, is_wanted: bool) -> None:
    """Let EC2 refuse to terminate the machine, or not."""
    aws.call(
        platform,
        "ec2",
        "modify_instance_attribute",
        InstanceId=instance_id,
        DisableApiTermination={"Value": is_wanted},
    )
