"""Overrides: `key.path=value`, as people write them on the command line."""

import tomllib
from typing import Any

from atoll.errors import UserError
from atoll.given import is_utf_8, named
from atoll.recipe.paths import assign, dead_end


def override(tree: dict[str, Any], text: str) -> None:
    """Put the value of an override into a recipe's plain values. What is not TOML is taken for a string, so
    that words need no quotes.

    Raises UserError for what is not an override, or leads nowhere.
    """
    if not is_utf_8(text):
        raise UserError(f"{named(text)}: not UTF-8, as a recipe must be; give files names that are")
    key, equals, right = text.partition("=")
    if not equals or not key.strip():
        raise UserError(f"{text}: not an override; write it as key.path=value")
    try:
        value = tomllib.loads(f"value = {right}")["value"]
    except ValueError:  # not TOML, or a number of more digits than Python reads
        value = right
    try:
        assign(tree, key.strip(), value)
    except (ValueError, IndexError, TypeError, AttributeError):
        raise UserError(
            f"{text}: there is no such place in the recipe: {dead_end(tree, key.strip())}"
        ) from None
