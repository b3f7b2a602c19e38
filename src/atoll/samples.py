"""Sample numbers, and ranges of them: places in the order of the mixture; or, from 2**40 on, turns of a
partition.

A partition is the part of a private source that one machine holds. Its number names source, partition and
data, so that neither a database nor a restored backup of it can mix up two of them; leases stay ranges of
integers.
"""

from collections.abc import Iterable, Sequence

from blake3 import blake3

TURN_BITS, HASH_BITS = 40, 16
Ranges = tuple[tuple[int, int], ...]  # (first, count), ascending


def partition_number(sources: Sequence[str], name: str, digest: str) -> int:
    """The number of partition `name` (SOURCE/NAME) with data of that digest. `sources`: the run's partitioned
    ones.
    """
    hashed = int.from_bytes(blake3(f"{name} {digest}".encode()).digest(2), "big")
    return (1 + sources.index(source_of(name))) << HASH_BITS | hashed


def source_of(partition: str) -> str:
    """The source that a partition, SOURCE/NAME, is a part of."""
    return partition.partition("/")[0]


def number_of(sample: int) -> int:
    """The partition that a sample is of; 0: the mixture."""
    return sample >> TURN_BITS


def first_sample(number: int) -> int:
    """Turn 0 of a partition."""
    return number << TURN_BITS


def private_source(sample: int, sources: Sequence[str]) -> str:
    """The partitioned source that a sample is of; "" for one of the mixture. Raises IndexError for none of
    the run's.
    """
    number = number_of(sample)
    return sources[(number >> HASH_BITS) - 1] if number else ""


def num_samples(ranges: Iterable[tuple[int, int]]) -> int:
    return sum(count for _, count in ranges)


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


def merge(ranges: Iterable[tuple[int, int]]) -> Ranges:
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
