"""From plain values, as TOML has them, to structs; and why a value is refused.

msgspec decides what is allowed. It says neither under which name of a table like `[sources]` a wrong value
stands nor what it was, so what it has refused is searched once more for the smallest part that is refused.
"""

from collections.abc import Iterator
from typing import Any, TypeGuard, TypeVar, get_args, get_origin

import msgspec

from atoll.recipe.bounds import MAX_INT
from atoll.recipe.fault import Fault
from atoll.recipe.paths import joined
from atoll.recipe.words import allowed, bare, members, shown
from atoll.words import listed

Wanted = TypeVar("Wanted")


def convert(tree: object, wanted: type[Wanted], where: str, path: str = "") -> Wanted:
    """Plain values as a struct of the type `wanted`.

    `where` names the origin of the recipe, and `path` says where in it these values stand. Raises UserError
    about the first of them that its type refuses.
    """
    try:
        return msgspec.convert(tree, wanted)
    except msgspec.ValidationError as error:
        raise _fault(tree, wanted, path).error(where) from error


def _fault(value: Any, hint: Any, path: str) -> Fault:
    """The fault of a value that the type `hint` refuses: of its first part that is refused, or of itself."""
    meant = _meant(value, hint)
    if meant is None and isinstance(value, dict) and (kinds := _tags(hint)):
        return _fault_of_tag(value, kinds, path)
    for name, part, part_hint in _parts(value, meant):
        if _is_refused(part, part_hint):
            return _fault(part, part_hint, joined(path, name))
    return Fault(path, _fault_of_keys(value, meant) or _fault_of_all(value, hint))


def _fault_of_tag(value: Any, kinds: dict[str, str], path: str) -> Fault:
    """The fault of a table that is of none of the kinds allowed; `kinds`: the key that tells it, by tag."""
    key = next(iter(kinds.values()))
    there = listed(map(repr, kinds), "or")
    if key not in value:
        return Fault(path, f"missing required key `{key}`, which is {there}")
    return Fault(joined(path, key), f"must be {there}, not {shown(value[key])}")


def _tags(hint: Any) -> dict[str, str]:
    """The key that tells the kinds of the tables that a type allows, by kind; none for tables of one kind."""
    configs = (choice.__struct_config__ for choice in map(bare, members(hint)) if _is_struct(choice))
    return {str(config.tag): config.tag_field for config in configs if config.tag_field is not None}


def _is_refused(value: Any, hint: Any) -> bool:
    try:
        msgspec.convert(value, hint)
    except msgspec.ValidationError:
        return True
    return False


def _meant(value: Any, hint: Any) -> Any:
    """The table's or array's type, of those that `hint` allows, that a value is meant for; None for none."""
    for choice in map(bare, members(hint)):
        if isinstance(value, list) and get_origin(choice) in (list, tuple):
            return choice
        if isinstance(value, dict) and (get_origin(choice) is dict or _is_tagged(value, choice)):
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
    """What is wrong with the keys of a table whose values are right; "" for nothing."""
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


def _fault_of_all(value: Any, hint: Any) -> str:
    """What is wrong with a value that has no part to blame."""
    is_wide = isinstance(value, int) and abs(value) > MAX_INT
    if is_wide and int in map(bare, members(hint)):
        return f"must be an integer of at most 64 bits, not {shown(value)}"
    return f"must be {allowed(hint)}, not {shown(value)}"


def _is_struct(hint: Any) -> TypeGuard[type[msgspec.Struct]]:
    return isinstance(hint, type) and issubclass(hint, msgspec.Struct)


def _is_tagged(table: Any, hint: Any) -> bool:
    """Whether `hint` is a struct, and one without a tag or with the tag that the table has."""
    if not _is_struct(hint):
        return False
    config = hint.__struct_config__
    return config.tag_field is None or table.get(config.tag_field) == config.tag
