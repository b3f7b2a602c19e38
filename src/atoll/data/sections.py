"""A source's documents -> its shards, section by section, each noted in the journal: what is lost by a kill
is done again.

Batches and sections end where the documents say, so it is the same shards whoever tokenizes and however often
it stops.
"""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from atoll.data.encode import Encoders
from atoll.data.journal import Journal, Progressed
from atoll.data.manifest import PreparedSource
from atoll.data.progress import Report, Watch
from atoll.data.rows import Document, Unwanted
from atoll.data.sources import Place, Reading
from atoll.data.tokens import ShardWriter
from atoll.errors import UserError
from atoll.recipe import Source

BATCH_CHARACTERS = 1 << 18  # text tokenized at a time by a process, which needs some 40 MB for it
SECTION_TOKENS = 1 << 26  # a shard of 128 or 256 MiB, and its share of held-out documents
SHARDS_DIR = "shards"


class Batch(NamedTuple):
    texts: list[str]
    place: Place  # in the source, after these
    fraction: float | None  # of it that is read by now
    num_skipped: int  # rows, since this process began
    num_unwanted: int


class SourceWriter:
    """Writes what is missing of a source's shards."""

    def __init__(self, name: str, source: Source, data_dir: Path, token_type: str, journal: Journal) -> None:
        """Raises UserError when the source is missing. Shards of raw files that have changed since are thrown
        away.
        """
        self._name, self._source, self._data_dir, self._journal = name, source, data_dir, journal
        self._reading = Reading(name, source)
        self._before = journal.sources.get(name, Progressed(files=self._reading.files))
        if self._before.files != self._reading.files:
            self._before = Progressed(files=self._reading.files)
            shutil.rmtree(data_dir / SHARDS_DIR / name, ignore_errors=True)
        elif self._before.place != self._reading.place:
            self._reading = Reading(name, source, self._before.place)
        stem, prepared = f"{SHARDS_DIR}/{name}", self._before.prepared
        self._train = ShardWriter(data_dir, f"{stem}/train", token_type, len(prepared.train))
        self._heldout = ShardWriter(data_dir, f"{stem}/heldout", token_type, len(prepared.heldout))

    def write(self, encoders: Encoders, report: Report) -> Progressed:
        """Bring the source to its end. Raises UserError for a bad row, and when there is nothing to train
        on.
        """
        if self._before.complete:
            return self._before
        prepared = self._before.prepared
        num_documents = prepared.num_documents("train") + prepared.num_documents("heldout")
        num_bytes = prepared.num_bytes("train") + prepared.num_bytes("heldout")
        watch = Watch("tokens", self._name, num_bytes, self._reading.fraction)
        with self._train, self._heldout:
            batch = None
            for batch, encoded in encoders.map(self._batches()):
                for tokens, size, is_heldout in zip(*encoded, strict=True):
                    (self._heldout if is_heldout else self._train).append(tokens, size)
                num_documents, num_bytes = (
                    num_documents + len(batch.texts),
                    num_bytes + sum(encoded.num_bytes),
                )
                report(watch.progress(num_documents, num_bytes, batch.fraction))
                if self._train.num_tokens + self._heldout.num_tokens >= SECTION_TOKENS:
                    self._close(batch, complete=False)
            assert batch is not None  # the last one comes even when it is empty
            done = self._close(batch, complete=True)
        if not done.prepared.train:
            raise UserError(
                f"sources.{self._name}: every document was held out; lower heldout_fraction, or give more "
                "documents"
            )
        return done

    def _close(self, batch: Batch, complete: bool) -> Progressed:
        """End the section after `batch`."""
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
        done = Progressed(
            files=self._before.files, prepared=prepared, blocks=blocks, place=batch.place, complete=complete
        )
        self._journal.sources[self._name] = done
        self._journal.save(self._data_dir)
        return done

    def _batches(self) -> Iterator[Batch]:
        texts: list[str] = []
        size = num_skipped = num_unwanted = 0
        for item in self._reading:
            if isinstance(item, Document):
                texts.append(item.text)
                size += len(item.text)
            elif isinstance(item, Unwanted):
                num_unwanted += 1
            elif self._source.skip_bad_rows:
                num_skipped += 1
            else:
                advice = f"mend it, or set sources.{self._name}.skip_bad_rows = true"
                raise UserError(f"sources.{self._name}: {item.origin}: {item.reason}; {advice}")
            if size >= BATCH_CHARACTERS:
                yield Batch(texts, self._reading.place, self._reading.fraction, num_skipped, num_unwanted)
                texts, size = [], 0
        yield Batch(texts, self._reading.place, self._reading.fraction, num_skipped, num_unwanted)
