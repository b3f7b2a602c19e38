"""Held-out loss of an island's weights."""

from collections import defaultdict
from collections.abc import Iterable, Mapping

from atoll.island.step import Island, MicroBatch


def heldout_loss(
    island: Island, batches: Iterable[tuple[str, MicroBatch]], weights: Mapping[str, float]
) -> float:
    """Mean cross-entropy per token in nats: first of each source, then averaged over sources by `weights`.

    `batches`: (source, micro-batch). `weights`: by source, summing to 1; sources without weight are left out.
    """
    sums: dict[str, float] = defaultdict(float)
    counts: dict[str, int] = defaultdict(int)
    for source, batch in batches:
        if weights.get(source):
            loss_sum, num_tokens = island.evaluate([batch])
            sums[source] += loss_sum
            counts[source] += num_tokens
    return sum(weight * sums[source] / counts[source] for source, weight in weights.items())
