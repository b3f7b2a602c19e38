"""`[outer]`: how the islands' work becomes one update."""

from typing import Literal

from atoll.recipe.bounds import PositiveFloat, PositiveInt
from atoll.recipe.table import Table


class Outer(Table, frozen=True, kw_only=True):
    """The outer step; the rate and momentum of its optimizer belong to the objective."""

    inner_steps: PositiveInt  # H of the DiLoCo paper
    codec: Literal["fp32", "bf16", "int8"] = "int8"
    min_participants: PositiveInt = 1  # no update is made of fewer islands
    # A pseudo-gradient of more than so many times the usual norm is multiplied by what makes it that long, or
    # refused. Usual is the median of the others, and of what the island itself gave before.
    clip_norm_ratio: PositiveFloat = 3.0
    max_norm_ratio: PositiveFloat = 10.0
    checkpoint_every: PositiveInt = 10  # outer steps between outer checkpoints
