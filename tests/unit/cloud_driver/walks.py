"""One file of `orch` walked on the API alone: its cloud states in their order, as Salt would."""

from collections.abc import Iterator
from typing import Any

import yaml
from jinja2 import Environment

from tests.conftest import ROOT, load_ext

STATES = ("cloud_removal", "cloud_machines", "cloud_network", "cloud_access", "cloud_store")


def load(names: tuple[str, ...] = STATES) -> dict[str, Any]:
    """Return the state modules ``names`` as a new process has them."""
    return {name: load_ext(f"states/{name}.py") for name in names}


def states(
    modules: dict[str, Any],
    sls: str,
    opts: dict[str, Any],
    platform: dict[str, Any],
    confirm: str | None = None,
) -> Iterator[tuple[str, dict[str, Any]]]:
    """
    Run those states of ``orch.<sls>`` that are of ``modules``; yield the id and result of each,
    so that whoever stops asking ends the walk.
    """
    context: dict[str, Any] = {}
    for module in modules.values():
        module.__opts__ = opts
        module.__pillar__ = {"platform": platform}
        module.__context__ = context
    jinja = Environment(autoescape=False)
    jinja.filters["json"] = jinja.filters["tojson"]
    text = jinja.from_string((ROOT / f"salt/states/orch/{sls}.sls").read_text())
    pillar = {"platform": platform, "confirm": confirm}
    for ident, body in yaml.safe_load(text.render(pillar=pillar)).items():
        ((function, arguments),) = body.items()
        name, _, what = function.partition(".")
        if name in modules:
            given = {key: value for item in arguments for key, value in item.items()}
            given.pop("require", None)
            given.setdefault("name", ident)
            yield ident, getattr(modules[name], what)(**given)
