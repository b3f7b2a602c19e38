"""Objectives on pairs of answers: DPO, IPO and SimPO.

Documents 2 i and 2 i + 1 of a window are a pair: the answer that was chosen, then the one that was rejected,
each after its whole prompt. What is left over at a window's end is padding.

Shapes: B windows, L tokens of a window, D documents of a window, P pairs of a window.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from atoll import recipe as recipes
from atoll.model.head import IGNORED, log_probabilities
from atoll.objective.objective import MicroBatch, Model, Placed, Sums
from atoll.recipe.objective import REFERENCE


class Pairs(NamedTuple):
    """Of each pair of each window, chosen minus rejected [B, P]; 0 where there is no pair."""

    difference: Tensor
    are_there: Tensor  # bool


class Preference:
    """The objective of the settings' type. Its margin is the reward's: what beta multiplies, times beta."""

    counts = "pairs"
    metrics = ("margin", "accuracy")

    def __init__(self, settings: recipes.Dpo | recipes.Ipo | recipes.SimPo) -> None:
        self._settings = settings

    def count(self, batch: MicroBatch) -> int:
        return int(((batch.documents.max(1) + 1) // 2).sum())

    def sums(self, model: Model, batch: Placed) -> Sums:
        # The documents of pairs; what is beyond them is padding in every window.
        of_pairs = slice(0, batch.num_documents // 2 * 2)
        values, num_labels = (each[:, of_pairs] for each in by_document(model, batch))
        if REFERENCE in self._settings.columns:
            values = values - batch.by_document[REFERENCE][:, of_pairs]
        if not isinstance(self._settings, recipes.Dpo):  # per token, else the longer answer counts for more
            values = values / num_labels.clamp(min=1)
        difference, are_there = paired(values, batch)
        losses = self._losses(difference).where(are_there, 0.0)
        margin = (self._settings.beta * difference.detach()).where(are_there, 0.0)
        objective = losses.sum()
        return Sums(
            objective.float(),
            objective.detach().float(),
            {"margin": margin.sum().float(), "accuracy": (margin > 0).sum().float()},
        )

    def _losses(self, difference: Tensor) -> Tensor:
        match self._settings:
            case recipes.Dpo(beta=beta, label_smoothing=wrong):
                reward = beta * difference
                return -(1 - wrong) * logsigmoid(reward) - wrong * logsigmoid(-reward)
            case recipes.Ipo(beta=beta):
                return (difference - 1 / (2 * beta)).square()
            case recipes.SimPo(beta=beta, margin=margin):
                return -logsigmoid(beta * difference - margin)


def by_document(model: Model, batch: Placed) -> tuple[Tensor, Tensor]:
    """(the log-probability of all labels of each document, fp64 [B, D]; how many these are, int64 [B, D]).

    Sums are in fp64, where the difference of two large ones is still exact to fp32's precision.
    """
    hidden = model(batch.tokens, batch.mask)
    logprobs = log_probabilities(hidden, model.head_weight, batch.labels).double()
    shape = len(batch.tokens), batch.num_documents
    sums = logprobs.new_zeros(shape).scatter_add(1, batch.documents, logprobs)
    labels = (batch.labels != IGNORED).long()
    return sums, labels.new_zeros(shape).scatter_add(1, batch.documents, labels)


def paired(values: Tensor, batch: Placed) -> Pairs:
    """The pairs in `values` [B, 2 P], one number a document; NaN is allowed where there is no pair."""
    num_pairs = (batch.documents.amax(1, keepdim=True) + 1) // 2
    most = values.shape[1] // 2
    are_there = torch.arange(most, device=values.device) < num_pairs
    of_pairs = values.unflatten(1, (most, 2)).where(are_there.unsqueeze(2), 0.0)
    return Pairs(of_pairs[..., 0] - of_pairs[..., 1], are_there)
