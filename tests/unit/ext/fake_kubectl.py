#!/usr/bin/env python3
"""
A stand-in for ``k3s kubectl``: objects in a JSON file, server-side apply as a plain merge.

Knows just what salt/ext/modules uses. ``F1_FAKE`` names a folder: ``objects.json`` (the cluster),
``calls`` (each argument list, one JSON line), ``refuse`` (kinds that apply refuses, one a line).
A drain evicts pods as PodDisruptionBudgets allow; those named in ``stuck`` never end.
"""

import copy
import json
import os
import sys
from pathlib import Path
from typing import Any

FOLDER = Path(os.environ["F1_FAKE"])
STORE = FOLDER / "objects.json"


def key(one: dict[str, Any]) -> str:
    meta = one["metadata"]
    return f"{one['kind']} {meta.get('namespace', '')}/{meta['name']}"


def merged(old: Any, new: Any) -> Any:
    if isinstance(old, dict) and isinstance(new, dict):
        return {**old, **{name: merged(old.get(name), each) for name, each in new.items()}}
    return new


def apply(store: dict[str, Any], items: list[dict[str, Any]], dry: bool) -> None:
    refused = (FOLDER / "refuse").read_text().split() if (FOLDER / "refuse").exists() else []
    shown, errors = [], []
    for one in items:
        space = one["metadata"].get("namespace")
        if one["kind"] in refused:
            errors.append(f"Error from server (Forbidden): {key(one)} is refused")
            continue
        if space and f"Namespace /{space}" not in store:
            errors.append(f'Error from server (NotFound): namespaces "{space}" not found')
            continue
        old = store.get(key(one))
        new = merged(copy.deepcopy(old or {}), one)
        if new != old:
            version = int((old or one)["metadata"].get("resourceVersion", 0)) + 1
            new["metadata"]["resourceVersion"] = str(version)
            if not dry:
                store[key(one)] = new
        shown.append(new)
    STORE.write_text(json.dumps(store))
    if errors:
        sys.exit("\n".join(errors))
    print(json.dumps({"kind": "List", "items": shown}))


def drain(store: dict[str, Any], node: str) -> None:
    """Evict what budgets allow; complain of the rest as kubectl does when its time is over."""
    stuck = (FOLDER / "stuck").read_text().split() if (FOLDER / "stuck").exists() else []
    left = []
    for name, pod in list(store.items()):
        if pod["kind"] != "Pod" or pod["spec"].get("nodeName") != node:
            continue
        if pod["metadata"].get("ownerReferences", [{}])[0].get("kind") == "DaemonSet":
            continue
        space = pod["metadata"]["namespace"]
        budgets = [
            one
            for one in store.values()
            if one["kind"] == "PodDisruptionBudget"
            and one["metadata"]["namespace"] == space
            and one["spec"]["selector"]["matchLabels"].items()
            <= pod["metadata"].get("labels", {}).items()
        ]
        if any(one["status"]["disruptionsAllowed"] == 0 for one in budgets):
            left.append(pod["metadata"]["name"])
        elif pod["metadata"]["name"] in stuck:
            pod["metadata"]["deletionTimestamp"] = "2026-11-24T12:00:00Z"
            left.append(pod["metadata"]["name"])
        else:
            for one in budgets:
                one["status"]["disruptionsAllowed"] -= 1
            del store[name]
    STORE.write_text(json.dumps(store))
    if left:
        sys.exit(
            f"error when evicting pods/{left[0]!r} (will retry after 5s): Cannot evict pod as it "
            f"would violate the pod's disruption budget.\nerror: unable to drain node {node!r} due "
            f"to error: [error when waiting for pod: global timeout reached: 1s], continuing"
        )


def main(words: list[str]) -> None:
    with (FOLDER / "calls").open("a") as file:
        file.write(json.dumps(words) + "\n")
    store = json.loads(STORE.read_text())
    given: list[dict[str, Any]] = []
    if "-" in words and words[0] != "kustomize":
        data = json.load(sys.stdin)
        given = data["items"] if data["kind"] == "List" else [data]
    if words[0] == "kustomize":
        print(Path(words[1], "rendered.yaml").read_text())
    elif words[0] == "apply":
        apply(store, given, "--dry-run=server" in words)
    elif words[0] == "get" and given:
        found = [store[key(one)] for one in given if key(one) in store]
        if len(found) == 1:
            print(json.dumps(found[0]))
        elif found:
            print(json.dumps({"kind": "List", "items": found}))
    elif words[0] in ("cordon", "uncordon", "drain"):
        if f"Node /{words[1]}" not in store:
            sys.exit(f'Error from server (NotFound): nodes "{words[1]}" not found')
        store[f"Node /{words[1]}"].setdefault("spec", {})["unschedulable"] = words[0] != "uncordon"
        if words[0] == "drain":
            drain(store, words[1])
    elif words[0] == "get" and words[1] == "deployment":
        found_one = store.get(f"Deployment {words[3]}/{words[4]}")
        print(f"deployment.apps/{words[4]}" if found_one else "")
    elif words[0] == "get" and words[1] == "secret":
        found_one = store.get(f"Secret {words[4]}/{words[2]}")
        print(json.dumps(found_one) if found_one else "")
    elif words[0] == "get":
        kinds = {kind.removesuffix("s") for kind in words[1].split(",")}
        items = [one for one in store.values() if one["kind"].lower() in kinds]
        print(json.dumps({"kind": "List", "items": items}))
    elif words[0] == "delete" and given:
        for one in given:
            store.pop(key(one), None)
    elif words[0] == "delete":
        kind, name = ("Node", words[2]) if words[1] == "node" else ("Secret", words[4])
        space = "" if kind == "Node" else words[3]
        store.pop(f"{kind} {space}/{name}", None)
    elif words[0] == "label":
        pairs = dict(word.split("=", 1) for word in words[4:])
        store[f"Node /{words[2]}"]["metadata"].setdefault("labels", {}).update(pairs)
    else:
        sys.exit(f"error: unknown command {words}")
    STORE.write_text(json.dumps(store))


main(sys.argv[1:])
