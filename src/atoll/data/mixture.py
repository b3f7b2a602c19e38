"""The order of samples: which window sample i stands for, a pure function of recipe, data and i.

Sources take turns in a pattern of 1,000 samples that repeats (`pattern.py`), so the weights hold exactly in
any 1,000 samples of a stage. Each stage's pattern takes account of the samples before it, so that the weights
hold across a change of stage too: to within 2 windows of each source in any 1,000 samples.

A source's windows are read in a pseudo-random order that is new in each pass. First the blocks of 64 windows
are permuted, then the windows within a block (`permutation.py`), so that successive samples lie in few places
of a large corpus.
"""

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Sequence
from fractions import Fraction
from functools import lru_cache
from math import isfinite
from typing import NamedTuple

import numpy as np
from blake3 import blake3

from atoll.data.manifest import Manifest
from atoll.data.pattern import PERIOD, leads, pattern
from atoll.data.permutation import permuted
from atoll.errors import UserError
from atoll.recipe import Recipe
from atoll.samples import private_source


class Sample(NamedTuple):
    """The window that a sample stands for."""

    source: str  # or the name of a partition
    window: int  # its number in the source's training split
    pass_number: int  # how often the whole source has been read before


class Mixture:
    """The order of samples, which does not depend on the number of islands.

    `stage_starts`, in its methods, are the sample indices at which the stages so far began: [0, ...].
    """

    def __init__(
        self,
        stages: Sequence[dict[str, float]],
        num_windows: dict[str, int],
        seed: int,
        partitioned: Sequence[str] = (),
    ) -> None:
        """`stages`: the weights by source, of each stage. `num_windows`: of each source's training split.

        `partitioned`: the run's private sources, sorted. They are not part of this order; `count` needs them.

        Raises UserError for weights that are negative, all zero or too small for one sample in 1,000, and for
        a source that has weight but no window.
        """
        self._sources = sorted(num_windows)
        self._num_windows, self._seed, self._partitioned = num_windows, seed, partitioned
        self.counts = [_counts(weights) for weights in stages]  # of each stage: samples in 1,000 by source
        for name in sorted({name for counts in self.counts for name in counts}):
            if num_windows.get(name, 0) < 1:
                raise UserError(f"sources.{name}: the mixture asks for it, but it has no window to train on")
        self._orders: dict[tuple[int, ...], list[_StageOrder]] = {}  # by stage_starts

    @classmethod
    def of(cls, recipe: Recipe, manifest: Manifest) -> "Mixture":
        """The order of samples of a run over its prepared data.

        Raises UserError for a source that is not prepared, or has weight but less than one window of tokens.
        """
        length = recipe.inner.context_length
        num_windows: dict[str, int] = {}
        for name in recipe.sources.keys() - set(recipe.partitioned):
            if name not in manifest.sources:
                raise UserError(
                    f"sources.{name}: not in the prepared data; run `atoll prepare` in a fresh directory"
                )
            num_tokens = manifest.sources[name].num_tokens("train")
            if num_tokens < length and any(stage.mixture.get(name) for stage in recipe.stage):
                raise UserError(
                    f"sources.{name}: {num_tokens} tokens to train on, less than one window of {length}"
                )
            num_windows[name] = -(-num_tokens // length)
        stages = [recipe.mixture(number) for number in range(len(recipe.stage))]
        return cls(stages, num_windows, recipe.seed, recipe.partitioned)

    def sample(self, index: int, stage_starts: Sequence[int]) -> Sample:
        """The window of sample `index`; takes microseconds, however large the index.

        Each stage continues every source where the earlier stages left it.
        """
        return self.window(*self.turn(index, stage_starts))

    def turn(self, index: int, stage_starts: Sequence[int]) -> tuple[str, int]:
        """(source of sample `index`, how many earlier samples were of that source); needs no data.

        Raises ValueError for an index before the first stage.
        """
        number = bisect_right(stage_starts, index) - 1
        if number < 0:
            raise ValueError(f"sample {index} lies before the first stage: {list(stage_starts)}")
        stage = self._stage_orders(tuple(stage_starts))[number]
        periods, rest = divmod(index - stage.start, PERIOD)
        source = stage.pattern[rest]
        drawn = int(stage.drawn[source] + periods * stage.before[PERIOD, source] + stage.before[rest, source])
        return self._sources[source], drawn

    def count(self, ranges: Iterable[tuple[int, int]], stage_starts: Sequence[int]) -> dict[str, int]:
        """How many of the samples in ranges (first, count) are of each source; needs no data.

        Takes microseconds per range, however long the range.
        """
        stages = self._stage_orders(tuple(stage_starts))
        private = Counter[str]()
        common: list[tuple[int, int]] = []
        for first, count in ranges:
            if source := private_source(first, self._partitioned):
                private[source] += count
            else:
                common.append((first, count))

        def before(index: int) -> np.ndarray:
            stage = stages[bisect_right(stage_starts, index) - 1]
            return stage.drawn_after(index - stage.start)

        total = sum(
            (before(first + count) - before(first) for first, count in common),
            np.zeros(len(self._sources), np.int64),
        )
        return {
            name: int(number) for name, number in zip(self._sources, total, strict=True) if number
        } | private

    def window(self, source: str, turn: int) -> Sample:
        """The window that `source` gives at its turn number `turn`, counted from 0."""
        return window_of(source, turn, self._num_windows[source], self._seed)

    def _stage_orders(self, stage_starts: tuple[int, ...]) -> "list[_StageOrder]":
        """The orders of the stages that have begun; computed once, in a few milliseconds per stage.

        Raises ValueError for impossible starts.
        """
        if stage_starts not in self._orders:
            if sorted(stage_starts) != list(stage_starts) or len(stage_starts) > len(self.counts):
                raise ValueError(f"{list(stage_starts)} cannot be the starts of {len(self.counts)} stages")
            stages: list[_StageOrder] = []
            drawn, trail = np.zeros(len(self._sources), np.int64), np.zeros((1, len(self._sources)), np.int64)
            for start, by_name in zip(stage_starts, self.counts, strict=False):
                if stages:
                    drawn, trail = stages[-1].after(start - stages[-1].start)
                counts = np.array([by_name.get(name, 0) for name in self._sources])
                order = pattern(counts, trail)
                before = np.zeros((PERIOD + 1, len(counts)), np.int64)
                before[np.arange(1, PERIOD + 1), order] = 1
                stages.append(_StageOrder(start, order, before.cumsum(axis=0), drawn, trail))
            self._orders[stage_starts] = stages
        return self._orders[stage_starts]


def window_of(source: str, turn: int, num_windows: int, seed: int) -> Sample:
    """The window that a source, or a partition, of `num_windows` windows gives at turn number `turn`."""
    pass_number, position = divmod(turn, num_windows)
    return Sample(source, permuted(position, num_windows, _key(seed, source, pass_number)), pass_number)


class _StageOrder(NamedTuple):
    """The order of a stage whose start is known. Sources are numbered in the order of their names."""

    start: int  # sample index
    pattern: list[int]  # [PERIOD]: the source of each sample of a period
    before: np.ndarray  # [PERIOD + 1, num_sources]: turns of each source before each place of the pattern
    drawn: np.ndarray  # [num_sources]: windows that earlier stages have drawn
    # [1 to PERIOD + 1, num_sources]: the leads (see pattern.py) before each of the last samples that came
    # before this stage; the last row holds the leads at its start
    trail: np.ndarray

    def drawn_after(self, num_samples: int) -> np.ndarray:
        """[num_sources]: windows drawn, by earlier stages too, after `num_samples` samples of this stage."""
        periods, rest = divmod(num_samples, PERIOD)
        return self.drawn + periods * self.before[PERIOD] + self.before[rest]

    def after(self, num_samples: int) -> tuple[np.ndarray, np.ndarray]:
        """`drawn` and `trail` for a stage that begins after `num_samples` samples of this one."""
        periods, rest = divmod(num_samples, PERIOD)
        passed = self.pattern[rest:] + self.pattern[:rest] if periods else self.pattern[:rest]
        # A whole period does not change the leads, so they are the same as `rest` samples into the stage.
        now = self.trail[-1] + PERIOD * self.before[rest] - rest * self.before[PERIOD]
        walked = leads(self.before[PERIOD], passed, now if periods else self.trail[-1])
        return self.drawn_after(num_samples), np.concatenate([self.trail[:-1], walked])[-PERIOD - 1 :]


def _counts(weights: dict[str, float]) -> dict[str, int]:
    """Samples of each source in 1,000, by largest remainder; sources of weight 0 are left out.

    Raises UserError for weights that are negative, all zero, or less than one sample.
    """
    if not all(isfinite(weight) and weight >= 0 for weight in weights.values()) or not any(weights.values()):
        raise UserError(f"mixture: weights must be at least 0 and not all 0: {weights}")
    # Exact fractions, because a sum of floats would depend on the order of the sources.
    exact = {name: Fraction(weight) for name, weight in weights.items()}
    total = sum(exact.values())
    share = {name: weight * PERIOD / total for name, weight in exact.items() if weight}
    counts = {name: int(part) for name, part in share.items()}
    by_remainder = sorted(share, key=lambda name: (counts[name] - share[name], name))
    for name in by_remainder[: PERIOD - sum(counts.values())]:
        counts[name] += 1
    for name, count in counts.items():
        if count == 0:
            raise UserError(
                f"mixture: {name} weighs less than one sample in {PERIOD}; give it more weight, or 0"
            )
    return counts


@lru_cache(maxsize=1024)
def _key(seed: int, source: str, pass_number: int) -> int:
    """64 bits that determine the order of windows in one pass."""
    return int.from_bytes(blake3(f"{seed}/{pass_number}/{source}".encode()).digest(8), "little")
