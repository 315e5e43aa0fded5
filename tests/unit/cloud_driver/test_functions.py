"""What is asked of the provider: lists, snapshots, images, addresses, keys; and bad arguments."""

# ruff: noqa: F811 (fixtures are imported)
import inspect
import subprocess

import aws
import ec2 as ec2_util
import images
import prices
import pytest
import storage
from salt.exceptions import SaltCloudException, SaltCloudSystemExit

from tests.unit.cloud_driver.acting import (
    changing,
    cloud,  # noqa: F401
    fleet,  # noqa: F401
    stranger,
)

VOLUME, SNAPSHOT, IMAGE = (f"{kind}-0123456789abcdef0" for kind in ("vol", "snap", "ami"))

# Call, function, arguments, and all that its error must say.
BAD = [
    ("-a", "stop", {"forse": "yes"}, ["forse is unknown", "[force=true]"]),
    ("-a", "stop", {"force": "perhaps"}, ["force=perhaps is not true or false"]),
    ("-a", "start", {"now": "1"}, ["now is unknown", "salt-cloud -a start f1-worker-1"]),
    ("-a", "reboot", {"hard": "1"}, ["hard is unknown"]),
    ("-a", "show_instance", {"x": "1"}, ["x is unknown"]),
    ("-a", "destroy", {"x": "1"}, ["takes no arguments", "salt-cloud -d <machine>"]),
    ("-a", "set_tags", {}, ["no tags is given", "set_tags f1-worker-1 <key>=…"]),
    ("-a", "set_tags", {"a": "x" * 256}, ["is not a text of at most 255 characters"]),
    ("-a", "get_tags", {"a": "x"}, ["a is unknown"]),
    ("-a", "del_tags", {}, ["keys is missing", "keys=team,cost"]),
    ("-a", "del_tags", {"keys": "a,,b"}, ["names with commas between"]),
    ("-a", "enable_term_protect", {"on": "1"}, ["on is unknown"]),
    ("-a", "console_output", {"lines": "0"}, ["lines=0 is not a whole number from 1"]),
    ("-a", "console_output", {"lines": "many"}, ["lines=many is not a whole number"]),
    ("-a", "show_spot", {"a": "b"}, ["a is unknown"]),
    ("-a", "show_volumes", {"a": "b"}, ["a is unknown"]),
    ("-a", "create_volume", {"size": "0"}, ["size=0 is not a whole number"]),
    ("-a", "create_volume", {"size": "-4", "tipe": "gp3"}, ["size=-4", "tipe is unknown"]),
    ("-a", "create_volume", {"type": "gp9"}, ["type=gp9 is not a type of volume"]),
    ("-a", "create_volume", {"label": "A B"}, ["label=A B is not small letters"]),
    ("-a", "create_volume", {"snapshot": VOLUME}, ["is not the id of a snapshot"]),
    ("-a", "create_volume", {"size": "1", "device": "/dev/sda"}, ["/dev/sdf to /dev/sdp"]),
    ("-a", "attach_volume", {}, ["volume is missing", f"volume={VOLUME} [device=/dev/sdf]"]),
    ("-a", "attach_volume", {"volume": "data"}, ["volume=data is not the id of a volume"]),
    ("-a", "attach_volume", {"devise": "x"}, ["devise is unknown", "volume is missing"]),
    ("-a", "detach_volume", {"volume": "vol-1"}, ["volume=vol-1 is not the id"]),
    ("-f", "delete_volume", {}, ["volume is missing", "salt-cloud -f delete_volume aws"]),
    ("-f", "delete_volume", {"volume": SNAPSHOT}, ["is not the id of a volume"]),
    ("-a", "create_snapshots", {"text": ""}, ["text= is not a text"]),
    ("-f", "delete_snapshot", {"snapshot": "x"}, ["snapshot=x is not the id of a snapshot"]),
    ("-f", "list_snapshots", {"a": "b"}, ["a is unknown"]),
    ("-a", "create_image", {"image": "x"}, ["3 to 128 letters"]),
    ("-a", "create_image", {"reboot": "2"}, ["reboot=2 is not true or false"]),
    ("-f", "delete_image", {"image": "debian"}, ["image=debian is not the id of an image"]),
    ("-f", "avail_images", {"owner": "debian"}, ["an account's id, or self"]),
    ("-f", "avail_images", {"arch": "amd64", "nam": "x"}, ["x86_64 or arm64", "nam is unknown"]),
    ("-f", "avail_sizes", {"a": "b"}, ["a is unknown"]),
    ("-f", "avail_locations", {"a": "b"}, ["a is unknown"]),
    ("-f", "allocate_address", {}, ["label is missing"]),
    ("-f", "allocate_address", {"label": "x_y"}, ["label=x_y is not small letters"]),
    ("-a", "associate_address", {"address": "1.2.3"}, ["is not an address or its id"]),
    ("-f", "disassociate_address", {}, ["address is missing", "address=203.0.113.9"]),
    ("-f", "release_address", {"adress": "1.2.3.4"}, ["adress is unknown", "address is missing"]),
    ("-f", "show_keypair", {}, ["key is missing"]),
    ("-f", "import_keypair", {"key": "a"}, ["file is missing"]),
    ("-f", "delete_keypair", {}, ["key is missing"]),
    ("-f", "spot_prices", {"size": "small"}, ["size=small is not the name of a size"]),
    ("-f", "spot_prices", {"zone": "a", "hours": "x"}, ["zone=a is not", "hours=x is not"]),
    ("-f", "cost", {"sizes": "huge"}, ["small, default or large"]),
    ("-f", "left", {"a": "b"}, ["a is unknown"]),
    ("-f", "list_nodes", {"a": "b"}, ["a is unknown"]),
    ("-f", "list_nodes_min", {"a": "b"}, ["a is unknown"]),
    ("-f", "list_nodes_full", {"a": "b"}, ["a is unknown"]),
    ("-f", "list_nodes_select", {"a": "b"}, ["a is unknown"]),
    ("-f", "dry_run", {"size": "x"}, ["profile is missing; name is missing", "[<key>=…]"]),
]


def test_the_table_of_bad_arguments_is_whole():
    assert len(BAD) == 55


@pytest.mark.parametrize(("how", "what", "arguments", "words"), BAD)
def test_bad_arguments_are_all_told_and_nothing_is_asked(
    cloud, requests_seen, how, what, arguments, words
):
    requests_seen.clear()
    call, names = (cloud.act, ["f1-worker-1"]) if how == "-a" else (cloud.ask, [])
    with pytest.raises(SaltCloudException) as error:
        call(what, *names, **arguments)
    for word in words:
        assert word in str(error.value)
    assert "salt-cloud -" in str(error.value)
    assert requests_seen == []


def offered(cloud) -> dict[str, str]:
    """Return the driver's functions and which of `-a` and `-f` each is for, by its CLI Example."""
    found = {}
    for name, function in vars(cloud.driver).items():
        doc = inspect.getdoc(function) or ""
        if callable(function) and "CLI Example" in doc and not name.startswith("_"):
            found[name] = doc.split("CLI Example", 1)[1]
    return found


def test_each_function_has_a_command_and_refuses_the_other_way(cloud, requests_seen):
    ways = offered(cloud)
    assert len(ways) > 40
    checked = 0
    for name, example in ways.items():
        if f"-a {name} " in example:
            with pytest.raises(SaltCloudSystemExit, match=f"salt-cloud -a {name} <machine>"):
                cloud.ask(name, volume=VOLUME)
            with pytest.raises(SaltCloudSystemExit, match=f"salt-cloud -a {name} <machine>"):
                cloud.ask(name)
            checked += 1
        elif f"-f {name} aws" in example:
            for arguments in ({}, {"volume": VOLUME}):
                with pytest.raises(SaltCloudSystemExit, match=f"salt-cloud -f {name} aws"):
                    cloud.act(name, "f1-worker-1", **arguments)
            checked += 1
    assert checked > 35
    assert requests_seen == [] or changing(requests_seen) == []


def test_snapshots(cloud, fleet, platform, requests_seen):
    taken = cloud.act("create_snapshots", "f1-master", text="before")
    (ident,) = taken
    assert taken[ident]["state"] == "completed"
    assert (taken[ident]["machine"], taken[ident]["text"]) == ("f1-master", "before")
    assert set(cloud.ask("list_snapshots")) == {ident}
    theirs = aws.call(platform, "ec2", "create_snapshot", VolumeId=taken[ident]["volume"])
    requests_seen.clear()
    with pytest.raises(SaltCloudException, match=r"is not of f1 .*: refused"):
        cloud.ask("delete_snapshot", snapshot=theirs["SnapshotId"])
    assert set(cloud.ask("list_snapshots")) == {ident}
    assert changing(requests_seen) == []
    assert cloud.ask("delete_snapshot", snapshot=ident)["changed"] is True
    again = cloud.ask("delete_snapshot", snapshot=ident)
    assert (again["changed"], again["note"]) == (False, "no such snapshot is there")
    assert cloud.ask("list_snapshots") == {}


def test_a_snapshot_that_fails_or_does_not_end_is_told(cloud, fleet, monkeypatch):
    pages = aws.pages
    state = {"State": "error", "StateMessage": "the key is gone"}

    def pending(platform, service, request, key, **arguments):
        found = pages(platform, service, request, key, **arguments)
        return [{**item, **state} for item in found] if request == "describe_snapshots" else found

    monkeypatch.setattr(aws, "pages", pending)
    with pytest.raises(SaltCloudException, match="is error instead of completed: the key is gone"):
        cloud.act("create_snapshots", "f1-master")
    state.update(State="pending")
    monkeypatch.setattr(storage, "SNAPSHOT_SECONDS", 0)
    with pytest.raises(SaltCloudException, match=r"waited 0 s for snapshot snap-.*it is pending"):
        cloud.act("create_snapshots", "f1-master")


def test_what_was_just_made_is_described_a_little_later(cloud, fleet, monkeypatch):
    pages, hidden = aws.pages, [1, 2]

    def late(platform, service, request, key, **arguments):
        found = pages(platform, service, request, key, **arguments)
        return [] if request == "describe_snapshots" and hidden and hidden.pop() else found

    monkeypatch.setattr(aws, "pages", late)
    assert len(cloud.act("create_snapshots", "f1-master")) == 1
    assert hidden == []
    monkeypatch.setattr(storage, "SEEN_SECONDS", -1)
    hidden.append(1)
    with pytest.raises(SaltCloudException, match=r"snapshot snap-\w+ is gone instead of completed"):
        cloud.act("create_snapshots", "f1-master")


def test_snapshots_of_an_image_are_said_to_be_in_use_for_a_moment(cloud, fleet, monkeypatch):
    made = cloud.act("create_image", "f1-master", image="before-upgrade")
    call, refused = aws.call, []

    def busy(platform, service, request, **arguments):
        if request == "delete_snapshot" and not refused:
            refused.append(request)
            said = {"Error": {"Code": "InvalidSnapshot.InUse", "Message": "in use by ami-1"}}
            error = aws.ClientError(said, "DeleteSnapshot")
            raise aws.explain(error, "ec2 delete_snapshot") from error
        return call(platform, service, request, **arguments)

    monkeypatch.setattr(aws, "call", busy)
    gone = cloud.ask("delete_image", image=made["id"])
    assert gone["removed"] == [made["id"], *made["snapshots"]]
    assert refused
    assert cloud.ask("list_snapshots") == {}


def test_images_of_machines_go_with_their_snapshots(cloud, fleet, platform):
    made = cloud.act("create_image", "f1-master", image="before-upgrade")
    assert (made["name"], made["machine"], made["state"]) == (
        "before-upgrade",
        "f1-master",
        "available",
    )
    assert made["snapshots"]
    assert set(made["snapshots"]) <= set(cloud.ask("list_snapshots"))
    again = cloud.act("create_image", "f1-master", image="before-upgrade")
    assert (again["id"], again["changed"]) == (made["id"], False)
    timed = cloud.act("create_image", "f1-worker-1", reboot="true")
    assert timed["name"].startswith("f1-worker-1-2")
    assert set(cloud.ask("list_images")) == {made["id"], timed["id"]}
    with pytest.raises(SaltCloudException, match=rf"part of the image {made['id']}.*delete_image"):
        cloud.ask("delete_snapshot", snapshot=made["snapshots"][0])

    theirs = aws.call(
        platform, "ec2", "create_image", InstanceId=fleet["f1-master"], Name="theirs"
    )["ImageId"]
    with pytest.raises(SaltCloudException, match=r"is not of f1 .*: refused"):
        cloud.ask("delete_image", image=theirs)
    gone = cloud.ask("delete_image", image=made["id"])
    assert gone["removed"] == [made["id"], *made["snapshots"]]
    assert set(cloud.ask("list_images")) == {timed["id"]}
    assert not set(made["snapshots"]) & set(cloud.ask("list_snapshots"))
    assert cloud.ask("delete_image", image=made["id"])["changed"] is False
    assert aws.call(platform, "ec2", "describe_images", ImageIds=[theirs])["Images"]


def test_images_to_be_used(cloud, platform):
    shown = cloud.driver.avail_images()
    assert shown[platform["image"]["id"]]["used"] == "platform.image"
    amazon = [i for i, item in shown.items() if str(item.get("used", "")).startswith("ssm:")]
    assert len(amazon) == 1
    assert amazon[0].startswith("ami-")
    for parameter in images.PARAMETERS[:2]:
        assert "no such public parameter" in shown[parameter]["missing"]


def test_no_permission_for_parameters_or_no_image_is_said_and_not_raised(
    cloud, platform, monkeypatch
):
    call = aws.call

    def denied(platform, service, request, **arguments):
        if service == "ssm":
            said = {"Error": {"Code": "AccessDeniedException", "Message": "no"}}
            error = aws.ClientError(said, "GetParameters")
            raise aws.explain(error, "ssm get_parameters") from error
        return call(platform, service, request, **arguments)

    monkeypatch.setattr(aws, "call", denied)
    platform["image"].update(id=None, name="no-such-image-*")
    shown = cloud.ask("avail_images")
    assert "no image no-such-image-*" in shown["platform.image"]["missing"]
    for parameter in images.PARAMETERS:
        assert "AccessDenied" in shown[parameter]["missing"]


def test_a_search_of_images(cloud, platform):
    everything = cloud.ask("avail_images", owner="amazon")
    assert 1 < len(everything) <= images.FOUND
    dates = [str(item["created"]) for item in everything.values()]
    assert dates == sorted(dates, reverse=True)
    one = cloud.ask("avail_images", owner="amazon", name="amzn2-ami-hvm-*", arch="x86_64")
    assert all(item["name"].startswith("amzn2-ami-hvm-") for item in one.values())
    assert cloud.ask("avail_images", owner="self", name="none") == {}


def test_sizes_and_places(cloud):
    sizes = cloud.ask("avail_sizes")
    assert sizes["t3.small"] == {
        "cpus": 2,
        "memory": 2048,
        "arch": ["x86_64"],
        "burstable": True,
        "usd_month": 17.23,
    }
    assert sizes["m5.large"]["burstable"] is False
    assert sizes["m5.large"]["usd_month"] == prices.UNKNOWN
    assert sizes["t4g.small"]["arch"] == ["arm64"]
    places = cloud.ask("avail_locations")
    assert places["eu-west-3"]["zones"]["eu-west-3a"] == {"state": "available", "used": True}
    assert places["eu-west-3"]["zones"]["eu-west-3c"]["used"] is False
    assert set(places["us-east-1"]) == {"endpoint"}


def test_addresses(cloud, fleet, platform, requests_seen):
    own = ec2_util.associate(platform, "f1-master", fleet["f1-master"])
    made = cloud.ask("allocate_address", label="worker-1")
    assert (made["name"], made["machine"], made["usd_month"]) == ("f1-worker-1", None, 3.65)
    requests_seen.clear()
    assert cloud.ask("allocate_address", label="worker-1") == {**made, "changed": False}
    assert changing(requests_seen) == []
    listed = cloud.ask("list_addresses")
    assert listed[own]["platforms_own"] is True
    assert listed[made["address"]]["platforms_own"] is False

    ip = made["address"]
    held = cloud.act("associate_address", "f1-worker-1", address=ip)
    assert (held["machine"], held["changed"]) == (fleet["f1-worker-1"], True)
    assert cloud.act("associate_address", "f1-worker-1", address=made["id"])["changed"] is False
    with pytest.raises(SaltCloudException, match=r"used by i-.*disassociate_address aws address="):
        cloud.act("associate_address", "f1-master", address=ip)
    with pytest.raises(SaltCloudException, match=r"used by i-.*disassociate_address"):
        cloud.ask("release_address", address=ip)
    second = cloud.ask("allocate_address", label="b")["address"]
    with pytest.raises(SaltCloudException, match=f"f1-worker-1 has the elastic address {ip}"):
        cloud.act("associate_address", "f1-worker-1", address=second)
    assert cloud.ask("disassociate_address", address=ip)["changed"] is True
    free = cloud.ask("disassociate_address", address=ip)
    assert (free["changed"], free["note"]) == (False, "nothing has it")
    assert cloud.ask("release_address", address=ip)["changed"] is True
    with pytest.raises(SaltCloudException, match=rf"{ip} is no address of f1; there are: "):
        cloud.ask("release_address", address=ip)


def test_addresses_that_may_not_be_touched(cloud, fleet, platform, requests_seen):
    own = ec2_util.associate(platform, "f1-master", fleet["f1-master"])
    theirs = aws.call(platform, "ec2", "allocate_address", Domain="vpc")
    other = stranger(platform)
    aws.call(
        platform, "ec2", "associate_address", AllocationId=theirs["AllocationId"], InstanceId=other
    )
    requests_seen.clear()
    for what in ("disassociate_address", "release_address"):
        with pytest.raises(SaltCloudException, match=r"the platform's own.*`make down`"):
            cloud.ask(what, address=own)
        for ident in (theirs["PublicIp"], theirs["AllocationId"]):
            with pytest.raises(SaltCloudException, match=f"is no address of f1; there are: {own}"):
                cloud.ask(what, address=ident)
    with pytest.raises(SaltCloudException, match="the platform's own"):
        cloud.act("associate_address", "f1-worker-1", address=own)
    for label in ("master", "nat"):
        with pytest.raises(SaltCloudException, match="`make up` makes it"):
            cloud.ask("allocate_address", label=label)
    assert theirs["PublicIp"] not in cloud.ask("list_addresses")
    assert changing(requests_seen) == []


@pytest.fixture
def keys(tmp_path):
    """Two keys: a file with the public half each, the private one beside it."""
    for name in ("one", "two"):
        path = tmp_path / name
        subprocess.run(
            ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "me@home", "-f", str(path)],
            check=True,
        )
    return tmp_path


def test_key_pairs(cloud, platform, keys):
    assert set(cloud.ask("list_keypairs")) == {"f1"}
    made = cloud.ask("import_keypair", key="f1-ann", file=str(keys / "one.pub"))
    assert (made["type"], made["changed"]) == ("ed25519", True)
    assert made["public"].split()[1] == (keys / "one.pub").read_text().split()[1]
    assert cloud.ask("show_keypair", key="f1-ann")["fingerprint"] == made["fingerprint"]
    again = cloud.ask("import_keypair", key="f1-ann", file=str(keys / "one.pub"))
    assert again["changed"] is False
    with pytest.raises(SaltCloudException, match="is another key: not replaced"):
        cloud.ask("import_keypair", key="f1-ann", file=str(keys / "two.pub"))
    assert cloud.ask("delete_keypair", key="f1-ann")["changed"] is True
    assert cloud.ask("delete_keypair", key="f1-ann")["changed"] is False
    with pytest.raises(SaltCloudException, match="no key pair of f1 is named f1-ann; there are"):
        cloud.ask("show_keypair", key="f1-ann")


def test_key_pairs_that_may_not_be_touched(cloud, platform, keys, requests_seen):
    aws.call(platform, "ec2", "create_key_pair", KeyName="f1-theirs", KeyType="ed25519")
    requests_seen.clear()
    for what, arguments, why in [
        ("delete_keypair", {"key": "f1-theirs"}, r"theirs is not of f1 .*: refused"),
        ("delete_keypair", {"key": "f1"}, "the platform's own key pair"),
        ("import_keypair", {"key": "f1", "file": str(keys / "one.pub")}, "the platform's own"),
        ("import_keypair", {"key": "f1-theirs", "file": str(keys / "one.pub")}, "somebody else's"),
        ("import_keypair", {"key": "x", "file": str(keys / "one.pub")}, "begins so: f1-, not x"),
        ("import_keypair", {"key": "f1-x", "file": str(keys / "none")}, "cannot be read"),
        (
            "import_keypair",
            {"key": "f1-x", "file": str(keys / "one")},
            "is no public RSA or Ed25519",
        ),
        ("show_keypair", {"key": "f1-theirs"}, "no key pair of f1 is named f1-theirs"),
    ]:
        with pytest.raises(SaltCloudException, match=why) as error:
            cloud.ask(what, **arguments)
        assert "PRIVATE" not in str(error.value)
    assert "f1-theirs" not in cloud.ask("list_keypairs")
    assert changing(requests_seen) == []


def test_spot_prices(cloud, platform):
    found = cloud.ask("spot_prices")
    assert set(found) == {"t3.medium", "t3.small"}
    assert found["t3.small"]["on-demand"] == {"usd_hour": 0.0236}
    one = cloud.ask("spot_prices", size="t3.micro", zone="eu-west-3b", hours="2")
    assert set(one["t3.micro"]) == {"on-demand", "eu-west-3b"}
    assert one["t3.micro"]["eu-west-3b"]["usd_hour"] == 0.00001
    none = cloud.ask("spot_prices", size="x9.tiny", zone="eu-west-3a")
    assert none["x9.tiny"] == {
        "on-demand": {"usd_hour": "unknown"},
        "note": "no spot prices in eu-west-3a",
    }
