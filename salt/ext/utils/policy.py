"""
What the operator's credentials must be allowed: which IAM action a request needs, and the policy.

The policy is ``salt/cloud/iam/operator.json`` with placeholders for what only the pillar knows;
why each statement is as it is: ``salt/cloud/iam/README.md``. Names of actions: Service
Authorization Reference (EC2 and Route 53 name theirs after the request, S3 does not).
"""

import json
from pathlib import Path
from string import Template
from typing import Any

FOLDER = Path(__file__).resolve().parents[2] / "cloud" / "iam"
OPERATOR = FOLDER / "operator.json"

# The most that a managed policy may have, white space not counted (IAM quotas).
LONGEST = 6144

# Any credentials may ask this; it cannot even be denied.
FREE = {"sts:GetCallerIdentity"}

# S3 requests whose action has another name.
_S3 = {
    "CompleteMultipartUpload": "PutObject",
    "CreateMultipartUpload": "PutObject",
    "DeleteBucketTagging": "PutBucketTagging",
    "DeleteObjects": "DeleteObject",
    "DeletePublicAccessBlock": "PutBucketPublicAccessBlock",
    "GetBucketEncryption": "GetEncryptionConfiguration",
    "GetBucketLifecycleConfiguration": "GetLifecycleConfiguration",
    "GetPublicAccessBlock": "GetBucketPublicAccessBlock",
    "HeadBucket": "ListBucket",
    "HeadObject": "GetObject",
    "ListBuckets": "ListAllMyBuckets",
    "ListObjectVersions": "ListBucketVersions",
    "ListObjects": "ListBucket",
    "ListObjectsV2": "ListBucket",
    "PutBucketEncryption": "PutEncryptionConfiguration",
    "PutBucketLifecycleConfiguration": "PutLifecycleConfiguration",
    "PutPublicAccessBlock": "PutBucketPublicAccessBlock",
    "UploadPart": "PutObject",
}


def action(service: str, operation: str) -> str:
    """Return the IAM action of a request: ``s3:ListBucket`` of ``("s3", "HeadBucket")``."""
    return f"{service}:{_S3.get(operation, operation) if service == 's3' else operation}"


def actions(service: str, operation: str, given: dict[str, Any]) -> set[str]:
    """Return all IAM actions that a request with the arguments ``given`` needs."""
    needed = {action(service, operation)}
    if given.get("TagSpecifications"):
        needed.add("ec2:CreateTags")
    if given.get("IamInstanceProfile"):
        needed.add("iam:PassRole")
    if service == "s3" and operation.startswith("DeleteObject"):
        objects = given.get("Delete", {}).get("Objects", [given])
        if any(item.get("VersionId") for item in objects):
            needed.add("s3:DeleteObjectVersion")
    return needed - FREE


def load() -> dict[str, Any]:
    """Return the policy with its placeholders."""
    found: dict[str, Any] = json.loads(OPERATOR.read_text(encoding="utf-8"))
    return found


def sid(wanted: str) -> str | None:
    """Return the name of the statement that allows the action ``wanted``, None if none does."""
    return next((s["Sid"] for s in load()["Statement"] if wanted in _list(s["Action"])), None)


def allowed(policy: dict[str, Any]) -> set[str]:
    """Return every action that ``policy`` allows under some condition."""
    return {name for s in policy["Statement"] for name in _list(s["Action"])}


def _list(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value


def render(platform: dict[str, Any], bucket: str, zone_id: str | None) -> dict[str, Any]:
    """
    Return the policy for the knobs ``platform``.

    Without the id of a Route 53 zone there is no permission for one. Raises ValueError if a
    placeholder is left, or AWS would find the policy too long.
    """
    text = Template(OPERATOR.read_text(encoding="utf-8")).substitute(
        name=platform["name"],
        region=platform["aws"]["region"],
        bucket=bucket,
        zone=(zone_id or "none").removeprefix("/hostedzone/"),
        domain=platform["domain"].lower(),
    )
    policy: dict[str, Any] = json.loads(text)
    if zone_id is None:
        policy["Statement"] = [s for s in policy["Statement"] if not s["Sid"].startswith("Dns")]
    length = len("".join(json.dumps(policy).split()))
    if length > LONGEST:
        raise ValueError(f"the policy has {length} characters, AWS takes {LONGEST}")
    return policy
