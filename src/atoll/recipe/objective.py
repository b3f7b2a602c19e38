"""`[objective]`: what is minimised, and how the islands' work on it becomes one update.

The outer rate and momentum stand here because they are measured for each objective and never inherited:
where consecutive updates are nearly parallel, momentum multiplies the rate (docs/performance.md).
"""

from typing import ClassVar, Literal

from atoll.recipe.bounds import Decay, Factor, HalfShare, PositiveFloat, Rate
from atoll.recipe.table import Table

REFERENCE = "reference"  # column by document: its log-probability under the model that the run starts from
TEACHER = "teacher"  # column by token: a teacher's distribution there (objective/entries.py)
Rows = Literal["stream", "chats", "pairs"]  # what `atoll prepare` makes windows of


class Objective(Table, frozen=True, kw_only=True, tag_field="type"):
    """What every objective has: the settings of the outer optimizer, Nesterov's SGD. (1, 0) is averaging."""

    rows: ClassVar[Rows] = "chats"
    columns: ClassVar[tuple[str, ...]] = ()  # what `atoll capture` must have added to the prepared data
    has_z_loss: ClassVar[bool] = False  # whether inner.z_loss has an effect

    outer_lr: Rate = 0.7
    outer_momentum: Decay = 0.9


class Pretrain(Objective, frozen=True, kw_only=True, tag="pretrain"):
    """Cross-entropy of every token, in windows that are cut from a stream of documents."""

    rows: ClassVar[Rows] = "stream"
    has_z_loss: ClassVar[bool] = True


class Sft(Objective, frozen=True, kw_only=True, tag="sft"):
    """Cross-entropy of what the assistant says in chats."""

    has_z_loss: ClassVar[bool] = True

    outer_lr: Rate = 1.0
    outer_momentum: Decay = 0.5


class Preference(Objective, frozen=True, kw_only=True):
    """What the objectives on pairs of answers have."""

    rows: ClassVar[Rows] = "pairs"

    outer_lr: Rate = 1.0
    outer_momentum: Decay = 0.0


class Dpo(Preference, frozen=True, kw_only=True, tag="dpo"):
    """Direct preference optimisation (arXiv 2305.18290). The reference is what the run starts from."""

    columns: ClassVar[tuple[str, ...]] = (REFERENCE,)

    beta: PositiveFloat = 0.1
    label_smoothing: HalfShare = 0.0  # the share of pairs whose answers are the wrong way round


class Ipo(Preference, frozen=True, kw_only=True, tag="ipo"):
    """Identity preference optimisation (arXiv 2310.12036), on log-probabilities per token of each answer."""

    columns: ClassVar[tuple[str, ...]] = (REFERENCE,)

    beta: PositiveFloat = 0.1  # tau of the paper


class SimPo(Preference, frozen=True, kw_only=True, tag="simpo"):
    """Simple preference optimisation (arXiv 2405.14734), per token of each answer; it needs no reference."""

    beta: PositiveFloat = 2.0
    margin: PositiveFloat = 1.0  # gamma of the paper


class Distill(Objective, frozen=True, kw_only=True, tag="distill"):
    """KL divergence from a teacher's distribution over its likeliest tokens, and one bucket of the others."""

    columns: ClassVar[tuple[str, ...]] = (TEACHER,)

    temperature: PositiveFloat = 1.0  # of both; the divergence is multiplied by its square
    cross_entropy: Factor = 0.0  # the weight of the labels' cross-entropy; the divergence has the rest


AnyObjective = Pretrain | Sft | Dpo | Ipo | SimPo | Distill
