"""Held-out loss of an island's weights."""

from collections import defaultdict
from collections.abc import Iterable, Mapping

from atoll.island.step import Island
from atoll.objective import MicroBatch


def heldout_loss(
    island: Island, batches: Iterable[tuple[str, MicroBatch]], weights: Mapping[str, float]
) -> float:
    """Mean loss, as training counts it: first of each source, then averaged over sources by `weights`.

    `batches`: (source, micro-batch). `weights`: by source, summing to 1; sources without weight are left out.
    """
    sums: dict[str, float] = defaultdict(float)
    counts: dict[str, int] = defaultdict(int)
    for source, batch in batches:
        if weights.get(source):
            loss_sum, count = island.evaluate([batch])
            sums[source] += loss_sum
            counts[source] += count
    return sum(weight * sums[source] / counts[source] for source, weight in weights.items())
