"""Which run a verb was given: by a recipe, or by the directory of a run that there is already."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from atoll.errors import UserError

if TYPE_CHECKING:  # `--help` does without
    from atoll.recipe import Recipe
    from atoll.run.directory import RunDir


def opened(options: argparse.Namespace) -> tuple[Recipe, RunDir]:
    """The recipe and the directory. Raises UserError for what is neither."""
    from atoll import recipe
    from atoll.run.directory import RunDir

    kept = RunDir(Path(options.recipe))
    if not kept.recipe.is_file():
        loaded = recipe.load(options.recipe, options.overrides, options.variant)
        return loaded, RunDir(options.dir or Path("runs") / loaded.name)
    if options.variant:
        raise UserError(f"{kept.path}: this is the directory of one variant already; leave --variant out")
    if options.dir is not None:
        raise UserError(f"{kept.path}: this is a run's directory already; leave --dir out")
    return recipe.load(kept.recipe, options.overrides), kept


def started(options: argparse.Namespace) -> RunDir | None:
    """The run that `--from` names. Raises UserError where there is none."""
    from atoll.run.directory import RunDir

    if options.start is None:
        return None
    start = RunDir(options.start)
    if not start.recipe.is_file():
        raise UserError(
            f"--from {start.path}: not a run's directory, which `atoll prepare` or `atoll join` makes"
        )
    return start


def has_variants(given: str) -> bool:
    """Whether a recipe, and not a run's directory, was given that is several runs. Raises UserError."""
    from atoll import recipe

    return not Path(given).is_dir() and bool(recipe.variants(given).variant)
