"""Which window is sample number i: a pure function of recipe, data and i.

Sources take turns in a pattern of 1,000 samples that repeats, so weights hold exactly in every period of a stage. A
source's windows come in a keyed order that is new in each pass: first the blocks of 64 windows are permuted, then the
windows within a block, so that neighbouring samples of a large corpus lie in few places of it.
"""

from bisect import bisect_right
from collections.abc import Sequence
from fractions import Fraction
from functools import lru_cache
from math import isqrt, lcm
from typing import NamedTuple

import numpy as np
from blake3 import blake3

from atoll.data.manifest import Manifest
from atoll.errors import UserError
from atoll.recipe import Recipe

PERIOD = 1000  # samples
BLOCK_WINDOWS = 64
ROUNDS = 4
MASK = (1 << 64) - 1


class Sample(NamedTuple):
    source: str
    window: int  # of the source's training split
    pass_number: int  # how many times the source has been read through before


class Mixture:
    """The order of samples. The number of islands does not enter into it."""

    def __init__(self, stages: Sequence[dict[str, float]], num_windows: dict[str, int], seed: int) -> None:
        """`stages`: weights per source, one dict per stage; `num_windows`: of each source's training split.

        Raises UserError for weights that are negative, all zero or too small to be met, and sources without windows.
        """
        self._sources = sorted(num_windows)
        self._num_windows, self._seed = num_windows, seed
        self.counts = [_counts(weights) for weights in stages]  # per stage: samples in every 1,000, by source
        for name in sorted({name for counts in self.counts for name in counts}):
            if num_windows.get(name, 0) < 1:
                raise UserError(f"sources.{name}: the mixture asks for it, but it has no window to train on")
        self._patterns = [_pattern([counts.get(name, 0) for name in self._sources]) for counts in self.counts]
        # _before[stage][n][j]: how often source j occurs in the first n samples of a period, n = 0..PERIOD
        self._before = [_running_counts(pattern, len(self._sources)) for pattern in self._patterns]

    @classmethod
    def of(cls, recipe: Recipe, manifest: Manifest) -> "Mixture":
        """The order of samples of a run over its prepared data; raises UserError for a source that is too small."""
        length = recipe.inner.context_length
        num_windows: dict[str, int] = {}
        for name in recipe.sources:
            if name not in manifest.sources:
                raise UserError(f"sources.{name}: not in the prepared data; run `atoll prepare` in a fresh directory")
            num_tokens = manifest.sources[name].num_tokens("train")
            if num_tokens < length and any(stage.mixture.get(name) for stage in recipe.stage):
                raise UserError(f"sources.{name}: {num_tokens} tokens to train on, less than one window of {length}")
            num_windows[name] = -(-num_tokens // length)
        return cls([stage.mixture for stage in recipe.stage], num_windows, recipe.seed)

    def sample(self, index: int, stage_starts: Sequence[int]) -> Sample:
        """Sample number `index`, in microseconds. `stage_starts`: the index at which each stage so far began."""
        stage = bisect_right(stage_starts, index) - 1
        if index < 0 or not 0 <= stage < len(self._patterns):
            raise ValueError(f"sample {index} lies in no stage: they began at {list(stage_starts)}")
        source = self._patterns[stage][(index - stage_starts[stage]) % PERIOD]
        drawn = self._drawn(stage, index - stage_starts[stage], source)
        for earlier in range(stage):
            drawn += self._drawn(earlier, stage_starts[earlier + 1] - stage_starts[earlier], source)
        name = self._sources[source]
        pass_number, position = divmod(drawn, self._num_windows[name])
        window = _permuted(position, self._num_windows[name], _key(self._seed, name, pass_number))
        return Sample(name, window, pass_number)

    def _drawn(self, stage: int, num_samples: int, source: int) -> int:
        """How many of a stage's first `num_samples` samples come from a source."""
        periods, rest = divmod(num_samples, PERIOD)
        before = self._before[stage]
        return periods * int(before[PERIOD, source]) + int(before[rest, source])


def _counts(weights: dict[str, float]) -> dict[str, int]:
    """Samples of each source in 1,000, by largest remainder; those of weight 0 are left out."""
    exact = {name: Fraction(weight) for name, weight in weights.items()}  # so that the order of sums is nothing
    total = sum(exact.values())
    if total <= 0 or min(exact.values()) < 0:
        raise UserError(f"mixture: weights must be at least 0 and not all 0: {weights}")
    share = {name: weight * PERIOD / total for name, weight in exact.items() if weight}
    counts = {name: int(part) for name, part in share.items()}
    by_remainder = sorted(share, key=lambda name: (counts[name] - share[name], name))
    for name in by_remainder[: PERIOD - sum(counts.values())]:
        counts[name] += 1
    for name, count in counts.items():
        if count == 0:
            raise UserError(f"mixture: {name} weighs less than one sample in {PERIOD}; give it more, or 0")
    return counts


def _pattern(counts: list[int]) -> list[int]:
    """The source of each sample of a period, spread so evenly that no prefix is a whole window off for any source.

    Tijdeman's rule for the chairman assignment problem: of the sources that may have another turn without running
    ahead, the one that would fall behind first. All in integers.
    """
    turns = [0] * len(counts)
    used = [count for count in counts if count]
    slack, common = max(2 * len(used) - 2, 1), lcm(*used)
    pattern: list[int] = []
    for n in range(PERIOD):
        # after its turn a source is ahead of its due by at most 1 - 1/slack turns
        ready = [j for j, count in enumerate(counts) if slack * (count * (n + 1) - turns[j] * PERIOD) >= PERIOD]
        chosen = min(ready, key=lambda j: ((turns[j] + 1) * slack - 1) * (common // counts[j]))
        turns[chosen] += 1
        pattern.append(chosen)
    return pattern


def _running_counts(pattern: list[int], num_sources: int) -> np.ndarray:
    """[PERIOD + 1, num_sources] int64: occurrences of each source before each place of the pattern."""
    running = np.zeros((PERIOD + 1, num_sources), np.int64)
    running[np.arange(1, PERIOD + 1), pattern] = 1
    return running.cumsum(axis=0)


@lru_cache(maxsize=1024)
def _key(seed: int, source: str, pass_number: int) -> int:
    return int.from_bytes(blake3(f"{seed}/{pass_number}/{source}".encode()).digest(8), "little")


def _permuted(position: int, num_windows: int, key: int) -> int:
    """The window at `position` of a pass: blocks permuted, windows permuted within their block."""
    num_blocks = -(-num_windows // BLOCK_WINDOWS)
    tail = num_windows - (num_blocks - 1) * BLOCK_WINDOWS  # windows in the last block, 1..64
    tail_at = _hash(key, ROUNDS) % num_blocks * BLOCK_WINDOWS  # where in the pass the short block is read
    if tail_at <= position < tail_at + tail:
        block, within = num_blocks - 1, position - tail_at
    else:
        turn, within = divmod(position - tail * (position >= tail_at), BLOCK_WINDOWS)
        block = _feistel(turn, num_blocks - 1, key)
    size = tail if block == num_blocks - 1 else BLOCK_WINDOWS
    return block * BLOCK_WINDOWS + _feistel(within, size, _hash(key, block + ROUNDS + 1))


def _feistel(x: int, size: int, key: int) -> int:
    """A keyed permutation of range(size). The network's domain, rows x columns, is the least that covers it; a result
    outside is sent through again (cycle walking), which is rare and ends because the network is a permutation."""
    rows = isqrt(size - 1) + 1
    columns = -(-size // rows)
    while True:
        left, right = divmod(x, columns)
        for turn in range(ROUNDS):
            left = (left + _hash(key ^ right, turn)) % rows
            right = (right + _hash(key ^ (left << 32), turn)) % columns
        x = left * columns + right
        if x < size:
            return x


def _hash(key: int, number: int) -> int:
    """64 well mixed bits of a key and a number (splitmix64's finalizer)."""
    z = (key + (number + 1) * 0x9E3779B97F4A7C15) & MASK
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
    return z ^ (z >> 31)
