"""`[outer]`: how the islands' work becomes one update."""

from typing import Literal

from atoll.recipe.bounds import PositiveFloat, PositiveInt
from atoll.recipe.table import Table


class Outer(Table, frozen=True, kw_only=True):
    """The outer step; the rate and momentum of its optimizer belong to the objective."""

    inner_steps: PositiveInt  # H of the DiLoCo paper
    codec: Literal["fp32", "bf16", "int8"] = "int8"
    min_participants: PositiveInt = 1  # no update is made of fewer islands
    # A pseudo-gradient of more than so many times the usual norm is refused. What is usual is the median of
    # the others or, where there are fewer than two, that of the island itself before.
    max_norm_ratio: PositiveFloat = 10.0
    checkpoint_every: PositiveInt = 10  # outer steps between outer checkpoints
