"""Whether the prepared data has what the objective needs of `atoll capture`."""

from atoll.data.manifest import Manifest
from atoll.errors import UserError
from atoll.recipe import Recipe
from atoll.recipe.objective import REFERENCE
from atoll.run.directory import RunDir
from atoll.words import command


def check_captured(recipe: Recipe, run_dir: RunDir) -> None:
    """Raises UserError where a column is missing, or is of another model than the run starts from."""
    if not recipe.objective.columns:
        return
    columns = {column.name: column for column in Manifest.load(run_dir.data).columns}
    for name in recipe.objective.columns:
        if name not in columns:
            raise UserError(
                f"{run_dir.data}: has no column {name!r}, or only a part of it, which this objective needs; "
                f"next: {command('capture', run_dir.path)}"
            )
    if REFERENCE in recipe.objective.columns and columns[REFERENCE].of != run_dir.state_0().root.hex():
        raise UserError(
            f"{run_dir.data}: the {REFERENCE} in it is of another model than this run starts from; prepare "
            "and capture again in a new --dir"
        )
