"""Which window is sample number i: a pure function of recipe, data and i.

Sources take turns in a pattern of 1,000 samples that repeats (`pattern.py`), so weights hold exactly in any
1,000 samples of a stage. A stage's pattern is laid so that they hold across the change as well: within 2
windows of each source in any 1,000 samples.

A source's windows come in a keyed order that is new in each pass: first the blocks of 64 windows are
permuted, then the windows within a block, so that neighbouring samples of a large corpus lie in few places of
it.
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
    source: str
    window: int  # of the source's training split
    pass_number: int  # how many times the source has been read through before


class Mixture:
    """The order of samples. The number of islands does not enter into it."""

    def __init__(
        self,
        stages: Sequence[dict[str, float]],
        num_windows: dict[str, int],
        seed: int,
        partitioned: Sequence[str] = (),
    ) -> None:
        """`stages`: weights per source, one dict per stage; `num_windows`: of each source's training split.

        `partitioned`: the run's private sources. They are no part of this order; their samples are only
        counted here.

        Raises UserError for weights that are negative, all zero or too small to be met, and sources without
        windows.
        """
        self._sources = sorted(num_windows)
        self._num_windows, self._seed, self._partitioned = num_windows, seed, partitioned
        self.counts = [_counts(weights) for weights in stages]  # per stage: samples in every 1,000, by source
        for name in sorted({name for counts in self.counts for name in counts}):
            if num_windows.get(name, 0) < 1:
                raise UserError(f"sources.{name}: the mixture asks for it, but it has no window to train on")
        self._laid_out: dict[tuple[int, ...], list[_LaidOut]] = {}

    @classmethod
    def of(cls, recipe: Recipe, manifest: Manifest) -> "Mixture":
        """The order of samples of a run over its prepared data; raises UserError for a source that is too
        small.
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
        """Sample number `index`, in microseconds. `stage_starts`: the index at which each stage so far began,
        [0, ...].

        A later stage goes on with each source where the earlier ones left it.
        """
        return self.window(*self.turn(index, stage_starts))

    def turn(self, index: int, stage_starts: Sequence[int]) -> tuple[str, int]:
        """The source that sample `index` is of, and how many samples before it were: the part that needs no
        data.
        """
        number = bisect_right(stage_starts, index) - 1
        if number < 0:
            raise ValueError(f"sample {index} lies before the first stage: {list(stage_starts)}")
        stage = self._lay_out(tuple(stage_starts))[number]
        periods, rest = divmod(index - stage.start, PERIOD)
        source = stage.pattern[rest]
        drawn = int(stage.drawn[source] + periods * stage.before[PERIOD, source] + stage.before[rest, source])
        return self._sources[source], drawn

    def count(self, ranges: Iterable[tuple[int, int]], stage_starts: Sequence[int]) -> dict[str, int]:
        """How many samples of ranges (first, count) are of each source; however long they are. Needs no data
        either.
        """
        stages = self._lay_out(tuple(stage_starts))
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
        """The window that a source gives at its turn number `turn`, counted from 0."""
        return window_of(source, turn, self._num_windows[source], self._seed)

    def _lay_out(self, stage_starts: tuple[int, ...]) -> "list[_LaidOut]":
        """The stages that have begun, computed once: a few milliseconds each."""
        if stage_starts not in self._laid_out:
            if sorted(stage_starts) != list(stage_starts) or len(stage_starts) > len(self.counts):
                raise ValueError(f"{list(stage_starts)} are no starts of {len(self.counts)} stages")
            stages: list[_LaidOut] = []
            drawn, trail = np.zeros(len(self._sources), np.int64), np.zeros((1, len(self._sources)), np.int64)
            for start, by_name in zip(stage_starts, self.counts, strict=False):
                if stages:
                    drawn, trail = stages[-1].after(start - stages[-1].start)
                counts = np.array([by_name.get(name, 0) for name in self._sources])
                order = pattern(counts, trail)
                before = np.zeros((PERIOD + 1, len(counts)), np.int64)
                before[np.arange(1, PERIOD + 1), order] = 1
                stages.append(_LaidOut(start, order, before.cumsum(axis=0), drawn, trail))
            self._laid_out[stage_starts] = stages
        return self._laid_out[stage_starts]


def window_of(source: str, turn: int, num_windows: int, seed: int) -> Sample:
    """What a source, or a partition, gives at its turn number `turn`."""
    pass_number, position = divmod(turn, num_windows)
    return Sample(source, permuted(position, num_windows, _key(seed, source, pass_number)), pass_number)


class _LaidOut(NamedTuple):
    """A stage whose start is known. Sources are numbered by name."""

    start: int
    pattern: list[int]  # the source of each sample of a period
    before: np.ndarray  # [PERIOD + 1, num_sources]: turns of each source before each place of the pattern
    drawn: np.ndarray  # [num_sources]: windows drawn by earlier stages
    trail: (
        np.ndarray
    )  # [1 to PERIOD + 1, num_sources]: each source's lead before the samples that led here, and now

    def drawn_after(self, num_samples: int) -> np.ndarray:
        """[num_sources]: windows drawn when `num_samples` of this stage have passed."""
        periods, rest = divmod(num_samples, PERIOD)
        return self.drawn + periods * self.before[PERIOD] + self.before[rest]

    def after(self, num_samples: int) -> tuple[np.ndarray, np.ndarray]:
        """`drawn` and `trail` when `num_samples` of this stage have passed."""
        periods, rest = divmod(num_samples, PERIOD)
        passed = self.pattern[rest:] + self.pattern[:rest] if periods else self.pattern[:rest]
        # a period leaves the leads as they were, so those `rest` samples into the stage are those now
        now = self.trail[-1] + PERIOD * self.before[rest] - rest * self.before[PERIOD]
        walked = leads(self.before[PERIOD], passed, now if periods else self.trail[-1])
        return self.drawn_after(num_samples), np.concatenate([self.trail[:-1], walked])[-PERIOD - 1 :]


def _counts(weights: dict[str, float]) -> dict[str, int]:
    """Samples of each source in 1,000, by largest remainder; those of weight 0 are left out."""
    if not all(isfinite(weight) and weight >= 0 for weight in weights.values()) or not any(weights.values()):
        raise UserError(f"mixture: weights must be at least 0 and not all 0: {weights}")
    exact = {
        name: Fraction(weight) for name, weight in weights.items()
    }  # so that the order of sums is nothing
    total = sum(exact.values())
    share = {name: weight * PERIOD / total for name, weight in exact.items() if weight}
    counts = {name: int(part) for name, part in share.items()}
    by_remainder = sorted(share, key=lambda name: (counts[name] - share[name], name))
    for name in by_remainder[: PERIOD - sum(counts.values())]:
        counts[name] += 1
    for name, count in counts.items():
        if count == 0:
            raise UserError(f"mixture: {name} weighs less than one sample in {PERIOD}; give it more, or 0")
    return counts


@lru_cache(maxsize=1024)
def _key(seed: int, source: str, pass_number: int) -> int:
    return int.from_bytes(blake3(f"{seed}/{pass_number}/{source}".encode()).digest(8), "little")
