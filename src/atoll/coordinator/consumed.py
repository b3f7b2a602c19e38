"""What was consumed: committed samples by island and by source."""

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping

from atoll.samples import Ranges
from atoll.swarm.records import CommitRecord

CountSamples = Callable[[Ranges, tuple[int, ...]], Mapping[str, int]]


def count_nothing(ranges: Ranges, stage_starts: tuple[int, ...]) -> Mapping[str, int]:
    """For a run whose samples are of no source: a module and loop of one's own."""
    return {}


class Committed:
    """Committed samples by island and source."""

    def __init__(self, count_samples: CountSamples) -> None:
        """`count_samples` gives, of ranges of samples, how many are of each source: the mixture knows."""
        self.num_counted = 0  # commits
        self._count_samples = count_samples
        self._samples: defaultdict[str, Counter[str]] = defaultdict(Counter)

    def add(self, record: CommitRecord) -> None:
        self.num_counted += 1
        for island, lease in record.leases:
            self._samples[island].update(self._count_samples(lease, record.stage_starts))

    def tokens_by_source(self, island: str, context_length: int) -> dict[str, int]:
        return {source: count * context_length for source, count in self._samples[island].items()}


def sources_of(record: CommitRecord, count_samples: CountSamples, context_length: int) -> dict[str, int]:
    """The tokens of one commit by source; empty where samples are of no source."""
    total = Counter[str]()
    for _, lease in record.leases:
        total.update(count_samples(lease, record.stage_starts))
    return {source: count * context_length for source, count in sorted(total.items())}
