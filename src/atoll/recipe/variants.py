"""`[[variant]]`: several runs of one recipe, each with overrides of its own; and by what they are ranked."""

from typing import Any, cast

from msgspec import field

from atoll.errors import UserError
from atoll.recipe.bounds import NonEmptyStr, RunName
from atoll.recipe.convert import convert
from atoll.recipe.metric import By, check_by
from atoll.recipe.overrides import override
from atoll.recipe.table import Table
from atoll.words import listed


class Variant(Table, frozen=True, kw_only=True):
    """One of the runs."""

    name: RunName
    set: list[NonEmptyStr]  # overrides of the recipe, as on the command line
    note: str = ""  # for people: in the plan of a pipeline, and in the ranking


class Variants(Table, frozen=True, kw_only=True):
    """All of a recipe's."""

    variant: list[Variant] = field(default_factory=list[Variant])
    rank_by: By | None = None  # none given: each by the loss on what its own run holds out

    @property
    def names(self) -> list[str]:
        return [variant.name for variant in self.variant]


def taken_out(tree: dict[str, Any], where: str) -> Variants:
    """The variants of a recipe's plain values, which no longer hold them. Raises UserError."""
    found = {key: tree.pop(key) for key in ("variant", "rank_by") if key in tree}
    variants = convert(found, Variants, where)
    check_names(variants.variant, f"{where}: at variant")
    if variants.rank_by is not None:
        if not variants.variant:
            raise UserError(f"{where}: at rank_by: has no effect without variants; leave it out")
        check_by(variants.rank_by, f"{where}: at rank_by")
    return variants


def check_names(variants: list[Variant], where: str) -> None:
    """Raises UserError where two have the same name."""
    names = [variant.name for variant in variants]
    if twice := {name for name in names if names.count(name) > 1}:
        raise UserError(f"{where}: {listed(sorted(twice))}: given twice; a name is a directory's")


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
    if chosen is not None:
        become(tree, chosen)


def become(tree: dict[str, Any], variant: Variant) -> None:
    """Make a recipe's plain values those of a variant. Raises UserError for an override of nothing."""
    for text in variant.set:
        override(tree, text)
    if isinstance(tree.get("name"), str):
        tree["name"] = f"{cast(str, tree['name'])}-{variant.name}"
