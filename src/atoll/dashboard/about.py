"""What a run's directory tells of it besides its events: its recipe, and how large its model is."""

from atoll import recipe as recipes
from atoll.dashboard.view import About
from atoll.errors import UserError
from atoll.run.directory import RunDir
from atoll.words import MAX_NAME_LENGTH, one_line


def about(run_dir: RunDir) -> About:
    """What is known of a run; of a directory that has events only, its name."""
    if not run_dir.recipe.is_file():
        return About(name=one_line(run_dir.path.resolve().name, MAX_NAME_LENGTH))
    recipe = recipes.load(run_dir.recipe)
    return About(
        name=recipe.name,
        num_outer_steps=recipe.num_outer_steps,
        inner_steps=recipe.outer.inner_steps,
        tokens_per_inner_step=recipe.inner.tokens_per_step,
        num_parameters=_num_parameters(run_dir),
        codec=recipe.outer.codec,
        mixture=[_shares(stage.mixture) for stage in recipe.stage],
        until=[stage.until for stage in recipe.stage],
    )


def _num_parameters(run_dir: RunDir) -> int | None:
    try:
        layout = run_dir.state_0().layout
    except UserError:  # it was not kept, or is elsewhere
        return None
    return sum(tensor.num_elements for tensor in layout.tensors)


def _shares(weights: dict[str, float]) -> dict[str, float]:
    total = sum(weights.values())
    return {source: weight / total for source, weight in weights.items()} if total else {}
