"""
Objects of the cluster: rendered, compared, applied.

They are applied on the server's side, as the field manager ``f1-salt``
(https://kubernetes.io/docs/reference/using-api/server-side-apply/).
"""

import base64
import json
import secrets
from typing import Any

import yaml
from salt.exceptions import CommandExecutionError

Object = dict[str, Any]

__salt__: dict[str, Any]

MANAGER = "f1-salt"

# What the server or a controller writes: no difference that anybody asked for.
_BOOKKEEPING = ("managedFields", "resourceVersion", "generation", "uid", "creationTimestamp")
_SHORT = 80
_MOST = 12


def render(path: str) -> list[Object]:
    """
    Return the objects of the kustomize folder ``path``.

    CLI Example:

    .. code-block:: bash

        salt f1-master kube.render /srv/f1-vote/render
    """
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    return [
        one
        for one in yaml.load_all(__salt__["kubectl.run"]("kustomize", path), Loader=loader)
        if one
    ]


def apply(objects: list[Object], test: bool = False) -> dict[str, Any]:
    """
    Apply ``objects``; with ``test`` only ask the server what would come of it.

    Returns ``{"created": [title], "changed": {title: {field: {"old", "new"}}}, "unchanged":
    [title], "error": str}``. An object counts as changed if what the server holds of it differs
    afterwards: its bookkeeping and status aside, which others write all the time. If the server
    refuses some, the rest is applied, told, and ``error`` holds its words.

    CLI Example:

    .. code-block:: bash

        salt f1-master kube.apply '[{apiVersion: v1, kind: Namespace, metadata: {name: x}}]'
    """
    before = _live(objects)
    error = ""
    if test:
        # The server cannot try what lives in a namespace that is itself only planned.
        planned = {
            one["metadata"]["name"]
            for one in objects
            if one["kind"] == "Namespace" and _key(one) not in before
        }
        tried = [one for one in objects if one["metadata"].get("namespace") not in planned]
        after = {_key(one): one for one in objects}
        after |= _indexed(
            __salt__["kubectl.run"](*_apply_arguments("--dry-run=server"), stdin=_list(tried))
        )
    else:
        # Namespaces first: kubectl takes them in the order given.
        ordered = sorted(objects, key=lambda one: one["kind"] != "Namespace")
        try:
            after = _indexed(__salt__["kubectl.run"](*_apply_arguments(), stdin=_list(ordered)))
        except CommandExecutionError as failure:
            error = str(failure)
            after = _live(objects)
    return {**_compared(objects, before, after), "error": error}


def present(objects: list[Object]) -> list[str]:
    """
    Return the titles of those of ``objects`` that the cluster has.

    CLI Example:

    .. code-block:: bash

        salt f1-master kube.present '[{apiVersion: v1, kind: Namespace, metadata: {name: f1}}]'
    """
    return [__salt__["kubectl.title"](one) for one in _live(objects).values()]


def remove(objects: list[Object]) -> None:
    """
    Delete ``objects``, and wait until they are gone.

    CLI Example:

    .. code-block:: bash

        salt f1-master kube.remove '[{apiVersion: v1, kind: Namespace, metadata: {name: x}}]'
    """
    __salt__["kubectl.run"]("delete", "--ignore-not-found", "-f", "-", stdin=_list(objects))


def secret_lacks(name: str, namespace: str, keys: list[str]) -> list[str]:
    """
    Return those of ``keys`` that the Secret does not hold.

    CLI Example:

    .. code-block:: bash

        salt f1-master kube.secret_lacks vote-secrets f1 '[cookie-key]'
    """
    held = _secret_data(name, namespace)
    return [key for key in keys if not held.get(key)]


def secret_fill(name: str, namespace: str, keys: list[str], size: int = 32) -> None:
    """
    Give those of ``keys`` that the Secret lacks a random value: ``size`` bytes, as hexadecimal
    digits. The values go to the server through a pipe and are returned to nobody.

    CLI Example:

    .. code-block:: bash

        salt f1-master kube.secret_fill vote-secrets f1 '[cookie-key]'
    """
    held = _secret_data(name, namespace)
    fresh = base64.b64encode
    data = {key: held.get(key) or fresh(secrets.token_hex(size).encode()).decode() for key in keys}
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name, "namespace": namespace},
        "data": data,
    }
    # Not `f1-salt`: what that manager applies without these keys must not take them away.
    manager = f"--field-manager={MANAGER}-secrets"
    try:
        __salt__["kubectl.run"](
            "apply", "--server-side", manager, "-f", "-", stdin=json.dumps(secret)
        )
    except CommandExecutionError:
        raise CommandExecutionError(
            f"Secret {namespace}/{name} could not be written (the server's words may quote it; "
            f"`k3s kubectl -n {namespace} get secret {name}` tells more)"
        ) from None


def _secret_data(name: str, namespace: str) -> dict[str, str]:
    arguments = ("get", "secret", name, "-n", namespace, "--ignore-not-found", "-o", "json")
    text = __salt__["kubectl.run"](*arguments)
    return (json.loads(text).get("data") or {}) if text.strip() else {}


def _apply_arguments(*more: str) -> tuple[str, ...]:
    side = ("--server-side", f"--field-manager={MANAGER}", "--force-conflicts")
    return ("apply", *side, *more, "-o", "json", "-f", "-")


def _list(objects: list[Object]) -> str:
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": objects})


def _key(one: Object) -> tuple[str, str, str, str]:
    meta = one["metadata"]
    group = one["apiVersion"].rpartition("/")[0]
    return group, one["kind"], meta.get("namespace") or "default", meta["name"]


def _indexed(text: str) -> dict[tuple[str, str, str, str], Object]:
    return {_key(one): one for one in __salt__["kubectl.items"](text)}


def _live(objects: list[Object]) -> dict[tuple[str, str, str, str], Object]:
    arguments = ("get", "--ignore-not-found", "-o", "json", "-f", "-")
    return _indexed(__salt__["kubectl.run"](*arguments, stdin=_list(objects)))


def _compared(objects: list[Object], before: dict[Any, Object], after: dict[Any, Object]) -> Object:
    created: list[str] = []
    changed: dict[str, Any] = {}
    unchanged: list[str] = []
    for one in objects:
        old, new = before.get(_key(one)), after.get(_key(one))
        if new is None:
            continue  # refused by the server, which `error` tells
        if old is None:
            created.append(__salt__["kubectl.title"](one))
        elif difference := _difference(old, new):
            changed[__salt__["kubectl.title"](one)] = difference
        else:
            unchanged.append(__salt__["kubectl.title"](one))
    return {"created": created, "changed": changed, "unchanged": unchanged}


def _difference(old: Object, new: Object) -> dict[str, dict[str, str | None]]:
    """Return ``{field: {"old", "new"}}``, shortened; the values of a Secret are never shown."""
    left, right = _flat(_declared(old)), _flat(_declared(new))
    fields = sorted(field for field in {*left, *right} if left.get(field) != right.get(field))
    hidden = old["kind"] == "Secret"
    shown = {
        field: {
            "old": _shown(left.get(field), hidden),
            "new": _shown(right.get(field), hidden),
        }
        for field in fields[:_MOST]
    }
    if len(fields) > _MOST:
        shown["…"] = {"old": None, "new": f"{len(fields) - _MOST} more fields"}
    return shown


def _declared(one: Object) -> Object:
    meta = {key: value for key, value in one["metadata"].items() if key not in _BOOKKEEPING}
    return {**{key: value for key, value in one.items() if key != "status"}, "metadata": meta}


def _flat(value: Any, path: str = "") -> dict[str, Any]:
    """Return the leaves of ``value`` by path; members of lists go by name, if all have one."""
    if isinstance(value, dict) and value:
        pairs = [(f"{path}.{key}" if path else str(key), each) for key, each in value.items()]
    elif isinstance(value, list) and value:
        named = all(isinstance(each, dict) and "name" in each for each in value)
        pairs = [
            (f"{path}[{each['name'] if named else number}]", each)
            for number, each in enumerate(value)
        ]
    else:
        return {path: value}
    return {leaf: each for prefix, inner in pairs for leaf, each in _flat(inner, prefix).items()}


def _shown(value: Any, hidden: bool) -> str | None:
    if value is None:
        return None
    if hidden:
        return "<hidden>"
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= _SHORT else f"{text[:_SHORT]}… ({len(text)} characters)"
