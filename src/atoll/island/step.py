"""The inner step of an island: forward, backward, clip, optimizer. The host does not wait for the device.

The loss is the objective's sum over the step, on all ranks, divided by how much it counts there. So it does
not depend on how the step is cut into micro-batches and ranks.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor

from atoll.errors import UserError
from atoll.island import optim
from atoll.island.schedule import factor, rewarmed
from atoll.model.hf import Model
from atoll.model.lora import trained
from atoll.objective import MicroBatch, Objective, Placed, place
from atoll.recipe import Recipe


@dataclass(frozen=True, kw_only=True)
class InnerMetrics:
    """What an island, all ranks together, measured in one inner step."""

    loss: float | None  # mean, as the objective says; None where there was nothing to count
    gradient_norm: float  # before clipping
    count: int  # of what the objective counts: tokens, or pairs
    learning_rate: float
    further: dict[str, float] = field(
        default_factory=dict[str, float]
    )  # the objective's other means, by name


@dataclass(frozen=True, kw_only=True)
class Unread:
    """What one inner step measured, still on the device."""

    step: int
    sums: Tensor  # [1 + further metrics], over this rank's micro-batches; the loss comes first
    count: Tensor  # of all ranks, int64
    gradient_norm: Tensor
    learning_rate: float


class LossNotFiniteError(UserError):
    """The loss or the gradient norm is NaN or infinite, so the weights in memory are useless.

    The swarm's outer state and the inner checkpoint are not affected.
    """


class Island:
    """A model and its inner optimizers, with the inner step that trains them."""

    def __init__(
        self, model: Model, objective: Objective, recipe: Recipe, mesh: DeviceMesh | None = None
    ) -> None:
        """`mesh`: the ranks over which `model` is sharded, or None for this process alone."""
        self.model, self.objective = model, objective
        self.optimizers = optim.build(model, recipe.inner.optimizer)
        # The mesh's device where there is a mesh, since the parameters may be offloaded to the host.
        self.device = torch.device(mesh.device_type) if mesh is not None else next(model.parameters()).device
        self._inner = recipe.inner
        self._total_steps = recipe.stage[-1].until
        self._group = mesh.get_group() if mesh is not None and mesh.size() > 1 else None
        self._unread: list[Unread] = []
        self._rewarm_start, self._rewarm_steps = 0, 0

    def warm_up_again(self, step: int, num_steps: int) -> None:
        """Let the learning rates grow over `num_steps` inner steps from `step` on, beside the schedule.

        For optimizers that begin with fresh moments at inner step `step`.
        """
        self._rewarm_start, self._rewarm_steps = step, num_steps

    def place(self, batch: MicroBatch) -> Placed:
        """The micro-batch on this island's device, as `inner_step` takes it."""
        return place(batch, self.device, self.objective)

    def inner_step(self, micro_batches: Sequence[Placed], step: int) -> None:
        """Train on the micro-batches of all ranks as one batch; `step` counts the run's inner steps from 0.

        Every rank must give the same number of micro-batches. A step in which nothing counts teaches nothing,
        so it leaves parameters and moments alone. `read` returns what the step measured.
        """
        self.model.train()
        scale = factor(self._inner.schedule, step, self._total_steps)
        scale *= rewarmed(step, self._rewarm_start, self._rewarm_steps)
        rate = self._inner.optimizer.lr * scale
        own_count = sum(batch.count for batch in micro_batches)
        count = self._sum_over_ranks(torch.full((), own_count, device=self.device))
        # Only a rank without labels waits for the device to know whether the others have some.
        if not own_count and not count.item():
            nothing = torch.zeros((), device=self.device)
            sums = nothing.expand(1 + len(self.objective.metrics))
            self._unread.append(
                Unread(step=step, sums=sums, count=count, gradient_norm=nothing, learning_rate=rate)
            )
            return
        all_sums: list[Tensor] = []
        try:
            for batch in micro_batches:
                sums = self.objective.sums(self.model, batch)
                (sums.objective / count).backward()
                all_sums.append(torch.stack((sums.loss, *sums.metrics.values())))
            norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), self._inner.clip_norm)
            optim.scale_learning_rate(self.optimizers, scale)
            for optimizer in self.optimizers:
                optimizer.step()
        finally:  # also after an exception: the next step must not add to these gradients
            for optimizer in self.optimizers:
                optimizer.zero_grad()
        norm = norm.full_tensor() if isinstance(norm, DTensor) else norm
        self._unread.append(
            Unread(
                step=step,
                sums=torch.stack(all_sums).sum(0),
                count=count,
                gradient_norm=norm,
                learning_rate=rate,
            )
        )

    def read(self) -> list[InnerMetrics]:
        """The metrics of the inner steps since the last `read`; the host waits here for the device.

        Raises LossNotFiniteError naming the first step whose loss or gradient norm is not finite.
        """
        unread, self._unread = self._unread, []
        if not unread:
            return []
        all_sums = self._sum_over_ranks(torch.stack([done.sums for done in unread])).tolist()
        counts = torch.stack([done.count for done in unread]).tolist()
        norms = torch.stack([done.gradient_norm for done in unread]).tolist()
        metrics: list[InnerMetrics] = []
        for done, (loss_sum, *sums), count, norm in zip(unread, all_sums, counts, norms, strict=True):
            loss = loss_sum / count if count else None
            if not math.isfinite(loss_sum) or not math.isfinite(norm):
                raise LossNotFiniteError(
                    f"inner step {done.step}: loss {loss}, gradient norm {norm}, {count} "
                    f"{self.objective.counts}; start this island again to go on from the swarm's weights; a "
                    "lower inner.optimizer.lr or a longer warm-up may help"
                )
            names = self.objective.metrics if count else ()
            further = {name: value / count for name, value in zip(names, sums, strict=False)}
            metrics.append(
                InnerMetrics(
                    loss=loss,
                    gradient_norm=norm,
                    count=count,
                    learning_rate=done.learning_rate,
                    further=further,
                )
            )
        return metrics

    @torch.no_grad()
    def evaluate(self, batches: Iterable[MicroBatch]) -> tuple[float, int]:
        """(summed loss, how much it is summed over), as training counts; ranks give the same batches."""
        self.model.eval()
        loss_sum, count = 0.0, 0
        for batch in batches:
            placed = self.place(batch)
            loss_sum += self.objective.sums(self.model, placed).loss.item()
            count += placed.count
        if isinstance(self.model, FSDPModule):
            # The backward pass would do this. Until it is done, `parameters` would return unsharded ones.
            self.model.reshard()
        return loss_sum, count

    def parameters(self) -> dict[str, Tensor]:
        """As `model.lora.trained`: what islands exchange."""
        return trained(self.model)

    def load(self, parameters: Mapping[str, Tensor | np.ndarray]) -> None:
        """Copy values into the trained parameters. Raises ValueError unless names and shapes match."""
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

    def _sum_over_ranks(self, values: Tensor) -> Tensor:
        """`values` summed over the ranks, in place, on the device."""
        if self._group is not None:
            dist.all_reduce(values, group=self._group)
        return values
