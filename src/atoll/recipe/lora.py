"""`model.lora`: train low-rank adapters of a checkpoint in the place of its weights (arXiv 2106.09685)."""

from typing import Annotated

from msgspec import Meta

from atoll.recipe.bounds import NonEmptyStr, PositiveFloat, PositiveInt
from atoll.recipe.table import Table

LINEAR_LAYERS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
Names = Annotated[
    tuple[NonEmptyStr, ...],
    Meta(min_length=1, description="an array of at least one string that is not empty"),
]


class Lora(Table, frozen=True, kw_only=True):
    """The adapters: to the output of each layer W x, alpha / rank B A x is added."""

    rank: PositiveInt = 16
    alpha: PositiveFloat = 32.0
    layers: Names = LINEAR_LAYERS  # the last parts of the names of the linear layers that get one
