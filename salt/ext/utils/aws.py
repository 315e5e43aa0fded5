"""
One way to ask the cloud's API: endpoint and region from the knobs, requests repeated where that
is right (``retries``), errors that name the request, the code and the fix, and waits that end.
"""

import os
import re
import time
from collections.abc import Callable
from typing import Any, TypeVar

import boto3
import policy
import retries
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectionClosedError,
    ConnectTimeoutError,
    CredentialRetrievalError,
    EndpointConnectionError,
    NoCredentialsError,
    ParamValidationError,
    ProfileNotFound,
    ReadTimeoutError,
)
from botocore.parsers import ResponseParserError
from salt.exceptions import SaltCloudException

T = TypeVar("T")

PLATFORM_TAG = "f1:platform"

_CREDENTIALS = "check AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
_NETWORK = "check the network, and platform.aws.endpoint_url if it is set"
_LATER = "wait a minute and run it again"
_QUOTA = "ask for a higher quota (Service Quotas, EC2)"
_WORKERS = f"{_QUOTA}, or lower platform.workers.count"
_RACE = "somebody else changes the same thing: run it again"

# Error code → what the operator can do about it. Codes: EC2 API reference, "Error codes", and
# those of S3, Route 53 and IAM.
FIXES = {
    # Credentials.
    "AuthFailure": _CREDENTIALS,
    "InvalidAccessKeyId": _CREDENTIALS,
    "InvalidClientTokenId": _CREDENTIALS,
    "SignatureDoesNotMatch": _CREDENTIALS,
    "UnrecognizedClientException": _CREDENTIALS,
    "ExpiredToken": "the session has ended: log in again",
    "ExpiredTokenException": "the session has ended: log in again",
    "RequestExpired": "the session has ended, or this machine's clock is wrong",
    "RequestTimeTooSkewed": "this machine's clock is wrong: set it",
    "OptInRequired": "the account is not signed up for this image or region",
    "PendingVerification": "AWS is still checking the account: wait for its mail",
    "Blocked": "AWS has blocked the account: its support says why",
    # Too fast, or not now.
    "RequestLimitExceeded": _LATER,
    "Throttling": _LATER,
    "ThrottlingException": _LATER,
    "SlowDown": _LATER,
    "InternalError": _LATER,
    "Unavailable": _LATER,
    "ServiceUnavailable": _LATER,
    "PriorRequestNotComplete": _LATER,
    # Machines.
    "InsufficientInstanceCapacity": "use other platform.aws.zones or another size",
    "InsufficientHostCapacity": "use other platform.aws.zones or another size",
    "InsufficientAddressCapacity": f"AWS has no free address: {_LATER}",
    "InsufficientFreeAddressesInSubnet": "the subnet is full: give it a wider range",
    "Unsupported": "this zone does not offer this size: change platform.aws.zones or the size",
    "UnsupportedOperation": "this machine or its state does not allow it",
    "InstanceLimitExceeded": _WORKERS,
    "VcpuLimitExceeded": _WORKERS,
    "MaxSpotInstanceCountExceeded": f"{_WORKERS}, or take the profile off spot",
    "SpotMaxPriceTooLow": "raise the profile's spot price, or leave it out (the on-demand price)",
    "InvalidAMIID.NotFound": "platform.image.id is not of this region",
    "InvalidAMIID.Malformed": "platform.image.id is not an image",
    "InvalidAMIID.Unavailable": "the image was withdrawn: choose another platform.image",
    "InvalidParameterCombination": "two options of the profile exclude each other, or the size "
    "does not know one of them (such as CPU credits, or the metadata options)",
    "InvalidParameterValue": "correct the value in the pillar or the profile",
    "InvalidUserData.Malformed": "the machine's user-data is too long or not base64",
    "IdempotentParameterMismatch": "this machine was asked for a moment ago with other values: "
    "run it again",
    "IncorrectInstanceState": "wait until the machine has the state that this needs, then again",
    "IncorrectState": "wait until it has the state that this needs, then run it again",
    "OperationNotPermitted": "the machine is protected: take its termination or stop protection "
    "off first",
    "InvalidInstanceID.NotFound": "it is gone: run it again",
    "InvalidIPAddress.InUse": "another machine holds platform.network.master_ip",
    "VolumeLimitExceeded": f"{_QUOTA}, or delete volumes that nothing uses",
    "MaxIOPSLimitExceeded": f"{_QUOTA}, or lower the profile's iops",
    "SnapshotLimitExceeded": f"{_QUOTA}, or delete old snapshots",
    "InvalidKeyPair.NotFound": "run `salt-run state.orchestrate orch.network` first",
    "InvalidKeyPair.Duplicate": _RACE,
    "InvalidKeyPair.Format": ".state/ssh/id_ed25519.pub is not a public key: remove both files",
    # Network.
    "VpcLimitExceeded": f"delete an unused VPC, or {_QUOTA}",
    "SubnetLimitExceeded": f"{_QUOTA}, or use fewer platform.aws.zones",
    "InternetGatewayLimitExceeded": f"delete an unused gateway, or {_QUOTA}",
    "NatGatewayLimitExceeded": f"{_QUOTA}, or set platform.network.egress to master",
    "RouteTableLimitExceeded": f"delete an unused route table, or {_QUOTA}",
    "RouteLimitExceeded": f"remove routes from the table, or {_QUOTA}",
    "VpcEndpointLimitExceeded": f"delete an unused endpoint, or {_QUOTA}",
    "SecurityGroupLimitExceeded": f"delete an unused group, or {_QUOTA}",
    "RulesPerSecurityGroupLimitExceeded": "list fewer platform.operator.cidrs",
    "AddressLimitExceeded": f"release an elastic address, or {_QUOTA}",
    "InvalidSubnet.Conflict": "the range overlaps a subnet of the VPC: change "
    "platform.network.master_cidr or worker_cidrs",
    "InvalidSubnet.Range": "platform.network.master_cidr and worker_cidrs must lie in vpc_cidr",
    "InvalidVpc.Range": "platform.network.vpc_cidr must be a range between /16 and /28",
    "InvalidGroup.Duplicate": _RACE,
    "InvalidGroup.InUse": "something else uses the group: remove that first",
    "InvalidPermission.Duplicate": _RACE,
    "InvalidPermission.NotFound": _RACE,
    "InvalidAllocationID.NotFound": "the address is gone: run it again",
    "RouteAlreadyExists": _RACE,
    "Resource.AlreadyAssociated": _RACE,
    "InvalidServiceName": "this region has no such endpoint: check platform.aws.region",
    "DependencyViolation": "something else still uses it: remove that first, or run it again",
    # Store and names.
    "BucketAlreadyExists": "another account has this name: choose another platform.aws.bucket",
    "BucketNotEmpty": "somebody wrote to it meanwhile: run it again",
    "TooManyBuckets": "delete an unused bucket, or ask for a higher quota (Service Quotas, S3)",
    "InvalidBucketName": "choose another platform.aws.bucket",
    "PermanentRedirect": "the bucket is of another region: choose another platform.aws.bucket",
    "IllegalLocationConstraintException": "the bucket is of another region: choose another "
    "platform.aws.bucket",
    "OperationAborted": _RACE,
    "NoSuchBucket": "run `salt-run state.orchestrate orch.network` first",
    "NoSuchHostedZone": "the zone is gone: check platform.dns.zone",
    "InvalidChangeBatch": "another kind of record has this name: remove it, or change "
    "platform.domain",
}
# `HEAD` answers have no body, hence no code but the status.
DENIED = {
    "403", "AccessDenied", "AccessDeniedException", "Forbidden", "UnauthorizedOperation",
}  # fmt: skip

# What must not be shown, wherever it comes from: the blob that says which policy refused, signed
# parts of URLs, access keys, and values that botocore shows when it refuses an argument.
_SECRETS = (
    (re.compile(r"\s*Encoded authorization failure message:\s*\S+"), ""),
    (re.compile(r"(https?://[^\s?\"']+)\?[^\s\"']*"), r"\1"),
    (re.compile(r"\b(?:AKIA|ASIA)[A-Z0-9]{12,}\b"), "<access key>"),
    (re.compile(r"value: .*?(?=, (?:type|valid)\b|$)", re.DOTALL), "value: <not shown>"),
)
_PERFORM = re.compile(r"not authorized to perform:? ([a-z0-9-]+:[A-Za-z]+)")

# All that a request can end with instead of an answer.
FAILURES = (BotoCoreError, ClientError, ResponseParserError)

CONNECT_SECONDS = 5.0
READ_SECONDS = 30.0

_clients: dict[tuple[Any, ...], Any] = {}
# Of each client that asked: the account of its credentials, which does not change.
_accounts: dict[Any, str] = {}


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
            connect_timeout=CONNECT_SECONDS,
            read_timeout=READ_SECONDS,
            # botocore's own are off: see ``retries``.
            retries={"mode": "standard", "total_max_attempts": 1},
            # A presigned URL must not ask its user for a checksum header.
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
            signature_version="s3v4" if service == "s3" else None,
            s3={"addressing_style": "path" if endpoint else "virtual"},
        )
        try:
            # The stubs know boto3.client only by literal service names.
            make: Any = boto3.client
            made = make(service, region_name=knobs["region"], endpoint_url=endpoint, config=config)
        except (BotoCoreError, ValueError) as error:
            raise explain(error, service) from error
        retries.install(made)
        _clients[key] = made
    return _clients[key]


def call(platform: dict[str, Any], service: str, request: str, **arguments: Any) -> dict[str, Any]:
    """
    Send one request, such as ``call(platform, "ec2", "describe_vpcs")``, or raise CloudError.

    It is repeated as ``retries`` says. If only its repetition was answered, with "that is so
    already", then it was obeyed and the answer is empty.
    """
    try:
        answer: dict[str, Any] = getattr(client(platform, service), request)(**arguments)
    except FAILURES as error:
        if isinstance(error, ClientError) and retries.already(error):
            return {}
        raise explain(error, f"{service} {request}") from _cause(error)
    return answer


def dry_run(platform: dict[str, Any], service: str, request: str, **arguments: Any) -> None:
    """
    Ask whether ``request`` would be obeyed, without its being so. Only EC2 knows how.

    Raises CloudError with what it would be refused for, permissions included.
    """
    try:
        call(platform, service, request, DryRun=True, **arguments)
    except CloudError as error:
        if code(error) != "DryRunOperation":
            raise
        return
    raise CloudError(f"{service} {request} was obeyed although only asked (DryRun)")


def pages(
    platform: dict[str, Any], service: str, request: str, key: str, **arguments: Any
) -> list[dict[str, Any]]:
    """Return the items under ``key`` of every page of ``request``, or raise CloudError."""
    try:
        paginator = client(platform, service).get_paginator(request)
        return [item for page in paginator.paginate(**arguments) for item in page[key]]
    except FAILURES as error:
        raise explain(error, f"{service} {request}") from _cause(error)


def _cause(error: Exception) -> Exception | None:
    """Return ``error`` if a traceback may show it: some tell an argument or a program's words."""
    silent = ParamValidationError | CredentialRetrievalError | ResponseParserError
    return None if isinstance(error, silent) else error


def code(error: BaseException | None) -> str:
    """Return the API's error code behind ``error`` (a CloudError or ClientError), or ''."""
    if isinstance(error, CloudError):
        error = error.__cause__
    if isinstance(error, ClientError):
        return str(error.response.get("Error", {}).get("Code", ""))
    return ""


def explain(error: Exception, request: str) -> CloudError:
    """
    Return ``error`` as a CloudError: the request, the code, the API's words and the fix.

    ``request`` is service and method, such as ``ec2 create_vpc``. Of a refusal the missing IAM
    action is named, and the statement of ``salt/cloud/iam/operator.json`` that allows it. No
    credential, signed URL or argument is shown.
    """
    fix = None
    if isinstance(error, ClientError):
        said = error.response.get("Error", {})
        what = f"{said.get('Code', 'error')}: {said.get('Message', '')}".strip(": ")
        fix = FIXES.get(said.get("Code", ""))
        if said.get("Code") in DENIED:
            fix = _permission(request, error.operation_name, said.get("Message", ""))
    elif isinstance(error, CredentialRetrievalError):
        # Its text is whatever the program that gives the credentials wrote.
        what = f"no credentials from {error.kwargs.get('provider')}"
        fix = "log in again, or check what AWS_PROFILE says"
    elif isinstance(error, NoCredentialsError | ProfileNotFound):
        what = str(error)
        fix = "set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
    elif isinstance(error, EndpointConnectionError):
        what = str(error)
        fix = _NETWORK
    elif isinstance(error, ResponseParserError):
        what = "what answered is not the API, or it is overloaded; whether it was obeyed is unknown"
        fix = "run it again: what was made is found by its identity"
    else:
        what = f"{type(error).__name__}: {error}"
        if isinstance(error, ReadTimeoutError | ConnectTimeoutError | ConnectionClosedError):
            fix = _NETWORK
    for secret, instead in _SECRETS:
        what = secret.sub(instead, what)
    parts = [f"{request} failed: {what.strip().rstrip('.')}", *retries.notes(error)]
    return CloudError("; ".join(parts + ([fix] if fix else [])))


def _permission(request: str, operation: str, message: str) -> str:
    """Return what to allow: the action that the API names, else that of the operation."""
    named = _PERFORM.search(message)
    action = named.group(1) if named else policy.action(request.partition(" ")[0], operation)
    statement = policy.sid(action)
    if statement is None:
        return f"allow {action} in the IAM policy of these credentials"
    return (
        f"allow {action} in the IAM policy of these credentials: statement {statement} of "
        "salt/cloud/iam/operator.json (`salt-run iam.policy`)"
    )


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
    """Return the name of the bucket; the account's number in it is asked once per process."""
    named: str | None = platform["aws"]["bucket"]
    if named:
        return named
    asker = client(platform, "sts")
    if asker not in _accounts:
        _accounts[asker] = str(call(platform, "sts", "get_caller_identity")["Account"])
    return f"{platform['name']}-{_accounts[asker]}"


def store(platform: dict[str, Any]) -> dict[str, str]:
    """
    Return the arguments by which S3 requests name the bucket.

    A name that we give can be guessed, and taken by another account before us: S3 then refuses
    (``ExpectedBucketOwner``). A bucket that the operator names may be another account's.
    """
    name = bucket(platform)
    if platform["aws"]["bucket"]:
        return {"Bucket": name}
    return {"Bucket": name, "ExpectedBucketOwner": _accounts[client(platform, "sts")]}
