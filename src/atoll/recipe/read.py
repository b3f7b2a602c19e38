"""How a recipe is read: from a file or a built-in name, with overrides; or from a run, with one's own island.

Whatever is wrong with a recipe ends in a UserError of the form `WHERE: at KEY.PATH: sentence`.
"""

import tomllib
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from atoll.errors import UserError
from atoll.given import read_text
from atoll.recipe.convert import convert
from atoll.recipe.island import Island
from atoll.recipe.overrides import override
from atoll.recipe.recipe import Recipe, with_only_source
from atoll.recipe.rules import check
from atoll.recipe.variants import Variant, Variants, become, choose, taken_out

Whole = TypeVar("Whole")
BUILT_IN_DIR = Path(__file__).parents[1] / "recipes"


def load(source: str | Path, overrides: list[str] | None = None, variant: str | Variant = "") -> Recipe:
    """The recipe in a TOML file, or a run's own recipe.json, or built in under a bare name; with overrides.

    `variant`: which of the recipe's variants, if it has some; or one that is not the recipe's own. Raises
    UserError for a file that is not there or cannot be read, an override that leads nowhere, a variant that
    it does not have, and whatever `parse` refuses.
    """
    path = find(source)
    tree = _tree(path)
    known = taken_out(tree, str(path)).variant
    if isinstance(variant, Variant):
        become(tree, variant)
    else:
        choose(tree, known, variant, str(path))
    for text in overrides or []:
        override(tree, text)
    return parse(tree, str(path))


def parse_as(source: str | Path, wanted: type[Whole]) -> Whole:
    """A TOML file of another kind than a recipe, as a struct of the type `wanted`. Raises UserError."""
    path = find(source)
    return convert(_tree(path), wanted, str(path))


def variants(source: str | Path) -> Variants:
    """A recipe's variants; none where it is one run. Raises UserError as `load` does."""
    path = find(source)
    return taken_out(_tree(path), str(path))


def _tree(path: Path) -> dict[str, Any]:
    try:
        text = read_text(path)
        return msgspec.json.decode(text) if path.suffix == ".json" else tomllib.loads(text)
    except (ValueError, msgspec.DecodeError) as error:  # not the format, or endless digits
        raise UserError(
            f"{path}: not valid {'JSON' if path.suffix == '.json' else 'TOML'}: {error}"
        ) from error


def find(source: str | Path) -> Path:
    """The path of a recipe's file; a bare name means one that ships with atoll. Raises UserError for none."""
    path = Path(source)
    built_in = BUILT_IN_DIR / f"{source}.toml"
    if path.is_file():
        return path
    if built_in.is_file():
        return built_in
    known = ", ".join(sorted(p.stem for p in BUILT_IN_DIR.glob("*.toml")))
    raise UserError(f"{source}: no such recipe; give a TOML file or one of the built-in names: {known}")


def parse(tree: dict[str, Any], where: str) -> Recipe:
    """A checked recipe from plain values; `where` names their origin in errors.

    Raises UserError about the first key that is unknown or missing, the first value that its type refuses,
    or the first rule that is broken.
    """
    recipe = with_only_source(convert(tree, Recipe, where))
    check(recipe, where)
    return recipe


def own_island(overrides: list[str]) -> Island:
    """This machine's [island] table, from overrides like `island.threads=2`.

    Raises UserError for any other key, and for a value that its type refuses.
    """
    tree: dict[str, Any] = {}
    for text in overrides:
        override(tree, text)
    if others := sorted(tree.keys() - {"island"}):
        raise UserError(
            f"{', '.join(others)}: the run's recipe decides this; only island.* is yours to set when joining"
        )
    return convert(tree.get("island", {}), Island, "this machine's settings", "island")


def with_island(shared: dict[str, Any], own: Island) -> Recipe:
    """The run's part of a recipe with this machine's own table. Raises UserError as `parse` does."""
    return parse(shared | {"island": msgspec.to_builtins(own)}, "the run's recipe")
