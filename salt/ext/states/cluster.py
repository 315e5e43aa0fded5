"""
The cluster's whole life, from an orchestration on the Salt master that lives on its server: what
must touch one machine after the other, and stop where one fails.

Each of these can be interrupted anywhere: run again, it goes on.
"""

import json
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jobs
import nodes
import records
import salt.cache
import salt.utils.mine
import upgrade
from salt.exceptions import CommandExecutionError, SaltException
from steps import guarded

Result = dict[str, Any]

__opts__: dict[str, Any]
__salt__: dict[str, Any]
__utils__: dict[str, Any]
__context__: dict[str, Any]

# What an upgrade or a rotation that has not ended keeps in mind: on the server, for root.
STATE = Path("/var/lib/f1")
BACKUP = STATE / "backup" / "last.json"
BACKUP_SECONDS = 24 * 3600

PAUSE = 1.0
APPLY_SECONDS = 600
START_SECONDS = 60
APP_SECONDS = 5


@guarded
def upgraded(
    name: str,
    version: str,
    master: str,
    workers: list[str],
    app: dict[str, str] | None = None,
    drain: bool = False,
    backup_required: bool = False,
    without_backup: bool = False,
    deadline: float = 180,
) -> Result:
    """
    The kubelet of every node reports ``version``: the server's first, then the workers', one at a
    time, each gated by Ready, its version and the app answering, within ``deadline`` seconds.

    Before anything is touched all reasons against it are told at once (see `upgrade.skew`); the
    first failure ends it with the node's last log lines and the way back. ``app``: ``{"url",
    "host"}``, how its answer is asked for. ``drain``: empty each worker before its restart, which
    leaves pods running by itself. Machines without a node are none of its business.
    """
    found = _known_nodes(master, version, [master, *workers])
    if found is None:
        return _result(name, True, {}, "the cluster is down, and no version differs")
    mine = [node for node in (master, *workers) if node in found]
    record = _record("upgrade")
    due = _due(found, mine, version, record, drain)
    if not due:
        if record and not __opts__["test"]:
            _forget("upgrade")
        return _result(name, True, {}, f"{len(mine)} nodes report {version}")
    against, remarks = _against(found, due, version, master, record)
    covered = upgrade.backup(records.read(BACKUP), time.time(), BACKUP_SECONDS)
    if covered and backup_required and not without_backup:
        unless = json.dumps({"upgrade": {"without_backup": True}})
        against.append(f"{covered}: make one first, or say pillar='{unless}'")
    elif covered:
        remarks.append(f"not covered by a backup: {covered}")
    plan = {node: {"old": found[node]["version"], "new": version} for node in due}
    if against:
        refused = "\n".join(["the upgrade is refused; nothing was touched:", *against])
        return _result(name, False, {}, refused)
    if __opts__["test"]:
        comment = "; ".join([f"would upgrade {', '.join(due)}, one at a time", *remarks])
        return _result(name, None, plan, comment)
    if record is None:
        _keep("upgrade", {"from": found[due[0]]["version"]})
    gated = app if _app_applied() else None
    done: dict[str, Any] = {}
    for node in due:
        line = f"{plan[node]['old']} → {version}"
        try:
            with _Stage(node, line):
                _one_upgraded(node, node == master, version, gated, drain, deadline)
        except SaltException as error:
            return _result(name, False, done, _way_back(node, line, list(done), error))
        done[node] = plan[node]
    _forget("upgrade")
    return _result(name, True, done, "; ".join([f"{len(done)} nodes at {version}", *remarks]))


@guarded
def token_rotated(
    name: str,
    master: str,
    workers: list[str],
    server: str,
    secret: str = "/etc/rancher/k3s/agent-token",  # noqa: S107 - a path
    deadline: float = 180,
) -> Result:
    """
    Agents join with another secret than before, all of ours hold it, and the old one is refused.

    The server takes the new one at its restart, the mine offers it, the workers get it one after
    the other. At the end ``server`` (``https://<address>:6443``) is asked with both: it has to
    admit the new one and refuse the old one, or this fails. No secret is in any return.
    """
    old = Path(f"{secret}.old")
    if __opts__["test"]:
        plan = {"agent token": {"old": "in use", "new": "another, the old one refused"}}
        plan |= {worker: {"old": "old token", "new": "new token, restarted"} for worker in workers}
        return _result(name, None, plan, "would rotate the agents' token")
    if not old.exists():
        _all_ready([master, *workers], "a rotation wants all nodes Ready before it begins")
    done: dict[str, Any] = {}
    try:
        with _Stage(master, "a new secret, a restart, the mine"):
            _turn(master, "cluster.token_server", done, deadline)
            _offered(master, deadline)
        for worker in workers:
            with _Stage(worker, "the new token, a restart"):
                _turn(worker, "cluster.token_agent", done, deadline)
        done["proof"] = _proved(server, secret, str(old))
    except SaltException as error:
        return _result(name, False, done, f"{error}\nRun it again: it goes on from there.")
    # Only now: as long as it is there, the rotation is not over.
    old.unlink()
    return _result(name, True, done, f"the old secret is refused by {server}: {done['proof']}")


@guarded
def certificates_rotated(
    name: str, master: str, workers: list[str], deadline: float = 180
) -> Result:
    """
    Every certificate of K3s (but the authorities') was made anew: ``k3s certificate rotate`` on
    the server, then on the workers, one after the other, each gated by Ready.
    """
    if __opts__["test"]:
        plan = {node: {"certificates": "would be made anew"} for node in (master, *workers)}
        return _result(name, None, plan, "would rotate, one node at a time")
    record = _record("certificates")
    if record is None:
        _all_ready([master, *workers], "a rotation wants all nodes Ready before it begins")
        record = {"began": time.time()}
        _keep("certificates", record)
    done: dict[str, Any] = {}
    try:
        for node in (master, *workers):
            with _Stage(node, "new certificates, a restart"):
                _turn(node, "cluster.certificates", done, deadline, {"rotation": record})
    except SaltException as error:
        return _result(name, False, done, f"{error}\nRun it again: it goes on from there.")
    _forget("certificates")
    return _result(name, True, done, f"{len(done)} nodes have new certificates")


class _Stage:
    """One machine's turn, drawn as it begins and ends."""

    def __init__(self, node: str, text: str) -> None:
        self.node, self.text = node, text

    def __enter__(self) -> None:
        __utils__["events.begin"](self.node, self.text)

    def __exit__(self, kind: Any, *_: Any) -> None:
        if kind is None:
            __utils__["events.end"](self.node, self.text)


def _known_nodes(master: str, version: str, minions: list[str]) -> nodes.Nodes | None:
    """
    Return the nodes; None if the cluster is down and no machine's K3s is of another version.

    One that is down with versions that differ is started first: the highstate, which would repair
    it, would change all machines at once.
    """
    try:
        return nodes.seen(__context__, __salt__)
    except SaltException as error:
        down = error
    ask = __salt__["saltutil.cmd"]
    answers = jobs.ask(ask, minions, ["k3s.version"])
    installed = {m: answers.get(m, {}).get("k3s.version", "unknown") for m in minions}
    if set(installed.values()) <= {version, ""}:
        return None
    if not __opts__["test"]:
        jobs.ask(ask, [master], ["k3s.start"], [["k3s"]])
        end = time.monotonic() + START_SECONDS
        while time.monotonic() < end:
            try:
                return nodes.seen(__context__, __salt__)
            except SaltException as error:
                down = error
            time.sleep(PAUSE)
    raise CommandExecutionError(
        f"versions differ ({installed}, wanted {version}), but the cluster does not answer, so no "
        f"upgrade can be judged: {down}. `journalctl -u k3s` on {master} tells why; with the old "
        f"version back in the lock, `make up` repairs it."
    )


def _against(
    found: nodes.Nodes, due: list[str], version: str, master: str, record: dict[str, Any] | None
) -> tuple[list[str], list[str]]:
    """Return the reasons against the upgrade, and remarks on it."""
    if master not in found:
        return [f"{master} is no node of the cluster: {', '.join(found)}"], []
    kubelets = {node: found[node]["version"] for node in due if node != master}
    came_from = record["from"] if record else None
    against = upgrade.skew(found[master]["version"], kubelets, version, came_from)
    if record:
        # Whatever is broken, going on or back is how it is mended.
        return against, [f"an upgrade from {came_from} did not end: this goes on from there"]
    against += [
        f"not fit for a restart: {line}"
        for line in upgrade.unhealthy(found, [node for node in found if node in due])
    ]
    return against, []


def _due(
    found: nodes.Nodes, mine: list[str], version: str, record: dict[str, Any] | None, drain: bool
) -> list[str]:
    """
    Return the nodes to be upgraded, in order: the server is never older than a kubelet.

    Of an upgrade that did not end, also those that it left broken.
    """
    differing = [node for node in mine if found[node]["version"] != version]
    if record:
        left = [n for n in mine if not found[n]["ready"] or (drain and found[n]["cordoned"])]
        differing = [node for node in mine if node in {*differing, *left}]
    if not differing:
        return []
    # A machine that was replaced has a node of the old one: it joins anew, in the highstate.
    answers = jobs.ask(__salt__["saltutil.cmd"], differing, ["grains.get"], [["machine_id"]])
    ids = {node: answers.get(node, {}).get("grains.get") for node in differing}
    due = [n for n in differing if ids[n] is None or str(ids[n]) == found[n]["machine"]]
    server = found[mine[0]]["version"]
    return due[::-1] if upgrade.parsed(version) < upgrade.parsed(server) else due


def _one_upgraded(
    node: str,
    server: bool,
    version: str,
    app: dict[str, str] | None,
    drain: bool,
    deadline: float,
) -> None:
    emptied = drain and not server
    if emptied:
        __salt__["node.drain"](node, deadline)
    _applied(node, "k3s.server" if server else "k3s.agent")
    nodes.wait_ready(__salt__, node, deadline, version)
    if emptied:
        __salt__["node.uncordon"](node)
    if app:
        _until(deadline, f"the app at {app['url']}", lambda: _app_answers(app))


def _turn(
    node: str,
    sls: str,
    done: dict[str, Any],
    deadline: float,
    pillar: dict[str, Any] | None = None,
) -> None:
    """Apply ``sls`` on ``node``, note its changes in ``done``, and wait until it is Ready."""
    if changed := _applied(node, sls, pillar):
        done[node] = changed
    nodes.wait_ready(__salt__, node, deadline)


def _applied(minion: str, sls: str, pillar: dict[str, Any] | None = None) -> dict[str, Any]:
    """Apply ``sls`` on ``minion``; return its changes. Raises CommandExecutionError if it fails."""
    outcome = jobs.states(__opts__, [minion], sls, pillar, deadline=APPLY_SECONDS)
    if minion in outcome.failed:
        raise CommandExecutionError(f"{minion}: {outcome.failed[minion]}")
    value = outcome.returned[minion]
    if wrong := jobs.faults(value):
        raise CommandExecutionError("\n".join(f"{minion}: {fault}" for fault in wrong))
    return jobs.changes(value)


def _app_applied() -> bool:
    """Say whether the cluster runs the app at all: an `up` may have been interrupted before."""
    arguments = ("get", "deployment", "-n", "f1", "vote", "--ignore-not-found", "-o", "name")
    return bool(__salt__["kubectl.run"](*arguments).strip())


def _app_answers(app: dict[str, str]) -> str:
    """Return why the app does not answer as a voter would see it; empty if it does."""
    request = urllib.request.Request(app["url"], headers={"Host": app["host"]})  # noqa: S310
    try:
        # By address, so no name to verify: this asks for an answer, not for an identity.
        with urllib.request.urlopen(  # noqa: S310
            request,
            timeout=APP_SECONDS,
            context=ssl._create_unverified_context(),  # noqa: S323
        ):
            return ""
    except (urllib.error.URLError, OSError) as error:
        return str(error)


def _until(deadline: float, what: str, probe: Callable[[], str]) -> None:
    """Call ``probe`` until it finds nothing wrong. Raises CommandExecutionError with the last."""
    end = time.monotonic() + deadline
    while wrong := probe():
        if time.monotonic() >= end:
            raise CommandExecutionError(f"waited {deadline:g} s for {what}; last seen: {wrong}")
        time.sleep(PAUSE)


def _way_back(node: str, line: str, done: list[str], error: SaltException) -> str:
    old = line.partition(" ")[0]
    answers = jobs.ask(__salt__["saltutil.cmd"], [node], ["k3s.journal"])
    last = answers.get(node, {}).get("k3s.journal", "(its minion does not answer)")
    return "\n".join(
        [
            f"{node} failed on its way {line}; upgraded before it: {', '.join(done) or 'none'}; "
            f"the others were not touched. {error}",
            f"K3s on {node} logged last:\n{last}",
            "Forward: mend it and run `make up` again; it goes on with this node.",
            f"Back: put {old} back in the lock (`git checkout HEAD~1 -- salt/pillar/versions.sls`, "
            f"or versions:k3s in your pillar) and run `make up`: whatever is newer goes back, one "
            f"node at a time.",
        ]
    )


def _all_ready(wanted: list[str], why: str) -> None:
    found = __salt__["kube_health.nodes"]()
    late = [
        f"{node}: {nodes.words(found.get(node))}"
        for node in wanted
        if not found.get(node, {}).get("ready")
    ]
    if late:
        raise CommandExecutionError("\n".join([f"{why}; nothing was touched:", *late]))


def _offered(master: str, deadline: float) -> None:
    """Wait until the master's mine holds the token of now: it is stored after it was sent."""
    cache = salt.cache.factory(__opts__)
    token = __salt__["k3s.agent_token"]()

    def probe() -> str:
        held = cache.fetch("mine", master).get("k3s_agent_token")
        offered = held.get(salt.utils.mine.MINE_ITEM_ACL_DATA) if isinstance(held, dict) else held
        return "" if offered == token else "it offers the token of before"

    _until(deadline, f"k3s_agent_token in the mine of {master}", probe)


def _proved(server: str, new: str, old: str) -> dict[str, int]:
    """Return the HTTP statuses that show that ``server`` admits ``new`` and refuses ``old``."""
    said = {"new": __salt__["k3s.admits"](server, new), "old": __salt__["k3s.admits"](server, old)}
    if said["old"] in (401, 403) and said["new"] == 200:
        return said
    if said["old"] == 200:
        raise CommandExecutionError(f"{server} still admits the old secret: {said}")
    raise CommandExecutionError(
        f"not proved that {server} refuses the old secret: asked with each, it answered {said}, "
        f"and only 200 for the new and 401 or 403 for the old one is a proof"
    )


def _record(what: str) -> dict[str, Any] | None:
    return records.read(STATE / f"{what}.json")


def _keep(what: str, record: dict[str, Any]) -> None:
    records.write(STATE / f"{what}.json", json.dumps(record))


def _forget(what: str) -> None:
    (STATE / f"{what}.json").unlink(missing_ok=True)


def _result(name: str, result: bool | None, changes: dict[str, Any], comment: str) -> Result:
    return {"name": name, "result": result, "changes": changes, "comment": comment}
