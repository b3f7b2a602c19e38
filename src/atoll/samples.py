"""Sample indices and ranges of them: places in the mixture's order or, from 2**40 on, turns of a partition.

A partition is the part of a private source that one machine holds. Its number is the high bits of its
samples' indices; the low 40 bits are the turn. The number is computed from source, partition name and data,
so neither a database nor a restored backup of one can confuse two partitions, and a lease needs nothing but
ranges of integers.
"""

from collections.abc import Iterable, Sequence

from blake3 import blake3

TURN_BITS, HASH_BITS = 40, 16
Ranges = tuple[tuple[int, int], ...]  # (first sample, number of samples), ascending


def partition_number(sources: Sequence[str], name: str, digest: str) -> int:
    """The number of the partition `name` (SOURCE/NAME) whose data has the digest `digest`, in hex.

    `sources`: the names of the run's partitioned sources, sorted (`Recipe.partitioned`).
    """
    hashed = int.from_bytes(blake3(f"{name} {digest}".encode()).digest(2), "big")
    return (1 + sources.index(source_of(name))) << HASH_BITS | hashed


def source_of(partition: str) -> str:
    """The source of which the partition named SOURCE/NAME is a part."""
    return partition.partition("/")[0]


def number_of(sample: int) -> int:
    """The number of the partition that a sample belongs to, or 0 for a sample of the mixture."""
    return sample >> TURN_BITS


def first_sample(number: int) -> int:
    """The index of the first sample, turn 0, of partition `number`."""
    return number << TURN_BITS


def private_source(sample: int, sources: Sequence[str]) -> str:
    """The partitioned source that a sample belongs to, or "" for a sample of the mixture.

    `sources`: as in `partition_number`. Raises IndexError for a partition of none of them.
    """
    number = number_of(sample)
    return sources[(number >> HASH_BITS) - 1] if number else ""


def num_samples(ranges: Iterable[tuple[int, int]]) -> int:
    """How many samples the ranges (first, count) hold together."""
    return sum(count for _, count in ranges)


def split(ranges: Ranges, count: int) -> tuple[Ranges, Ranges]:
    """The ranges of the first `count` samples, and the ranges of the rest."""
    first: list[tuple[int, int]] = []
    rest: list[tuple[int, int]] = []
    for start, size in ranges:
        taken = min(size, count)
        count -= taken
        first += [(start, taken)] if taken else []
        rest += [(start + taken, size - taken)] if size > taken else []
    return tuple(first), tuple(rest)


def merge(ranges: Iterable[tuple[int, int]]) -> Ranges:
    """The same samples as ascending ranges, neighbouring ranges joined into one.

    Raises ValueError when two ranges overlap: a sample would be spent twice.
    """
    merged: list[tuple[int, int]] = []
    for first, count in sorted(ranges):
        if merged and first < sum(merged[-1]):
            raise ValueError(f"sample {first} is in two leases")
        if merged and first == sum(merged[-1]):
            merged[-1] = (merged[-1][0], merged[-1][1] + count)
        else:
            merged.append((first, count))
    return tuple(merged)
