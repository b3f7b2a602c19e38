"""How good a checkpoint is, as one number: what a merge, and the variants of a recipe, are chosen by."""

import math
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import torch

from atoll import objective as objectives
from atoll import recipe as recipes
from atoll.data.loader import Batch, Loader
from atoll.data.unigram import heldout_weights
from atoll.errors import UserError
from atoll.given import expanded, named
from atoll.island.heldout import heldout_loss
from atoll.island.step import Island
from atoll.model import hf
from atoll.post.score import TaskScore
from atoll.recipe.metric import By, check_by
from atoll.run.directory import RunDir


class HeldoutLoss:
    """The loss of a checkpoint on all held-out windows of prepared data, by the objective of their recipe.

    Sources are weighted as they are first mixed.
    """

    name, higher_is_better = "held-out loss", False

    def __init__(self, prepared: Path) -> None:
        """`prepared`: a run's directory. Raises UserError where no data is prepared, or none is held out."""
        run_dir = RunDir(prepared)
        if not run_dir.recipe.is_file():
            raise UserError(f"{named(prepared)}: no run is prepared here; run `atoll prepare` first")
        self._recipe = recipes.load(run_dir.recipe)
        self._data = Loader(run_dir.data, self._recipe)
        self._weights = heldout_weights(self._data.manifest, self._recipe.mixture(0))

    def __call__(self, checkpoint: Path) -> float:
        """In nats for each token or pair. Raises UserError for a checkpoint that cannot be read."""
        return self._loss(self._island(checkpoint))

    def figures(self, checkpoint: Path) -> dict[str, float]:
        """The loss, and the means over all that is held out of what else the objective measures.

        Of shares, as an accuracy is, also the standard error.
        """
        island = self._island(checkpoint)
        found = {"loss": self._loss(island)}
        if not island.objective.metrics:
            return found
        sums: dict[str, float] = defaultdict(float)
        count = 0
        with torch.no_grad():
            for _, batch in self._batches():
                placed = island.place(batch)
                for name, value in island.objective.sums(island.model, placed).metrics.items():
                    sums[name] += value.item()
                count += placed.count
        found |= {name: value / count for name, value in sums.items()}
        if (share := found.get("accuracy")) is not None:
            found["accuracy_stderr"] = math.sqrt(share * (1 - share) / count)
        return found | {island.objective.counts: count}

    def _island(self, checkpoint: Path) -> Island:
        model, vocab_size = hf.open_model(checkpoint), self._data.manifest.vocab_size
        if len(model.head_weight) < vocab_size:
            raise UserError(
                f"{named(checkpoint)}: knows {len(model.head_weight)} tokens, and the held-out data has "
                f"{vocab_size}; prepare it with this model's tokenizer"
            )
        return Island(model, objectives.build(self._recipe, vocab_size), self._recipe)

    def _loss(self, island: Island) -> float:
        return heldout_loss(island, self._batches(), self._weights)

    def _batches(self) -> Iterator[tuple[str, Batch]]:
        return self._data.heldout(self._recipe.island.micro_batch)


def metric_of(by: By, directory: Path) -> HeldoutLoss | TaskScore:
    """The metric that a recipe or a command line names; `directory`: where the results of tasks are kept.

    Raises UserError where what it needs is not there.
    """
    check_by(by, "by")
    if by.heldout is not None:
        return HeldoutLoss(expanded(by.heldout))
    return TaskScore(by, directory)
