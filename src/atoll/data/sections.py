"""A source's documents to its shards, section by section; the journal notes each one that is finished.

A killed preparation continues after the last of them. Where batches and sections end depends only on the
documents, so the shards are the same for any number of processes and interruptions.
"""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from atoll.data.encode import Encoders
from atoll.data.journal import Journal, SourceProgress
from atoll.data.manifest import PreparedSource
from atoll.data.progress import Report, Watch
from atoll.data.rows import Document, Unwanted
from atoll.data.sources import Place, SourceReader
from atoll.data.tokens import ShardWriter
from atoll.errors import UserError
from atoll.recipe import Source

BATCH_CHARACTERS = 1 << 18  # that a process tokenizes at a time, for which it needs some 40 MB
SECTION_TOKENS = 1 << 26  # 128 or 256 MiB: a training shard with its share of held-out documents
SHARDS_DIR = "shards"


class Batch(NamedTuple):
    """Documents that are tokenized together, and how far the source was read when they were complete."""

    texts: list[str]
    place: Place  # in the source, after these documents
    fraction: float | None  # of the source that is read; None where its size is unknown
    num_skipped: int  # bad rows since this process began
    num_unwanted: int  # rows left out by `keep` since this process began


class SourceWriter:
    """Writes those shards of a source that the journal does not have yet."""

    def __init__(self, name: str, source: Source, data_dir: Path, token_type: str, journal: Journal) -> None:
        """Find the source, and remove its shards if its raw files have changed since they were written.

        Raises UserError when the source is missing.
        """
        self._name, self._source, self._data_dir, self._journal = name, source, data_dir, journal
        self._reader = SourceReader(name, source)
        self._before = journal.sources.get(name, SourceProgress(files=self._reader.files))
        if self._before.files != self._reader.files:
            self._before = SourceProgress(files=self._reader.files)
            shutil.rmtree(data_dir / SHARDS_DIR / name, ignore_errors=True)
        elif self._before.place != self._reader.place:
            self._reader = SourceReader(name, source, self._before.place)
        stem, prepared = f"{SHARDS_DIR}/{name}", self._before.prepared
        self._train = ShardWriter(data_dir, f"{stem}/train", token_type, len(prepared.train))
        self._heldout = ShardWriter(data_dir, f"{stem}/heldout", token_type, len(prepared.heldout))

    def write(self, encoders: Encoders, report: Report) -> SourceProgress:
        """Write all missing shards, and return the source's complete progress.

        Raises UserError for a bad row that may not be skipped, and when every document was held out.
        """
        if self._before.complete:
            return self._before
        prepared = self._before.prepared
        num_documents = prepared.num_documents("train") + prepared.num_documents("heldout")
        num_bytes = prepared.num_bytes("train") + prepared.num_bytes("heldout")
        watch = Watch("tokens", self._name, num_bytes, self._reader.fraction)
        with self._train, self._heldout:
            batch = None
            for batch, encoded in encoders.map(self._batches()):
                for tokens, text_bytes, is_heldout in zip(*encoded, strict=True):
                    (self._heldout if is_heldout else self._train).append(tokens, text_bytes)
                num_documents += len(batch.texts)
                num_bytes += sum(encoded.num_bytes)
                report(watch.progress(num_documents, num_bytes, batch.fraction))
                if self._train.num_tokens + self._heldout.num_tokens >= SECTION_TOKENS:
                    self._end_section(batch, complete=False)
            assert batch is not None  # there is always a last batch, if only an empty one
            done = self._end_section(batch, complete=True)
        if not done.prepared.train:
            raise UserError(
                f"sources.{self._name}: every document was held out; lower heldout_fraction, or give the "
                "source more documents"
            )
        return done

    def _end_section(self, batch: Batch, complete: bool) -> SourceProgress:
        """Close both shards after `batch` and save the journal; return the progress that it now records."""
        self._train.cut()
        self._heldout.cut()
        before = self._before.prepared
        prepared = PreparedSource(
            before.train + self._train.shards,
            before.heldout + self._heldout.shards,
            before.num_skipped + batch.num_skipped,
            before.num_unwanted + batch.num_unwanted,
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
        texts: list[str] = []
        num_characters = num_skipped = num_unwanted = 0
        for item in self._reader:
            if isinstance(item, Document):
                texts.append(item.text)
                num_characters += len(item.text)
            elif isinstance(item, Unwanted):
                num_unwanted += 1
            elif self._source.skip_bad_rows:
                num_skipped += 1
            else:
                advice = f"correct it, or set sources.{self._name}.skip_bad_rows = true"
                raise UserError(f"sources.{self._name}: {item.origin}: {item.reason}; {advice}")
            if num_characters >= BATCH_CHARACTERS:
                yield Batch(texts, self._reader.place, self._reader.fraction, num_skipped, num_unwanted)
                texts, num_characters = [], 0
        yield Batch(texts, self._reader.place, self._reader.fraction, num_skipped, num_unwanted)
