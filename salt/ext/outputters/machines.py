"""
What salt-cloud answers, with an exit code that is true.

salt-cloud ends with 0 whatever became of the machines of a map or a profile: a failed one is an
``Error`` inside its answer, one that is not there is ``Not Found``. This outputter (``output`` in
``salt/config/cloud``) shows the answer as ``nested`` does and ends the command with 1 if there is
either. With another ``--out`` they are in the data and the exit code is Salt's own.

CLI Example:

.. code-block:: bash

    salt-cloud -m salt/cloud/k3s.map -P -y || echo "not all machines are there"
"""

from typing import Any

import salt.output

__opts__: dict[str, Any]

# What salt-cloud puts beside what went well (salt/cloud/__init__.py: run_map, do_action).
_FAILURES = ("Error", "Not Found", "Not Actioned/Not Running")


def output(data: Any, **kwargs: Any) -> str:
    """Return ``data`` as ``nested`` text; show it and raise SystemExit if a machine failed."""
    # The configured outputter, which is this one, would win over the one that is asked for.
    text = str(salt.output.out_format(data, "nested", {**__opts__, "output": "nested"}))
    if not _has_error(data):
        return text
    # Salt prints what an outputter returns, and nothing of one that does not return.
    print(text)
    raise SystemExit(1)


def _has_error(data: Any) -> bool:
    if not isinstance(data, dict):
        return False
    return any(data.get(key) for key in _FAILURES) or any(map(_has_error, data.values()))
