"""What can be done with one machine of ours: state, tags, protection, console, spot, volumes."""

# ruff: noqa: F811 (fixtures are imported)
import re

import aws
import ec2 as ec2_util
import machine
import pytest
import storage
from salt.exceptions import SaltCloudException, SaltCloudNotFound

from tests.unit.cloud_driver.acting import (
    USER_DATA,
    changing,
    cloud,  # noqa: F401
    fleet,  # noqa: F401
    launch,
    stranger,
    volume,
)


def test_a_machine_by_name_and_by_id(cloud, fleet):
    shown = cloud.act("show_instance", "f1-master")
    assert shown["id"] == fleet["f1-master"]
    assert cloud.act("show_instance", fleet["f1-master"]) == shown


def test_strangers_are_not_found_and_what_exists_is_told(cloud, fleet, platform):
    theirs = stranger(platform)
    for name in (theirs, "f1-worker-7", "i-0123456789abcdef0"):
        with pytest.raises(SaltCloudNotFound, match=f"{name} .* there are: f1-master, f1-worker-1"):
            cloud.act("show_instance", name)
        for action in ("start", "stop", "reboot", "destroy", "enable_term_protect"):
            with pytest.raises(SaltCloudNotFound):
                cloud.act(action, name)
    assert ec2_util.by_id(platform, theirs)["State"]["Name"] == "running"


def test_stop_and_start_wait_and_do_nothing_twice(cloud, fleet, requests_seen):
    stopped = cloud.act("stop", "f1-worker-1")
    assert (stopped["before"], stopped["state"], stopped["changed"]) == ("running", "stopped", True)
    requests_seen.clear()
    again = cloud.act("stop", "f1-worker-1", force="yes")
    assert (again["before"], again["changed"]) == ("stopped", False)
    assert changing(requests_seen) == []
    started = cloud.act("start", "f1-worker-1")
    assert (started["before"], started["state"]) == ("stopped", "running")
    requests_seen.clear()
    assert cloud.act("start", "f1-worker-1")["changed"] is False
    assert changing(requests_seen) == []


def test_a_wait_ends_and_says_what_was_seen(cloud, fleet, monkeypatch):
    call = aws.call
    monkeypatch.setattr(
        aws, "call", lambda p, s, r, **a: {} if r == "stop_instances" else call(p, s, r, **a)
    )
    monkeypatch.setattr(machine, "STOPPED_SECONDS", 0)
    with pytest.raises(SaltCloudException) as error:
        cloud.act("stop", "f1-worker-1")
    assert "waited 0 s for f1-worker-1 to be stopped; last seen: i-" in str(error.value)
    assert str(error.value).endswith("is running")


def test_reboot_returns_at_once_and_says_so(cloud, fleet):
    told = cloud.act("reboot", "f1-worker-1")
    assert told["rebooting"] is True
    assert "EC2 does not say when it is back" in told["note"]
    cloud.act("stop", "f1-worker-1")
    with pytest.raises(SaltCloudException, match=r"is stopped.*-a start f1-worker-1"):
        cloud.act("reboot", "f1-worker-1")


def test_tags(cloud, fleet, platform, requests_seen):
    set_ = cloud.act("set_tags", "f1-worker-1", team="red", name="x", platform="y")
    assert set_["changed"] == ["name", "platform", "team"]
    assert cloud.act("get_tags", "f1-worker-1") == {
        "Name": "f1-worker-1",
        "f1:platform": "f1",
        "team": "red",
        "name": "x",
        "platform": "y",
    }
    requests_seen.clear()
    assert cloud.act("set_tags", "f1-worker-1", team="red")["changed"] == []
    assert changing(requests_seen) == []
    gone = cloud.act("del_tags", "f1-worker-1", keys="team,never")
    assert gone["changed"] == ["team"]
    assert "team" not in cloud.act("get_tags", "f1-worker-1")
    requests_seen.clear()
    assert cloud.act("del_tags", "f1-worker-1", keys="team")["changed"] == []
    assert changing(requests_seen) == []


@pytest.mark.parametrize(
    ("key", "why"),
    [
        ("Name", "the machine's name"),
        ("f1:platform", "whose the machine is"),
        ("f1:introduced", "was introduced"),
        ("f1:other", "not for you"),
        ("aws:x", "not for you"),
        ("k" * 129, "at most 128"),
    ],
)
def test_reserved_tags_are_refused_with_the_reason(
    cloud,
    fleet,
    requests_seen,
    key,
    why,
):
    for wrong in (
        lambda: cloud.act("set_tags", "f1-worker-1", **{key: "x", "team": "red"}),
        lambda: cloud.act("del_tags", "f1-worker-1", keys=f"team,{key}"),
    ):
        with pytest.raises(SaltCloudException, match=why):
            wrong()
    assert changing(requests_seen) == []


def test_protection(cloud, fleet, requests_seen):
    assert cloud.act("show_term_protect", "f1-master")["protected"] is False
    assert cloud.act("enable_term_protect", "f1-master")["changed"] is True
    assert cloud.act("show_term_protect", "f1-master")["protected"] is True
    requests_seen.clear()
    assert cloud.act("enable_term_protect", "f1-master")["changed"] is False
    assert changing(requests_seen) == []
    assert cloud.act("disable_term_protect", "f1-master")["changed"] is True
    assert cloud.act("show_term_protect", "f1-master")["protected"] is False


def test_the_console_is_decoded_and_its_last_lines_are_shown(cloud, fleet):
    shown = cloud.act("console_output", "f1-worker-1", lines="2")
    assert shown["lines"] == [
        "Kernel command line: root=/dev/sda1 ro 4",
        "Enabling fast FPU save and restore... done.",
    ]
    assert len(cloud.act("console_output", "f1-worker-1")["lines"]) == 10


SECRET = "c2VjcmV0LXRoYXQtbm9ib2R5LXNoYWxsLXNlZQ"


@pytest.mark.parametrize(
    "text",
    [
        f"GET https://f1.s3.amazonaws.com/salt.tar.gz?X-Amz-Signature={SECRET}&x=1 failed",
        f'url: "http://10.0.0.1:9000/a?{SECRET}"',
        f"X-Amz-Security-Token={SECRET}",
        f"-----BEGIN OPENSSH PRIVATE KEY-----\n{SECRET}\n-----END OPENSSH PRIVATE KEY-----",
        f"-----BEGIN RSA PRIVATE KEY-----\n{SECRET}\n",
        f"{SECRET}\n-----END PRIVATE KEY-----\nnext",
        f"token K10{'ab' * 32}::node:{SECRET}",
    ],
)
def test_the_console_shows_no_secret(cloud, fleet, monkeypatch, text):
    call = aws.call
    output = f"first\n{text}\nlast" if not text.startswith(SECRET) else f"{text}\nlast"
    monkeypatch.setattr(
        aws,
        "call",
        lambda p, s, r, **a: (
            {"Output": output} if r == "get_console_output" else call(p, s, r, **a)
        ),
    )
    shown = cloud.act("console_output", "f1-worker-1")["lines"]
    assert SECRET not in "\n".join(shown)
    assert SECRET not in "\n".join(cloud.act("console_output", "f1-worker-1", lines="2")["lines"])
    assert "BEGIN RSA" in text or shown[-1] == "last"


def test_access_keys_are_not_shown():
    assert machine.redact("id AKIAIOSFODNN7EXAMPLE, https://x/y?z") == (
        "id <access key>, https://x/y?<not shown>"
    )


def test_an_older_machine_has_no_latest_console(cloud, fleet, monkeypatch):
    call, asked = aws.call, []

    def old(platform, service, request, **arguments):
        if request == "get_console_output":
            asked.append(arguments.get("Latest"))
            if arguments.get("Latest"):
                said = {"Error": {"Code": "UnsupportedOperation", "Message": "not Nitro"}}
                error = aws.ClientError(said, "GetConsoleOutput")
                raise aws.explain(error, "ec2 get_console_output") from error
            return {}
        return call(platform, service, request, **arguments)

    monkeypatch.setattr(aws, "call", old)
    shown = cloud.act("console_output", "f1-worker-1")
    assert asked == [True, None]
    assert shown["lines"] == ["EC2 has no console output of it yet"]


def test_spot(cloud, fleet, platform):
    assert cloud.act("show_spot", "f1-worker-1")["lifecycle"] == "on-demand"
    launch(platform, "f1-worker-2", InstanceMarketOptions={"MarketType": "spot"})
    assert cloud.act("show_spot", "f1-worker-2")["lifecycle"] == "spot"


def test_volumes_made_once_attached_detached_deleted(cloud, fleet, requests_seen):
    (root,) = cloud.act("show_volumes", "f1-worker-1")
    made = cloud.act("create_volume", "f1-worker-1", size="20", encrypted="no")
    assert made["name"] == "f1-worker-1-data"
    assert (made["size"], made["type"], made["device"]) == (20, "gp3", "/dev/sdf")
    assert (made["machine"], made["made"]) == (fleet["f1-worker-1"], True)
    assert set(cloud.act("show_volumes", "f1-worker-1")) == {root, made["id"]}

    requests_seen.clear()
    again = cloud.act("create_volume", "f1-worker-1", size="20")
    assert (again["id"], again["made"], again["changed"]) == (made["id"], False, False)
    assert changing(requests_seen) == []

    taken = cloud.act("detach_volume", "f1-worker-1", volume=made["id"])
    assert (taken["state"], taken["changed"]) == ("available", True)
    requests_seen.clear()
    already = cloud.act("detach_volume", "f1-worker-1", volume=made["id"])
    assert already["changed"] is False
    assert "detached already" in already["note"]
    assert changing(requests_seen) == []
    assert made["id"] in cloud.ask("list_volumes")

    back = cloud.act("attach_volume", "f1-worker-1", volume=made["id"], device="/dev/sdk")
    assert (back["device"], back["changed"]) == ("/dev/sdk", True)
    with pytest.raises(SaltCloudException, match=r"held by i-.*detach_volume"):
        cloud.ask("delete_volume", volume=made["id"])
    cloud.act("detach_volume", "f1-worker-1", volume=made["id"])
    assert cloud.ask("delete_volume", volume=made["id"])["changed"] is True
    gone = cloud.ask("delete_volume", volume=made["id"])
    assert (gone["changed"], gone["note"]) == (False, "no such volume is there")


def test_a_creation_cut_off_before_attaching_is_finished(
    cloud,
    fleet,
    monkeypatch,
):
    with monkeypatch.context() as patch:
        patch.setattr(storage, "attach", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            cloud.act("create_volume", "f1-worker-1", size="5", label="logs")
    (left,) = [i for i, v in cloud.ask("list_volumes").items() if v["name"] == "f1-worker-1-logs"]
    finished = cloud.act("create_volume", "f1-worker-1", size="5", label="logs")
    assert (finished["id"], finished["machine"]) == (left, fleet["f1-worker-1"])
    assert finished["made"] is False


def test_a_volume_of_a_snapshot(cloud, fleet):
    (snapshot,) = cloud.act("create_snapshots", "f1-worker-1")
    made = cloud.act("create_volume", "f1-worker-1", snapshot=snapshot, label="old", type="gp2")
    assert (made["type"], made["name"]) == ("gp2", "f1-worker-1-old")
    with pytest.raises(SaltCloudException, match="needs a size in GB, or a snapshot"):
        cloud.act("create_volume", "f1-worker-1", label="none")


def test_volumes_that_may_not_be_touched(cloud, fleet, platform, requests_seen):
    theirs, elsewhere = volume(platform, None), volume(platform, "f1-x", "eu-west-3c")
    (root,) = cloud.act("show_volumes", "f1-master")
    held = cloud.act("create_volume", "f1-master", size="1")["id"]
    requests_seen.clear()
    for action, name, arguments, why in [
        ("attach_volume", "f1-master", {"volume": theirs}, "not of f1.*refused"),
        ("detach_volume", "f1-master", {"volume": theirs}, "not of f1.*refused"),
        ("attach_volume", "f1-master", {"volume": elsewhere}, "eu-west-3c.*cannot leave its zone"),
        ("detach_volume", "f1-master", {"volume": root}, "is the root volume"),
        ("detach_volume", "f1-worker-1", {"volume": root}, "not held by f1-worker-1"),
        ("attach_volume", "f1-worker-1", {"volume": held}, "is held by i-.*detach_volume i-"),
        ("attach_volume", "f1-master", {"volume": held, "device": "/dev/sdp"}, "is at /dev/sdf"),
        ("attach_volume", "f1-master", {"volume": "vol-0123456789abcdef0"}, "no volume vol-01"),
    ]:
        with pytest.raises(SaltCloudException, match=why):
            cloud.act(action, name, **arguments)
    with pytest.raises(SaltCloudException, match=r"not of f1.*refused"):
        cloud.ask("delete_volume", volume=theirs)
    free = volume(platform, "f1-y")
    with pytest.raises(SaltCloudException, match="/dev/sdf of f1-master is in use; free are: /dev"):
        cloud.act("attach_volume", "f1-master", volume=free, device="/dev/sdf")
    assert [r for r in changing(requests_seen) if r != "create_volume"] == []


def test_no_list_shows_user_data(cloud, fleet):
    cloud.driver.__opts__["query.selection"] = ["id", "state", "tags", "private_ips"]
    shown = repr(
        [
            cloud.driver.list_nodes(),
            cloud.driver.list_nodes_full(),
            cloud.driver.list_nodes_select(),
            cloud.act("show_instance", "f1-master"),
            cloud.ask("avail_images"),
        ]
    )
    assert fleet["f1-master"] in shown
    assert USER_DATA not in shown
    assert not re.search(r"(?i)user.?data|not-to-be-shown", shown)
