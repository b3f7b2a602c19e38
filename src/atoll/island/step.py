"""One island's inner step: forward, backward, clip, optimizer. The loss is exact in tokens whatever the micro-batches.

Shapes: B windows of a micro-batch, L tokens each.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from atoll.island import optim
from atoll.island.schedule import factor
from atoll.model.attention import Mask
from atoll.model.head import IGNORED, CrossEntropy, cross_entropy
from atoll.model.llama import Llama
from atoll.recipe import Recipe


class MicroBatch(Protocol):
    """What the island reads of a batch: all [B, L]."""

    @property
    def tokens(self) -> np.ndarray: ...  # int64
    @property
    def labels(self) -> np.ndarray: ...  # int64, the next token; -100 is ignored
    @property
    def documents(self) -> np.ndarray: ...  # int32, one value per contiguous document


@dataclass(frozen=True)
class InnerMetrics:
    """What one inner step did."""

    loss: float  # mean cross-entropy per token, in nats
    grad_norm: float  # before clipping
    tokens: int  # that counted in the loss
    learning_rate: float


class LossNotFiniteError(ArithmeticError):
    """The loss or the gradient is NaN or infinite: the weights were not changed by this step."""


class Island:
    """A model, its inner optimizers, and the step that joins them."""

    def __init__(self, model: Llama, recipe: Recipe) -> None:
        self.model = model
        self.optimizers = optim.build(model, recipe.inner.optimizer)
        self._inner = recipe.inner
        self._total_steps = recipe.stage[-1].until
        self._device = next(model.parameters()).device

    def inner_step(self, micro_batches: Sequence[MicroBatch], step: int) -> InnerMetrics:
        """Train on the micro-batches as one batch; `step` counts all inner steps of the run from 0.

        Raises LossNotFiniteError, before anything changed, if loss or gradient is not finite; ValueError where no
        token has a label.
        """
        num_tokens = sum(int((batch.labels != IGNORED).sum()) for batch in micro_batches)
        if num_tokens == 0:
            raise ValueError(f"inner step {step}: no token of the batch has a label")
        self.model.train()
        try:
            loss_sum = 0.0
            for batch in micro_batches:
                sums = self._sums(batch, self._inner.z_loss)
                (sums.objective / num_tokens).backward()
                loss_sum += sums.loss.item()
            norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), self._inner.clip_norm).item()
            if not np.isfinite(loss_sum) or not np.isfinite(norm):
                raise LossNotFiniteError(
                    f"inner step {step}: loss {loss_sum / num_tokens}, gradient norm {norm}; "
                    "the weights are those before this step; a lower inner.optimizer.lr or a longer warm-up may help"
                )
            scale = factor(self._inner.schedule, step, self._total_steps)
            optim.scale_learning_rate(self.optimizers, scale)
            for optimizer in self.optimizers:
                optimizer.step()
        finally:  # a step that was broken off leaves nothing to the next
            for optimizer in self.optimizers:
                optimizer.zero_grad()
        return InnerMetrics(loss_sum / num_tokens, norm, num_tokens, self._inner.optimizer.lr * scale)

    @torch.no_grad()
    def evaluate(self, batches: Iterable[MicroBatch]) -> tuple[float, int]:
        """The summed cross-entropy in nats, and the number of tokens it is of."""
        self.model.eval()
        loss_sum, num_tokens = 0.0, 0
        for batch in batches:
            sums = self._sums(batch, z_loss=0.0)
            loss_sum += sums.loss.item()
            num_tokens += int(sums.num_tokens)
        return loss_sum, num_tokens

    def parameters(self) -> dict[str, Tensor]:
        """The trained parameters themselves (detached, sharing memory) by name, in state-dict order."""
        return {name: value.detach() for name, value in self.model.named_parameters() if value.requires_grad}

    def load(self, parameters: Mapping[str, Tensor | np.ndarray]) -> None:
        """Copy values into the parameters; ValueError unless the names and shapes are exactly those we have."""
        ours = self.parameters()
        if ours.keys() != parameters.keys():
            raise ValueError(f"these parameters are on one side only: {sorted(ours.keys() ^ parameters.keys())}")
        for name, target in ours.items():
            value = parameters[name]
            if target.shape != value.shape:
                raise ValueError(f"{name}: shape {tuple(value.shape)} given, {tuple(target.shape)} needed")
            target.copy_(value if isinstance(value, Tensor) else torch.tensor(value))

    def _sums(self, batch: MicroBatch, z_loss: float) -> CrossEntropy:
        # torch.tensor copies: a loader may hand out read-only mappings, which torch must not alias.
        mask = Mask.of_documents(torch.tensor(batch.documents))
        tokens = torch.tensor(batch.tokens, device=self._device)
        labels = torch.tensor(batch.labels, device=self._device)
        return cross_entropy(self.model(tokens, mask), self.model.head_weight, labels, z_loss)
