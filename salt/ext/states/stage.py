"""
Named stages inside an orchestration. They change nothing: they say where it stands.

.. code-block:: yaml

    network begins:
      stage.begin:
        - name: network
        - text: VPC, subnet, groups

    network ends:
      stage.end:
        - name: network
"""

from typing import Any

__utils__: dict[str, Any]


def begin(name: str, text: str = "") -> dict[str, Any]:
    """Say that the stage ``name`` begins; ``text`` is what it is about to do."""
    __utils__["events.begin"](name, text)
    return {"name": name, "result": True, "changes": {}, "comment": text}


def end(name: str, text: str = "") -> dict[str, Any]:
    """Say that the stage ``name`` is done and how many seconds it took."""
    event = __utils__["events.end"](name, text)
    took = "" if event["seconds"] is None else f"{event['seconds']} s"
    return {"name": name, "result": True, "changes": {}, "comment": took}
