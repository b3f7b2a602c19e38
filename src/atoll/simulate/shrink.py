"""A short schedule in the place of a long one that goes wrong in the same way."""

from collections.abc import Callable, Sequence

from atoll.simulate.fault import Fault


def shrink(faults: Sequence[Fault], goes_wrong: Callable[[list[Fault]], bool]) -> list[Fault]:
    """The faults without those that need not be: with any one of them less, nothing goes wrong any more.

    Halves are tried first, then quarters, then single faults.
    """
    left, size = list(faults), max(1, len(faults) // 2)
    while True:
        start = 0
        while start < len(left):
            fewer = left[:start] + left[start + size :]
            if goes_wrong(fewer):
                left = fewer
            else:
                start += size
        if size == 1:
            return left
        size //= 2
