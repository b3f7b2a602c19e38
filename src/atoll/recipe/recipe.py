"""The recipe as a whole: its tables, and what follows from them."""

from typing import Any

import msgspec
from blake3 import blake3

from atoll.recipe.about import About
from atoll.recipe.bounds import Int64, RunName, Share, SourceName, Url
from atoll.recipe.chat import Chat
from atoll.recipe.data import Source, Stages, Tokenizer
from atoll.recipe.inner import Inner
from atoll.recipe.island import Island
from atoll.recipe.model import Model
from atoll.recipe.objective import AnyObjective, Pretrain
from atoll.recipe.outer import Outer
from atoll.recipe.paths import leaves
from atoll.recipe.table import Table


class Recipe(Table, frozen=True, kw_only=True):
    """A run: what is trained, on what, and how."""

    name: RunName
    model: Model
    stage: Stages
    inner: Inner
    outer: Outer
    objective: AnyObjective = Pretrain()
    chat: Chat = Chat()
    tokenizer: Tokenizer = Tokenizer()
    sources: dict[SourceName, Source] = msgspec.field(default_factory=dict[str, Source])
    seed: Int64 = 0  # of the initial weights and the order of samples
    heldout_fraction: Share = 0.02  # of documents that are never trained on
    data_url: Url | None = None  # where islands that lack the prepared data find it; none given: their peers
    about: About = About()
    island: Island = Island()

    @property
    def num_outer_steps(self) -> int:
        """How many updates the run commits."""
        return -(-self.stage[-1].until // self.outer.inner_steps)

    @property
    def windows_per_step(self) -> int:
        """Windows that one island reads per inner step."""
        return self.inner.tokens_per_step // self.inner.context_length

    @property
    def partitioned(self) -> list[str]:
        """The private sources, sorted: they are in no machine's prepared data."""
        return sorted(name for name, source in self.sources.items() if source.partitioned)

    def mixture(self, stage: int) -> dict[str, float]:
        """Weights, among each other, of the sources that all islands can have."""
        return {
            name: weight
            for name, weight in self.stage[stage].mixture.items()
            if not self.sources[name].partitioned
        }

    def private_shares(self, stage: int) -> dict[str, float]:
        """Of all samples of a stage, the share that each private source is due."""
        weights = self.stage[stage].mixture
        return {name: weights[name] / sum(weights.values()) for name in self.partitioned if weights.get(name)}

    def shared(self) -> dict[str, Any]:
        """The run's part of the recipe as plain values: everything but `[island]`."""
        plain: dict[str, Any] = msgspec.to_builtins(self)
        del plain["island"]
        return plain

    def digest(self) -> str:
        """BLAKE3 of the run's part, as hex; equal on every machine."""
        return blake3(msgspec.json.encode(self.shared(), order="sorted")).hexdigest()


def with_only_source(recipe: Recipe) -> Recipe:
    """The recipe with its only source as the mixture of every stage that says none."""
    if len(recipe.sources) != 1:
        return recipe
    only = dict.fromkeys(recipe.sources, 1.0)
    stages = [
        stage if stage.mixture else msgspec.structs.replace(stage, mixture=only) for stage in recipe.stage
    ]
    return msgspec.structs.replace(recipe, stage=stages)


def differing_keys(ours: Recipe, theirs: Recipe) -> list[str]:
    """The dotted keys, outside `[island]`, on which two recipes differ."""
    left, right = leaves(ours.shared()), leaves(theirs.shared())
    return sorted(key for key in left.keys() | right.keys() if left.get(key) != right.get(key))
