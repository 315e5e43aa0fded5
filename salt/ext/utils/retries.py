"""
When a request to the cloud is sent again, and when it must not be.

botocore's machinery is kept (its event ``needs-retry``, which serves pages and waiters as well and
signs each attempt anew), its modes ``standard`` and ``adaptive`` are not: both repeat *every*
request whose answer was lost, so that a ``CreateVpc`` that was obeyed is obeyed twice; both count
attempts but not seconds; and ``adaptive`` slows down a process of many requests, which we are not.

- Throttled, or refused for a moment by an API that says so: again.
- Nothing was sent (no connection): again, a few times only, for a wrong address stays wrong.
- The answer was lost, or comes from something between us and the API: again if the request may be
  repeated, that is unless it makes a new thing each time and has no client token. Else the error
  says what may now exist; the next run finds it by its identity (docs/architecture.md).

Exponential backoff with full jitter. Codes: EC2 API reference, "Error codes", and S3's.
"""

import math
import random
import time
from typing import Any

from botocore.exceptions import (
    ClientError,
    ConnectTimeoutError,
    EndpointConnectionError,
    HTTPClientError,
    ProxyConnectionError,
    SSLError,
)

ATTEMPTS = 8
UNREACHABLE_ATTEMPTS = 3
# No attempt begins later than this after the first one.
SECONDS = 60.0
# Who is throttled has but to wait: by seconds alone, however many attempts that are.
THROTTLED_SECONDS = 120.0
# The first pause is between 0 and this, each next one up to twice as long.
BACKOFF_SECONDS = 0.25
LONGEST_SECONDS = 10.0

# Where the beginning of a request is kept, and where the notes about one that failed.
_BEGAN = "f1_began"
_NOTES = "f1_notes"

# The API had the request and did not even begin with it: any request may be repeated.
THROTTLED = {
    "BandwidthLimitExceeded",
    "EC2ThrottledException",
    "PriorRequestNotComplete",
    "RequestLimitExceeded",
    "RequestThrottled",
    "RequestThrottledException",
    "RequestTimeout",
    "SlowDown",
    "Throttling",
    "ThrottlingException",
    "TooManyRequestsException",
}
# The API failed; how far it had come is unknown, as if the answer were lost.
FAILED = {
    "InternalError",
    "InternalFailure",
    "InternalServerError",
    "ServiceUnavailable",
    "Unavailable",
}

# Requests that make one more thing each time they are sent, unless they have a client token.
_MAKING = ("Allocate", "Copy", "Create", "Import", "Run")
_MAKING_ONE = {"CreateBucket", "CreateRoute", "CreateTags"}

# What such a request may have made, and by what the next run finds it.
_MADE = {
    "AllocateAddress": ("an elastic address", "its tags"),
    "CreateImage": ("an image", "its name"),
    "CreateInternetGateway": ("an internet gateway", "its tags"),
    "CreateNatGateway": ("a NAT gateway", "its subnet"),
    "CreateNetworkInterface": ("a network interface", "its tags"),
    "CreateRouteTable": ("a route table", "its tags"),
    "CreateSecurityGroup": ("a security group", "its name"),
    "CreateSnapshot": ("a snapshot", "its tags"),
    "CreateSubnet": ("a subnet", "its range"),
    "CreateVolume": ("a volume", "its tags"),
    "CreateVpc": ("a VPC", "its tags"),
    "CreateVpcEndpoint": ("an endpoint", "its service"),
    "ImportKeyPair": ("a key pair", "its name"),
    "RunInstances": ("a machine", "its tags"),
}

# What the API says of a repeated request whose first sending was obeyed, its answer lost.
_ALREADY = {
    "AttachInternetGateway": {"Resource.AlreadyAssociated"},
    "AttachVolume": {"VolumeInUse"},
    "AuthorizeSecurityGroupEgress": {"InvalidPermission.Duplicate"},
    "AuthorizeSecurityGroupIngress": {"InvalidPermission.Duplicate"},
    "CreateBucket": {"BucketAlreadyOwnedByYou"},
    "CreateRoute": {"RouteAlreadyExists"},
    "DeleteBucket": {"NoSuchBucket"},
    "DeleteNatGateway": {"NatGatewayNotFound"},
    "DetachInternetGateway": {"Gateway.NotAttached"},
    "RevokeSecurityGroupEgress": {"InvalidPermission.NotFound"},
    "RevokeSecurityGroupIngress": {"InvalidPermission.NotFound"},
}
_REMOVING = ("Delete", "Disassociate", "Release")


def install(client: Any) -> None:
    """Let ``client`` repeat its requests by these rules; its own retries must be off."""
    service = client.meta.service_model.service_id.hyphenize()
    client.meta.events.register(f"before-call.{service}", _begin)
    client.meta.events.register(f"needs-retry.{service}", pause)


def _begin(params: dict[str, Any], **_: Any) -> None:
    params["context"][_BEGAN] = time.monotonic()


def pause(
    response: tuple[Any, dict[str, Any]] | None,
    operation: Any,
    attempts: int,
    caught_exception: Exception | None,
    request_dict: dict[str, Any],
    **_: Any,
) -> float | None:
    """
    Return the seconds to wait before the request is sent again, None if it is not.

    botocore calls this after each attempt, the good ones included (event ``needs-retry``).
    """
    parsed = response[1] if response else {}
    status = response[0].status_code if response else 0
    may_repeat = repeatable(operation.name, request_dict.get("body"))
    most: float = ATTEMPTS
    limit = SECONDS
    if caught_exception is not None:
        unsent = EndpointConnectionError | ConnectTimeoutError | ProxyConnectionError
        if isinstance(caught_exception, unsent):
            most = UNREACHABLE_ATTEMPTS
        elif isinstance(caught_exception, SSLError) or not isinstance(
            caught_exception, HTTPClientError
        ):
            return None
        elif not may_repeat:
            _note(caught_exception, parsed, _lost(operation.name))
            return None
    elif (code := str(parsed.get("Error", {}).get("Code", ""))) in THROTTLED:
        most, limit = math.inf, THROTTLED_SECONDS
    else:
        # What the API says in its own words stands, whatever the status; a bare status, which
        # botocore makes the code, does not come from it.
        if code not in FAILED and (status < 500 or not code.isdecimal()):
            return None
        if not may_repeat:
            _note(None, parsed, _lost(operation.name))
            return None
    seconds = random.uniform(0, min(LONGEST_SECONDS, BACKOFF_SECONDS * 2 ** (attempts - 1)))  # noqa: S311 - not a secret
    passed = time.monotonic() - request_dict["context"][_BEGAN]
    if attempts >= most or passed + seconds > limit:
        _note(caught_exception, parsed, f"given up after {attempts} attempts in {passed:.0f} s")
        return None
    return seconds


def repeatable(operation: str, body: Any) -> bool:
    """Say whether ``operation``, such as ``CreateVpc``, sent twice does no more than sent once."""
    if not operation.startswith(_MAKING) or operation in _MAKING_ONE:
        return True
    return isinstance(body, dict) and bool(body.get("ClientToken"))


def _lost(operation: str) -> str:
    thing, identity = _MADE.get(operation, ("what it makes", "its tags"))
    return (
        f"no answer came: {thing} may now exist; run it again, and {thing} that does is found by "
        f"{identity}"
    )


def _note(error: Exception | None, parsed: dict[str, Any], text: str) -> None:
    if error is not None:
        error.add_note(text)
    else:
        # What botocore makes its ClientError of.
        parsed.setdefault(_NOTES, []).append(text)


def notes(error: Exception) -> list[str]:
    """Return what was noted about the failed request: attempts, or what may now exist."""
    if isinstance(error, ClientError):
        return list(error.response.get(_NOTES, []))  # type: ignore[call-overload]
    return list(getattr(error, "__notes__", []))


def already(error: ClientError) -> bool:
    """Say whether ``error`` is the answer to a repetition of a request that had been obeyed."""
    if not error.response.get("ResponseMetadata", {}).get("RetryAttempts"):
        return False
    code, operation = error.response.get("Error", {}).get("Code", ""), error.operation_name
    is_gone = operation.startswith(_REMOVING) and code.endswith(".NotFound")
    return is_gone or code in _ALREADY.get(operation, set())
