"""
What a command line may say: the arguments of the driver's functions, checked all at once.

A function's own signature is the list of its arguments, their annotations are what each may be,
so that nothing is written down twice. salt-cloud gives every value as text.
"""

import inspect
import re
import typing
from collections.abc import Callable
from dataclasses import dataclass
from types import UnionType
from typing import Annotated, Any

import aws


@dataclass(frozen=True)
class Form:
    """What an argument looks like: a pattern, an example, and the same in words."""

    pattern: str
    example: str
    words: str


_ID = "[0-9a-f]{8,17}"
_ZONE = "[a-z]{2}(?:-[a-z]+)+-[0-9][a-z]"

Text = Annotated[str, Form(r".{1,255}", "…", "a text of at most 255 characters")]
Label = Annotated[
    str, Form(r"[a-z0-9][a-z0-9-]{0,39}", "data", "small letters, digits and hyphens, at most 40")
]
Whole = Annotated[int, Form(r"[1-9][0-9]{0,5}", "10", "a whole number from 1")]
Flag = Annotated[bool, Form(r"(?i:true|false|yes|no)", "true", "true or false")]
Profile = Annotated[str, Form(r"\S{1,255}", "k3s-worker", "the name of a profile")]
Machine = Annotated[str, Form(r"\S{1,255}", "f1-worker-9", "the name of a machine")]
Option = Annotated[str, Form(r"(?s).*", "…", "a text")]
Keys = Annotated[list[str], Form(r"[^,]+(,[^,]+)*", "team,cost", "names with commas between")]
Volume = Annotated[str, Form(rf"vol-{_ID}", "vol-0123456789abcdef0", "the id of a volume")]
Snapshot = Annotated[str, Form(rf"snap-{_ID}", "snap-0123456789abcdef0", "the id of a snapshot")]
Image = Annotated[str, Form(rf"ami-{_ID}", "ami-0123456789abcdef0", "the id of an image")]
ImageName = Annotated[
    str,
    # EC2 API reference, CreateImage.
    Form(r"[A-Za-z0-9()\[\]./'@_ -]{3,128}", "before-upgrade", "3 to 128 letters and digits"),
]
Device = Annotated[str, Form(r"/dev/sd[f-p]", "/dev/sdf", "/dev/sdf to /dev/sdp")]
Kind = Annotated[
    str, Form(r"gp2|gp3|io1|io2|sc1|st1|standard", "gp3", "a type of volume, such as gp3")
]
Address = Annotated[
    str,
    Form(rf"eipalloc-{_ID}|(?:\d{{1,3}}\.){{3}}\d{{1,3}}", "203.0.113.9", "an address or its id"),
]
Size = Annotated[
    str, Form(r"[a-z0-9-]+\.[a-z0-9-]+", "t3.small", "the name of a size, such as t3.small")
]
Zone = Annotated[str, Form(_ZONE, "eu-west-3a", "the name of a zone, such as eu-west-3a")]
Arch = Annotated[str, Form(r"x86_64|arm64", "x86_64", "x86_64 or arm64")]
Sizes = Annotated[str, Form(r"small|default|large", "small", "small, default or large")]
Owner = Annotated[
    str, Form(r"\d{12}|self|amazon|aws-marketplace", "136693071363", "an account's id, or self")
]


def read(
    function: Callable[..., Any], kwargs: dict[str, Any] | None, command: str, given: int
) -> dict[str, Any]:
    """
    Return ``kwargs`` as the values that ``function`` takes after its first ``given`` parameters.

    ``command`` begins the right command line. Raises CloudError that names everything that is
    missing, unknown or wrong, and that line.
    """
    hints = typing.get_type_hints(function, include_extras=True)
    parameters = list(inspect.signature(function).parameters.values())[given:]
    known = {p.name: p for p in parameters if p.kind is not p.VAR_KEYWORD}
    free = [p for p in parameters if p.kind is p.VAR_KEYWORD]
    values: dict[str, Any] = {}
    wrong: list[str] = []
    for key, value in (kwargs or {}).items():
        if key not in known and not free:
            wrong.append(f"{key} is unknown")
            continue
        hint = hints[known[key].name if key in known else free[0].name]
        try:
            values[key] = _value(hint, str(value))
        except ValueError as error:
            wrong.append(f"{key}={value} is not {error}")
    absent = [
        p.name for p in known.values() if p.default is p.empty and p.name not in (kwargs or {})
    ]
    wrong += [f"{name} is missing" for name in absent]
    if free and not known and not kwargs:
        wrong.append(f"no {free[0].name} is given")
    if wrong:
        line = " ".join([command, *_line(parameters, hints)])
        raise aws.CloudError(f"{function.__name__}: {'; '.join(wrong)}; it is called with: {line}")
    return values


def _form(hint: Any) -> tuple[Any, Form]:
    """Return the type and the form behind an annotation, which may allow None as well."""
    if typing.get_origin(hint) in (typing.Union, UnionType):
        hint = next(each for each in typing.get_args(hint) if each is not type(None))
    kind, form = typing.get_args(hint)
    return kind, form


def _value(hint: Any, text: str) -> Any:
    kind, form = _form(hint)
    if not re.fullmatch(form.pattern, text):
        raise ValueError(form.words)
    if kind is int:
        return int(text)
    if kind is bool:
        return text.lower() in ("true", "yes")
    return text if kind is str else text.split(",")


def _line(parameters: list[inspect.Parameter], hints: dict[str, Any]) -> list[str]:
    words: list[str] = []
    for parameter in parameters:
        _, form = _form(hints[parameter.name])
        if parameter.kind is parameter.VAR_KEYWORD:
            word = f"<key>={form.example}"
            words.append(f"[{word}]" if words else word)
        elif parameter.default is parameter.empty:
            words.append(f"{parameter.name}={form.example}")
        else:
            words.append(f"[{parameter.name}={form.example}]")
    return words
