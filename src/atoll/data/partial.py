"""Prepared data of which not everything may be here: a manifest, and those blocks of its files that were
needed so far.
"""

from collections.abc import Sequence
from pathlib import Path

import msgspec

from atoll.data.blocks import read_block, write_block
from atoll.data.manifest import FILE_NAME, TOKENIZER_DIR, Blocks, Manifest
from atoll.errors import UserError
from atoll.files import write_atomic


class PartialData:
    """The data of one digest on this machine."""

    def __init__(self, digest_hex: str, candidates: Sequence[Path]) -> None:
        """`candidates`: directories in which it may lie; the last is where it is put."""
        self.manifest: Manifest | None = None  # None until it is here
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
        """A block of a file that the manifest names, if it is here and right; file "" is the manifest."""
        if self.manifest is None:
            return None
        if not file:
            return (self.directory / FILE_NAME).read_bytes()
        named = self.manifest.files.get(file)
        return read_block(self.directory / file, named, index) if named else None

    def missing(self, blocks: Blocks) -> list[tuple[str, int]]:
        """(file, block) of what is not here, or damaged. Every block is read: a third of a millisecond
        each.
        """
        return [
            (file, index)
            for file, numbers in blocks.items()
            for index in numbers
            if self.block(file, index) is None
        ]

    def put(self, file: str, index: int, content: bytes) -> None:
        """Keep a block that was checked. Raises UserError when the disk is full."""
        assert self.manifest is not None
        write_block(self.directory / file, self.manifest.files[file], index, content)

    def recognise(self, raw: bytes) -> Manifest | None:
        """The manifest, if that is what these bytes are, and it names nothing outside of its directory."""
        try:
            manifest = msgspec.json.decode(raw, type=Manifest)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return None
        inside = all(
            (self.directory / name).resolve().is_relative_to(self.directory.resolve())
            for name in manifest.files
        )
        return manifest if inside and manifest.digest() == self._digest else None

    def begin(self, manifest: Manifest, tokenizer: dict[str, bytes]) -> None:
        """Keep the manifest and, before it, the files of the tokenizer, which are read whole and
        unchecked.
        """
        for name, content in tokenizer.items():
            write_atomic(self.directory / name, content)
        manifest.save(self.directory)
        self.manifest = manifest


def tokenizer_files(manifest: Manifest) -> list[str]:
    return [name for name in manifest.files if name.startswith(f"{TOKENIZER_DIR}/")]
