"""
Backup and restore of the platform, from an orchestration on the Salt master, which lives on K3s's
server. What the operator's machine does of them: states ``backup_copy``.

No secret is in any return: the states tell file names, sizes, hashes and counts.
"""

from typing import Any

import archive
import jobs
import server_backup
import server_restore
from salt.exceptions import CommandExecutionError, SaltException
from steps import guarded

Result = dict[str, Any]

__opts__: dict[str, Any]
__salt__: dict[str, Any]
__utils__: dict[str, Any]

_APPLY_SECONDS = 600


@guarded
def made(name: str, platform: str, master: str, keep: int, paths: list[str]) -> Result:
    """
    A backup of now is in ``/var/lib/f1/backup``, sealed; the ``keep`` newest are left there.

    ``paths``: folders besides what `server_backup` takes anyway.
    """
    if __opts__["test"]:
        return _result(name, True, {}, "a plan makes no backup")
    record = server_backup.make(__salt__, platform, master, keep, paths)
    return _result(name, True, {record["file"]: record["counts"]}, f"{record['bytes']} bytes")


@guarded
def restored(
    name: str,
    platform: str,
    master: str,
    workers: list[str],
    k3s: str,
    paths: list[str],
    deadline: float = 300,
) -> Result:
    """
    K3s's server and Redis hold what the backup holds that the operator handed over, compared
    object by object and vote by vote; no worker has joined yet. ``k3s`` is the version locked.

    Before anything is touched every reason against it is told. Interrupted, run it again.
    """
    source = server_restore.incoming()
    if not source.exists():
        said = "nothing was handed over: `make restore` on the operator's machine does that"
        return _result(name, None if __opts__["test"] else False, {}, said)
    manifest = archive.read(source, platform, server_backup.roots(paths))
    which = archive.sha256(source)
    if server_restore.record().get("proved") == which:
        return _result(name, True, {}, "this backup was restored and compared: going on from there")
    if against := server_restore.fits(manifest["k3s"], k3s):
        return _result(name, False, {}, f"the backup is refused; nothing was touched: {against}")
    _all_answer([master, *workers])
    held = server_restore.words(manifest["redis"])
    if __opts__["test"]:
        return _result(name, None, {"votes": {"old": "?", "new": held}}, "would be restored")
    server_restore.begin(which)
    if "before" not in server_restore.record():
        server_restore.note(before=_votes_now())
    before = server_restore.record()["before"]
    try:
        with _Stage("take down", "every machine; the server's data is kept aside"):
            _applied(workers, "k3s.absent")
            if not server_restore.record().get("kept"):
                _stopped()
                server_restore.keep_aside()
            _applied([master], "k3s.absent")
        with _Stage("put back", f"{len(manifest['members'])} files; {held}"):
            archive.unpack(source)
            _applied([master], "k3s.server")
            _workers_forgotten(master)
        with _Stage("compare", f"{len(manifest['objects'])} objects, every voter's vote"):
            server_restore.wait_same(__salt__, manifest, deadline)
    except SaltException as error:
        aside = server_restore.FOLDER / "before"
        said = f"{error}\nRun it again: it goes on. What was there before lies in {aside}."
        return _result(name, False, {}, said)
    server_restore.note(proved=which)
    changes = {
        "votes": {"old": before, "new": held},
        "objects": {"old": None, "new": len(manifest["objects"])},
    }
    return _result(
        name, True, changes, f"as in the backup, object by object and vote by vote: {held}"
    )


def settled(name: str) -> Result:
    """No restore is half done: what the machines hold is the platform, and not a part of it."""
    said = server_restore.unfinished()
    return _result(name, not said, {}, said)


def ended(name: str) -> Result:
    """The opened backup is gone from this machine, and what a restore kept aside."""
    there = server_restore.FOLDER.exists()
    if not there or __opts__["test"]:
        return _result(name, True, {}, "")
    server_restore.forget()
    return _result(name, True, {str(server_restore.FOLDER): "removed"}, "")


class _Stage:
    """A part of a restore, drawn as it begins and ends."""

    def __init__(self, stage: str, text: str) -> None:
        self.stage, self.text = stage, text

    def __enter__(self) -> None:
        __utils__["events.begin"](self.stage, self.text)

    def __exit__(self, kind: Any, *_: Any) -> None:
        if kind is None:
            __utils__["events.end"](self.stage, self.text)


def _votes_now() -> str:
    """Say what Redis holds before it is replaced, if it answers at all."""
    try:
        return server_restore.words(server_restore.redis_facts(__salt__))
    except SaltException as error:
        return f"unknown: {error}"


def _stopped() -> None:
    if __salt__["k3s.unit"]("k3s").get("ActiveState") not in ("inactive", "failed"):
        __salt__["k3s.stop"]("k3s")


def _all_answer(minions: list[str]) -> None:
    """Raise CommandExecutionError if a machine could not be taken down: it would go on as it is."""
    answers = jobs.ask(__salt__["saltutil.cmd"], minions, ["test.ping"])
    if silent := [minion for minion in minions if minion not in answers]:
        raise CommandExecutionError(
            f"nothing was touched: {', '.join(silent)} did not answer; `make up` repairs machines"
        )


def _workers_forgotten(master: str) -> None:
    """
    Remove every node but the server's, and their pods, which run nowhere: until Kubernetes found
    that out by itself the app would seem to be there.
    """
    force = ("--force", "--grace-period=0", "--ignore-not-found")
    for node in __salt__["kube_health.nodes"]():
        if node != master:
            __salt__["kube_health.node_remove"](node)
            on = f"spec.nodeName={node}"
            __salt__["kubectl.run"]("delete", "pods", "-A", "--field-selector", on, *force)


def _applied(minions: list[str], sls: str) -> None:
    """Apply ``sls`` on ``minions`` at once. Raises CommandExecutionError with what failed."""
    if not minions:
        return
    outcome = jobs.states(__opts__, minions, sls, deadline=_APPLY_SECONDS)
    wrong = [f"{minion}: {why}" for minion, why in sorted(outcome.failed.items())]
    for minion, value in sorted(outcome.returned.items()):
        wrong += [f"{minion}: {fault}" for fault in jobs.faults(value)]
    if wrong:
        raise CommandExecutionError("\n".join(wrong))


def _result(name: str, result: bool | None, changes: dict[str, Any], comment: str) -> Result:
    return {"name": name, "result": result, "changes": changes, "comment": comment}
