"""
How the platform is: everything that its master knows, asked once, and what is wrong with it.

The operator's ``platform.status`` runs this file on the master as a program: a Salt command there
would take longer to start than all of this takes to answer. It prints what ``here`` returns.
"""

import json
import re
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import lock

Facts = dict[str, Any]

STATE = Path("/var/lib/f1")
TREE = Path("/srv/f1-vote")
# As in salt/ext/modules/kubectl.py, which needs Salt's loader.
KUBECTL = ("/usr/local/bin/k3s", "kubectl")
SECONDS = 3

# Certificates that end sooner are wrong. K3s makes new ones at a start in their last 120 days.
CERTIFICATE_DAYS = 14
BACKUP_SECONDS = 24 * 3600

_EXPIRY = re.compile(r'^f1_certificate_expiry_seconds\{name="([^"]+)"\} (\d+)', re.MULTILINE)

# What each poll's tally says, and what the app's last recount found: counting every vote here
# would stop Redis for seconds in a poll of millions.
TALLY = """\
local polls = {}
for _, key in ipairs(redis.call('KEYS', 'poll:*:tally')) do
  local poll = string.match(key, '^poll:(.*):tally$')
  local tally, flat = {}, redis.call('HGETALL', key)
  for i = 1, #flat, 2 do tally[flat[i]] = tonumber(flat[i + 1]) end
  local recount = redis.call('HMGET', 'poll:' .. poll .. ':recount', 'at', 'difference')
  polls[poll] = {
    tally = tally,
    voters = tonumber(redis.call('HGET', 'poll:' .. poll .. ':meta', 'voters') or 0),
    recounted = recount[1] and tonumber(recount[1]) or nil,
    difference = recount[2] and tonumber(recount[2]) or nil,
  }
end
return cjson.encode({now = tonumber(redis.call('TIME')[1]), polls = polls})
"""
# The app recounts every poll each minute; one of millions takes minutes.
RECOUNT_SECONDS = 900


class _Missing(Exception):
    """A part that cannot be told; the text says why."""


def here() -> Facts:
    """
    Return what this master knows: ``nodes app tally heal backup certificates lock tree``.

    ``missing`` holds, by part, why it cannot be told. Never raises, takes at most a few seconds.
    """
    parts = {
        "cluster": _cluster,
        "tally": _tally,
        "heal": lambda: _record(STATE / "heal" / "last.json"),
        "backup": lambda: _record(STATE / "backup" / "last.json"),
        "certificates": _certificates,
        "lock": lambda: lock.show(STATE / "lock"),
        "tree": lambda: TREE.readlink().name,
    }
    facts: Facts = {}
    missing: dict[str, str] = {}
    with ThreadPoolExecutor(len(parts)) as pool:
        asked = {name: pool.submit(part) for name, part in parts.items()}
        for name, answer in asked.items():
            try:
                facts[name] = answer.result()
            except (_Missing, OSError) as error:
                missing[name] = str(error)
            except (ValueError, KeyError, TypeError) as error:
                missing[name] = f"its answer cannot be read: {type(error).__name__}: {error}"
    facts |= facts.pop("cluster", {})
    return {**facts, "missing": missing}


def judged(
    facts: Facts | None,
    machines: dict[str, dict[str, Any]] | None,
    fleet: dict[str, Any],
    version: str,
    now: float,
    unknown: dict[str, str] | None = None,
) -> Facts:
    """
    Return the status as it is shown: ``wrong`` (reasons, worst first) and all parts.

    ``facts``: as `here` gives them, None if the master was not reached; ``machines``: those of the
    cloud, None if it did not answer; ``fleet``: the pillar's ``{master, workers}``; ``version``:
    K3s's wanted one; ``now``: Unix seconds; ``unknown``: why ``cloud`` or ``master`` is None.
    """
    facts = facts or {}
    missing = {**facts.get("missing", {}), **(unknown or {})}
    names = [fleet["master"], *fleet["workers"]]
    wrong = _wrong_machines(machines, names, missing) + _wrong_nodes(facts, names, version, missing)
    tally = invariant(facts.get("tally"))
    wrong += [f"the tally is not proved: {line}" for line in (tally or {}).get("broken", [])]
    wrong += _wrong_app(facts)
    heal = _aged(facts.get("heal"), now)
    if heal and heal.get("ok") is False:
        failed = "; ".join(heal.get("failed", [])[:3])
        wrong.append(f"the scheduled highstate failed: {failed}")
    backup = _aged(facts.get("backup"), now)
    if backup and not backup.get("ok"):
        wrong.append(f"the last backup failed: {backup.get('error') or 'it does not say why'}")
    elif backup and backup["age"] > BACKUP_SECONDS:
        wrong.append(f"the last backup is {backup['age'] // 3600} h old")
    certificate = _first_to_end(facts.get("certificates"), now)
    if certificate and certificate["days"] < CERTIFICATE_DAYS:
        ends = f"ends in {certificate['days']} days"
        wrong.append(f"the certificate {certificate['name']} {ends}: rotate_certificates")
    return {
        "wrong": wrong,
        "machines": machines,
        "nodes": facts.get("nodes"),
        "version": version,
        "app": facts.get("app"),
        "tally": tally,
        "drift": heal,
        "backup": backup,
        "certificate": certificate,
        "locks": {"master": facts.get("lock")},
        "tree": facts.get("tree"),
        "missing": missing,
    }


def invariant(found: dict[str, Any] | None) -> Facts | None:
    """
    Return ``{"voters", "votes": {code: n}, "broken": [...]}`` of what Redis says of all polls
    (``TALLY``): the last recount of each differed by nothing, and is not old. None if not known.
    """
    if found is None:
        return None
    broken: list[str] = []
    votes: dict[str, int] = {}
    voters = 0
    # Lua has one empty table for both.
    for poll, told in sorted(dict(found["polls"] or {}).items()):
        voters += told["voters"]
        for code, points in dict(told["tally"] or {}).items():
            if points:
                votes[code] = votes.get(code, 0) + points
        recounted = told.get("recounted")
        if told.get("difference"):
            broken.append(f"{poll}: the last recount differs by {told['difference']}")
        elif told["voters"] and recounted is None:
            broken.append(f"{poll}: never recounted")
        elif told["voters"] and found["now"] - recounted > RECOUNT_SECONDS:
            broken.append(f"{poll}: not recounted for {int(found['now'] - recounted)} s")
    return {"voters": voters, "votes": votes, "broken": broken}


def _wrong_machines(
    machines: dict[str, dict[str, Any]] | None, names: list[str], missing: dict[str, str]
) -> list[str]:
    if machines is None:
        return [f"the cloud does not answer: {missing.get('cloud', 'unknown')}"]
    states = {name: machines[name]["state"] if name in machines else "missing" for name in names}
    return [f"machine {name}: {state}" for name, state in states.items() if state != "running"]


def _wrong_nodes(
    facts: Facts, names: list[str], version: str, missing: dict[str, str]
) -> list[str]:
    if not facts:
        return [f"the master does not answer: {missing.get('master', 'unknown')}"]
    nodes = facts.get("nodes")
    if nodes is None:
        return [f"the cluster does not answer: {missing.get('cluster', 'unknown')}"]
    wrong = [
        f"node {name}: {'has not joined' if name not in nodes else nodes[name]['why']}"
        for name in names
        if not nodes.get(name, {}).get("ready")
    ]
    wrong += [
        f"node {name} is of no machine of the fleet, and not Ready"
        for name, node in nodes.items()
        if name not in names and not node["ready"]
    ]
    others = [f"{name} {node['version']}" for name, node in nodes.items()]
    others = [line for line in others if not line.endswith(f" {version}")]
    return wrong + ([f"K3s is not {version} everywhere: {', '.join(others)}"] if others else [])


def _wrong_app(facts: Facts) -> list[str]:
    wrong = []
    if facts and "tally" in facts.get("missing", {}):
        wrong.append(f"Redis does not tell the votes: {facts['missing']['tally']}")
    if "app" not in facts:
        return wrong
    for name in ("vote", "redis"):
        part = facts["app"].get(name)
        if part is None:
            wrong.append(f"{name} is not in the cluster")
        elif part["ready"] < part["wanted"] or part["updated"] < part["wanted"]:
            counts = f"{part['ready']} of {part['wanted']} ready, {part['updated']} of this version"
            wrong.append(f"{name} is not whole: {counts}")
    return wrong


def _aged(record: Facts | None, now: float) -> Facts | None:
    if record is None:
        return None
    return {**record, "age": max(0, int(now - float(record.get("at") or 0)))}


def _first_to_end(ends: dict[str, int] | None, now: float) -> Facts | None:
    if not ends:
        return None
    name = min(ends, key=lambda each: (ends[each], each))
    return {"name": name, "not_after": ends[name], "days": int((ends[name] - now) // 86400)}


def _cluster() -> Facts:
    kinds = "nodes,deployments,statefulsets"
    items = json.loads(_kubectl("get", kinds, "-A", "-o", "json"))["items"]
    nodes = {one["metadata"]["name"]: _node(one) for one in items if one["kind"] == "Node"}
    app = {
        one["metadata"]["name"]: _workload(one)
        for one in items
        if one["kind"] != "Node" and one["metadata"]["namespace"] == "f1"
    }
    return {"nodes": nodes, "app": app}


def _node(one: Facts) -> Facts:
    status = one.get("status", {})
    ready = next((c for c in status.get("conditions", []) if c["type"] == "Ready"), None)
    good = ready is not None and ready["status"] == "True"
    return {
        "ready": good,
        "version": status.get("nodeInfo", {}).get("kubeletVersion", ""),
        "why": "" if good else _why(ready),
        "cordoned": bool(one.get("spec", {}).get("unschedulable")),
    }


def _why(ready: Facts | None) -> str:
    if ready is None:
        return "has not reported yet"
    return f"not Ready: {ready.get('message') or ready.get('reason')}"


def _workload(one: Facts) -> Facts:
    status, spec = one.get("status", {}), one["spec"]
    seen = status.get("observedGeneration", 0) >= one["metadata"].get("generation", 0)
    image = spec["template"]["spec"]["containers"][0]["image"]
    return {
        "wanted": spec.get("replicas", 1),
        "ready": status.get("readyReplicas", 0),
        "updated": status.get("updatedReplicas", 0) if seen else 0,
        "image": image,
    }


def _tally() -> Facts:
    arguments = ("-n", "f1", "exec", "redis-0", "--", "redis-cli", "--raw", "EVAL", TALLY, "0")
    said = _kubectl(*arguments).strip()
    if not said.startswith(("{", "[")):
        raise _Missing(said[:200] or "it said nothing")
    return dict(json.loads(said) or {})


def _certificates() -> dict[str, int]:
    path = STATE / "metrics" / "k3s-certificates.prom"
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise _Missing(f"{path} is not there; `make up` writes it") from None
    return {name: int(ends) for name, ends in _EXPIRY.findall(text)}


def _record(path: Path) -> Facts:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise _Missing("none yet") from None


def _kubectl(*arguments: str) -> str:
    try:
        done = subprocess.run(
            [*KUBECTL, f"--request-timeout={SECONDS}s", *arguments],
            capture_output=True,
            text=True,
            timeout=SECONDS + 1,
            stdin=subprocess.DEVNULL,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise _Missing(f"no answer in {SECONDS} s") from None
    except OSError as error:
        raise _Missing(f"{KUBECTL[0]}: {error.strerror}") from None
    if done.returncode:
        raise _Missing(done.stderr.strip().splitlines()[-1] if done.stderr.strip() else "it failed")
    return done.stdout


if __name__ == "__main__":
    print(json.dumps(here()))
