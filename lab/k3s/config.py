"""Where options come from: command line, configuration files, environment.

Precedence and merging are K3s's (k3s-io/k3s ``pkg/configfilearg/parser.go``): the files become
arguments in front of the command line, so command line > files > environment; a list on the
command line replaces the one from the files. Drop-ins of ``<config>.d`` follow in order of name;
the last value wins, and ``key+`` appends. Where K3s skips an unknown key with a warning, the
stand-in refuses.
"""

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from .options import LACKING, OPTIONS, Option, Role, options_of

TRUE = {"true", "1", "t", "yes", "on"}
FALSE = {"false", "0", "f", "no", "off"}


class ConfigError(Exception):
    """Every problem of a configuration at once, one line each."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = list(problems)


@dataclass(frozen=True)
class Given:
    """The texts given for an option, and where."""

    values: tuple[str, ...]
    origin: str


def refusal(name: str, role: Role, origin: str) -> str:
    """Say why ``name`` is not accepted, and what comes nearest."""
    mine = options_of(role)
    if name in LACKING[role]:
        return f"{origin}: {name}: K3s has it, the stand-in does not"
    other: Role = "agent" if role == "server" else "server"
    if name in options_of(other) or name in LACKING[other]:
        return f"{origin}: {name}: an option of `k3s {other}`, not of `k3s {role}`"
    near = difflib.get_close_matches(name, [*mine, *LACKING[role]], n=1)
    hint = f"; did you mean {near[0]}?" if near else ""
    return f"{origin}: {name}: unknown to K3s{hint}"


def _from_arguments(role: Role, argv: Sequence[str], problems: list[str]) -> dict[str, Given]:
    origin = "command line"
    mine = options_of(role)
    shorts = {option.short: option.name for option in mine.values() if option.short}
    found: dict[str, Given] = {}
    rest = list(argv)
    while rest:
        argument = rest.pop(0)
        text = argument.lstrip("-")
        if text == argument or not text:
            problems.append(f"{origin}: unexpected argument {argument!r}")
            continue
        name, equals, value = text.partition("=")
        name = shorts.get(name, name)
        option = mine.get(name)
        if option is None:
            problems.append(refusal(name, role, origin))
            if not equals and rest and not rest[0].startswith("-"):
                rest.pop(0)  # most likely its value
            continue
        if option.kind == "flag":
            value = value if equals else "true"
        elif not equals:
            if not rest:
                problems.append(f"{origin}: {name}: needs a value")
                continue
            value = rest.pop(0)
        before = found[name].values if name in found and option.kind == "list" else ()
        found[name] = Given((*before, value), origin)
    return found


def _scalar(node: yaml.Node) -> str | None:
    """The text K3s would see for a YAML value; None where its reading would surprise."""
    if not isinstance(node, yaml.ScalarNode):
        return None
    value = yaml.SafeLoader("").construct_object(node)
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float) and str(value) != node.value:
        return None
    return "" if value is None else str(node.value)


def _texts(
    option: Option, node: yaml.Node, where: str, problems: list[str]
) -> tuple[str, ...] | None:
    nodes = node.value if isinstance(node, yaml.SequenceNode) else [node]
    if isinstance(node, yaml.SequenceNode) and option.kind != "list":
        problems.append(f"{where}: {option.name}: takes one value, not a list")
        return None
    texts = []
    for one in nodes:
        text = _scalar(one)
        if text is None:
            problems.append(
                f"{where}: {option.name}: write the value as a quoted string "
                "(YAML would read it as another number, or it is not a single value)"
            )
            if not isinstance(one, yaml.ScalarNode):
                return None
            text = str(one.value)  # said to be wrong, yet given
        elif not text:
            problems.append(f"{where}: {option.name}: has no value; give one or drop the key")
            return None
        texts.append(text)
    return tuple(texts)


def _from_file(role: Role, path: Path, found: dict[str, Given], problems: list[str]) -> None:
    mine = options_of(role)
    try:
        root = yaml.compose(path.read_text(), Loader=yaml.SafeLoader)
    except (OSError, UnicodeDecodeError) as error:
        problems.append(f"{path}: cannot be read: {error}")
        return
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        problems.append(f"{path}{line}: not YAML: {getattr(error, 'problem', None) or error}")
        return
    if root is None:
        return
    if not isinstance(root, yaml.MappingNode):
        problems.append(f"{path}: must be a mapping of option to value")
        return
    seen: set[str] = set()
    for key_node, value_node in root.value:
        where = f"{path}:{key_node.start_mark.line + 1}"
        key = str(key_node.value)
        if key in seen:
            problems.append(f"{where}: {key}: given twice")
            continue
        seen.add(key)
        name = key.removesuffix("+")
        option = mine.get(name)
        if option is None or name == "config":
            problems.append(refusal(name, role, where))
            continue
        texts = _texts(option, value_node, where, problems)
        if texts is None:
            continue
        if key.endswith("+") and option.kind != "list":
            problems.append(f"{where}: {key}: only a list can be appended to")
            continue
        before = found[name].values if key.endswith("+") and name in found else ()
        found[name] = Given(before + texts, where)


def _files(config: Path) -> list[Path]:
    drop_ins = Path(f"{config}.d")
    more = drop_ins.iterdir() if drop_ins.is_dir() else ()
    return [config] * config.exists() + sorted(
        path for path in more if path.suffix.lower() in {".yaml", ".yml"} and path.is_file()
    )


def read(
    role: Role, argv: Sequence[str], environ: Mapping[str, str]
) -> tuple[dict[str, Given], list[str]]:
    """Collect what was given for each option of ``role``.

    Args:
        role: ``server`` or ``agent``.
        argv: arguments after the command's name.
        environ: the process environment.

    Returns:
        The options given, by name, and the problems found (none of which shows a value).
    """
    problems: list[str] = []
    arguments = _from_arguments(role, argv, problems)
    found: dict[str, Given] = {}
    for option in OPTIONS:
        if role in option.roles and environ.get(option.env):
            text = environ[option.env]
            found[option.name] = Given((text,), f"${option.env}")
    # K3s looks at the environment first for this one option.
    chosen = found.get("config") or arguments.get("config")
    default = options_of(role)["config"].default
    config = Path(chosen.values[0] if chosen else default)
    files = _files(config)
    if chosen and not files:
        problems.append(f"{chosen.origin}: config: {config} does not exist")
    from_files: dict[str, Given] = {}
    for path in files:
        _from_file(role, path, from_files, problems)
    return {**found, **from_files, **arguments}, problems
