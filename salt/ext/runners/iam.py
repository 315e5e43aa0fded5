"""What the operator's credentials must be allowed."""

import json
from typing import Any

import aws
import knobs
import policy as least
from salt.exceptions import SaltException

__opts__: dict[str, Any]


def policy() -> str:
    """
    Return the least IAM policy for the knobs, as JSON for AWS's console or ``aws iam``.

    The account, part of the bucket's name, is asked of AWS, which any credentials may; so is the
    id of the zone ``dns.zone``: while these may not, permission is for that record in any zone.
    Raises CloudError without credentials, SaltException if AWS would find the policy too long.

    CLI Example:

    .. code-block:: bash

        salt-run --out=raw iam.policy
    """
    platform = knobs.load(__opts__)["platform"]
    try:
        made = least.render(platform, aws.bucket(platform), _zone_id(platform))
    except ValueError as error:
        raise SaltException(str(error)) from error
    return json.dumps(made, indent=2)


def _zone_id(platform: dict[str, Any]) -> str | None:
    """Return the id of the zone, ``*`` if it cannot be asked for, None if there is no such knob."""
    zone = platform["dns"]["zone"]
    if zone is None:
        return None
    try:
        answer = aws.call(platform, "route53", "list_hosted_zones_by_name", DNSName=zone)
    except aws.CloudError as error:
        if aws.code(error) not in aws.DENIED:
            raise
        return "*"
    found = (item["Id"] for item in answer["HostedZones"] if item["Name"] == f"{zone}.")
    return next(found, "*")
