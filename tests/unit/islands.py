"""A tiny island, and batches for it."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import msgspec
import numpy as np
import torch

from atoll import recipe
from atoll.island.step import InnerMetrics, Island
from atoll.model.llama import Llama
from atoll.model.presets import resolve
from atoll.objective import build

OPTIMIZERS = {"adamw": recipe.AdamW(lr=1e-2), "muon": recipe.Muon()}


@dataclass(frozen=True)
class Batch:
    tokens: np.ndarray
    labels: np.ndarray
    documents: np.ndarray
    by_token: Mapping[str, np.ndarray] = field(default_factory=dict)
    by_document: Mapping[str, np.ndarray] = field(default_factory=dict)

    def windows(self, start: int, end: int) -> "Batch":
        columns = (
            {name: array[start:end] for name, array in each.items()}
            for each in (self.by_token, self.by_document)
        )
        return Batch(self.tokens[start:end], self.labels[start:end], self.documents[start:end], *columns)


def some_batch(seed: int = 0) -> Batch:
    """Four read-only windows of 24 tokens, two documents each, a quarter of the labels ignored."""
    generator = np.random.default_rng(seed)
    tokens = generator.integers(0, 64, (4, 25))
    labels = np.where(generator.random((4, 24)) < 0.25, -100, tokens[:, 1:])
    documents = np.tile((np.arange(24) >= 10).astype(np.int32), (4, 1))
    for array in (tokens, labels, documents):
        array.flags.writeable = False
    return Batch(tokens[:, :-1], labels, documents)


def some_recipe(
    optimizer: recipe.AdamW | recipe.Muon = OPTIMIZERS["adamw"], **inner: object
) -> recipe.Recipe:
    small = recipe.Model(preset="demo", vocab_size=64, hidden_size=32, intermediate_size=48)
    base = recipe.load("demo")
    schedule = recipe.Schedule(type="constant")
    inner = {"optimizer": optimizer, "schedule": schedule, "z_loss": 1e-3} | inner
    return msgspec.structs.replace(base, model=small, inner=msgspec.structs.replace(base.inner, **inner))


def some_island(described: recipe.Recipe | None = None) -> Island:
    described = described or some_recipe()
    model = Llama(resolve(described.model, 64))
    model.init_weights(described.seed)
    return Island(model, build(described, 64), described)


def take_step(island: Island, batches: list[Batch], step: int) -> InnerMetrics:
    island.inner_step([island.place(batch) for batch in batches], step)
    (metrics,) = island.read()
    return metrics


def values(island: Island) -> list[torch.Tensor]:
    return [value.clone() for value in island.parameters().values()]


def equal(a: list[torch.Tensor], b: list[torch.Tensor]) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))
