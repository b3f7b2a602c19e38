"""Our side of a training step, built as `train.py` builds an island; the other side is harness/peer.py.

Shapes of arrays: B windows, L tokens each.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import msgspec
import numpy as np
import torch
from torch.distributed.device_mesh import DeviceMesh

from atoll import recipe as recipes
from atoll.island.parallelize import parallelize
from atoll.island.ranks import own_rows
from atoll.island.step import Island
from atoll.model.llama import Llama
from atoll.model.presets import LlamaConfig
from atoll.objective import build

DOCUMENT_TOKENS = 128  # a packed window's documents, on average
INITIAL_STD = 0.02  # of the weights: what they are makes no difference to the time of a step
Step = Callable[[], object]


@dataclass(frozen=True, kw_only=True)
class Shape:
    """A model, and what one training step feeds it."""

    config: LlamaConfig
    num_windows: int  # of a micro-batch
    context_length: int
    num_micro_batches: int = 1
    activation_checkpointing: bool = False

    @property
    def tokens_per_step(self) -> int:
        return self.num_micro_batches * self.num_windows * self.context_length


@dataclass(frozen=True)
class Batch:
    """A micro-batch, as `Island` takes it: all [B, L], without columns."""

    tokens: np.ndarray
    labels: np.ndarray
    documents: np.ndarray
    by_token: Mapping[str, np.ndarray] = field(default_factory=dict)
    by_document: Mapping[str, np.ndarray] = field(default_factory=dict)


def some_batch(shape: Shape, packed: bool) -> Batch:
    """Random tokens, the same for both sides; `packed` windows hold documents of random lengths."""
    generator = np.random.default_rng(0)
    tokens = generator.integers(0, shape.config.vocab_size, (shape.num_windows, shape.context_length + 1))
    chance = 1 / DOCUMENT_TOKENS if packed else 0
    starts = generator.random((shape.num_windows, shape.context_length)) < chance
    return Batch(tokens[:, :-1], tokens[:, 1:], starts.cumsum(1).astype(np.int32))


def our_island(shape: Shape, mesh: DeviceMesh, *, compiled: bool = False, float8: bool = False) -> Island:
    """An island of this process alone, on the mesh's device, with weights that mean nothing."""
    run = recipes.load("demo")
    own = msgspec.structs.replace(
        run.island,
        activation_checkpointing=shape.activation_checkpointing,
        compile=compiled,
        float8=float8,
    )
    with torch.device("meta"):
        model = Llama(shape.config)
    parallelize(model, mesh, own)
    with torch.no_grad():
        for parameter in model.parameters():
            _, ours = own_rows(parameter)
            ours.fill_(1.0) if ours.ndim == 1 else ours.normal_(std=INITIAL_STD)
    return Island(model, build(run, shape.config.vocab_size), run, mesh)


def our_step(shape: Shape, batch: Batch, island: Island) -> Step:
    """A training step of the island. The host waits for the device at its end, since it reads the loss."""
    placed = [island.place(batch)] * shape.num_micro_batches

    def step() -> None:
        island.inner_step(placed, 0)
        island.read()

    return step
