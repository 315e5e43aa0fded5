"""
One way to ask the cloud's API: endpoint and region from the knobs, errors that name the request,
the code and the fix, and waits that end.
"""

import os
import time
from collections.abc import Callable
from typing import Any, TypeVar

import boto3
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    EndpointConnectionError,
    NoCredentialsError,
    ProfileNotFound,
)
from salt.exceptions import SaltCloudException

T = TypeVar("T")

PLATFORM_TAG = "f1:platform"

# Error code → what the operator can do about it. Codes: EC2 API reference, "Error codes".
FIXES = {
    "AuthFailure": "check AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
    "InvalidClientTokenId": "check AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
    "ExpiredToken": "the session has ended: log in again",
    "RequestExpired": "the session has ended, or this machine's clock is wrong",
    "UnauthorizedOperation": "allow this request in the IAM policy of these credentials",
    "AccessDenied": "allow this request in the IAM policy of these credentials",
    "OptInRequired": "the account is not signed up for this image or region",
    "RequestLimitExceeded": "wait a minute and run it again",
    "InsufficientInstanceCapacity": "use another platform.aws.zone or size",
    "Unsupported": "this zone does not offer this size: change platform.aws.zone or the size",
    "InstanceLimitExceeded": "ask AWS for a higher limit, or lower platform.workers.count",
    "VcpuLimitExceeded": "ask AWS for a higher limit, or lower platform.workers.count",
    "AddressLimitExceeded": "release an elastic address, or ask AWS for a higher limit",
    "VpcLimitExceeded": "delete an unused VPC, or ask AWS for a higher limit",
    "InvalidAMIID.NotFound": "platform.image.id is not of this region",
    "InvalidAMIID.Malformed": "platform.image.id is not an image",
    "InvalidIPAddress.InUse": "another machine holds platform.network.master_ip",
    "InvalidSubnet.Conflict": "platform.network.subnet_cidr overlaps a subnet of the VPC",
    "BucketAlreadyExists": "another account has this name: choose another platform.aws.bucket",
    "NoSuchBucket": "run `salt-run state.orchestrate orch.network` first",
}

_clients: dict[tuple[Any, ...], Any] = {}


class CloudError(SaltCloudException):
    """Something the cloud refused or did not do in time; the text says what and how to go on."""


def client(platform: dict[str, Any], service: str) -> Any:
    """
    Return the boto3 client of ``service`` for the knobs ``platform``.

    Credentials come from boto3's usual chain and are never read from the pillar. A client is
    kept for its process only: a connection shared over a fork answers the wrong question.
    """
    knobs = platform["aws"]
    endpoint = knobs["s3_endpoint_url"] if service == "s3" else knobs["endpoint_url"]
    key = (os.getpid(), service, knobs["region"], endpoint)
    if key not in _clients:
        config = Config(
            connect_timeout=5,
            read_timeout=30,
            retries={"mode": "standard", "total_max_attempts": 6},
            # A presigned URL must not ask its user for a checksum header.
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
            signature_version="s3v4" if service == "s3" else None,
            s3={"addressing_style": "path" if endpoint else "virtual"},
        )
        try:
            # The stubs know boto3.client only by literal service names.
            make: Any = boto3.client
            _clients[key] = make(
                service, region_name=knobs["region"], endpoint_url=endpoint, config=config
            )
        except (BotoCoreError, ValueError) as error:
            raise explain(error, service) from error
    return _clients[key]


def call(platform: dict[str, Any], service: str, request: str, **arguments: Any) -> dict[str, Any]:
    """Send one request, such as ``call(platform, "ec2", "describe_vpcs")``, or raise CloudError."""
    try:
        answer: dict[str, Any] = getattr(client(platform, service), request)(**arguments)
    except (BotoCoreError, ClientError) as error:
        raise explain(error, f"{service} {request}") from error
    return answer


def pages(
    platform: dict[str, Any], service: str, request: str, key: str, **arguments: Any
) -> list[dict[str, Any]]:
    """Return the items under ``key`` of every page of ``request``, or raise CloudError."""
    try:
        paginator = client(platform, service).get_paginator(request)
        return [item for page in paginator.paginate(**arguments) for item in page[key]]
    except (BotoCoreError, ClientError) as error:
        raise explain(error, f"{service} {request}") from error


def code(error: BaseException | None) -> str:
    """Return the API's error code behind ``error`` (a CloudError or ClientError), or ''."""
    if isinstance(error, CloudError):
        error = error.__cause__
    if isinstance(error, ClientError):
        return str(error.response.get("Error", {}).get("Code", ""))
    return ""


def explain(error: Exception, request: str) -> CloudError:
    """Return ``error`` as a CloudError: the request, the code, the API's words and the fix."""
    fix = None
    if isinstance(error, ClientError):
        said = error.response.get("Error", {})
        what = f"{said.get('Code', 'error')}: {said.get('Message', '')}".strip(": ")
        fix = FIXES.get(said.get("Code", ""))
    elif isinstance(error, NoCredentialsError | ProfileNotFound):
        what = str(error).rstrip(".")
        fix = "set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
    elif isinstance(error, EndpointConnectionError):
        what = str(error).rstrip(".")
        fix = "check the network, and platform.aws.endpoint_url if it is set"
    else:
        what = f"{type(error).__name__}: {error}".rstrip(".")
    return CloudError(f"{request} failed: {what}" + (f"; {fix}" if fix else ""))


def wait(
    what: str, seconds: float, probe: Callable[[], tuple[T | None, str]], pause: float = 0.3
) -> T:
    """
    Ask ``probe`` until it gives something; it returns ``(result or None, what it saw)``.

    Raises CloudError after ``seconds``, naming ``what`` was waited for and the last thing seen.
    """
    end = time.monotonic() + seconds
    while True:
        result, seen = probe()
        if result is not None:
            return result
        if time.monotonic() >= end:
            raise CloudError(f"waited {seconds:g} s for {what}; last seen: {seen}")
        time.sleep(pause)


def tags(platform: dict[str, Any], name: str) -> list[dict[str, str]]:
    """Return the tags of everything we make: its name, and whose it is."""
    return [
        {"Key": "Name", "Value": name},
        {"Key": PLATFORM_TAG, "Value": platform["name"]},
    ]


def mine(platform: dict[str, Any], name: str | None = None) -> list[dict[str, Any]]:
    """Return the EC2 filters that find what is tagged as ours, of ``name`` if it is given."""
    ours = [{"Name": f"tag:{PLATFORM_TAG}", "Values": [platform["name"]]}]
    return ours + ([{"Name": "tag:Name", "Values": [name]}] if name else [])


def one(items: list[dict[str, Any]], kind: str, name: str) -> dict[str, Any] | None:
    """Return the only one of ``items``, None if there is none; two of a name are a CloudError."""
    if len(items) > 1:
        ids = ", ".join(str(value) for item in items for k, value in item.items() if k == kind)
        raise CloudError(f"{len(items)} of {kind} are named {name} ({ids}); delete all but one")
    return items[0] if items else None


def bucket(platform: dict[str, Any]) -> str:
    """Return the name of the bucket for artifacts and announcements."""
    named: str | None = platform["aws"]["bucket"]
    if named:
        return named
    account = call(platform, "sts", "get_caller_identity")["Account"]
    return f"{platform['name']}-{account}"
