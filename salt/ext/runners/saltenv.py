"""The Salt environment that machines unpack: build it, or put it where they fetch it."""

from typing import Any

import environment
import knobs

__opts__: dict[str, Any]


def build() -> dict[str, str]:
    """
    Build the environment of ``requirements/node.txt`` unless it is cached; return path and hash.

    Raises CloudError if a locked package cannot be had, or Python 3.11 is missing.

    CLI Example:

    .. code-block:: bash

        salt-run saltenv.build
    """
    built = environment.build()
    return {"path": str(built.path), "sha256": built.sha256}


def publish() -> str:
    """
    Put the environment into the platform's bucket unless it is there; return its key.

    CLI Example:

    .. code-block:: bash

        salt-run saltenv.publish
    """
    platform = knobs.load(__opts__)["platform"]
    return environment.publish(platform, environment.build())
