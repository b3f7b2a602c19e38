"""A source's documents to its shards, section by section; the journal notes each one that is finished.

A killed preparation continues after the last of them. Where batches and sections end depends only on the
documents, so the shards are the same for any number of processes and interruptions.
"""

import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from atoll.data import packing
from atoll.data.encode import Encoded, Encoders
from atoll.data.heldout import Cut
from atoll.data.journal import Journal, SourceProgress
from atoll.data.manifest import LongRows, Manifest, PreparedSource
from atoll.data.packing import PackedRow, PackedWriter
from atoll.data.progress import Report, Watch
from atoll.data.rows import BadRow, Document, Origin, Unwanted
from atoll.data.sources import START, Place, SourceReader
from atoll.data.tokens import ShardWriter
from atoll.errors import UserError
from atoll.recipe import Recipe

BATCH_CHARACTERS = 1 << 18  # that a process tokenizes at a time, for which it needs some 40 MB
SECTION_TOKENS = 1 << 26  # 128 or 256 MiB: a training shard with its share of held-out documents
SHARDS_DIR = "shards"


@dataclass(kw_only=True)
class Batch:
    """Documents that are tokenized together, the rows between them, and how far the source was read then."""

    texts: list[str] = field(default_factory=list[str])
    origins: list[Origin] = field(default_factory=list[Origin])  # of each text
    # Of each text, where the source's end is held out; else empty, and their hashes decide.
    heldout: list[bool] = field(default_factory=list[bool])
    skipped: Counter[str] = field(default_factory=Counter[str])  # bad rows by kind
    num_unwanted: int = 0  # rows left out by `keep`
    place: Place = START  # in the source, after these documents
    fraction: float | None = None  # of the source that is read; None where its size is unknown


class SourceWriter:
    """Writes those shards of a source that the journal does not have yet."""

    def __init__(
        self, name: str, recipe: Recipe, cut: Cut | None, data_dir: Path, manifest: Manifest, journal: Journal
    ) -> None:
        """Find the source, and remove its shards if its raw files have changed since they were written.

        `cut`: where its held-out end begins, if it has one. Raises UserError when the source is missing.
        """
        self._name, self._data_dir, self._journal = name, data_dir, journal
        self._source, self._chat, self._form = recipe.sources[name], recipe.chat, recipe.objective.rows
        self._cut, self._window_tokens = cut, recipe.inner.context_length
        self._reader = SourceReader(name, self._source, form=self._form)
        # Since this process began:
        self._skipped, self._num_unwanted, self._too_long = Counter[str](), 0, LongRows()
        self._before = journal.sources.get(name, SourceProgress(files=self._reader.files))
        if self._before.files != self._reader.files:
            self._before = SourceProgress(files=self._reader.files)
            shutil.rmtree(data_dir / SHARDS_DIR / name, ignore_errors=True)
        elif self._before.place != self._reader.place:
            self._reader = SourceReader(name, self._source, self._before.place, self._form)
        self.left_out = self._reader.left_out  # what else is in the source's folder, in sentences
        stem, prepared = f"{SHARDS_DIR}/{name}", self._before.prepared
        self._train = self._writer(f"{stem}/train", len(prepared.train), manifest)
        self._heldout = self._writer(f"{stem}/heldout", len(prepared.heldout), manifest)

    def _writer(self, stem: str, first: int, manifest: Manifest) -> ShardWriter | PackedWriter:
        if self._form == "stream":
            return ShardWriter(self._data_dir, stem, manifest.token_type, first)
        return PackedWriter(
            self._data_dir, stem, manifest.token_type, first, self._window_tokens, manifest.bos_id
        )

    def write(self, encoders: Encoders, report: Report) -> SourceProgress:
        """Write all missing shards, and return the source's complete progress.

        Raises UserError for a bad row that may not be skipped, and when every document was held out.
        """
        if self._before.complete:
            return self._before
        prepared = self._before.prepared
        count = prepared.num_documents if self._form == "stream" else prepared.num_rows
        num_documents = count("train") + count("heldout")
        num_bytes = prepared.num_bytes("train") + prepared.num_bytes("heldout")
        section_tokens = SECTION_TOKENS if self._form == "stream" else packing.SECTION_TOKENS
        watch = Watch("tokens", self._name, num_bytes, self._reader.fraction)
        with self._train, self._heldout:
            batch = None
            for batch, encoded in encoders.map(self._batches()):
                num_documents += self._append(batch, encoded)
                num_bytes += sum(each.num_bytes for each in encoded)
                report(watch.progress(num_documents, num_bytes, batch.fraction))
                if self._train.num_tokens + self._heldout.num_tokens >= section_tokens:
                    self._end_section(batch, complete=False)
            assert batch is not None  # there is always a last batch, if only an empty one
            done = self._end_section(batch, complete=True)
        self._refuse_nothing(done.prepared)
        return done

    def _refuse_nothing(self, prepared: PreparedSource) -> None:
        """Raises UserError where nothing is left to train on, and says what became of it."""
        if prepared.train:
            return
        if prepared.heldout:
            raise UserError(
                f"sources.{self._name}: every document was held out; lower heldout_fraction, or give the "
                "source more documents"
            )
        counts = dict(prepared.skipped)
        if prepared.too_long.num_skipped:
            counts[f"longer than inner.context_length, {self._window_tokens}"] = prepared.too_long.num_skipped
        told = ", ".join(f"{count:,} {kind}" for kind, count in counts.items())
        raise UserError(f"sources.{self._name}: no row is left to train on: {told}")

    def _append(self, batch: Batch, encoded: list[Encoded]) -> int:
        """Add a batch's documents to their shards, and return how many there are.

        Raises UserError for one that cannot be used, where bad rows may not be skipped.
        """
        num_documents = 0
        self._skipped += batch.skipped
        self._num_unwanted += batch.num_unwanted
        heldout = batch.heldout or [each.is_heldout for each in encoded]
        for row, document in enumerate(encoded):
            if document.fault:
                reason, kind = document.fault
                self._skip(BadRow(reason, batch.origins[row], kind), self._skipped)
                continue
            num_documents += self._add(self._heldout if heldout[row] else self._train, document)
        return num_documents

    def _add(self, writer: ShardWriter | PackedWriter, document: Encoded) -> bool:
        """Add a document or row to a shard, if it is not too long for that; returns whether it was added."""
        if isinstance(writer, ShardWriter):
            writer.append(document.tokens, document.num_bytes)
            return True
        assert document.trained is not None
        row = PackedRow(document.tokens, document.trained, document.lengths, document.num_bytes)
        excess = len(row.tokens) - self._window_tokens
        if excess > 0:
            kept = row.trained[: self._window_tokens]
            if self._chat.too_long == "skip" or not kept.any():
                self._too_long += LongRows(num_skipped=1, num_tokens=len(row.tokens))
                return False
            self._too_long += LongRows(num_cut=1, num_tokens=excess)
            row = PackedRow(row.tokens[: len(kept)], kept, [len(kept)], row.num_bytes)
        writer.append(row)
        return True

    def _skip(self, bad: BadRow, skipped: Counter[str]) -> None:
        """Count a bad row. Raises UserError where the recipe does not allow to skip it."""
        if not self._source.skip_bad_rows:
            advice = f"correct it, or set sources.{self._name}.skip_bad_rows = true"
            raise UserError(f"sources.{self._name}: {bad.origin}: {bad.reason}; {advice}")
        skipped[bad.kind] += 1

    def _end_section(self, batch: Batch, complete: bool) -> SourceProgress:
        """Close both shards after `batch` and save the journal; return the progress that it now records."""
        self._train.cut()
        self._heldout.cut()
        before = self._before.prepared
        prepared = PreparedSource(
            train=before.train + self._train.shards,
            heldout=before.heldout + self._heldout.shards,
            skipped=dict(sorted((Counter(before.skipped) + self._skipped).items())),
            num_unwanted=before.num_unwanted + self._num_unwanted,
            is_end_heldout=self._cut is not None,
            too_long=before.too_long + self._too_long,
        )
        blocks = self._before.blocks | self._train.files | self._heldout.files
        done = SourceProgress(
            files=self._before.files, prepared=prepared, blocks=blocks, place=batch.place, complete=complete
        )
        self._journal.sources[self._name] = done
        self._journal.save(self._data_dir)
        return done

    def _batches(self) -> Iterator[Batch]:
        """Yield the rest of the source. Raises UserError for a bad row that may not be skipped."""
        batch, num_characters = Batch(), 0
        for item in self._reader:
            if isinstance(item, Document):
                self._put(batch, item)
                num_characters += len(item.text)
            elif isinstance(item, Unwanted):
                batch.num_unwanted += 1
            else:
                self._skip(item, batch.skipped)
            batch.place, batch.fraction = self._reader.place, self._reader.fraction
            if num_characters >= BATCH_CHARACTERS:
                yield batch
                batch, num_characters = Batch(), 0
        batch.place, batch.fraction = self._reader.place, self._reader.fraction
        yield batch

    def _put(self, batch: Batch, document: Document) -> None:
        """Add a document to a batch: whole, or as the two parts into which the source's cut divides it."""
        if self._cut is None:
            batch.texts.append(document.text)
            batch.origins.append(document.origin)
            return
        for text, is_heldout in self._cut.parts(document.text, self._reader.place):
            batch.texts.append(text)
            batch.origins.append(document.origin)
            batch.heldout.append(is_heldout)
