"""How good a checkpoint is, as one number: what a merge, and the variants of a recipe, are chosen by."""

from pathlib import Path

from atoll import recipe as recipes
from atoll.data.loader import Loader
from atoll.data.unigram import heldout_weights
from atoll.errors import UserError
from atoll.given import named
from atoll.island.heldout import heldout_loss
from atoll.island.step import Island
from atoll.model import hf
from atoll.recipe.merge import By
from atoll.run.directory import RunDir


class HeldoutLoss:
    """The loss of a checkpoint on all held-out windows of prepared data, sources weighted as first mixed."""

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
        """In nats for each token that counts. Raises UserError for a checkpoint that cannot be read."""
        island = Island(hf.open_model(checkpoint), self._recipe)
        vocabulary = len(island.model.head_weight)
        if vocabulary < self._data.manifest.vocab_size:
            raise UserError(
                f"{named(checkpoint)}: knows {vocabulary} tokens, and the held-out data has "
                f"{self._data.manifest.vocab_size}; prepare it with this model's tokenizer"
            )
        return heldout_loss(island, self._data.heldout(self._recipe.island.micro_batch), self._weights)


def metric_of(by: By) -> HeldoutLoss:
    """The metric that a recipe or a command line names. Raises UserError where what it needs is not there."""
    return HeldoutLoss(Path(by.heldout))
