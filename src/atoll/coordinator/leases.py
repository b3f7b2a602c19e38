"""Leases: which samples are spent, out, or free. The order of samples is a function, so a lease is a few integers."""

Ranges = tuple[tuple[int, int], ...]  # (first, count), ascending


class Leases:
    """Every sample index is in exactly one place: spent, out with one island, free again, or never handed out."""

    def __init__(self) -> None:
        self.fresh = 0  # everything from here on was never handed out
        self._free: list[tuple[int, int]] = []

    def take(self, count: int) -> Ranges:
        """`count` samples, returned ones first, so that the set of spent samples has no lasting gap."""
        taken: list[tuple[int, int]] = []
        while count and self._free:
            first, size = self._free.pop(0)
            if size > count:
                self._free.insert(0, (first + count, size - count))
                size = count
            taken.append((first, size))
            count -= size
        if count:
            taken.append((self.fresh, count))
            self.fresh += count
        return merge(taken)

    def give_back(self, ranges: Ranges) -> None:
        """A lease that no commit spent."""
        self._free = list(merge([*self._free, *ranges]))

    def spend(self, ranges: Ranges) -> None:
        """A commit that this coordinator had forgotten spent these. Raises ValueError where they are not free."""
        for first, count in ranges:
            end = first + count
            if end > self.fresh:
                self._free.append((self.fresh, end - self.fresh))
                self.fresh = end
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
        self.fresh = max((first + count for first, count in used), default=0)
        self._free, at = [], 0
        for first, count in used:
            if first > at:
                self._free.append((at, first - at))
            at = first + count


def split(ranges: Ranges, count: int) -> tuple[Ranges, Ranges]:
    """The first `count` samples, and the rest."""
    first: list[tuple[int, int]] = []
    rest: list[tuple[int, int]] = []
    for start, size in ranges:
        taken = min(size, count)
        count -= taken
        first += [(start, taken)] if taken else []
        rest += [(start + taken, size - taken)] if size > taken else []
    return tuple(first), tuple(rest)


def merge(ranges: list[tuple[int, int]]) -> Ranges:
    """Sorted, neighbours joined. Raises ValueError when two overlap: a sample would be spent twice."""
    merged: list[tuple[int, int]] = []
    for first, count in sorted(ranges):
        if merged and first < sum(merged[-1]):
            raise ValueError(f"sample {first} is in two leases")
        if merged and first == sum(merged[-1]):
            merged[-1] = (merged[-1][0], merged[-1][1] + count)
        else:
            merged.append((first, count))
    return tuple(merged)
