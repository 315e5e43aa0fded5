"""
Serve the vote until SIGTERM, in one process: replicas are the business of Kubernetes.

.. code-block:: bash

    F1_REDIS_URL=redis://localhost F1_COOKIE_KEY_FILE=key F1_POLLS_DIR=polls F1_VERSION=dev \
        python -m f1vote
"""

import logging
import os
import sys

from f1vote import config, web
from f1vote.problems import Problems


def main() -> int:
    """Return the exit code: 0 after SIGTERM, 2 if what the app was given is wrong."""
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s %(message)s")
    try:
        settings = config.load(os.environ)
        app = web.create(settings)
    except Problems as problems:
        print("f1vote cannot start:", *problems.lines, sep="\n  ", file=sys.stderr)
        return 2
    app.run(
        host="0.0.0.0",  # noqa: S104 - a pod is reached from outside itself
        port=settings.port,
        single_process=True,
        access_log=False,
        motd=False,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
