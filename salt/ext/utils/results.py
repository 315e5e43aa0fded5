"""Reading what Salt returns: state results, wherever they are nested."""

from collections.abc import Iterator
from typing import Any


def walk(data: Any) -> Iterator[dict[str, Any]]:
    """
    Yield every state result in ``data`` as ``{id, result, changes, comment}``, those of nested
    orchestrations and of minions instead of the state that carries them.
    """
    if not isinstance(data, dict):
        return
    for key, value in data.items():
        if not isinstance(value, dict):
            continue
        if "result" in value and "changes" in value and "_|-" in str(key):
            inner = list(walk(value["changes"]))
            yield from inner
            if not inner or value["result"] is False:
                yield {
                    "id": str(value.get("__id__") or key.split("_|-")[1]),
                    "result": value["result"],
                    "changes": {} if inner else value["changes"],
                    "comment": str(value.get("comment") or "").strip(),
                }
        else:
            yield from walk(value)
