"""How an error writes what is allowed, and what was given: in the words of TOML."""

from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import msgspec

from atoll.words import listed

TOML_NAMES: dict[Any, str] = {
    str: "a string",
    bool: "true or false",
    int: "an integer",
    float: "a number",
    list: "an array",
    tuple: "an array",
    dict: "a table",
}
MAX_SHOWN = 60  # characters of a value


def members(hint: Any) -> list[Any]:
    """The types that a union allows, None left out since TOML has no such value; else the type alone."""
    if get_origin(hint) in (Union, UnionType):
        return [member for member in get_args(hint) if member is not NoneType]
    return [hint]


def bare(hint: Any) -> Any:
    """A type without its bounds."""
    return get_args(hint)[0] if get_origin(hint) is Annotated else hint


def allowed(hint: Any) -> str:
    """What completes "must be ..." for a type: the words of its bounds, where it has bounds."""
    return " or ".join(dict.fromkeys(map(_allowed, members(hint))))


def shown(value: Any) -> str:
    """A value that was given, on one line and not too long."""
    if isinstance(value, bool):
        return str(value).lower()
    try:
        text = "null" if value is None else repr(value)
    except ValueError:
        return "a number of more digits than Python writes"
    return text if len(text) <= MAX_SHOWN else f"{text[: MAX_SHOWN - 1]}…"


def _allowed(hint: Any) -> str:
    if get_origin(hint) is Annotated:
        words = [meta.description for meta in get_args(hint)[1:] if isinstance(meta, msgspec.Meta)]
        return next(filter(None, words), _allowed(bare(hint)))
    if get_origin(hint) is Literal:
        return listed(map(repr, get_args(hint)), "or")
    if get_origin(hint) is tuple:
        return f"an array of {len(get_args(hint))}, each {allowed(get_args(hint)[0])}"
    if name := TOML_NAMES.get(get_origin(hint) or hint):
        return name
    tag = hint.__struct_config__.tag
    return "a table" if tag is None else f"a table with type = {tag!r}"
