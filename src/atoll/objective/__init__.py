"""What is minimised: an objective turns a model and a batch into sums, whose quotient is the loss.

The gradient of an inner step is that of sum(objective) / sum(count) over all its micro-batches and ranks, so
it does not depend on how the step is cut. `build` gives the objective of a recipe.
"""

from atoll import recipe as recipes
from atoll.objective.distill import Distill
from atoll.objective.objective import MicroBatch, Model, Objective, Placed, Sums, place
from atoll.objective.preference import Preference
from atoll.objective.pretrain import Pretrain

__all__ = ["MicroBatch", "Model", "Objective", "Placed", "Sums", "build", "place"]


def build(recipe: recipes.Recipe, vocab_size: int) -> Objective:
    """The recipe's objective, for prepared data whose tokenizer has `vocab_size` tokens."""
    match recipe.objective:
        case recipes.Pretrain() | recipes.Sft():
            return Pretrain(recipe.inner.z_loss)
        case recipes.Distill() as settings:
            return Distill(settings, vocab_size)
        case settings:
            return Preference(settings)
