"""
How the operator comes to know a machine it launched, and the machine its master. Never blind.

In the bucket, ``announce/<name>.json`` is written by the machine through a URL that only its
user-data holds, and ``known/<name>.json`` by the operator once it has checked that the announcing
machine is the one it launched. Everybody else relies on the latter. See docs/architecture.md.
"""

import fcntl
import json
import os
import re
import time
from pathlib import Path
from typing import Any

import aws
import ec2
import knobs
import ssh

ANNOUNCE_URL_SECONDS = 15 * 60
FETCH_URL_SECONDS = 60 * 60
ANNOUNCE_SECONDS = 300
READY_SECONDS = 300
MASTER_SECONDS = 300
ALONE_SECONDS = 20
# So seldom does each waiting machine ask EC2, whose answers are rationed; S3's are not.
ASK_SECONDS = 5

# Tag of a machine that has been through all of this: its own instance id.
INTRODUCED = "f1:introduced"

_NAME = re.compile(r"[a-z][a-z0-9-]{0,62}")
_HOST_KEY = re.compile(r"ssh-[a-z0-9-]+ [A-Za-z0-9+/=]+|ecdsa-[a-z0-9-]+ [A-Za-z0-9+/=]+")

# Runs on the master as root; the key comes on stdin. The accepted key is there before a
# pending one goes, and a pending one must go: Salt 3008 looks at it first.
_ACCEPT = """\
set -eu; umask 077; cd /etc/salt/pki/master; mkdir -p minions
cat > .{name}.new; mv .{name}.new minions/{name}
rm -f minions_pre/{name} minions_denied/{name} minions_rejected/{name}
"""


class NoMaster(aws.CloudError):
    """There is no master to speak to, yet."""


def _presigned(platform: dict[str, Any], request: str, key: str, seconds: int) -> str:
    url: str = aws.client(platform, "s3").generate_presigned_url(
        request, Params={"Bucket": aws.bucket(platform), "Key": key}, ExpiresIn=seconds
    )
    return url


def announce_url(platform: dict[str, Any], name: str) -> str:
    """Return the URL to which only the machine ``name`` may PUT its announcement."""
    return _presigned(platform, "put_object", f"announce/{name}.json", ANNOUNCE_URL_SECONDS)


def known_url(platform: dict[str, Any], name: str) -> str:
    """Return the URL at which a machine learns what the operator knows of ``name``."""
    return _presigned(platform, "get_object", f"known/{name}.json", FETCH_URL_SECONDS)


def object_url(platform: dict[str, Any], key: str) -> str:
    """Return the URL at which a machine fetches the object ``key``."""
    return _presigned(platform, "get_object", key, FETCH_URL_SECONDS)


def _read(platform: dict[str, Any], key: str) -> dict[str, Any] | None:
    try:
        answer = aws.call(platform, "s3", "get_object", **aws.store(platform), Key=key)
    except aws.CloudError as error:
        if aws.code(error) in {"NoSuchKey", "404"}:
            return None
        raise
    try:
        told = json.loads(answer["Body"].read())
    except ValueError as error:
        raise aws.CloudError(f"{key} is not JSON: {error}") from error
    if not isinstance(told, dict):
        raise aws.CloudError(f"{key} holds no announcement")
    return told


def known(platform: dict[str, Any], name: str) -> dict[str, Any] | None:
    """Return the checked announcement of the living machine ``name``; None if there is none."""
    told = _read(platform, f"known/{name}.json")
    item = ec2.instance(platform, name) if told else None
    return told if told and item and told["instance_id"] == item["InstanceId"] else None


def forget(platform: dict[str, Any], name: str, instance_id: str | None = None) -> None:
    """Forget what earlier machines of that name announced, and the host keys of that one."""
    for key in (f"announce/{name}.json", f"known/{name}.json"):
        aws.call(platform, "s3", "delete_object", **aws.store(platform), Key=key)
    if instance_id:
        _write_known_hosts(instance_id, [])


def introduce(platform: dict[str, Any], name: str, role: str, instance_id: str) -> None:
    """
    Wait for the machine's announcement, check it, and make it known to those who must know it.

    Ends when Salt runs on the machine. Raises CloudError that names what was waited for and the
    last thing seen, an announcement by another machine, or what failed on the machine.
    """
    told = _announcement(platform, name, instance_id)
    check(told, name, role, instance_id)
    aws.call(
        platform,
        "s3",
        "put_object",
        **aws.store(platform),
        Key=f"known/{name}.json",
        Body=json.dumps(told).encode(),
        ContentType="application/json",
    )
    _write_known_hosts(instance_id, told["ssh_host_keys"])
    if role == "worker":
        _accept(platform, name, told["minion_pub"])
    _wait_ready(platform, name, role, told)
    aws.call(
        platform,
        "ec2",
        "create_tags",
        Resources=[instance_id],
        Tags=[{"Key": INTRODUCED, "Value": instance_id}],
    )


def _announcement(platform: dict[str, Any], name: str, instance_id: str) -> dict[str, Any]:
    asked = 0.0
    state = "pending"

    def probe() -> tuple[dict[str, Any] | None, str]:
        nonlocal asked, state
        told = _read(platform, f"announce/{name}.json")
        if told is None and time.monotonic() - asked > ASK_SECONDS:
            asked = time.monotonic()
            state = ec2.by_id(platform, instance_id)["State"]["Name"]
            if state not in {"pending", "running"}:
                raise aws.CloudError(
                    f"{name} ({instance_id}) is {state} before it announced itself"
                )
        return told, f"{instance_id} is {state} and has announced nothing"

    return aws.wait(f"the announcement of {name}", ANNOUNCE_SECONDS, probe)


def check(told: dict[str, Any], name: str, role: str, instance_id: str) -> None:
    """Refuse, with a CloudError, what is not a whole announcement of exactly this machine."""
    if told.get("error") and "minion_pub" not in told:
        raise aws.CloudError(f"{name} failed at first boot: {told['error']}")
    if told.get("instance_id") != instance_id:
        raise aws.CloudError(
            f"announce/{name}.json comes from {told.get('instance_id')!r}, not from {instance_id}: "
            "refused"
        )
    keys = ["minion_pub"] + (["master_pub"] if role == "master" else [])
    wrong = [key for key in keys if "-----BEGIN PUBLIC KEY-----" not in str(told.get(key))]
    if told.get("id") != name:
        wrong.append("id")
    hosts = told.get("ssh_host_keys")
    if not isinstance(hosts, list) or not hosts or not all(_is_host_key(key) for key in hosts):
        wrong.append("ssh_host_keys")
    if wrong:
        raise aws.CloudError(f"the announcement of {name} lacks {', '.join(wrong)}: refused")


def _is_host_key(key: Any) -> bool:
    return isinstance(key, str) and _HOST_KEY.fullmatch(key) is not None


def _accept(platform: dict[str, Any], name: str, minion_pub: str) -> None:
    """Put the worker's key among the accepted ones, over SSH to the master."""
    if not _NAME.fullmatch(name):
        raise aws.CloudError(f"{name!r} is not a machine's name")
    master = f"{platform['name']}-master"

    alone_since: float | None = None
    asked = 0.0
    told: dict[str, Any] | None = None
    item: dict[str, Any] | None = None

    def introduced() -> tuple[dict[str, Any] | None, str]:
        nonlocal alone_since, asked, told, item
        _raise_failure(platform, name)
        before, told = told, _read(platform, f"known/{master}.json")
        if told != before or not asked or time.monotonic() - asked > ASK_SECONDS:
            asked = time.monotonic()
            item = ec2.instance(platform, master)
        if item:
            alone_since = None
            is_it = told is not None and told["instance_id"] == item["InstanceId"]
            return (told if is_it else None), f"{master} has not been introduced"
        # Both may be launched at the same time; but none of them waits for a master that failed.
        alone_since = alone_since or time.monotonic()
        if time.monotonic() - alone_since > ALONE_SECONDS:
            raise aws.CloudError(f"{name} has no master: there is no machine named {master}")
        return None, f"no machine named {master}"

    aws.wait(f"{master} to be known, which takes the key of {name}", MASTER_SECONDS, introduced)

    def accepted() -> tuple[bool | None, str]:
        nonlocal asked, item
        if time.monotonic() - asked > ASK_SECONDS:
            # Its elastic address may come only now, and its first one go.
            asked = time.monotonic()
            item = ec2.instance(platform, master)
        remember_master(platform, item)
        try:
            ssh.run(master, ["sudo", "sh", "-c", _ACCEPT.format(name=name)], stdin=minion_pub)
        except ssh.Unreachable as error:
            return None, str(error)
        return True, ""

    aws.wait(f"{master} to accept the key of {name} over SSH", MASTER_SECONDS, accepted, pause=0.5)


def _raise_failure(platform: dict[str, Any], name: str) -> dict[str, Any]:
    """Return the machine's last announcement, unless it says that something failed on it."""
    now = _read(platform, f"announce/{name}.json") or {}
    if now.get("error"):
        raise aws.CloudError(f"{name} failed at first boot: {now['error']}")
    return now


def _wait_ready(platform: dict[str, Any], name: str, role: str, told: dict[str, Any]) -> None:
    again = time.monotonic() + 10

    def probe() -> tuple[bool | None, str]:
        nonlocal again
        now = _raise_failure(platform, name)
        if not now.get("ready") and role == "worker" and time.monotonic() > again:
            # A minion that asked in the very moment of its acceptance may be pending again.
            again = time.monotonic() + 10
            _accept(platform, name, told["minion_pub"])
        return now.get("ready"), "announced, Salt not yet started"

    aws.wait(f"Salt on {name}", READY_SECONDS, probe)


def remember_master(
    platform: dict[str, Any], instance: dict[str, Any] | None = None
) -> dict[str, Any]:
    """
    Make ``ssh -F .state/ssh/config <master>`` work from here; return the master's instance.

    ``instance`` is the master if it was just described. Its host keys are those that the operator
    once checked (``known/``), from whatever machine.
    Raises NoMaster if there is none, or none that runs.
    """
    master = f"{platform['name']}-master"
    instance = instance or ec2.instance(platform, master)
    if instance is None:
        raise NoMaster(
            f"no machine named {master}; run `salt-run state.orchestrate orch.machines` first"
        )
    address = instance.get("PublicIpAddress") or instance.get("PrivateIpAddress")
    if instance["State"]["Name"] != "running" or not address:
        raise NoMaster(f"{master} is {instance['State']['Name']}; start it first")
    instance_id = str(instance["InstanceId"])
    if instance_id not in _known_hosts():
        told = known(platform, master)
        if told is None:
            raise NoMaster(f"{master} was never introduced; run orch.machines first")
        _write_known_hosts(instance_id, told["ssh_host_keys"])
    ssh.configure(master, str(address), instance_id)
    return instance


def _file() -> Path:
    return knobs.state_dir() / "known_hosts"


def _known_hosts() -> dict[str, list[str]]:
    """Return the host keys by instance id: a name may pass to another machine, an id never."""
    found: dict[str, list[str]] = {}
    if _file().exists():
        for line in _file().read_text(encoding="ascii").splitlines():
            instance_id, _, key = line.partition(" ")
            found.setdefault(instance_id, []).append(key)
    return found


def _write_known_hosts(instance_id: str, keys: list[str]) -> None:
    """Replace the host keys of a machine; several machines may be introduced at once."""
    file = _file()
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.with_name("known_hosts.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        hosts = {**_known_hosts(), instance_id: keys}
        lines = [f"{host} {key}\n" for host in sorted(hosts) for key in hosts[host]]
        new = file.with_name(f"known_hosts.{os.getpid()}")
        new.write_text("".join(lines), encoding="ascii")
        new.replace(file)
