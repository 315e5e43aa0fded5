"""The EC2 driver against a cloud API: what it makes, how it is told apart, what it says."""

import json
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aws
import creation
import ec2 as ec2_util
import environment
import firstcontact
import pytest
import vpc
import yaml
from salt.exceptions import SaltCloudException

from tests.conftest import ROOT, load_ext
from tests.unit.cloud_driver import machines as helper

PROFILES = yaml.safe_load((ROOT / "salt/cloud/profiles.conf").read_text())


@pytest.fixture
def driver(opts, platform, monkeypatch, tmp_path) -> Any:
    archive = tmp_path / "salt.tar.gz"
    archive.write_bytes(b"an environment")
    built = environment.Built(archive, "ab" * 32)
    monkeypatch.setattr(environment, "build", lambda: built)
    made: Any = load_ext("clouds/ec2.py")
    opts["profiles"] = PROFILES
    made.__opts__ = opts
    helper.network(platform)
    return made


def vm(name: str, **more: Any) -> dict[str, Any]:
    profile = "k3s-master" if name.endswith("master") else "k3s-worker"
    return {"name": name, "profile": profile, **PROFILES[profile], **more}


def test_a_master_is_launched_as_declared(driver, platform, machines, tmp_path):
    made = driver.create(vm("f1-master"))
    assert made["state"] == "running"
    assert made["existed"] is False
    assert made["private_ips"] == ["10.20.1.10"]
    assert made["size"] == "t3.medium"
    assert made["groups"] == ["f1-master"]
    assert made["key"] == "f1"
    assert made["tags"] == {
        "Name": "f1-master",
        "f1:platform": "f1",
        "f1:introduced": made["id"],
    }
    item = ec2_util.by_id(platform, made["id"])
    assert item["MetadataOptions"]["HttpTokens"] == "required"
    assert item["MetadataOptions"]["HttpPutResponseHopLimit"] == 1
    address = vpc.address(platform, "f1-master")
    assert address is not None
    assert address["InstanceId"] == made["id"]
    known = (tmp_path / "state" / "known_hosts").read_text()
    assert known == f"{made['id']} ssh-ed25519 AAAA{made['id'][2:]}\n"


def test_the_master_accepts_exactly_what_was_announced(driver, machines):
    driver.create(vm("f1-master"))
    pki = machines.folder / "f1-master/etc/salt/pki/master"
    for state in ("minions_pre", "minions_rejected"):
        (pki / state).mkdir()
        (pki / state / "f1-worker-1").write_text("an older machine's")
    driver.create(vm("f1-worker-1"))
    worker = machines.folder / "f1-worker-1/etc/salt/pki/minion"
    assert (pki / "minions/f1-worker-1").read_text() == (worker / "minion.pub").read_text()
    assert not (pki / "minions_pre/f1-worker-1").exists()
    assert not (pki / "minions_rejected/f1-worker-1").exists()
    assert (worker / "minion_master.pub").read_text() == (pki / "master.pub").read_text()


def test_master_and_worker_may_boot_together(driver, machines):
    with ThreadPoolExecutor() as pool:
        worker = pool.submit(driver.create, vm("f1-worker-1"))
        master = pool.submit(driver.create, vm("f1-master"))
        assert master.result(60)["state"] == "running"
        assert worker.result(60)["state"] == "running"
    pki = machines.folder / "f1-master/etc/salt/pki/master"
    assert sorted(path.name for path in (pki / "minions").iterdir()) == ["f1-master", "f1-worker-1"]


def test_an_existing_machine_is_left_or_started(driver, platform, machines, requests_seen):
    first = driver.create(vm("f1-master"))
    again = driver.create(vm("f1-master"))
    assert again["existed"] is True
    assert again["id"] == first["id"]
    driver.stop("f1-master", call="action")
    assert driver.list_nodes()["f1-master"]["state"] == "stopped"
    assert driver.create(vm("f1-master"))["state"] == "running"
    assert requests_seen.count("run_instances") == 1


def test_another_machines_announcement_is_refused_and_nothing_stays(driver, platform, machines):
    machines.wrong = {"instance_id": "i-0badbadbadbadbad0"}
    with pytest.raises(SaltCloudException, match=r"i-0badbadbadbadbad0.*refused"):
        driver.create(vm("f1-master"))
    assert driver.list_nodes() == {}
    assert firstcontact.known(platform, "f1-master") is None


def test_what_failed_on_the_machine_is_told(driver, machines):
    machines.fails = "salt-master did not start: no space left on device"
    with pytest.raises(SaltCloudException, match=r"terminated again.*no space left on device"):
        driver.create(vm("f1-master"))
    assert driver.list_nodes() == {}


def test_silence_ends_and_says_what_was_seen(driver, monkeypatch):
    monkeypatch.setattr(firstcontact, "ANNOUNCE_SECONDS", 0.5)
    with pytest.raises(SaltCloudException) as error:
        driver.create(vm("f1-master"))
    assert "waited 0.5 s for the announcement of f1-master" in str(error.value)
    assert "is running and has announced nothing" in str(error.value)


def test_an_interrupted_creation_is_finished_by_the_next(driver, platform, machines, monkeypatch):
    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    real = firstcontact.introduce
    monkeypatch.setattr(firstcontact, "introduce", interrupt)
    with pytest.raises(KeyboardInterrupt):
        driver.create(vm("f1-master"))
    monkeypatch.setattr(firstcontact, "introduce", real)
    (left,) = driver.list_nodes().values()
    finished = driver.create(vm("f1-master"))
    assert finished["id"] == left["id"]
    assert finished["tags"]["f1:introduced"] == left["id"]


def test_an_unfinished_machine_that_fails_is_not_met_again(driver, machines, monkeypatch):
    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    machines.fails = "no memory"
    with monkeypatch.context() as patch:
        patch.setattr(firstcontact, "introduce", interrupt)
        with pytest.raises(KeyboardInterrupt):
            driver.create(vm("f1-master"))
    with pytest.raises(SaltCloudException, match=r"terminated again.*no memory"):
        driver.introduce("f1-master", call="action")
    machines.fails = None
    assert driver.create(vm("f1-master"))["existed"] is False


def test_an_old_machine_that_lost_its_tag_is_not_removed(driver, platform, machines, monkeypatch):
    made = driver.create(vm("f1-master"))
    aws.call(
        platform,
        "ec2",
        "delete_tags",
        Resources=[made["id"]],
        Tags=[{"Key": firstcontact.INTRODUCED}],
    )
    firstcontact.forget(platform, "f1-master")
    monkeypatch.setattr(firstcontact, "ANNOUNCE_SECONDS", 0.5)
    monkeypatch.setattr(creation, "_NEW", timedelta(0))
    with pytest.raises(SaltCloudException, match=r"left as it is: waited 0\.5 s .*-d f1-master"):
        driver.create(vm("f1-master"))
    assert driver.list_nodes()["f1-master"]["state"] == "running"
    launched = datetime(2026, 3, 1, tzinfo=UTC)
    older = {"Ebs": {"AttachTime": launched - timedelta(weeks=3)}}
    assert creation._born({"LaunchTime": launched, "BlockDeviceMappings": [older, {}]}) == (
        launched - timedelta(weeks=3)
    )


def test_an_address_of_the_master_that_comes_late_is_used(platform, monkeypatch):
    master = {"InstanceId": "i-0", "State": {"Name": "running"}}
    described = [{**master, "PublicIpAddress": "192.0.2.1"}]
    used: list[str] = []

    def run(name: str, *_: Any, **__: Any) -> None:
        if used[-1] == "192.0.2.1":
            described[0] = {**master, "PublicIpAddress": "198.51.100.1"}
            raise firstcontact.ssh.Unreachable("timed out")

    monkeypatch.setattr(firstcontact, "ASK_SECONDS", 0)
    monkeypatch.setattr(firstcontact, "_read", lambda platform, key: {"instance_id": "i-0"})
    monkeypatch.setattr(firstcontact, "_known_hosts", lambda: {"i-0": []})
    monkeypatch.setattr(ec2_util, "instance", lambda platform, name: described[0])
    monkeypatch.setattr(
        firstcontact.ssh, "configure", lambda name, address, ident: used.append(address)
    )
    monkeypatch.setattr(firstcontact.ssh, "run", run)
    firstcontact._accept(platform, "f1-worker-1", "a key")
    assert used == ["192.0.2.1", "198.51.100.1"]


def test_a_worker_without_a_master_does_not_wait_for_long(driver, machines, monkeypatch):
    monkeypatch.setattr(firstcontact, "ALONE_SECONDS", 0.5)
    machines.patience = 4
    with pytest.raises(SaltCloudException, match="f1-worker-1 has no master"):
        driver.create(vm("f1-worker-1"))
    assert driver.list_nodes() == {}


def test_workers_do_not_trust_the_key_of_a_master_that_is_gone(driver, platform, machines):
    gone = driver.create(vm("f1-master"))
    aws.call(platform, "ec2", "terminate_instances", InstanceIds=[gone["id"]])
    assert firstcontact.known(platform, "f1-master") is None
    for name in ("master.pem", "master.pub"):
        (machines.folder / "f1-master/etc/salt/pki/master" / name).unlink()
    driver.create(vm("f1-master"))
    driver.create(vm("f1-worker-1"))
    pinned = machines.folder / "f1-worker-1/etc/salt/pki/minion/minion_master.pub"
    master = machines.folder / "f1-master/etc/salt/pki/master/master.pub"
    assert pinned.read_text() == master.read_text()


def test_a_replaced_worker_is_known_by_its_new_keys(driver, platform, machines, tmp_path):
    driver.create(vm("f1-master"))
    old = driver.create(vm("f1-worker-1"))
    pki = machines.folder / "f1-master/etc/salt/pki/master/minions/f1-worker-1"
    first = pki.read_text()
    aws.call(platform, "ec2", "terminate_instances", InstanceIds=[old["id"]])
    # A new machine has an empty disk.
    for name in ("minion.pem", "minion.pub"):
        (machines.folder / "f1-worker-1/etc/salt/pki/minion" / name).unlink()
    new = driver.create(vm("f1-worker-1"))
    assert new["id"] != old["id"]
    assert pki.read_text() != first
    assert f"{new['id']} ssh-" in (tmp_path / "state/known_hosts").read_text()


def test_destroy_forgets(driver, platform, machines, tmp_path):
    made = driver.create(vm("f1-master"))
    assert driver.destroy("f1-master", call="action")["id"] == made["id"]
    assert driver.list_nodes() == {}
    assert firstcontact.known(platform, "f1-master") is None
    assert made["id"] not in (tmp_path / "state/known_hosts").read_text()


def test_actions_and_lists(driver, opts, machines):
    made = driver.create(vm("f1-master"))
    assert driver.show_instance("f1-master", call="action")["id"] == made["id"]
    assert driver.show_instance(made["id"], call="action")["name"] == "f1-master"
    assert driver.stop("f1-master", call="action")["before"] == "running"
    assert driver.start("f1-master", call="action")["before"] == "stopped"
    assert driver.reboot("f1-master", call="action")["rebooting"] is True
    assert driver.list_nodes_min() == {"f1-master": {"id": made["id"], "state": "running"}}
    assert driver.list_nodes_full()["f1-master"]["groups"] == ["f1-master"]
    opts["query.selection"] = ["id", "state"]
    assert driver.list_nodes_select() == driver.list_nodes_min()
    size = driver.avail_sizes()["t3.small"]
    assert (size["cpus"], size["memory"]) == (2, 2048)
    assert "eu-west-3" in driver.avail_locations()
    assert "ami-12c6146b" in driver.avail_images()


def test_what_is_not_ours_is_not_seen(driver, platform):
    aws.call(
        platform,
        "ec2",
        "run_instances",
        ImageId="ami-12c6146b",
        MinCount=1,
        MaxCount=1,
        TagSpecifications=[
            {"ResourceType": "instance", "Tags": [{"Key": "Name", "Value": "f1-master"}]}
        ],
    )
    assert driver.list_nodes() == {}
    with pytest.raises(SaltCloudException, match=r"no machine named f1-master .*; there are: none"):
        driver.destroy("f1-master", call="action")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda p: p["image"].update(id="ami-0000000000000000a"), "describe_images failed: Inva"),
        (lambda p: p["image"].update(id=None, name="nothing-*"), "no image nothing-*"),
        (lambda p: p.update(name="g2"), "run `salt-run state.orchestrate orch.network` first"),
        (lambda p: p["aws"].update(endpoint_url="http://127.0.0.1:9"), "check the network"),
    ],
)
def test_errors_name_the_request_and_the_fix(driver, platform, change, words):
    change(platform)
    with pytest.raises(SaltCloudException) as error:
        driver.create(vm(f"{platform['name']}-master"))
    assert words in str(error.value)


@pytest.mark.parametrize("name", ["f1-worker-0", "f1-worker-x", "g-worker-1", "f1-master"])
def test_a_name_that_is_not_of_the_platform_is_refused(driver, name):
    with pytest.raises(SaltCloudException, match="cannot be made by the profile"):
        driver.create({**vm("f1-worker-1"), "name": name})


def test_user_data_holds_no_secret_and_parses(driver, platform, machines):
    driver.create(vm("f1-master"))
    driver.create(vm("f1-worker-1"))
    for name, text in machines.user_data.items():
        assert len(text) < 16384
        assert text.startswith("#cloud-config\n")
        assert "PRIVATE KEY" not in text
        assert "not-to-be-shown" not in text
        config = yaml.safe_load(text)
        files = {item["path"]: item for item in config["write_files"]}
        assert ("/etc/salt/master" in files) == (name == "f1-master")
        job = json.loads(files["/var/lib/f1/first-boot.json"]["content"])
        assert files["/var/lib/f1/first-boot.json"]["permissions"] == "0600"
        assert "X-Amz-Expires=900" in job["announce_url"]
        source = (ROOT / "salt/cloud/first-boot.py").read_text()
        assert files["/var/lib/f1/first-boot.py"]["content"] == source
        minion = yaml.safe_load(files["/etc/salt/minion"]["content"])
        assert minion["id"] == name
        assert minion["master"] == "10.20.1.10"
        assert minion["autoload_dynamic_modules"] is False
    # The master was known already: the worker gets its key, not a place to look for it.
    worker = yaml.safe_load(machines.user_data["f1-worker-1"])
    told = next(f for f in worker["write_files"] if f["path"].endswith("first-boot.json"))
    assert "BEGIN PUBLIC KEY" in json.loads(told["content"])["master_pub"]


def test_master_config_accepts_nobody_by_itself(driver, machines):
    driver.create(vm("f1-master"))
    config = yaml.safe_load(machines.user_data["f1-master"])
    (body,) = [f["content"] for f in config["write_files"] if f["path"] == "/etc/salt/master"]
    master = yaml.safe_load(body)
    assert master["auto_accept"] is False
    assert master["open_mode"] is False
    assert master["file_roots"] == {"base": ["/srv/f1-vote/salt/states"]}


def test_the_secret_key_is_nowhere(driver, machines, tmp_path: Path):
    made = driver.create(vm("f1-master"))
    assert "not-to-be-shown" not in json.dumps(made, default=str)
    for path in tmp_path.rglob("*"):
        if path.is_file():
            assert b"not-to-be-shown" not in path.read_bytes()
