"""The journal of a directory that is being prepared, so that a kill costs at most the section it interrupts.

A section is a training and a held-out shard that are closed together. Where it ends depends only on the
documents.
"""

from pathlib import Path
from typing import Any

import msgspec

from atoll.data.blocks import FileBlocks
from atoll.data.manifest import PreparedSource
from atoll.data.sources import START, Place
from atoll.files import write_atomic

FILE_NAME = "journal.json"


class SourceProgress(msgspec.Struct, frozen=True, kw_only=True):
    """What has been prepared of a source."""

    # Its raw files and their sizes in bytes. If they change, it is prepared from the beginning.
    files: list[tuple[str, int]]
    prepared: PreparedSource = PreparedSource(train=[], heldout=[])
    blocks: dict[str, FileBlocks] = {}  # of its shards' files, by path under the data directory
    place: Place = START  # where in the raw files the next section begins
    complete: bool = False


class Journal(msgspec.Struct):
    """What has been prepared of a directory."""

    made_from: dict[str, Any]  # as in the manifest
    tokenizer: str  # BLAKE3 of tokenizer.json, hex
    sources: dict[str, SourceProgress] = {}

    def save(self, data_dir: Path) -> None:
        """Write the journal. Raises UserError for a full disk."""
        write_atomic(data_dir / FILE_NAME, msgspec.json.encode(self))

    @classmethod
    def load(cls, data_dir: Path, made_from: dict[str, Any]) -> "Journal | None":
        """The journal of an interrupted `prepare` from the recipe keys `made_from`, or None."""
        try:
            journal = msgspec.json.decode((data_dir / FILE_NAME).read_bytes(), type=cls)
        except (FileNotFoundError, msgspec.DecodeError):
            return None
        return journal if journal.made_from == made_from else None

    @staticmethod
    def delete(data_dir: Path) -> None:
        """Remove the journal, if there is one."""
        (data_dir / FILE_NAME).unlink(missing_ok=True)
