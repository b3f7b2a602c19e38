"""Samples -> batches. There is no state: what a lease contains is a function of its sample indices.

Window w of a source is tokens [w*L, w*L + L] of its documents put one after the other. The first L are
inputs, so every token is an input exactly once a pass; labels are the inputs' successors within the same
document.

Shapes: B windows of a micro-batch, L context length.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np

from atoll.data.manifest import Blocks, Manifest, Split
from atoll.data.mixture import Mixture, Sample, window_of
from atoll.data.partition import Partition
from atoll.data.tokens import TokenStream
from atoll.errors import UserError
from atoll.recipe import Recipe
from atoll.samples import first_sample, number_of, source_of

NO_LABEL = -100  # nothing is to be predicted here


class Batch(NamedTuple):
    """A micro-batch."""

    tokens: np.ndarray  # [B, L] int64
    labels: np.ndarray  # [B, L] int64: the next token, or NO_LABEL where a document or the source ends
    documents: (
        np.ndarray
    )  # [B, L] int32: the document within the window, from 0; padding is a document of its own


class Loader:
    """Reads windows of prepared data; every block of a shard is checked when it is first touched."""

    def __init__(self, data_dir: Path, recipe: Recipe, private: Sequence[Partition] = ()) -> None:
        """Raises UserError when the data is missing, or does not fit the recipe's model or mixture, nor
        `private` the data.

        The manifest is enough; blocks must be there when a window that lies in them is read.
        """
        self._data_dir, self._length = data_dir, recipe.inner.context_length
        self.manifest = Manifest.load(data_dir)
        check_vocabulary(recipe, self.manifest.vocab_size)
        self.mixture = Mixture.of(recipe, self.manifest)
        self._seed = recipe.seed
        self._private = {partition.number: partition for partition in private}
        for partition in private:
            partition.check(self.manifest)
        self._streams: dict[tuple[str, Split], TokenStream] = {}

    def batches(
        self, samples: Iterable[int], stage_starts: Sequence[int], windows_per_step: int, micro_batch: int
    ) -> Iterator[list[Batch]]:
        """For each inner step its micro-batches, `windows_per_step` samples in all, in the order of
        `samples`.

        Raises ValueError when the samples do not fill the last step, and UserError for a damaged shard.
        """
        remaining = iter(samples)
        while indices := list(islice(remaining, windows_per_step)):
            if len(indices) < windows_per_step:
                raise ValueError(f"{len(indices)} samples are left, but a step takes {windows_per_step}")
            drawn = [self.sample(index, stage_starts) for index in indices]
            windows = [(sample.source, sample.window) for sample in drawn]
            yield [self._batch("train", part) for part in _cut(windows, micro_batch)]

    def sample(self, index: int, stage_starts: Sequence[int]) -> Sample:
        """The window that is sample `index`. Raises UserError for one of a partition that is not here."""
        number = number_of(index)
        if not number:
            return self.mixture.sample(index, stage_starts)
        if (partition := self._private.get(number)) is None:
            raise UserError(
                f"sample {index} is of a partition that is not on this machine any more; prepare it "
                "again, or join "
                "under another --name"
            )
        return window_of(
            partition.name, index - first_sample(number), partition.num_windows(self._length), self._seed
        )

    def heldout(self, micro_batch: int, num_windows: int | None = None) -> Iterator[tuple[str, Batch]]:
        """The held-out windows with their source: all, or at most `num_windows` of each source, evenly
        spaced.
        """
        for source in self.manifest.sources:
            for part in _cut(self._heldout_windows(source, num_windows), micro_batch):
                yield source, self._batch("heldout", part)

    def blocks(self, samples: Iterable[int], stage_starts: Sequence[int]) -> Blocks:
        """What must be on the disk before `batches` of these samples are read."""
        drawn = (self.mixture.sample(index, stage_starts) for index in samples if not number_of(index))
        return self._blocks("train", ((sample.source, sample.window) for sample in drawn))

    def heldout_blocks(self, num_windows: int | None = None) -> Blocks:
        """What must be on the disk before `heldout` of as many windows is read."""
        windows = (
            window
            for source in self.manifest.sources
            for window in self._heldout_windows(source, num_windows)
        )
        return self._blocks("heldout", windows)

    def _heldout_windows(self, source: str, num_windows: int | None) -> list[tuple[str, int]]:
        total = -(-self.stream(source, "heldout").num_tokens // self._length)
        wanted = min(total, total if num_windows is None else num_windows)
        return [(source, number * total // wanted) for number in range(wanted)]

    def _blocks(self, split: Split, windows: Iterable[tuple[str, int]]) -> Blocks:
        found: defaultdict[str, set[int]] = defaultdict(set)
        for source, window in windows:
            stream = self.stream(source, split)
            for file, block in stream.blocks(*self._span(stream, window)):
                found[file].add(block)
        return {file: tuple(sorted(numbers)) for file, numbers in sorted(found.items())}

    def _span(self, stream: TokenStream, window: int) -> tuple[int, int]:
        """The tokens of a window, and the one after it, which is the last one's label."""
        return window * self._length, min((window + 1) * self._length + 1, stream.num_tokens)

    def _batch(self, split: Split, windows: Sequence[tuple[str, int]]) -> Batch:
        shape = len(windows), self._length
        batch = Batch(np.empty(shape, np.int64), np.empty(shape, np.int64), np.empty(shape, np.int32))
        for row, (source, window) in enumerate(windows):
            self._fill(self.stream(source, split), window, *(part[row] for part in batch))
        return batch

    def _fill(
        self, stream: TokenStream, window: int, tokens: np.ndarray, labels: np.ndarray, documents: np.ndarray
    ) -> None:
        """Write one window into three rows of length L."""
        read, begins = stream.read(*self._span(stream, window))
        num_inputs = min(len(read), self._length)
        tokens[:num_inputs], tokens[num_inputs:] = read[:num_inputs], self.manifest.bos_id
        labels[:] = NO_LABEL
        labels[: len(read) - 1] = np.where(begins[1:], NO_LABEL, read[1:])
        begins[0] = False  # the first document of a window is number 0, wherever it began
        documents[:num_inputs] = np.cumsum(begins[:num_inputs], dtype=np.int32)
        documents[num_inputs:] = documents[num_inputs - 1] + 1

    def stream(self, source: str, split: Split) -> TokenStream:
        """All tokens of a source's split, or of a partition's."""
        if (source, split) not in self._streams:
            private = next((part for part in self._private.values() if part.name == source), None)
            where = (private.directory, private.manifest) if private else (self._data_dir, self.manifest)
            self._streams[source, split] = TokenStream(*where, source_of(source), split)
        return self._streams[source, split]


def check_vocabulary(recipe: Recipe, vocab_size: int) -> None:
    """Raises UserError when the recipe gives the model fewer tokens than the tokenizer has."""
    if recipe.model.vocab_size is not None and recipe.model.vocab_size < vocab_size:
        raise UserError(
            f"model.vocab_size = {recipe.model.vocab_size} does not fit the tokenizer, which has "
            f"{vocab_size} tokens; "
            "raise it or leave it out"
        )


def _cut(windows: list[tuple[str, int]], size: int) -> Iterator[list[tuple[str, int]]]:
    return (windows[start : start + size] for start in range(0, len(windows), size))
