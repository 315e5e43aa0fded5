"""
K3s on a machine: its secret, its token from the mine, its unit, its absence.

No state here ever returns a secret: neither in ``changes`` nor in ``comment``, so that none gets
into a highstate's output, the master's job cache or the minion's ``highstate.cache.p``.
"""

import hashlib
import os
import re
import secrets
import ssl
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from salt.exceptions import SaltException
from salt.utils.state import gen_tag

Result = dict[str, Any]

__opts__: dict[str, Any]
__salt__: dict[str, Any]
# Of the state compiler, not of the loader.
__low__: dict[str, Any]
__running__: dict[str, Any]

MINE = "k3s_agent_token"
METRIC = "f1_certificate_expiry_seconds"
TOKEN = re.compile(r"K10([0-9a-f]{64})::[a-z-]+:\S+")
PAUSE = 0.5


def secret_present(name: str) -> Result:
    """
    The file ``name`` holds a secret, made here (256 random bits) if there is none, and is 0600.

    .. code-block:: yaml

        /etc/rancher/k3s/agent-token:
          k3s.secret_present: []
    """
    path = Path(name)
    if not path.exists() or not path.read_text(encoding="ascii").strip():
        return _written(path, secrets.token_hex(32), "made")
    return _mode(path)


def secret_rotated(name: str) -> Result:
    """
    The file ``name`` holds another secret (256 random bits, 0600) than ``<name>.old``, which keeps
    the one of before until the rotation is over. With both there, it is under way: nothing to do.
    """
    path, old = Path(name), Path(f"{name}.old")
    try:
        before = path.read_text(encoding="ascii").strip()
    except OSError as error:
        return _result(name, False, {}, f"there is nothing to rotate ({error.strerror})")
    if old.exists() and old.read_text(encoding="ascii").strip() != before:
        return _result(name, True, {}, "a rotation is under way: this is the new one")
    if __opts__["test"]:
        return _result(name, None, {name: "would be another"}, "")
    # In this order: a secret is never lost, and an interrupted rotation knows that it began.
    _written(old, before, "kept")
    return _written(path, secrets.token_hex(32), "another")


def current(name: str, files: list[str], deadline: float = 180) -> Result:
    """
    The process of the unit ``name`` started after ``files`` were written, and it is ready.

    Unlike a watch, it finds out what an interrupted run left undone.
    """
    try:
        since = __salt__["k3s.started"](name)
        later = [path for path in files if Path(path).exists() and _mtime(path) >= since]
        if not later:
            return running(name, deadline)
        changes = {"state": {"old": "active", "new": "restarted", "cause": later}}
        if __opts__["test"]:
            return _result(name, None, changes, "would restart")
        __salt__["k3s.start"](name, restart=True)
        __salt__["k3s.wait_ready"](name, deadline=deadline)
    except SaltException as error:
        return _result(name, False, {}, str(error))
    return _result(name, True, changes, "restarted")


def certificates_rotated(name: str, before: float | None = None, deadline: float = 180) -> Result:
    """
    No certificate of K3s on this machine (but the authorities') was written before ``before``
    (Unix seconds; none: now). ``name`` is its unit, which is stopped for that and started again.

    As https://docs.k3s.io/cli/certificate says: stop, ``k3s certificate rotate``, start.
    """
    try:
        old = _leaves()
        due = [each for each in old if before is None or old[each]["written"] < before]
        if not due:
            # It may have been interrupted before the start.
            return running(name, deadline)
        if __opts__["test"]:
            return _result(name, None, dict.fromkeys(due, "would be made anew"), "")
        __salt__["k3s.stop"](name)
        try:
            __salt__["k3s.rotate_certificates"]()
        finally:
            __salt__["k3s.start"](name)
        __salt__["k3s.wait_ready"](name, deadline=deadline)
        new = _leaves()
    except SaltException as error:
        return _result(name, False, {}, str(error))
    changes = {
        each: {"old": old[each]["serial"], "new": new[each]["serial"]}
        for each in new
        if each in old and new[each]["serial"] != old[each]["serial"]
    }
    same = [each for each in due if each in new and each not in changes]
    if same:
        return _result(name, False, changes, f"K3s did not make these anew: {', '.join(same)}")
    return _result(name, True, changes, f"{len(changes)} certificates made anew")


def certificates_told(name: str) -> Result:
    """
    The metrics file ``name`` tells when each certificate of K3s on this machine ends: the metric
    ``f1_certificate_expiry_seconds`` holds Unix seconds.
    """
    lines = [
        f"# HELP {METRIC} When a certificate of K3s ends, in Unix seconds.",
        f"# TYPE {METRIC} gauge",
    ]
    lines += [
        f'{METRIC}{{name="{each["name"]}"}} {each["not_after"]}'
        for each in sorted(__salt__["k3s.certificates"](), key=lambda each: each["name"])
    ]
    text = "\n".join(lines) + "\n"
    path = Path(name)
    if path.exists() and path.read_text(encoding="utf-8") == text:
        return _result(name, True, {}, f"{len(lines) - 2} certificates")
    if __opts__["test"]:
        return _result(name, None, {name: "would be written"}, "")
    path.parent.mkdir(parents=True, exist_ok=True)
    _replace(path, text, 0o644)
    return _result(name, True, {name: "written"}, f"{len(lines) - 2} certificates")


def token_from_mine(name: str, master: str, server: str, deadline: float = 120) -> Result:
    """
    The file ``name`` (0600) holds the agent token which the mine of the minion ``master`` offers.

    Waits at most ``deadline`` seconds for a token that belongs to the cluster behind ``server``
    (``https://<address>:6443``): K3s's own check, the SHA-256 of what ``/cacerts`` gives.

    .. code-block:: yaml

        /etc/rancher/k3s/token:
          k3s.token_from_mine:
            - master: f1-master
            - server: https://10.20.1.10:6443
    """
    end = time.monotonic() + deadline
    path = Path(name)
    while True:
        token = (__salt__["mine.get"](master, MINE) or {}).get(master)
        problem = _problem(token, server)
        if token and not problem:
            break
        if __opts__["test"]:
            return _result(name, None, {name: "would be written from the mine"}, problem)
        if time.monotonic() >= end:
            return _result(
                name,
                False,
                {},
                f"waited {deadline:g} s for {MINE} in the mine of {master}: {problem}. "
                f"Check `systemctl status k3s` on {master} and that `{__opts__['id']}` is one of "
                f"platform.workers; then `salt {master} saltutil.refresh_pillar` and "
                f"`salt {master} mine.update`, and try again.",
            )
        time.sleep(PAUSE)
    if path.exists() and path.read_text(encoding="ascii").strip() == token:
        return _mode(path)
    return _written(path, token, "written")


def token_offered(name: str) -> Result:
    """
    The mine of this minion holds what the pillar's ``mine_functions`` say, as of now.

    ``mine.update`` cannot tell whether anything differs, so neither can this: no changes.
    """
    if name not in __salt__["config.merge"]("mine_functions", {}):
        return _result(name, False, {}, f"the pillar's mine_functions have no {name}")
    if __opts__["test"]:
        return _result(name, True, {}, "a plan sends nothing")
    try:
        # So that the mine says at once who fails to give what, instead of keeping the old value.
        __salt__["k3s.agent_token"]()
        # The minion itself may know an older pillar than this run: its own next update, an hour
        # from now, must not bring an old list of workers back.
        __salt__["saltutil.refresh_pillar"](wait=False)
        __salt__["mine.update"]()
    except SaltException as error:
        return _result(name, False, {}, str(error))
    return _result(name, True, {}, "offered to the workers")


def running(name: str, deadline: float = 180) -> Result:
    """
    The unit ``name`` (``k3s`` or ``k3s-agent``) is enabled and ready, within ``deadline`` seconds.

    Restarts when a state that it watches has changes.
    """
    try:
        now = __salt__["k3s.unit"](name)
        changes = {}
        if now.get("UnitFileState") != "enabled":
            changes["enabled"] = {"old": now.get("UnitFileState") or "no unit", "new": "enabled"}
        if now.get("ActiveState") != "active":
            changes["state"] = {"old": now.get("ActiveState"), "new": "active"}
        if __opts__["test"]:
            verdict = None if changes else True
            return _result(name, verdict, changes, "would start" if changes else "runs")
        if changes:
            __salt__["k3s.start"](name)
            __salt__["k3s.wait_ready"](name, deadline=deadline)
    except SaltException as error:
        # Without changes Salt would call mod_watch next, and wait as long once more.
        return {**_result(name, False, {}, str(error)), "skip_watch": True}
    return _result(name, True, changes, "started" if changes else "runs")


def mod_watch(name: str, deadline: float = 180, **kwargs: Any) -> Result:
    """
    Restart the unit ``name``: what it reads has changed. ``changes`` and comment name the cause.
    """
    # As the state compiler gives them (salt/states/test.py reads them the same way): what is
    # watched, and what became of it.
    watched = __low__["__reqs__"].get("watch", [])  # noqa: F821
    cause = [low["name"] for low in watched if __running__[gen_tag(low)]["changes"]]  # noqa: F821
    changes = {"state": {"old": "active", "new": "restarted", "cause": cause}}
    said = f"because of {', '.join(cause)}"
    if __opts__["test"]:
        return _result(name, None, changes, f"would restart {said}")
    try:
        __salt__["k3s.start"](name, restart=True)
        __salt__["k3s.wait_ready"](name, deadline=deadline)
    except SaltException as error:
        return _result(name, False, {}, f"restarted {said}: {error}")
    return _result(name, True, changes, f"restarted {said}")


def absent(name: str) -> Result:
    """Nothing of K3s is left on this machine: no pod, mount, network link or data."""
    left = __salt__["k3s.remains"]()
    if not left:
        return _result(name, True, {}, "nothing is left")
    changes = dict.fromkeys(left, "removed")
    if __opts__["test"]:
        return _result(name, None, changes, "would be removed")
    __salt__["k3s.clear"]()
    still = __salt__["k3s.remains"]()
    if still:
        return _result(name, False, {}, f"could not be removed: {', '.join(still)}")
    return _result(name, True, changes, "removed")


def _leaves() -> dict[str, dict[str, Any]]:
    """Return the certificates of this machine that sign nothing, by name."""
    return {each["name"]: each for each in __salt__["k3s.certificates"]() if not each["authority"]}


def _mtime(path: str) -> float:
    return Path(path).stat().st_mtime


def _problem(token: Any, server: str) -> str:
    """Say why ``token`` is of no use for the cluster behind ``server``; empty if it is."""
    if not token:
        return "it offers nothing to this minion"
    found = TOKEN.fullmatch(token) if isinstance(token, str) else None
    if not found:
        return "what it offers is no K3s token (K10<hash>::<user>:<secret>)"
    try:
        shown = _ca(server)
    except OSError as error:
        return f"there is a token, but {server} does not answer ({error})"
    if shown and hashlib.sha256(shown).hexdigest() != found[1]:
        return f"its token is stale: it belongs to another cluster than {server}"
    return ""


def _ca(server: str) -> bytes:
    """Return the CA certificate that ``server`` shows; empty if it shows none to strangers."""
    # Not to be trusted, and not trusted: it is only compared with the hash in the token.
    stranger = ssl._create_unverified_context()  # noqa: S323
    try:
        with urllib.request.urlopen(  # noqa: S310 - always https
            f"{server}/cacerts", timeout=3, context=stranger
        ) as answer:
            body = bytes(answer.read())
    except urllib.error.HTTPError:
        return b""
    return body if b"BEGIN CERTIFICATE" in body else b""


def _written(path: Path, secret: str, verb: str) -> Result:
    if __opts__["test"]:
        return _result(str(path), None, {str(path): f"would be {verb}"}, "")
    _replace(path, secret + "\n", 0o600)
    return _result(str(path), True, {str(path): verb}, "")


def _replace(path: Path, text: str, mode: int) -> None:
    """Give ``path`` this content in one step; nobody reads it before it has its ``mode``."""
    new = path.with_name(f".{path.name}.new")
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        os.fchmod(descriptor, mode)
        file.write(text)
    new.replace(path)


def _mode(path: Path) -> Result:
    mode = path.stat().st_mode & 0o7777
    if mode == 0o600:
        return _result(str(path), True, {}, "in place")
    changes = {"mode": {"old": f"{mode:04o}", "new": "0600"}}
    if __opts__["test"]:
        return _result(str(path), None, changes, "")
    path.chmod(0o600)
    return _result(str(path), True, changes, "")


def _result(name: str, result: bool | None, changes: dict[str, Any], comment: str) -> Result:
    return {"name": name, "result": result, "changes": changes, "comment": comment}
