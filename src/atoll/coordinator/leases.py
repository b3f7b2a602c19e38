"""Which samples are spent, leased or free.

The run's order of samples is a function of their numbers, so a lease is a few integers.
"""

from atoll.samples import Ranges, first_sample, merge, number_of


class Leases:
    """Every sample is in exactly one place: spent, leased to one island, free again, or fresh.

    A fresh sample was never leased. Partitions are named by their number; 0 is the mixture.
    """

    def __init__(self) -> None:
        self._first_fresh: dict[int, int] = {}  # by partition; from here on every sample is fresh
        self._free: list[tuple[int, int]] = []

    def first_fresh(self, partition: int = 0) -> int:
        """The first sample of the mixture, or of a partition, that was never leased."""
        return self._first_fresh.get(partition, first_sample(partition))

    def num_turns(self, partition: int) -> int:
        """How many turns of a partition were ever leased."""
        return self.first_fresh(partition) - first_sample(partition)

    def take(self, count: int, partition: int = 0) -> Ranges:
        """Lease `count` samples of the mixture or of a partition, free ones before fresh ones.

        So the gaps that returned leases leave among the spent samples are filled, and the set stays small.
        """
        taken: list[tuple[int, int]] = []
        kept: list[tuple[int, int]] = []
        for first, size in self._free:
            used = min(size, count) if number_of(first) == partition else 0
            taken += [(first, used)] if used else []
            kept += [(first + used, size - used)] if size > used else []
            count -= used
        self._free = kept
        if count:
            first = self.first_fresh(partition)
            taken.append((first, count))
            self._first_fresh[partition] = first + count
        return merge(taken)

    def give_back(self, ranges: Ranges) -> None:
        """Make leased samples free that no commit has spent."""
        self._free = list(merge([*self._free, *ranges]))

    def spend(self, ranges: Ranges) -> None:
        """Spend samples of a commit that this coordinator did not know: they were free or fresh to it.

        Raises ValueError if any is neither.
        """
        for first, count in ranges:
            end, fresh = first + count, self.first_fresh(number_of(first))
            if end > fresh:
                self._free.append((fresh, end - fresh))
                self._first_fresh[number_of(first)] = end
        left: list[tuple[int, int]] = []
        wanted = list(merge(list(ranges)))
        for first, count in merge(self._free):
            while wanted and wanted[0][0] < first + count:
                start, size = wanted.pop(0)
                if start < first or start + size > first + count:
                    raise ValueError(f"samples from {start} on are spent twice")
                if start > first:
                    left.append((first, start - first))
                first, count = start + size, first + count - start - size
            if count:
                left.append((first, count))
        if wanted:
            raise ValueError(f"samples from {wanted[0][0]} on are spent twice")
        self._free = left

    def restore(self, leased: list[Ranges], spent: list[Ranges]) -> None:
        """After a restart: a sample below the last one in either list, but in none of them, is free."""
        used = merge([r for ranges in (*leased, *spent) for r in ranges])
        self._first_fresh, self._free = {}, []
        for first, count in used:
            fresh = self.first_fresh(number_of(first))
            if first > fresh:
                self._free.append((fresh, first - fresh))
            self._first_fresh[number_of(first)] = first + count
