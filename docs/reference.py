"""The reference of recipes, made from the structs that read them: keys, what is allowed, defaults, comments.

`python docs/tables.py` puts it into recipes.md.
"""

import inspect
import re
from typing import Any, get_args, get_origin

import msgspec
from harness.markdown import table
from msgspec.structs import fields

from atoll.recipe import Recipe
from atoll.recipe.table import Table
from atoll.recipe.words import allowed, bare, members

FIELD = re.compile(r"^    (\w+): ")


def reference() -> str:
    """A section for each table of a recipe, in the order in which it is read."""
    return "\n\n".join(_sections(Recipe, "", set()))


def comments(kind: type) -> dict[str, str]:
    """What the source says of each field: at its line's end, on the lines below it, or just above it."""
    found: dict[str, str] = {}
    above: list[str] = []
    within = ""
    for line in inspect.getsource(kind).splitlines():
        text = line.strip()
        if match := FIELD.match(line):
            within, end = match[1], text.partition("  # ")[2]
            found[within] = " ".join([*above, end]).strip()
            above = []
        elif text.startswith("# "):
            above.append(text[2:])
        else:
            end = text.partition("  # ")[2]
            if within and end and not found[within]:
                found[within] = end
            above = []
            within = within if text else ""
    return found


def _sections(kind: type[Table], path: str, seen: set[type]) -> list[str]:
    """The section of a table at a dotted path, and those of the tables within it."""
    seen.add(kind)
    tag = kind.__struct_config__.tag
    rows: list[tuple[str, ...]] = [("key", "allowed", "default", "meaning")]
    below: list[str] = []
    meanings = {name: text for base in reversed(kind.__mro__[:-1]) for name, text in _of(base).items()}
    for field in fields(kind):
        key = f"{path}.{field.encode_name}".lstrip(".")
        inner = [each for member in members(field.type) for each in _tables(member)]
        if inner:
            where = _place(field, key)
            for each in inner:
                if each not in seen:
                    below += _sections(each, where, seen)
        else:
            said = allowed(field.type).replace("|", "\\|")
            rows.append((f"`{key}`", said, _default(field), meanings.get(field.name, "")))
    title = f"`{path or 'at the top'}`" if path else "At the top"
    if isinstance(tag, str):
        title += f', `type = "{tag}"`'
    document = " ".join((inspect.getdoc(kind) or "").split())
    body = [f"### {title}", document]
    if len(rows) > 1:
        body.append(table(rows))
    return ["\n\n".join(body), *below]


def _of(kind: type) -> dict[str, str]:
    return comments(kind) if kind.__module__.startswith("atoll.recipe") else {}


def _tables(hint: Any) -> list[type[Table]]:
    """The tables that a value may be, or hold."""
    hint = bare(hint)
    if isinstance(hint, type) and issubclass(hint, Table):
        return [hint]
    below = [member for argument in get_args(hint) for member in members(argument)]
    return [each for member in below for each in _tables(member)]


def _place(field: msgspec.structs.FieldInfo, key: str) -> str:
    """Where a table stands: one by name, one of several, or just there."""
    kind = next((get_origin(bare(member)) for member in members(field.type)), None)
    return f"{key}.NAME" if kind is dict else f"{key}.0" if kind in (list, tuple) else key


def _default(field: msgspec.structs.FieldInfo) -> str:
    if field.required:
        return "none: it must be given"
    value = field.default_factory() if field.default is msgspec.NODEFAULT else field.default
    if value is None:
        return ""
    return f"`{msgspec.json.encode(value).decode()}`"
