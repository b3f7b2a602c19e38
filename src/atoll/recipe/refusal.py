"""Why plain values are not a recipe: the path of the first value that its type refuses, and a sentence.

msgspec decides what is allowed. It says neither under which name of a table like `[sources]` a wrong value
stands nor what it was, so what it has refused is searched once more for the smallest part that is refused.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple, TypeGuard, TypeVar, cast, get_args, get_origin

import msgspec

from atoll.errors import UserError
from atoll.recipe.paths import joined
from atoll.recipe.words import allowed, bare, listed, members, shown

Wanted = TypeVar("Wanted")


class Fault(NamedTuple):
    """What is wrong with a recipe."""

    path: str  # dotted, of the value that has to change; "" is the whole recipe
    sentence: str


def refusal(where: str, fault: Fault) -> UserError:
    """The error about a fault; `where` names the origin of the recipe."""
    return UserError(f"{where}: at {fault.path or 'the top level'}: {fault.sentence}")


def convert(tree: object, wanted: type[Wanted], where: str, path: str = "") -> Wanted:
    """Plain values as a struct; `path` says where in a recipe they stand.

    Raises UserError about the first value that its type refuses.
    """
    try:
        return msgspec.convert(tree, wanted)
    except msgspec.ValidationError as error:
        raise refusal(where, _fault(tree, wanted, path)) from error


def _fault(value: Any, hint: Any, path: str) -> Fault:
    """The fault of a value that the type `hint` refuses: of its first part that is refused, or of itself."""
    meant = _meant(value, hint)
    for name, part, part_hint in _parts(value, meant):
        if _is_refused(part, part_hint):
            return _fault(part, part_hint, joined(path, name))
    return Fault(path, _fault_of_keys(value, meant) or f"must be {allowed(hint)}, not {shown(value)}")


def _is_refused(value: Any, hint: Any) -> bool:
    try:
        msgspec.convert(value, hint)
    except msgspec.ValidationError:
        return True
    return False


def _meant(value: Any, hint: Any) -> Any:
    """The table's or array's type, of those that `hint` allows, that a value is meant for; None for none."""
    for choice in map(bare, members(hint)):
        is_array = isinstance(value, list) and get_origin(choice) in (list, tuple)
        is_mapping = isinstance(value, dict) and get_origin(choice) is dict
        if (
            is_array
            or is_mapping
            or (isinstance(value, dict) and _is_struct(choice) and _is_tagged(value, choice))
        ):
            return choice
    return None


def _parts(value: Any, hint: Any) -> Iterator[tuple[str | int, Any, Any]]:
    """The name, value and type of each part of a value, but for keys that its type does not know."""
    if _is_struct(hint):
        hints = {field.encode_name: field.type for field in msgspec.structs.fields(hint)}
        yield from ((key, part, hints[key]) for key, part in value.items() if key in hints)
    elif get_origin(hint) is dict:
        yield from ((key, part, get_args(hint)[1]) for key, part in value.items())
    elif get_origin(hint) is list:
        yield from ((number, part, get_args(hint)[0]) for number, part in enumerate(value))
    elif get_origin(hint) is tuple:
        yield from ((number, *each) for number, each in enumerate(zip(value, get_args(hint), strict=False)))


def _fault_of_keys(value: Any, hint: Any) -> str:
    """What is wrong with the keys of a table, its values being right; "" for nothing."""
    if get_origin(hint) is dict:
        wrong = (key for key in value if _is_refused(key, get_args(hint)[0]))
        return next((f"a key must be {allowed(get_args(hint)[0])}, not {shown(key)}" for key in wrong), "")
    if _is_struct(hint):
        fields = msgspec.structs.fields(hint)
        known = [field.encode_name for field in fields]
        for key in value:
            if key not in known and key != hint.__struct_config__.tag_field:
                return f"unknown key `{key}`; the keys here are {listed(known)}"
        for field in fields:
            if field.required and field.encode_name not in value:
                return f"missing required key `{field.encode_name}`"
    return ""


def _is_struct(hint: Any) -> TypeGuard[type[msgspec.Struct]]:
    return isinstance(hint, type) and issubclass(hint, msgspec.Struct)


def _is_tagged(value: Any, struct: type[msgspec.Struct]) -> bool:
    """Whether a table has the tag of a struct, or the struct has none."""
    config = struct.__struct_config__
    return config.tag_field is None or cast(dict[str, Any], value).get(config.tag_field) == config.tag
