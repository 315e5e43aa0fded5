"""
What machines fetch, and the name voters type: the bucket, the Salt environment in it, the record.

.. code-block:: yaml

    bucket:
      cloud_store.bucket: []
"""

from typing import Any

import aws
import ec2
import environment
from steps import Steps, guarded

__opts__: dict[str, Any]
__pillar__: dict[str, Any]

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
        aws.call(
            platform,
            "s3",
            "put_bucket_tagging",
            Bucket=wanted,
            Tagging={"TagSet": aws.tags(platform, wanted)},
        )

    def close() -> None:
        aws.call(
            platform,
            "s3",
            "put_public_access_block",
            Bucket=wanted,
            PublicAccessBlockConfiguration=_PRIVATE,
        )

    there = _answer("head_bucket", {"404", "NoSuchBucket"}, Bucket=wanted) is not None
    if not there:
        steps.differs("bucket", None, wanted, create)
    missing = {"404", "NoSuchBucket", "NoSuchPublicAccessBlockConfiguration"}
    answer = _answer("get_public_access_block", missing, Bucket=wanted) if there else None
    if (answer or {}).get("PublicAccessBlockConfiguration") != _PRIVATE:
        steps.differs("public access", "possible", "blocked", close)
    return steps.finish(f"{wanted} is there and private")


def _answer(request: str, missing: set[str], **arguments: Any) -> dict[str, Any] | None:
    try:
        return aws.call(__pillar__["platform"], "s3", request, **arguments)
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
    found = ec2.address(platform, address)
    ip = found["PublicIp"] if found else f"<address {address}>"
    if zone is None:
        return steps.finish(f"set by hand, at whoever serves {name}: {name}. {_TTL} IN A {ip}")
    zone_id = _zone_id(zone)
    there = _current(zone_id, name)

    def upsert() -> None:
        change = {
            "Action": "UPSERT",
            "ResourceRecordSet": {
                "Name": f"{name}.",
                "Type": "A",
                "TTL": _TTL,
                "ResourceRecords": [{"Value": ip}],
            },
        }
        aws.call(
            platform,
            "route53",
            "change_resource_record_sets",
            HostedZoneId=zone_id,
            ChangeBatch={"Changes": [change]},
        )

    if there != [ip]:
        steps.differs(name, ", ".join(there) or None, ip, upsert)
    return steps.finish(f"{name} is {ip}")


def _zone_id(zone: str) -> str:
    platform = __pillar__["platform"]
    answer = aws.call(platform, "route53", "list_hosted_zones_by_name", DNSName=zone)
    for item in answer["HostedZones"]:
        if item["Name"] == f"{zone}." and not item["Config"].get("PrivateZone"):
            return str(item["Id"])
    raise aws.CloudError(
        f"no public Route 53 zone {zone}; make it, or set platform.dns.zone to null"
    )


def _current(zone_id: str, name: str) -> list[str]:
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
            return [value["Value"] for value in item.get("ResourceRecords", [])]
    return []
