"""Jinja as this app uses it, whoever the page is for."""

from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

TEMPLATES = Path(__file__).parent / "templates"


def environment(folder: Path = TEMPLATES, **given: Any) -> Environment:
    """
    Return the templates of ``folder``, to which ``given`` is known: values are escaped, a name that
    nobody gave is an error, and a file is read once.
    """
    made = Environment(
        loader=FileSystemLoader(folder),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    made.globals.update(given)
    return made
