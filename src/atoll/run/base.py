"""The checkpoint that a run began with, on a machine that joins: its own copy, or the hub's."""

import msgspec

from atoll import recipe as recipes
from atoll.errors import UserError
from atoll.evaluate.hub import fetched
from atoll.given import named
from atoll.recipe import Recipe

DESCRIPTION = ("*.json",)  # all that is needed of a checkpoint whose weights are in the run's state


def with_base(recipe: Recipe) -> recipes.Model:
    """The recipe's model; where it begins with a checkpoint, `from` leads to one that is on this machine.

    It is looked for at `island.base`, or else at `model.from`; where nothing is there, it is fetched from the
    hub by the name that the recipe gives as `about.base_model`. Whether it holds the run's weights is for
    `check_base` to say. Raises UserError where it is nowhere.
    """
    model = recipe.model
    if model.from_ is None:
        return model
    if recipe.island.base is not None:
        model = msgspec.structs.replace(model, from_=recipe.island.base)
    if model.checkpoint.exists():
        return model
    what = "trains adapters beside" if model.lora is not None else "trains a model described in"
    missing = f"{recipe.name} {what} a checkpoint that is not on this machine: {named(model.checkpoint)}"
    help_ = "copy it here, and say where it is with island.base=DIR"
    if recipe.about.base_model is None:
        raise UserError(f"{missing}; {help_}")
    try:
        patterns = None if model.lora is not None else DESCRIPTION
        return msgspec.structs.replace(model, from_=str(fetched(recipe.about.base_model, patterns)))
    except UserError as error:
        raise UserError(f"{missing}; {error}; {help_}") from error
