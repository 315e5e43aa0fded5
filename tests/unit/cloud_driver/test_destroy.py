"""The end of a machine: what goes with it, what stays and costs, what is never touched."""

# ruff: noqa: F811 (fixtures are imported)
import aws
import ec2 as ec2_util
import launch as launch_util
import leftovers
import machine
import prices
import pytest
import vpc
from salt.exceptions import SaltCloudException, SaltCloudNotFound

from tests.unit.cloud_driver.acting import (
    changing,
    cloud,  # noqa: F401
    fleet,  # noqa: F401
    launch,
    stranger,
    volume,
)

NAME = "f1-worker-1"


def keep_volume(platform, ident, device="/dev/sda1", goes=False):
    """Say of a machine's volume whether it goes with the machine."""
    aws.call(
        platform,
        "ec2",
        "modify_instance_attribute",
        InstanceId=ident,
        BlockDeviceMappings=[{"DeviceName": device, "Ebs": {"DeleteOnTermination": goes}}],
    )


def further_interface(platform, ident, name):
    """Give the machine a second interface, which stays when it goes; tagged if it has a name."""
    tags = {"ResourceType": "network-interface", "Tags": aws.tags(platform, name or "")}
    made = aws.call(
        platform,
        "ec2",
        "create_network_interface",
        SubnetId=vpc.subnet_id(platform, NAME),
        **({"TagSpecifications": [tags]} if name else {}),
    )["NetworkInterface"]["NetworkInterfaceId"]
    aws.call(
        platform,
        "ec2",
        "attach_network_interface",
        NetworkInterfaceId=made,
        InstanceId=ident,
        DeviceIndex=1,
    )
    return made


def there(platform, request, key, identifier):
    return {item[identifier] for item in aws.call(platform, "ec2", request)[key]}


def everything(platform):
    return {
        "volumes": there(platform, "describe_volumes", "Volumes", "VolumeId"),
        "interfaces": there(
            platform, "describe_network_interfaces", "NetworkInterfaces", "NetworkInterfaceId"
        ),
        "addresses": there(platform, "describe_addresses", "Addresses", "PublicIp"),
        "snapshots": there(platform, "describe_snapshots", "Snapshots", "SnapshotId"),
    }


def test_a_plain_machine_goes_whole(cloud, fleet, platform):
    before = everything(platform)
    gone = cloud.driver.destroy(NAME)
    assert gone == {
        "id": fleet[NAME],
        "name": NAME,
        "before": "running",
        "state": "terminated",
        "removed": [f"machine {NAME} ({fleet[NAME]})"],
        "remains": [],
    }
    assert set(cloud.driver.list_nodes()) == {"f1-master"}
    after = everything(platform)
    assert len(before["volumes"] - after["volumes"]) == 1
    assert len(before["interfaces"] - after["interfaces"]) == 1


def test_what_was_made_with_it_goes_and_what_stays_is_told(cloud, fleet, platform):
    ident = fleet[NAME]
    keep_volume(platform, ident)
    (root,) = cloud.act("show_volumes", NAME)
    interface = further_interface(platform, ident, NAME)
    address = cloud.ask("allocate_address", label="worker-1")["address"]
    cloud.act("associate_address", NAME, address=address)
    data = cloud.act("create_volume", NAME, size="10")["id"]
    snapshots = cloud.act("create_snapshots", NAME)
    image = cloud.act("create_image", NAME, image="kept")
    gone = cloud.driver.destroy(ident)
    assert gone["removed"] == [
        f"machine {NAME} ({ident})",
        f"interface {interface}",
        f"volume {root}",
        f"address {address}",
    ]
    rows = {row["id"]: (row["what"], row["usd_month"]) for row in gone["remains"]}
    assert rows.pop(data) == ("volume", 0.93)
    what, usd = rows.pop(image["id"])
    assert (what, usd) == ("image", image["usd_month_at_most"])
    for snapshot, shown in snapshots.items():
        assert rows.pop(snapshot) == ("snapshot", shown["usd_month_at_most"])
    assert rows == {}
    now = everything(platform)
    assert data in now["volumes"]
    assert root not in now["volumes"]
    assert interface not in now["interfaces"]
    assert address not in now["addresses"]


def test_the_platforms_address_stays_and_comes_free(cloud, fleet, platform):
    ip = ec2_util.associate(platform, "f1-master", fleet["f1-master"])
    gone = cloud.driver.destroy("f1-master")
    address = vpc.address(platform, "f1-master")
    assert address is not None
    assert (address["PublicIp"], address.get("InstanceId", "")) == (ip, "")
    assert f"address {ip}" not in gone["removed"]
    assert [(row["what"], row["id"], row["usd_month"]) for row in gone["remains"]] == [
        ("address", ip, 3.65)
    ]


def test_another_address_of_ours_stays_ours(cloud, fleet, platform):
    ip = cloud.ask("allocate_address", label="blue")["address"]
    cloud.act("associate_address", NAME, address=ip)
    assert f"address {ip}" not in cloud.driver.destroy(NAME)["removed"]
    assert cloud.ask("list_addresses")[ip]["machine"] is None


def test_strangers_things_on_it_are_left_and_told(cloud, fleet, platform):
    theirs = volume(platform, None)
    aws.call(
        platform,
        "ec2",
        "attach_volume",
        VolumeId=theirs,
        InstanceId=fleet[NAME],
        Device="/dev/sdh",
    )
    interface = further_interface(platform, fleet[NAME], None)
    other = stranger(platform)
    gone = cloud.driver.destroy(NAME)
    (row,) = gone["remains"]
    assert (row["id"], row["usd_month"]) == (theirs, 0.93)
    assert "not made by us" in row["detail"]
    now = everything(platform)
    assert theirs in now["volumes"]
    assert interface in now["interfaces"]
    assert ec2_util.by_id(platform, other)["State"]["Name"] == "running"


def test_a_volume_that_its_profile_keeps_stays(cloud, platform):
    profile = cloud.driver.__opts__["profiles"]["k3s-worker"]
    cloud.driver.__opts__["profiles"] = {
        "k3s-worker": {
            **profile,
            "block_devices": [{"device": "root", "size": 8, "delete_on_termination": False}],
        }
    }
    ident = launch(platform, NAME)
    keep_volume(platform, ident)
    (root,) = cloud.act("show_volumes", NAME)
    gone = cloud.driver.destroy(NAME)
    assert gone["removed"] == [f"machine {NAME} ({ident})"]
    assert [row["id"] for row in gone["remains"]] == [root]


def test_a_protected_machine_is_refused_with_the_command(cloud, fleet, platform, requests_seen):
    cloud.act("enable_term_protect", NAME)
    requests_seen.clear()
    with pytest.raises(SaltCloudException) as error:
        cloud.driver.destroy(NAME)
    assert str(error.value).endswith(f"salt-cloud -a disable_term_protect {NAME}")
    assert changing(requests_seen) == []
    assert ec2_util.by_id(platform, fleet[NAME])["State"]["Name"] == "running"
    cloud.act("disable_term_protect", NAME)
    assert cloud.driver.destroy(NAME)["state"] == "terminated"


def test_what_is_gone_already_is_told_with_what_there_is(cloud, fleet):
    cloud.driver.destroy(NAME)
    for name in (NAME, fleet[NAME]):
        with pytest.raises(SaltCloudNotFound, match=r"terminated already; there are: f1-master$"):
            cloud.driver.destroy(name)


def test_it_waits_and_says_for_what(cloud, fleet, monkeypatch):
    call = aws.call

    def deaf(platform, service, request, **arguments):
        if request == "terminate_instances":
            return {}
        return call(platform, service, request, **arguments)

    monkeypatch.setattr(aws, "call", deaf)
    monkeypatch.setattr(launch_util, "TERMINATED_SECONDS", 0)
    with pytest.raises(SaltCloudException, match=r"for f1-worker-1 \(i-.*last seen: it is running"):
        cloud.driver.destroy(NAME)


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        ("delete_network_interface", "InvalidNetworkInterface.InUse"),
        ("delete_network_interface", "InvalidParameterValue"),
        ("delete_volume", "VolumeInUse"),
        ("release_address", "InvalidIPAddress.InUse"),
    ],
)
def test_what_is_known_to_race_is_sent_again(
    cloud, fleet, platform, monkeypatch, requests_seen, request_, code
):
    keep_volume(platform, fleet[NAME])
    further_interface(platform, fleet[NAME], NAME)
    address = cloud.ask("allocate_address", label="worker-1")["address"]
    cloud.act("associate_address", NAME, address=address)
    call, refused = aws.call, []

    def busy(platform, service, request, **arguments):
        if request == request_ and not refused:
            refused.append(request)
            said = {"Error": {"Code": code, "Message": "is in use"}}
            error = aws.ClientError(said, request)
            raise aws.explain(error, f"ec2 {request}") from error
        return call(platform, service, request, **arguments)

    with monkeypatch.context() as patch:
        patch.setattr(aws, "call", busy)
        assert len(cloud.driver.destroy(NAME)["removed"]) == 4
    assert refused == [request_]


def test_what_is_refused_for_good_is_not_sent_again(cloud, fleet, platform, monkeypatch):
    keep_volume(platform, fleet[NAME])
    call, refused = aws.call, []

    def denied(platform, service, request, **arguments):
        if request == "delete_volume":
            refused.append(request)
            said = {"Error": {"Code": "UnauthorizedOperation", "Message": "no"}}
            error = aws.ClientError(said, request)
            raise aws.explain(error, "ec2 delete_volume") from error
        return call(platform, service, request, **arguments)

    monkeypatch.setattr(aws, "call", denied)
    with pytest.raises(SaltCloudException, match="delete_volume failed: UnauthorizedOperation"):
        cloud.driver.destroy(NAME)
    assert refused == ["delete_volume"]


def test_an_interface_in_use_for_ever_is_named(cloud, fleet, platform, monkeypatch):
    interface = further_interface(platform, fleet["f1-master"], "f1-master")
    monkeypatch.setattr(machine, "GONE_SECONDS", 0)
    call = aws.call

    def busy(platform, service, request, **arguments):
        if request == "delete_network_interface":
            said = {"Error": {"Code": "InvalidParameterValue", "Message": "currently in use"}}
            error = aws.ClientError(said, request)
            raise aws.explain(error, "ec2 delete_network_interface") from error
        return call(platform, service, request, **arguments)

    monkeypatch.setattr(aws, "call", busy)
    with pytest.raises(SaltCloudException, match=rf"of {interface}; last seen: .*currently in use"):
        cloud.driver.destroy("f1-master")


def test_leftovers_of_the_platform(cloud, fleet, platform):
    assert [row["what"] for row in leftovers.of_platform(platform)] == ["address"]
    loose = volume(platform, "f1-x")
    volume(platform, None)
    held = cloud.act("create_volume", NAME, size="4")["id"]
    subnet = vpc.subnet_id(platform, "f1-master")
    nat_address = aws.call(
        platform,
        "ec2",
        "allocate_address",
        Domain="vpc",
        TagSpecifications=[{"ResourceType": "elastic-ip", "Tags": aws.tags(platform, "f1-nat")}],
    )
    nat = aws.call(
        platform,
        "ec2",
        "create_nat_gateway",
        SubnetId=subnet,
        AllocationId=nat_address["AllocationId"],
    )["NatGateway"]["NatGatewayId"]
    rows = {row["id"]: row for row in leftovers.of_platform(platform)}
    assert rows[loose]["usd_month"] == 0.93
    assert held not in rows
    assert rows[nat]["usd_month"] == 36.5
    assert "0.05 USD for each GB" in rows[nat]["detail"]
    assert rows[nat_address["PublicIp"]]["usd_month"] == 3.65
    assert leftovers.total(list(rows.values())) == round(0.93 + 36.5 + 2 * 3.65, 2)
    lines = cloud.ask("left")
    assert f"ours and still paid: volume {loose} f1-x (10 GB gp3): 0.93 USD a month" in lines
    assert lines[4].startswith("together 44.73 USD a month")
    # The tests' own network has a key pair and a bucket without tags.
    assert [line.partition(":")[0] for line in lines[5:]] == ["not ours, left alone"] * 2
    assert lines[-1] == f"not ours, left alone: bucket {aws.bucket(platform)}"


def test_a_price_that_is_not_known_is_never_nothing(cloud, platform, monkeypatch):
    loose = volume(platform, "f1-x")
    monkeypatch.setitem(prices.table()["regions"], "eu-west-3", {"address": 0.005})
    rows = leftovers.of_platform(platform)
    assert {row["id"]: row["usd_month"] for row in rows}[loose] == "unknown"
    assert leftovers.total(rows) == "unknown"
    assert leftovers.line(rows[0]).endswith("(10 GB gp3): unknown USD a month")
