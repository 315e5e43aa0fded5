"""How the cloud's API is asked: what is asked again, what is not, and what an error says."""

import traceback
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import aws
import boto3
import pytest
import retries
from botocore.exceptions import (
    ClientError,
    CredentialRetrievalError,
    NoCredentialsError,
    ParamValidationError,
    ReadTimeoutError,
)

from tests.unit.cloud_driver import faults as injection
from tests.unit.cloud_driver.faults import Faults


@pytest.fixture
def api(platform: dict[str, Any], monkeypatch) -> Iterator[Faults]:
    """The platform's API, with faults; pauses are short."""
    monkeypatch.setattr(retries, "BACKOFF_SECONDS", 0.001)
    monkeypatch.setattr(retries, "LONGEST_SECONDS", 0.01)
    monkeypatch.setattr(aws, "_clients", {})
    session = boto3.Session()
    monkeypatch.setattr(aws, "boto3", SimpleNamespace(client=session.client))
    with injection.serve() as (url, faults):
        injection.label(session, faults)
        platform["aws"].update(endpoint_url=url, s3_endpoint_url=url)
        yield faults


def vpcs(platform: dict[str, Any]) -> int:
    return len(aws.call(platform, "ec2", "describe_vpcs")["Vpcs"])


def create_vpc(platform: dict[str, Any]) -> dict[str, Any]:
    return aws.call(platform, "ec2", "create_vpc", CidrBlock="10.20.0.0/16")


@pytest.mark.parametrize("times", [1, 3])
@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("RequestLimitExceeded", 503),
        ("Throttling", 400),
        ("ThrottlingException", 400),
    ],
)
def test_what_the_api_did_not_do_is_asked_again(api, platform, code, status, times):
    before = vpcs(platform)
    api.refuse("ec2.CreateVpc", code, status, times)
    create_vpc(platform)
    assert api.met == ["ec2.CreateVpc"] * times
    assert vpcs(platform) == before + 1


@pytest.mark.parametrize("code", ["InternalError", "InternalFailure", "Unavailable"])
def test_a_failure_of_the_api_is_a_lost_answer(api, platform, code):
    api.refuse("ec2.(Create|Describe)Vpcs?", code, 500, 2)
    vpcs(platform)
    api.clear()
    api.refuse("ec2.CreateVpc", code, 500, 1)
    with pytest.raises(aws.CloudError, match=rf"{code}.*a VPC may now exist"):
        create_vpc(platform)
    assert api.met == ["ec2.CreateVpc"]


def test_it_ends_after_so_many_attempts_and_says_so(api, platform):
    api.refuse("ec2.DescribeVpcs", "InternalError", 500, 100)
    with pytest.raises(aws.CloudError) as error:
        vpcs(platform)
    assert len(api.met) == retries.ATTEMPTS
    assert "ec2 describe_vpcs failed: InternalError: as the test says" in str(error.value)
    assert f"given up after {retries.ATTEMPTS} attempts in 0 s" in str(error.value)
    assert "wait a minute" in str(error.value)
    assert aws.code(error.value) == "InternalError"


def test_it_ends_after_so_many_seconds(api, platform, monkeypatch):
    monkeypatch.setattr(retries, "THROTTLED_SECONDS", 0)
    api.refuse("ec2.DescribeVpcs", times=100)
    with pytest.raises(aws.CloudError, match="given up after 1 attempts in 0 s"):
        vpcs(platform)
    assert len(api.met) == 1


def test_pauses_grow_to_a_limit_and_are_not_the_same_twice(monkeypatch):
    monkeypatch.setattr(retries, "ATTEMPTS", 100)

    class Operation:
        name = "DescribeVpcs"

    class Answer:
        status_code = 503

    def paused(attempts: int) -> float:
        began: dict[str, Any] = {"context": {}, "body": {}}
        retries._begin(began)
        parsed = {"Error": {"Code": "RequestLimitExceeded"}}
        found = retries.pause((Answer(), parsed), Operation(), attempts, None, began)
        assert found is not None
        return found

    for attempts in range(1, 9):
        pauses = {paused(attempts) for _ in range(200)}
        limit = min(retries.LONGEST_SECONDS, retries.BACKOFF_SECONDS * 2 ** (attempts - 1))
        assert len(pauses) > 100
        assert limit * 0.8 < max(pauses) <= limit
        assert min(pauses) < limit * 0.2


@pytest.mark.parametrize("fault", ["lose", "bare"])
@pytest.mark.parametrize("times", [1, 3])
def test_a_lost_answer_of_a_repeatable_request_is_asked_for_again(api, platform, fault, times):
    getattr(api, fault)("ec2.DescribeVpcs", times=times)
    vpcs(platform)
    assert api.seen == ["ec2.DescribeVpcs"] * (times + 1)


@pytest.mark.parametrize(
    ("request_", "arguments", "thing", "listed"),
    [
        ("create_vpc", {"CidrBlock": "10.20.0.0/16"}, "a VPC", ("describe_vpcs", "Vpcs")),
        (
            "allocate_address",
            {"Domain": "vpc"},
            "an elastic address",
            ("describe_addresses", "Addresses"),
        ),
        (
            "create_internet_gateway",
            {},
            "an internet gateway",
            ("describe_internet_gateways", "InternetGateways"),
        ),
    ],
)
def test_what_may_have_been_made_is_not_made_twice(
    api, platform, request_, arguments, thing, listed
):
    def count() -> int:
        return len(aws.call(platform, "ec2", listed[0])[listed[1]])

    before = count()
    api.lose("ec2.(Create|Allocate).*")
    with pytest.raises(aws.CloudError) as error:
        aws.call(platform, "ec2", request_, **arguments)
    assert count() == before + 1
    said = str(error.value)
    assert f"ec2 {request_} failed: ConnectionClosedError" in said
    assert f"no answer came: {thing} may now exist; run it again" in said
    assert "found by its tags" in said


def test_a_gateway_that_lost_the_api_is_no_reason_to_make_it_twice(api, platform):
    api.bare("ec2.CreateVpc")
    with pytest.raises(aws.CloudError, match=r"a VPC may now exist"):
        create_vpc(platform)
    assert api.seen == ["ec2.CreateVpc"]


def test_an_answer_that_is_not_the_apis_is_an_error_of_ours(api, platform):
    api.bare("ec2.DescribeVpcs", body="<!doctype html><title>token 5ec2e7</title>")
    with pytest.raises(aws.CloudError) as error:
        vpcs(platform)
    assert "ec2 describe_vpcs failed: what answered is not the API" in str(error.value)
    assert "5ec2e7" not in str(error.value)


def test_silence_ends_in_time(api, platform, monkeypatch):
    monkeypatch.setattr(aws, "READ_SECONDS", 0.3)
    api.hang("ec2.CreateVpc")
    with pytest.raises(aws.CloudError, match=r"ReadTimeoutError: .*a VPC may now exist"):
        create_vpc(platform)
    assert api.seen == ["ec2.CreateVpc"]


def test_a_machine_whose_launch_was_not_answered_is_one(api, platform):
    api.lose("ec2.RunInstances", times=2)
    image = platform["image"]["id"]
    aws.call(
        platform,
        "ec2",
        "run_instances",
        ImageId=image,
        MinCount=1,
        MaxCount=1,
        ClientToken="f1-worker-1.0123456789ab",
    )
    assert api.met == ["ec2.RunInstances"] * 2
    found = aws.call(platform, "ec2", "describe_instances")["Reservations"]
    assert len([item for one in found for item in one["Instances"]]) == 1


def test_the_tokens_that_boto_gives_by_itself_hold_for_the_repetitions(api, platform):
    api.lose("ec2.RunInstances")
    aws.call(
        platform, "ec2", "run_instances", ImageId=platform["image"]["id"], MinCount=1, MaxCount=1
    )
    assert api.seen == ["ec2.RunInstances"] * 2
    found = aws.call(platform, "ec2", "describe_instances")["Reservations"]
    assert len([item for one in found for item in one["Instances"]]) == 1


def test_an_obeyed_request_whose_repetition_is_refused_was_obeyed(api, platform):
    group = aws.call(platform, "ec2", "create_security_group", GroupName="g", Description="d")[
        "GroupId"
    ]
    rule: dict[str, Any] = {"IpProtocol": "tcp", "FromPort": 1, "ToPort": 1}
    rule["IpRanges"] = [{"CidrIp": "192.0.2.1/32"}]
    change = {"GroupId": group, "IpPermissions": [rule]}
    for request in ("authorize_security_group_ingress", "revoke_security_group_ingress"):
        api.lose("ec2.(Auth|Rev).*")
        assert aws.call(platform, "ec2", request, **change) == {}
    assert len(api.met) == 2
    api.lose("ec2.Delete.*")
    assert aws.call(platform, "ec2", "delete_security_group", GroupId=group) == {}
    # But what was refused at once is refused.
    with pytest.raises(aws.CloudError, match=r"InvalidGroup\.NotFound"):
        aws.call(platform, "ec2", "delete_security_group", GroupId=group)


def test_pages_are_asked_for_again_one_by_one(api, platform):
    api.refuse("ec2.DescribeVpcs", times=3)
    assert aws.pages(platform, "ec2", "describe_vpcs", "Vpcs")
    assert api.seen == ["ec2.DescribeVpcs"] * 4


def test_the_store_is_asked_again_too(api, platform):
    api.refuse("s3.CreateBucket", "SlowDown", times=2)
    api.lose("s3.PutObject")
    place = {"LocationConstraint": platform["aws"]["region"]}
    aws.call(platform, "s3", "create_bucket", Bucket="bucket", CreateBucketConfiguration=place)
    aws.call(platform, "s3", "put_object", Bucket="bucket", Key="k", Body=b"whole")
    answer = aws.call(platform, "s3", "get_object", Bucket="bucket", Key="k")
    assert answer["Body"].read() == b"whole"
    assert api.seen.count("s3.PutObject") == 2


def test_a_refusal_is_not_asked_again(api, platform):
    # EC2 gives this one the status of a failure of its own.
    api.refuse("ec2.RunInstances", "InsufficientInstanceCapacity", 500, times=9)
    api.refuse("ec2.CreateVpc", "VpcLimitExceeded", 400, times=9)
    with pytest.raises(aws.CloudError, match="VpcLimitExceeded"):
        create_vpc(platform)
    launch = {"ImageId": platform["image"]["id"], "MinCount": 1, "MaxCount": 1}
    with pytest.raises(aws.CloudError, match="InsufficientInstanceCapacity"):
        aws.call(platform, "ec2", "run_instances", **launch)
    assert api.met == ["ec2.CreateVpc", "ec2.RunInstances"]


def test_an_address_where_nobody_listens_ends_soon(platform, monkeypatch):
    monkeypatch.setattr(retries, "BACKOFF_SECONDS", 0.001)
    platform["aws"]["endpoint_url"] = "http://127.0.0.1:9"
    with pytest.raises(aws.CloudError) as error:
        vpcs(platform)
    assert "given up after 3 attempts" in str(error.value)
    assert "check the network" in str(error.value)


def test_a_dry_run_changes_nothing_and_tells_a_refusal(api, platform):
    before = vpcs(platform)
    image = platform["image"]["id"]
    launch = {"ImageId": image, "MinCount": 1, "MaxCount": 1}
    aws.dry_run(platform, "ec2", "run_instances", **launch)
    assert aws.call(platform, "ec2", "describe_instances")["Reservations"] == []
    api.refuse("ec2.RunInstances", "UnauthorizedOperation", 403)
    with pytest.raises(aws.CloudError, match="allow ec2:RunInstances"):
        aws.dry_run(platform, "ec2", "run_instances", **launch)
    assert vpcs(platform) == before


def test_an_api_that_obeys_a_dry_run_is_told(platform, monkeypatch):
    monkeypatch.setattr(aws, "call", lambda *_, **__: {})
    with pytest.raises(aws.CloudError, match=r"obeyed although only asked"):
        aws.dry_run(platform, "ec2", "run_instances")


# What errors say ----------------------------------------------------------------------------------


def refusal(code: str, message: str, operation: str = "RunInstances") -> ClientError:
    return ClientError({"Error": {"Code": code, "Message": message}}, operation)


def said(error: Exception, request: str = "ec2 run_instances") -> str:
    return str(aws.explain(error, request))


BLOB = "4cVXbNcBlobThatNobodyCanReadAndThatIsLong_-" * 9


@pytest.mark.parametrize(
    ("message", "action", "statement"),
    [
        (f"You are not authorized. Encoded authorization failure message: {BLOB}",
         "ec2:RunInstances", "MachinesMake"),
        ("User: arn:aws:iam::111122223333:user/me is not authorized to perform: ec2:CreateTags on "
         f"resource: x because no policy allows it. Encoded authorization failure message: {BLOB}",
         "ec2:CreateTags", "Tags"),
    ],
)  # fmt: skip
def test_a_refused_permission_is_named_with_its_statement(message, action, statement):
    text = said(refusal("UnauthorizedOperation", message))
    assert f"allow {action} in the IAM policy" in text
    assert f"statement {statement}" in text
    assert "BlobThat" not in text
    assert "Encoded" not in text


@pytest.mark.parametrize(
    ("request_", "operation", "action"),
    [
        ("s3 head_bucket", "HeadBucket", "s3:ListBucket"),
        ("s3 delete_objects", "DeleteObjects", "s3:DeleteObject"),
        ("s3 list_object_versions", "ListObjectVersions", "s3:ListBucketVersions"),
        ("s3 put_public_access_block", "PutPublicAccessBlock", "s3:PutBucketPublicAccessBlock"),
        ("s3 get_public_access_block", "GetPublicAccessBlock", "s3:GetBucketPublicAccessBlock"),
        ("s3 get_bucket_tagging", "GetBucketTagging", "s3:GetBucketTagging"),
        ("route53 change_resource_record_sets", "ChangeResourceRecordSets",
         "route53:ChangeResourceRecordSets"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("code", ["AccessDenied", "403"])
def test_actions_that_are_not_called_as_the_request_are_named(request_, operation, action, code):
    text = said(refusal(code, "Forbidden", operation), request_)
    assert f"allow {action} in the IAM policy of these credentials: statement " in text


def test_an_action_that_no_statement_has_is_named_all_the_same():
    text = said(refusal("UnauthorizedOperation", "no", "CreateFleet"), "ec2 create_fleet")
    assert text.endswith("allow ec2:CreateFleet in the IAM policy of these credentials")


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("InsufficientInstanceCapacity", "platform.aws.zones"),
        ("SpotMaxPriceTooLow", "spot price"),
        ("MaxSpotInstanceCountExceeded", "off spot"),
        ("NatGatewayLimitExceeded", "platform.network.egress"),
        ("VpcLimitExceeded", "higher quota"),
        ("InvalidParameterCombination", "exclude each other"),
        ("InvalidSubnet.Conflict", "worker_cidrs"),
        ("IdempotentParameterMismatch", "run it again"),
        ("OperationNotPermitted", "protection"),
    ],
)
def test_a_code_has_its_fix(code, words):
    text = said(refusal(code, "as EC2 says"))
    assert text.startswith(f"ec2 run_instances failed: {code}: as EC2 says; ")
    assert words in text.partition("; ")[2]


def test_no_credentials_is_told_with_the_way_to_give_them():
    assert "AWS_PROFILE" in said(NoCredentialsError())


SIGNED = (
    "https://f1.s3.eu-west-3.amazonaws.com/announce/f1-master.json"
    "?X-Amz-Credential=AKIAIOSFODNN7EXAMPLE%2F1&X-Amz-Signature=5ec2e7"
)


@pytest.mark.parametrize(
    "error",
    [
        refusal("InvalidParameterValue", f"what is at {SIGNED} is wrong"),
        ReadTimeoutError(endpoint_url=SIGNED),
        refusal("AuthFailure", "AKIAIOSFODNN7EXAMPLE is not known; Signature 5ec2e7"[:35]),
        ParamValidationError(
            report="Invalid type for parameter UserData, value: {'a': '5ec2e7'}, type: <class "
            "'dict'>, valid types: <class 'str'>"
        ),
        ParamValidationError(report="Invalid length for parameter UserData, value: 5ec2e7\n5ec2e7"),
        CredentialRetrievalError(provider="custom-process", error_msg="token 5ec2e7"),
    ],
)
def test_no_secret_is_told(error):
    text = said(error)
    assert text.startswith("ec2 run_instances failed: ")
    for secret in ("5ec2e7", "AKIAIOSFODNN7EXAMPLE", "X-Amz-Signature"):
        assert secret not in text


def test_the_place_of_a_signed_url_is_still_told():
    text = said(ReadTimeoutError(endpoint_url=SIGNED))
    assert "https://f1.s3.eu-west-3.amazonaws.com/announce/f1-master.json" in text


def test_a_traceback_tells_no_argument_either(platform):
    secret = "-".join(("not", "for", "you"))
    with pytest.raises(aws.CloudError) as error:
        aws.call(platform, "ec2", "run_instances", KeyName=[secret], MinCount=1, MaxCount=1)
    text = "".join(traceback.format_exception(error.value))
    assert "Invalid type for parameter KeyName, value: <not shown>" in text
    assert secret not in text


def test_the_account_in_the_buckets_name_is_asked_once(platform, requests_seen, monkeypatch):
    monkeypatch.setattr(aws, "_clients", {})
    assert [aws.bucket(platform) for _ in range(3)] == ["f1-123456789012"] * 3
    assert requests_seen == ["get_caller_identity"]
    # Other credentials may be another account's.
    monkeypatch.setattr(aws, "_clients", {})
    aws.bucket(platform)
    assert requests_seen == ["get_caller_identity"] * 2
