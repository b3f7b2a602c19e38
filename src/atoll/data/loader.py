"""Samples to batches. A loader has no state: a batch is a function of its sample indices.

The documents of a source lie one after the other in one long stream of tokens. Window w has the tokens
[w*L, w*L + L) as inputs, so every token is an input exactly once per pass. The label of an input is the next
token of the same document. Where windows are packed from rows they have been laid out so that this gives
whole rows, and only what is trained on is a label.

Shapes: B windows of a micro-batch, L context length, D most documents of a window in it, k width of a column.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np

from atoll.data.columns import TRAINED
from atoll.data.manifest import Blocks, Column, Manifest, Split
from atoll.data.mixture import Mixture, Sample, window_of
from atoll.data.partition import Partition
from atoll.data.tokens import TokenStream
from atoll.errors import UserError
from atoll.recipe import Recipe
from atoll.samples import first_sample, number_of, source_of

NO_LABEL = -100  # no token is predicted here


class Batch(NamedTuple):
    """A micro-batch."""

    tokens: np.ndarray  # [B, L] int64
    labels: np.ndarray  # [B, L] int64: the next token, or NO_LABEL where none is predicted
    documents: np.ndarray  # [B, L] int32: the document's number in the window, from 0; padding has its own
    # The columns of the data, by name. [B, L] or [B, L, k]: about the prediction of the label at this place,
    # and 0 behind the last.
    by_token: dict[str, np.ndarray] = {}  # noqa: RUF012 (nobody changes it)
    # [B, D] or [B, D, k], in the order of `documents`; NaN where there is no such document.
    by_document: dict[str, np.ndarray] = {}  # noqa: RUF012


class Loader:
    """Reads windows of prepared data; every block of a shard is verified when it is first read."""

    def __init__(self, data_dir: Path, recipe: Recipe, private: Sequence[Partition] = ()) -> None:
        """`data_dir` must hold the manifest, and a block only when a window in it is read.

        `private`: this machine's partitions. Raises UserError when the manifest is missing, when the data
        does not fit the recipe's model or mixture, or when a partition has another tokenizer.
        """
        self._data_dir, self._length = data_dir, recipe.inner.context_length
        self.manifest = Manifest.load(data_dir)
        check_vocabulary(recipe, self.manifest.vocab_size)
        check_windows(recipe, self.manifest)
        self.mixture = Mixture.of(recipe, self.manifest)
        self._seed = recipe.seed
        self._private = {partition.number: partition for partition in private}
        for partition in private:
            partition.check(self.manifest)
        self._streams: dict[tuple[str, Split], TokenStream] = {}

    def batches(
        self, samples: Iterable[int], stage_starts: Sequence[int], windows_per_step: int, micro_batch: int
    ) -> Iterator[list[Batch]]:
        """Yield the micro-batches of each inner step: `windows_per_step` samples, in the order of `samples`.

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
        """The window of sample `index`. Raises UserError for a sample of a partition that is not here."""
        number = number_of(index)
        if not number:
            return self.mixture.sample(index, stage_starts)
        if (partition := self._private.get(number)) is None:
            raise UserError(
                f"sample {index} is of a partition that is not on this machine any more; prepare it again, "
                "or join under another --name"
            )
        return window_of(
            partition.name, index - first_sample(number), partition.num_windows(self._length), self._seed
        )

    def windows(self, source: str, split: Split, numbers: Iterable[int]) -> Batch:
        """These windows of a source's split. Raises UserError for a damaged shard."""
        return self._batch(split, [(source, number) for number in numbers])

    def heldout(self, micro_batch: int, num_windows: int | None = None) -> Iterator[tuple[str, Batch]]:
        """Yield (source, batch) of held-out windows: all, or `num_windows`, evenly spaced, of each source."""
        for source in self.manifest.sources:
            for part in _cut(self._heldout_windows(source, num_windows), micro_batch):
                yield source, self._batch("heldout", part)

    def blocks(self, samples: Iterable[int], stage_starts: Sequence[int]) -> Blocks:
        """The blocks that must be on the disk before `batches` reads these samples."""
        drawn = (self.mixture.sample(index, stage_starts) for index in samples if not number_of(index))
        return self._blocks("train", ((sample.source, sample.window) for sample in drawn))

    def heldout_blocks(self, num_windows: int | None = None) -> Blocks:
        """The blocks that must be on the disk before `heldout` reads `num_windows` of each source."""
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
        """[start, stop) in the stream of a window's tokens, and of the next one where that is a label."""
        stop = (window + 1) * self._length + (self.manifest.window_tokens is None)
        return window * self._length, min(stop, stream.num_tokens)

    def _batch(self, split: Split, windows: Sequence[tuple[str, int]]) -> Batch:
        shape = len(windows), self._length
        batch = Batch(np.empty(shape, np.int64), np.empty(shape, np.int64), np.empty(shape, np.int32))
        for row, (source, window) in enumerate(windows):
            self._fill(self.stream(source, split), window, *(part[row] for part in batch[:3]))
        return batch._replace(
            by_token={
                column.name: self._by_token(column, split, windows) for column in self._columns("token")
            },
            by_document={
                column.name: self._by_document(column, split, windows) for column in self._columns("document")
            },
        )

    def _fill(
        self, stream: TokenStream, window: int, tokens: np.ndarray, labels: np.ndarray, documents: np.ndarray
    ) -> None:
        """Write one window into three rows of length L."""
        span = self._span(stream, window)
        read, begins = stream.read(*span)
        num_inputs = min(len(read), self._length)
        tokens[:num_inputs], tokens[num_inputs:] = read[:num_inputs], self.manifest.bos_id
        labels[:] = NO_LABEL
        is_label = ~begins[1:]
        if self.manifest.window_tokens is not None:
            is_label &= stream.column(TRAINED, *span)[1:].astype(bool)
        labels[: len(read) - 1] = np.where(is_label, read[1:], NO_LABEL)
        begins[0] = False  # the first document of a window is number 0, wherever it began
        documents[:num_inputs] = np.cumsum(begins[:num_inputs], dtype=np.int32)
        documents[num_inputs:] = documents[num_inputs - 1] + 1

    def _columns(self, per: str) -> Iterator[Column]:
        """The data's columns by token or by document, but for the one that became the labels."""
        return (each for each in self.manifest.columns if each.per == per and each.name != TRAINED.name)

    def _by_token(self, column: Column, split: Split, windows: Sequence[tuple[str, int]]) -> np.ndarray:
        shape = len(windows), self._length, *(column.width,) * (column.width > 1)
        values = np.zeros(shape, column.dtype)
        for row, (source, window) in enumerate(windows):
            stream = self.stream(source, split)
            values[row, :-1] = stream.column(column, *self._span(stream, window))[1:]
        return values

    def _by_document(self, column: Column, split: Split, windows: Sequence[tuple[str, int]]) -> np.ndarray:
        found: list[np.ndarray] = []
        for source, window in windows:
            stream = self.stream(source, split)
            found.append(stream.column(column, *self._span(stream, window)))
        shape = len(windows), max(map(len, found)), *(column.width,) * (column.width > 1)
        values = np.full(shape, np.nan, column.dtype)
        for row, known in enumerate(found):
            values[row, : len(known)] = known
        return values

    def stream(self, source: str, split: Split) -> TokenStream:
        """The tokens of a split of the source, or partition, named `source`."""
        if (source, split) not in self._streams:
            private = next((part for part in self._private.values() if part.name == source), None)
            where = (private.directory, private.manifest) if private else (self._data_dir, self.manifest)
            self._streams[source, split] = TokenStream(*where, source_of(source), split)
        return self._streams[source, split]


def check_vocabulary(recipe: Recipe, vocab_size: int) -> None:
    """Raises UserError when the recipe's model.vocab_size is less than the tokenizer's `vocab_size`."""
    if recipe.model.vocab_size is not None and recipe.model.vocab_size < vocab_size:
        raise UserError(
            f"model.vocab_size = {recipe.model.vocab_size} does not fit the tokenizer, which has "
            f"{vocab_size} tokens; raise it or leave it out"
        )


def check_windows(recipe: Recipe, manifest: Manifest) -> None:
    """Raises UserError where the prepared windows are of another kind or length than the recipe's."""
    wanted = None if recipe.objective.rows == "stream" else recipe.inner.context_length
    if wanted != manifest.window_tokens:
        there, here = (
            "is a stream of documents" if length is None else f"has windows of rows of {length} tokens"
            for length in (manifest.window_tokens, wanted)
        )
        raise UserError(
            f"the prepared data {there}, but the recipe's {here}; prepare it again in a fresh --dir"
        )


def _cut(windows: list[tuple[str, int]], size: int) -> Iterator[list[tuple[str, int]]]:
    return (windows[start : start + size] for start in range(0, len(windows), size))
