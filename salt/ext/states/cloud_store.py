"""
What machines fetch, and the name voters type: the bucket, the Salt environment in it, the record.

.. code-block:: yaml

    bucket:
      cloud_store.bucket: []
"""

from functools import partial
from typing import Any

import aws
import ec2
import environment
from steps import Steps, guarded
from vpc import shared

__opts__: dict[str, Any]
__pillar__: dict[str, Any]
__context__: dict[str, Any]

_PRIVATE = {
    "BlockPublicAcls": True,
    "IgnorePublicAcls": True,
    "BlockPublicPolicy": True,
    "RestrictPublicBuckets": True,
}
_TTL = 60


@guarded
def bucket(name: str) -> dict[str, Any]:
    """Make sure that the platform's bucket exists and that nothing in it can be public."""
    platform = __pillar__["platform"]
    steps = Steps(name, __opts__["test"])
    wanted = aws.bucket(platform)
    region = platform["aws"]["region"]

    def create() -> None:
        # us-east-1 is the one region that refuses to be named (S3 API, CreateBucket).
        place = {} if region == "us-east-1" else {"LocationConstraint": region}
        arguments = {"CreateBucketConfiguration": place} if place else {}
        aws.call(platform, "s3", "create_bucket", Bucket=wanted, **arguments)
        tag()

    def tag() -> None:
        tags = {"TagSet": aws.tags(platform, wanted)}
        aws.call(platform, "s3", "put_bucket_tagging", **aws.store(platform), Tagging=tags)

    def close() -> None:
        aws.call(
            platform,
            "s3",
            "put_public_access_block",
            **aws.store(platform),
            PublicAccessBlockConfiguration=_PRIVATE,
        )

    there = _head()
    where = (there or {}).get("BucketRegion") or region
    if where != region:
        raise aws.CloudError(
            f"the bucket {wanted} is in {where}, not in {region} (platform.aws.region): choose "
            "another platform.aws.bucket, or remove this one"
        )
    if there is None:
        steps.differs("bucket", None, wanted, create)
    elif not platform["aws"]["bucket"] and not _tags() and not _objects():
        # Ours, interrupted. One that holds something was somebody's before: `down` would empty it.
        steps.differs("tags", None, aws.PLATFORM_TAG, tag)
    missing = {"404", "NoSuchBucket", "NoSuchPublicAccessBlockConfiguration"}
    answer = _answer("get_public_access_block", missing) if there is not None else None
    if (answer or {}).get("PublicAccessBlockConfiguration") != _PRIVATE:
        steps.differs("public access", "possible", "blocked", close)
    return steps.finish(f"{wanted} is there and private")


def _head() -> dict[str, Any] | None:
    """Return what S3 says of the bucket, None if there is none."""
    try:
        return _answer("head_bucket", {"404", "NoSuchBucket"})
    except aws.CloudError as error:
        if aws.code(error) not in aws.DENIED:
            raise
        words = f"{error}; or another account has this name: choose another platform.aws.bucket"
        raise aws.CloudError(words) from error.__cause__


def _tags() -> list[dict[str, str]]:
    answer = _answer("get_bucket_tagging", {"NoSuchTagSet"}) or {"TagSet": []}
    return list(answer["TagSet"])


def _answer(request: str, missing: set[str]) -> dict[str, Any] | None:
    """Return what S3 answers about the bucket, None if it answers one of ``missing``."""
    platform = __pillar__["platform"]
    try:
        return aws.call(platform, "s3", request, **aws.store(platform))
    except aws.CloudError as error:
        if aws.code(error) in missing:
            return None
        raise


@guarded
def environment_published(name: str) -> dict[str, Any]:
    """Make sure that the machines' Salt environment is built and in the bucket, by its hash."""
    platform = __pillar__["platform"]
    steps = Steps(name, __opts__["test"])
    built = environment.cached()
    if built is None:
        steps.differs("built", None, environment.key(), environment.build)
    if built is None or not environment.published(platform, built):
        where = environment.object_key(built) if built else "saltenv/"
        steps.differs(
            "published", None, where, lambda: environment.publish(platform, environment.build())
        )
    return steps.finish(f"{environment.object_key(built)} is there" if built else "")


@guarded
def record(name: str, zone: str | None, address: str) -> dict[str, Any]:
    """
    Make sure that the A record of ``name`` in the Route 53 ``zone`` is the elastic ``address``.

    Without a zone nothing is changed, and the comment is the record to set by hand.
    """
    platform = __pillar__["platform"]
    steps = Steps(name, __opts__["test"])
    found = shared(__context__, platform).address(address)
    ip = found["PublicIp"] if found else f"<address {address}>"
    if zone is None:
        return steps.finish(f"set by hand, at whoever serves {name}: {name}. {_TTL} IN A {ip}")
    zone_id = _zone_id(zone)
    current = _current(zone_id, name)
    there = _values(current)

    def upsert() -> None:
        record_set = {
            "Name": f"{name}.",
            "Type": "A",
            "TTL": _TTL,
            "ResourceRecords": [{"Value": ip}],
        }
        _change_record(platform, zone_id, "UPSERT", record_set)

    if there != [ip]:
        old = "an alias" if current and not there else ", ".join(there) or None
        steps.differs(name, old, ip, upsert)
    elif current and current.get("TTL") != _TTL:
        steps.differs(f"TTL of {name}", current.get("TTL"), _TTL, upsert)
    return steps.finish(f"{name} is {ip}")


def _zone_id(zone: str) -> str:
    found = _find_zone(zone)
    if found is None:
        raise aws.CloudError(
            f"no public Route 53 zone {zone}; make it, or set platform.dns.zone to null"
        )
    return found


def _find_zone(zone: str) -> str | None:
    platform = __pillar__["platform"]
    answer = aws.call(platform, "route53", "list_hosted_zones_by_name", DNSName=zone)
    for item in answer["HostedZones"]:
        if item["Name"] == f"{zone}." and not item["Config"].get("PrivateZone"):
            return str(item["Id"])
    return None


def _current(zone_id: str, name: str) -> dict[str, Any] | None:
    """Return the A record of ``name``, or None."""
    answer = aws.call(
        __pillar__["platform"],
        "route53",
        "list_resource_record_sets",
        HostedZoneId=zone_id,
        StartRecordName=f"{name}.",
        StartRecordType="A",
        MaxItems="1",
    )
    for item in answer["ResourceRecordSets"]:
        if item["Name"] == f"{name}." and item["Type"] == "A":
            return dict(item)
    return None


def _values(record: dict[str, Any] | None) -> list[str]:
    """Return the addresses of ``record``; an alias has none."""
    return [value["Value"] for value in (record or {}).get("ResourceRecords", [])]


# The reverse --------------------------------------------------------------------------------------


@guarded
def record_absent(name: str, zone: str | None, address: str) -> dict[str, Any]:
    """Remove the A record of ``name`` if it is the elastic ``address`` and nothing else."""
    platform = __pillar__["platform"]
    steps = Steps(name, __opts__["test"])
    if zone is None:
        return steps.finish(f"if {name} has an A record for the platform, remove it by hand")
    zone_id = _find_zone(zone)
    there = _current(zone_id, name) if zone_id else None
    if zone_id is None or there is None:
        return steps.finish(f"no record {name} is there")
    found = shared(__context__, platform).address(address)
    if found is None or _values(there) != [found["PublicIp"]]:
        is_ = ", ".join(_values(there)) or "an alias"
        return steps.finish(f"{name} is {is_}, which is not ours: left alone")

    def delete() -> None:
        # Route 53 removes only what is given exactly as it is.
        _change_record(platform, zone_id, "DELETE", there)

    steps.differs(name, found["PublicIp"], None, delete)
    return steps.finish("")


@guarded
def bucket_absent(name: str) -> dict[str, Any]:
    """
    Remove the platform's bucket and all that is in it, old versions included.

    One without our tag was there before us and stays; so may be one whose creation was
    interrupted: it goes if it is empty and has the name that we give.
    """
    platform = __pillar__["platform"]
    steps = Steps(name, __opts__["test"])
    wanted = aws.bucket(platform)
    if _head() is None:
        return steps.finish(f"no bucket {wanted} is there")
    objects = _objects()
    tags = _tags()
    is_tagged = ec2.tag({"Tags": tags}, aws.PLATFORM_TAG) == platform["name"]
    is_unfinished = not tags and not objects and not platform["aws"]["bucket"]
    if not is_tagged and not is_unfinished:
        return steps.finish(
            f"{wanted} has no tag {aws.PLATFORM_TAG}={platform['name']}: left alone"
        )
    if objects:
        steps.differs("objects", "there", None, _empty)
    delete = partial(aws.call, platform, "s3", "delete_bucket", **aws.store(platform))
    steps.differs("bucket", wanted, None, delete)
    return steps.finish("")


def _objects() -> list[dict[str, str]]:
    """Return the first thousand objects of the bucket, every version and deletion of them."""
    platform = __pillar__["platform"]
    answer = aws.call(platform, "s3", "list_object_versions", **aws.store(platform))
    return [
        {"Key": item["Key"], "VersionId": item["VersionId"]}
        for item in [*answer.get("Versions", []), *answer.get("DeleteMarkers", [])]
    ]


def _empty() -> None:
    platform = __pillar__["platform"]
    while objects := _objects():
        answer = aws.call(
            platform,
            "s3",
            "delete_objects",
            **aws.store(platform),
            Delete={"Objects": objects, "Quiet": True},
        )
        # A refusal is told inside a success; without this the loop would not end.
        for error in answer.get("Errors", []):
            raise aws.CloudError(
                f"s3 delete_objects failed: {error['Key']}: {error['Code']}: {error['Message']}"
            )


def _change_record(
    platform: dict[str, Any], zone_id: str, action: str, record_set: dict[str, Any]
) -> None:
    """Let Route 53 do ``action`` (``UPSERT`` or ``DELETE``) with one record set of a zone."""
    change = {"Action": action, "ResourceRecordSet": record_set}
    aws.call(
        platform,
        "route53",
        "change_resource_record_sets",
        HostedZoneId=zone_id,
        ChangeBatch={"Changes": [change]},
    )
