"""
The Salt master on the first machine, from the operator's: give it the tree, let it orchestrate.

It is reached with ``ssh`` alone, at the host key that it announced at birth.
"""

import gzip
import json
import shlex
from pathlib import Path
from typing import Any

import aws
import firstcontact
import knobs
import results
import ssh
import tree

__opts__: dict[str, Any]

Result = dict[str, Any]

ORCHESTRATE_SECONDS = 1800
PUSH_SECONDS = 120

# Runs as root on the master; the archive comes on stdin. The new tree takes the place of the
# old one in one rename, and nobody but root reads it: the pillar is in it.
_UNPACK = """\
set -eu; umask 077; cd /srv; mkdir -p f1-vote-trees
new=f1-vote-trees/{version}; rm -rf $new.part; mkdir $new.part
# Of now: Salt tells a changed file by its time.
tar -xzmf - -C $new.part --no-same-owner
rm -rf $new; mv $new.part $new; ln -sfn $new .f1-vote.new; mv -T .f1-vote.new f1-vote
ls -1dt f1-vote-trees/* | tail -n +3 | xargs -r rm -rf
"""


def _master() -> str:
    platform = knobs.load(__opts__)["platform"]
    firstcontact.remember_master(platform)
    return f"{platform['name']}-master"


def _later(test: bool, error: firstcontact.NoMaster, changes: dict[str, Any]) -> Result:
    """Without a master a plan knows what would come; a run cannot go on."""
    if not test:
        raise error
    return {"result": None, "changes": changes, "comment": f"to come: {error}"}


def push(test: bool = False) -> Result:
    """
    Give the master this tree and this pillar, unless it has them: ``{result, changes, comment}``.

    With ``test`` only say whether they differ. Raises CloudError if the master is not reached.

    CLI Example:

    .. code-block:: bash

        salt-run master.push
    """
    made = tree.pack(knobs.ROOT, [Path(root) for root in __opts__["pillar_roots"]["base"]])
    try:
        name = _master()
    except firstcontact.NoMaster as error:
        return _later(test, error, {"tree": {"old": None, "new": made.version}})
    link = ssh.run(name, ["sudo", "sh", "-c", "readlink /srv/f1-vote || true"]).strip()
    there = link.rpartition("/")[2] or None
    if there == made.version:
        return {"result": True, "changes": {}, "comment": f"{name} has {made.version}"}
    changes = {"tree": {"old": there, "new": made.version}}
    if test:
        return {"result": None, "changes": changes, "comment": f"{name} would get {made.version}"}
    ssh.run(
        name,
        ["sudo", "sh", "-c", _UNPACK.format(version=made.version)],
        stdin=gzip.compress(made.archive, compresslevel=6, mtime=0),
        seconds=PUSH_SECONDS,
    )
    return {"result": True, "changes": changes, "comment": f"{name} got {made.version}"}


def orchestrate(sls: str, test: bool = False, pillar: dict[str, Any] | None = None) -> Result:
    """
    Let the master run the orchestration ``sls``: ``{result, changes, comment}``.

    ``changes`` are the states as the master returned them, ``comment`` the failed ones and why.
    Its stages are drawn here as they come. Raises CloudError if the master is not reached, takes
    longer than half an hour, or answers something else.

    CLI Example:

    .. code-block:: bash

        salt-run master.orchestrate orch.cluster
    """
    try:
        name = _master()
    except firstcontact.NoMaster as error:
        return _later(test, error, {sls: {"old": None, "new": "run on the master"}})
    words = ["sudo", "/opt/salt/bin/salt-run", "--out=json", "--log-level=quiet"]
    words += ["state.orchestrate", sls]
    words += ["test=True"] if test else []
    words += [f"pillar={json.dumps(pillar)}"] if pillar else []
    try:
        said = ssh.run(name, words, seconds=ORCHESTRATE_SECONDS, show=True)
    except ssh.CommandFailed as error:
        # Failed states make salt-run fail; what it says then is all the same its answer.
        if "{" not in error.stdout:
            raise
        said = error.stdout
    return _judge(sls, _answer(said))


def _answer(said: str) -> dict[str, Any]:
    """Return the JSON object in what salt-run said, whatever it said before."""
    for start, line in enumerate(said.splitlines()):
        if line.startswith("{"):
            try:
                found = json.loads("\n".join(said.splitlines()[start:]))
            except ValueError:
                continue
            if isinstance(found, dict):
                return found
    raise aws.CloudError(f"the master's salt-run did not answer in JSON: {said.strip()[-1000:]}")


def _judge(sls: str, data: dict[str, Any]) -> Result:
    states = list(results.walk(data))
    failed = [f"{state['id']}: {state['comment']}" for state in states if state["result"] is False]
    if not states:
        # What does not render returns its error in place of states.
        return {"result": False, "changes": {}, "comment": f"{sls}: {json.dumps(data)[:2000]}"}
    changed = [state for state in states if state["changes"]]
    would = any(state["result"] is None for state in states)
    comment = f"{len(states)} states, {len(changed)} changed"
    return {
        "result": False if failed else None if would else True,
        "changes": data if changed or failed else {},
        "comment": "\n".join([f"{sls}: {len(failed)} failed", *failed]) if failed else comment,
    }


def run(argv: str | list[str], seconds: float = 60) -> str:
    """
    Run a command (a shell line, or a list of words) on the master as root; return what it says.

    Raises CloudError with the command's complaint if it fails or takes longer than ``seconds``.

    CLI Example:

    .. code-block:: bash

        salt-run master.run 'k3s kubectl get nodes'
    """
    line = argv if isinstance(argv, str) else shlex.join(argv)
    return ssh.run(_master(), ["sudo", "sh", "-c", line], seconds=seconds)
