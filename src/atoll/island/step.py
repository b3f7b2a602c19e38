"""One island's inner step: forward, backward, clip, optimizer. The host enqueues it and never waits for the
device.

The loss is exact in tokens, whatever the micro-batches and ranks: a sum over all tokens of the island's step,
divided by their number.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor

from atoll.island import optim
from atoll.island.feed import MicroBatch, Placed, place
from atoll.island.schedule import factor, rewarmed
from atoll.model.head import Sums, cross_entropy
from atoll.model.hf import Model
from atoll.recipe import Recipe


@dataclass(frozen=True)
class InnerMetrics:
    """What one inner step did."""

    loss: float  # mean cross-entropy per token of the island, in nats
    grad_norm: float  # before clipping
    tokens: int  # of the island, that counted in the loss
    learning_rate: float


class Unread(NamedTuple):
    """An inner step whose scalars are still on the device."""

    step: int
    loss_sum: Tensor  # of this rank
    num_tokens: Tensor  # of all ranks, int64
    grad_norm: Tensor
    learning_rate: float


class LossNotFiniteError(ArithmeticError):
    """The loss or the gradient is NaN or infinite. The weights are ruined; the swarm's, and the checkpoint,
    are not.
    """


class Island:
    """A model, its inner optimizers, and the step that joins them."""

    def __init__(self, model: Model, recipe: Recipe, mesh: DeviceMesh | None = None) -> None:
        """`mesh` holds the ranks that `model` is sharded over; None: this process alone."""
        self.model = model
        self.optimizers = optim.build(model, recipe.inner.optimizer)
        # The mesh's, where there is one: its parameters may be offloaded.
        self.device = torch.device(mesh.device_type) if mesh is not None else next(model.parameters()).device
        self._inner = recipe.inner
        self._total_steps = recipe.stage[-1].until
        self._group = mesh.get_group() if mesh is not None and mesh.size() > 1 else None
        self._unread: list[Unread] = []
        self._anew = 0, 0

    def warm_up_again(self, step: int, steps: int) -> None:
        """The optimizers begin anew at inner step `step`: their learning rates grow over `steps` steps from
        there.
        """
        self._anew = step, steps

    def inner_step(self, micro_batches: Sequence[Placed], step: int) -> None:
        """Train on all ranks' micro-batches as one batch; `step` counts all inner steps of the run from 0.

        Every rank brings as many micro-batches. What came of it is told by `read`.
        """
        self.model.train()
        num_tokens = self._summed(
            torch.full((), sum(b.num_labels for b in micro_batches), device=self.device)
        )
        loss_sums: list[Tensor] = []
        try:
            for batch in micro_batches:
                sums = self._sums(batch, self._inner.z_loss)
                (sums.objective / num_tokens).backward()
                loss_sums.append(sums.loss)
            norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), self._inner.clip_norm)
            scale = factor(self._inner.schedule, step, self._total_steps) * rewarmed(step, *self._anew)
            optim.scale_learning_rate(self.optimizers, scale)
            for optimizer in self.optimizers:
                optimizer.step()
        finally:  # a step that was broken off leaves nothing to the next
            for optimizer in self.optimizers:
                optimizer.zero_grad()
        norm = norm.full_tensor() if isinstance(norm, DTensor) else norm
        rate = self._inner.optimizer.lr * scale
        self._unread.append(Unread(step, torch.stack(loss_sums).sum(), num_tokens, norm, rate))

    def read(self) -> list[InnerMetrics]:
        """What the inner steps since the last reading did: here the host waits for the device.

        Raises LossNotFiniteError naming the first step whose loss or gradient norm is not finite.
        """
        unread, self._unread = self._unread, []
        if not unread:
            return []
        loss_sums = self._summed(torch.stack([u.loss_sum for u in unread])).tolist()
        counts = torch.stack([u.num_tokens for u in unread]).tolist()
        norms = torch.stack([u.grad_norm for u in unread]).tolist()
        metrics: list[InnerMetrics] = []
        for of, loss_sum, tokens, norm in zip(unread, loss_sums, counts, norms, strict=True):
            loss = loss_sum / tokens if tokens else math.nan
            if not math.isfinite(loss) or not math.isfinite(norm):
                raise LossNotFiniteError(
                    f"inner step {of.step}: loss {loss}, gradient norm {norm}, {tokens} tokens; start "
                    "this island again to go "
                    "on from the swarm's weights; a lower inner.optimizer.lr or a longer warm-up may help"
                )
            metrics.append(InnerMetrics(loss, norm, tokens, of.learning_rate))
        return metrics

    @torch.no_grad()
    def evaluate(self, batches: Iterable[MicroBatch]) -> tuple[float, int]:
        """The summed cross-entropy in nats, and the number of tokens it is of. Every rank gives the same
        batches.
        """
        self.model.eval()
        loss_sum, num_tokens = 0.0, 0
        for batch in batches:
            placed = place(batch, self.device)
            loss_sum += self._sums(placed, z_loss=0.0).loss.item()
            num_tokens += placed.num_labels
        if isinstance(self.model, FSDPModule):
            # which otherwise the backward pass does; until then parameters() would be whole ones
            self.model.reshard()
        return loss_sum, num_tokens

    def parameters(self) -> dict[str, Tensor]:
        """The trained parameters themselves (detached, sharing memory) by name, in state-dict order."""
        return {name: value.detach() for name, value in self.model.named_parameters() if value.requires_grad}

    def load(self, parameters: Mapping[str, Tensor | np.ndarray]) -> None:
        """Copy values into the parameters; ValueError unless the names and shapes are exactly those we
        have.
        """
        ours = self.parameters()
        if ours.keys() != parameters.keys():
            raise ValueError(
                f"these parameters are on one side only: {sorted(ours.keys() ^ parameters.keys())}"
            )
        for name, target in ours.items():
            value = parameters[name]
            if target.shape != value.shape:
                raise ValueError(f"{name}: shape {tuple(value.shape)} given, {tuple(target.shape)} needed")
            target.copy_(value if isinstance(value, Tensor) else torch.tensor(value))

    def _sums(self, batch: Placed, z_loss: float) -> Sums:
        return cross_entropy(
            self.model(batch.tokens, batch.mask), self.model.head_weight, batch.labels, z_loss
        )

    def _summed(self, values: Tensor) -> Tensor:
        """`values` summed over the ranks, on the device."""
        if self._group is not None:
            dist.all_reduce(values, group=self._group)
        return values
