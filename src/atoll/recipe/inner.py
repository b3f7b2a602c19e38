"""`[inner]`: how an island trains alone, between two outer steps."""

from typing import Literal

from atoll.recipe.bounds import Decay, Factor, NonNegativeInt, PositiveFloat, PositiveInt, Rate, Strength
from atoll.recipe.table import Table


class AdamW(Table, frozen=True, tag_field="type", tag="adamw"):
    """AdamW for everything; weights decay in matrices only."""

    lr: Rate = 1e-3
    betas: tuple[Decay, Decay] = (0.9, 0.95)
    eps: PositiveFloat = 1e-8
    weight_decay: Strength = 0.1


class Muon(Table, frozen=True, tag_field="type", tag="muon"):
    """Muon for the matrices of the hidden layers; AdamW at the rate `adamw_lr` for the rest."""

    lr: Rate = 0.02
    momentum: Decay = 0.95
    weight_decay: Strength = 0.1
    adamw_lr: Rate = 1e-3


class Schedule(Table, frozen=True):
    """The factor on the inner learning rate, a pure function of the inner step."""

    type: Literal["wsd", "cosine", "linear", "constant"] = "wsd"
    warmup_steps: NonNegativeInt = 0
    decay_steps: NonNegativeInt = 0  # wsd only: length of the 1-sqrt decay before the last stage's end
    final: Factor = 0.0  # the factor at the very end; constant has none


class Inner(Table, frozen=True, kw_only=True):
    """The inner steps of one island."""

    context_length: PositiveInt  # tokens of a window
    tokens_per_step: PositiveInt  # of one island; a multiple of context_length
    optimizer: AdamW | Muon = AdamW()
    schedule: Schedule = Schedule()
    clip_norm: PositiveFloat = 1.0
    z_loss: Strength = 0.0  # weight of max-z-loss; 0: none
