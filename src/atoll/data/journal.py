"""The journal of a directory that is being prepared, so that a kill costs at most the section it interrupts.

A section is a train and a held-out shard that are closed together; where it ends depends on the documents
only.
"""

from pathlib import Path
from typing import Any

import msgspec

from atoll.data.blocks import FileBlocks
from atoll.data.manifest import PreparedSource
from atoll.data.sources import START, Place
from atoll.files import write_atomic

FILE_NAME = "journal.json"


class Progressed(msgspec.Struct, frozen=True, kw_only=True):
    """What is done of a source."""

    files: list[tuple[str, int]]  # its raw files and their sizes: they must be the same when it goes on
    prepared: PreparedSource = PreparedSource([], [])
    blocks: dict[str, FileBlocks] = {}  # of its shards
    place: Place = START  # where in the raw files the next section begins
    complete: bool = False


class Journal(msgspec.Struct):
    """What is done of a directory."""

    made_from: dict[str, Any]  # as in the manifest
    tokenizer: str  # BLAKE3 of tokenizer.json, hex
    sources: dict[str, Progressed] = {}

    def save(self, data_dir: Path) -> None:
        write_atomic(data_dir / FILE_NAME, msgspec.json.encode(self))

    @classmethod
    def load(cls, data_dir: Path, made_from: dict[str, Any]) -> "Journal | None":
        """The journal of an interrupted `prepare` of this very recipe, if there is one."""
        try:
            journal = msgspec.json.decode((data_dir / FILE_NAME).read_bytes(), type=cls)
        except (FileNotFoundError, msgspec.DecodeError):
            return None
        return journal if journal.made_from == made_from else None

    @staticmethod
    def forget(data_dir: Path) -> None:
        (data_dir / FILE_NAME).unlink(missing_ok=True)
