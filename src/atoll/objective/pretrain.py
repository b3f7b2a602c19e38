"""Cross-entropy of the tokens that have labels: of pre-training, and of chats, where only some have."""

from atoll.model.head import cross_entropy
from atoll.objective.objective import MicroBatch, Model, Placed, Sums, num_labels


class Pretrain:
    """The cross-entropy, in nats, and the max-z-loss. Supervised fine-tuning is the same, of other labels."""

    counts = "tokens"
    metrics = ()

    def __init__(self, z_loss: float = 0.0) -> None:
        self._z_loss = z_loss

    def count(self, batch: MicroBatch) -> int:
        return num_labels(batch)

    def sums(self, model: Model, batch: Placed) -> Sums:
        hidden = model(batch.tokens, batch.mask)
        found = cross_entropy(hidden, model.head_weight, batch.labels, self._z_loss)
        return Sums(found.objective, found.loss, {})
