"""Prepared data that may be incomplete: a manifest, and the blocks that this machine has needed so far."""

from collections.abc import Sequence
from pathlib import Path

import msgspec

from atoll.data.blocks import read_block, write_block
from atoll.data.manifest import FILE_NAME, TOKENIZER_DIR, Blocks, Manifest
from atoll.errors import UserError
from atoll.files import write_atomic


class PartialData:
    """The prepared data whose manifest has a given digest, as far as it is on this machine."""

    def __init__(self, digest_hex: str, candidates: Sequence[Path]) -> None:
        """`candidates`: directories where the data may be; if none has it, it will be kept in the last."""
        self.manifest: Manifest | None = None  # None until this machine has it
        self._digest = digest_hex
        for self.directory in candidates:
            try:
                manifest = Manifest.load(self.directory)
            except UserError:
                continue
            if manifest.digest() == digest_hex:
                self.manifest = manifest
                break

    def block(self, file: str, index: int) -> bytes | None:
        """A block of a file, or None if it is missing, damaged or unknown; `file` "" is the manifest."""
        if self.manifest is None:
            return None
        if not file:
            return (self.directory / FILE_NAME).read_bytes()
        expected = self.manifest.files.get(file)
        return read_block(self.directory / file, expected, index) if expected else None

    def missing(self, blocks: Blocks) -> list[tuple[str, int]]:
        """(file, block) of each of `blocks` that is missing or damaged.

        Reads every one of them, which takes a third of a millisecond each.
        """
        return [
            (file, index)
            for file, numbers in blocks.items()
            for index in numbers
            if self.block(file, index) is None
        ]

    def put(self, file: str, index: int, content: bytes) -> None:
        """Keep a verified block. Raises UserError when the disk is full."""
        assert self.manifest is not None
        write_block(self.directory / file, self.manifest.files[file], index, content)

    def parse_manifest(self, raw: bytes) -> Manifest | None:
        """The manifest in `raw`, or None unless it has the digest and names only files in the directory.

        What its digest does not cover is what a peer likes, and is left out.
        """
        try:
            manifest = msgspec.json.decode(raw, type=Manifest)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return None
        inside = all(
            (self.directory / name).resolve().is_relative_to(self.directory.resolve())
            for name in manifest.files
        )
        is_the_runs = inside and manifest.digest() == self._digest
        return msgspec.structs.replace(manifest, made_from={}, left_out={}) if is_the_runs else None

    def keep_manifest(self, manifest: Manifest, tokenizer: dict[str, bytes]) -> None:
        """Keep the manifest and the tokenizer's files (content by path under the directory).

        The tokenizer's come first and must have been verified: they are later read as a whole, unchecked.
        """
        for name, content in tokenizer.items():
            write_atomic(self.directory / name, content)
        manifest.save(self.directory)
        self.manifest = manifest


def tokenizer_files(manifest: Manifest) -> list[str]:
    """The paths, under the data directory, of the tokenizer's files."""
    return [name for name in manifest.files if name.startswith(f"{TOKENIZER_DIR}/")]
