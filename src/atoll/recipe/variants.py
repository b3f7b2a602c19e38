"""`[[variant]]`: several runs of one recipe, each with overrides of its own."""

from typing import Any, cast

from atoll.errors import UserError
from atoll.recipe.bounds import NonEmptyStr, RunName
from atoll.recipe.convert import convert
from atoll.recipe.overrides import override
from atoll.recipe.table import Table
from atoll.words import listed


class Variant(Table, frozen=True):
    """One of the runs."""

    name: RunName
    set: list[NonEmptyStr]  # overrides of the recipe, as on the command line


def taken_out(tree: dict[str, Any], where: str) -> list[Variant]:
    """The variants of a recipe's plain values, which no longer hold them. Raises UserError."""
    variants = convert(tree.pop("variant", []), list[Variant], where, "variant")
    names = [variant.name for variant in variants]
    if twice := {name for name in names if names.count(name) > 1}:
        raise UserError(f"{where}: at variant: {listed(sorted(twice))}: given twice; a name is a directory's")
    return variants


def choose(tree: dict[str, Any], variants: list[Variant], name: str, where: str) -> None:
    """Make a recipe's plain values those of the variant called `name`. Raises UserError."""
    chosen = next((variant for variant in variants if variant.name == name), None)
    known = listed([variant.name for variant in variants]) or "no variants"
    if variants and not name:
        raise UserError(
            f"{where}: has variants ({known}); choose one with --variant NAME, or train all of them"
        )
    if name and chosen is None:
        raise UserError(f"{where}: has no variant {name!r}; there are: {known}")
    for text in chosen.set if chosen else []:
        override(tree, text)
    if chosen and isinstance(tree.get("name"), str):
        tree["name"] = f"{cast(str, tree['name'])}-{chosen.name}"
