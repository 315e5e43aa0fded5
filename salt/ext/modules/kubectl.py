"""
``k3s kubectl``: the only way in which the project's Salt speaks to Kubernetes.

Why no client library: docs/decisions/0005-kubectl-not-a-client-library.md.
"""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

from salt.exceptions import CommandExecutionError

Object = dict[str, Any]

KUBECTL = ("/usr/local/bin/k3s", "kubectl")
KUBECONFIG = Path("/etc/rancher/k3s/k3s.yaml")
SECONDS = 60


def available() -> bool:
    """
    Return whether this machine has a cluster to speak to.

    CLI Example:

    .. code-block:: bash

        salt f1-master kubectl.available
    """
    return KUBECONFIG.exists() and shutil.which(KUBECTL[0]) is not None


def run(*arguments: str, stdin: str | None = None, seconds: float | None = None) -> str:
    """
    Return what kubectl says with these arguments; ``stdin`` is what ``-f -`` reads.

    Raises CommandExecutionError with its complaint, or if it gives no answer in ``seconds`` (60).

    CLI Example:

    .. code-block:: bash

        salt f1-master kubectl.run get nodes
    """
    limit = seconds or SECONDS
    try:
        done = subprocess.run(
            [*KUBECTL, *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=limit,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise CommandExecutionError(
            f"kubectl {arguments[0]}: no answer in {limit:g} s from the cluster's API"
        ) from None
    except OSError as error:
        raise CommandExecutionError(f"{KUBECTL[0]}: {error.strerror}") from None
    if done.returncode:
        raise CommandExecutionError(f"kubectl {arguments[0]}: {done.stderr.strip()}")
    return done.stdout


def items(text: str) -> list[Object]:
    """
    Return the objects in kubectl's JSON ``text``: a list, one object, or nothing at all.

    CLI Example:

    .. code-block:: bash

        salt-call --local kubectl.items '{"items": []}'
    """
    data = json.loads(text) if text.strip() else {"items": []}
    return list(data["items"]) if "items" in data else [data]


def title(one: Object) -> str:
    """
    Return the name of an object as a person says it: ``Deployment f1/vote``.

    CLI Example:

    .. code-block:: bash

        salt-call --local kubectl.title '{kind: Namespace, metadata: {name: f1}}'
    """
    meta = one["metadata"]
    space = f"{meta['namespace']}/" if meta.get("namespace") else ""
    return f"{one['kind']} {space}{meta['name']}"
