"""Dotted paths, as in `stage.0.until`: how people name a value of a recipe, and how errors answer them."""

from typing import Any, cast


def joined(path: str, part: str | int) -> str:
    """The path of a part of what is at `path`; the whole recipe is at ""."""
    return f"{path}.{part}" if path else str(part)


def leaves(tree: Any, path: str = "") -> dict[str, Any]:
    """Every value that is neither a table nor an array, by its path."""
    if isinstance(tree, dict):
        parts = list(cast(dict[str, Any], tree).items())
    elif isinstance(tree, list):
        parts = list(enumerate(cast(list[Any], tree)))
    else:
        return {path: tree}
    return {at: leaf for part, value in parts for at, leaf in leaves(value, joined(path, part)).items()}


def assign(tree: dict[str, Any], path: str, value: Any) -> None:
    """Put `value` at `path`, making the tables on the way that are not there yet.

    Raises ValueError, IndexError, TypeError or AttributeError where the path leads through something that
    has no such part.
    """
    *parents, last = path.split(".")
    node: Any = tree
    for parent in parents:
        place = _place(node, parent)
        if place == parent and parent not in node:
            node[parent] = {}
        node = node[place]
    node[_place(node, last)] = value


def dead_end(tree: dict[str, Any], path: str) -> str:
    """Why a path leads nowhere: where it ends, and what there is instead."""
    node: Any = tree
    walked = ""
    for part in path.split("."):
        if isinstance(node, list):
            count = len(cast(list[Any], node))
            if not (part.isdecimal() and int(part) < count):
                last = f"{walked}.{count - 1}" if count else "nothing"
                return f"{walked} is an array of {count}, whose last is {last}"
        elif not isinstance(node, dict):
            return f"{walked} is a value, and has no parts"
        node, walked = cast(Any, node)[_place(node, part)], joined(walked, part)
    return f"{walked} cannot be set"


def _place(node: Any, part: str) -> str | int:
    """How a part of a path finds its place: by number in an array, by name in a table."""
    return int(part) if isinstance(node, list) else part
