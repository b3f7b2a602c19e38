"""Leases: which samples are spent, out, or free. The order of samples is a function, so a lease is a few
integers.
"""

from atoll.samples import Ranges, first_sample, merge, number_of


class Leases:
    """Every sample index is in exactly one place: spent, out with one island, free again, or never handed
    out.
    """

    def __init__(self) -> None:
        self._fresh: dict[
            int, int
        ] = {}  # by number (0: the mixture): everything from here on was never handed out
        self._free: list[tuple[int, int]] = []

    @property
    def fresh(self) -> int:
        """The first sample of the mixture that was never handed out."""
        return self._first_fresh(0)

    def _first_fresh(self, number: int) -> int:
        return self._fresh.get(number, first_sample(number))

    def turns(self, number: int) -> int:
        """How many turns of a partition were ever handed out."""
        return self._first_fresh(number) - first_sample(number)

    def take(self, count: int, number: int = 0) -> Ranges:
        """`count` samples of the mixture or a partition, returned ones first: the set of spent ones has no
        lasting gap.
        """
        taken: list[tuple[int, int]] = []
        kept: list[tuple[int, int]] = []
        for first, size in self._free:
            used = min(size, count) if number_of(first) == number else 0
            taken += [(first, used)] if used else []
            kept += [(first + used, size - used)] if size > used else []
            count -= used
        self._free = kept
        if count:
            first = self._first_fresh(number)
            taken.append((first, count))
            self._fresh[number] = first + count
        return merge(taken)

    def give_back(self, ranges: Ranges) -> None:
        """A lease that no commit spent."""
        self._free = list(merge([*self._free, *ranges]))

    def spend(self, ranges: Ranges) -> None:
        """A commit that this coordinator had forgotten spent these. Raises ValueError where they are not
        free.
        """
        for first, count in ranges:
            end, fresh = first + count, self._first_fresh(number_of(first))
            if end > fresh:
                self._free.append((fresh, end - fresh))
                self._fresh[number_of(first)] = end
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

    def restore(self, outstanding: list[Ranges], spent: list[Ranges]) -> None:
        """After a restart: whatever was handed out and is neither out nor spent is free."""
        used = merge([r for ranges in (*outstanding, *spent) for r in ranges])
        self._fresh, self._free = {}, []
        for first, count in used:
            at = self._first_fresh(number_of(first))
            if first > at:
                self._free.append((at, first - at))
            self._fresh[number_of(first)] = first + count
