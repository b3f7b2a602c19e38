"""The manifest: what a directory of prepared data holds, and the hash of every block of it."""

from pathlib import Path
from typing import Any, Literal

import msgspec
from blake3 import blake3

from atoll.data.blocks import CheckedFile, FileBlocks
from atoll.errors import UserError
from atoll.files import write_atomic

FORMAT = 1
FILE_NAME = "manifest.json"
TOKENIZER_DIR = "tokenizer"

Split = Literal["train", "heldout"]
Blocks = dict[str, tuple[int, ...]]  # numbers of blocks, by the path of their file under the data directory


class Shard(msgspec.Struct, frozen=True, kw_only=True):
    """Whole documents, tokenized: a file of token ids, and a file of the index at which each document
    starts.
    """

    tokens: str  # path under the data directory: uint16 or uint32, little-endian
    offsets: str  # path: uint64 little-endian, num_documents + 1 of them; the last is num_tokens
    num_tokens: int  # BOS included
    num_documents: int
    num_bytes: int  # of UTF-8 text


class PreparedSource(msgspec.Struct, frozen=True):
    """A source's shards, in reading order, and how many of its rows are not in them."""

    train: list[Shard]
    heldout: list[Shard]
    num_skipped: int = 0  # bad rows, as `skip_bad_rows` allows
    num_unwanted: int = 0  # left out by `keep`

    def shards(self, split: Split) -> list[Shard]:
        return self.train if split == "train" else self.heldout

    def num_tokens(self, split: Split) -> int:
        return sum(shard.num_tokens for shard in self.shards(split))

    def num_documents(self, split: Split) -> int:
        return sum(shard.num_documents for shard in self.shards(split))

    def num_bytes(self, split: Split) -> int:
        return sum(shard.num_bytes for shard in self.shards(split))


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What `manifest.json` says."""

    format: int
    tokenizer: str  # BLAKE3 of tokenizer.json, hex
    vocab_size: int
    bos_id: int
    sources: dict[str, PreparedSource]
    files: dict[str, FileBlocks]  # every other file of the directory, by path under it
    made_from: dict[str, Any]  # the recipe's keys that the data depends on

    @property
    def token_type(self) -> str:
        """numpy's name of the tokens' type on disk."""
        return "<u2" if self.vocab_size <= 1 << 16 else "<u4"

    def digest(self) -> str:
        """The name of this data, hex: equal for equal text and tokenizer, wherever and however it was
        prepared.
        """
        content = msgspec.structs.replace(self, made_from={})
        return blake3(msgspec.json.encode(content, order="sorted")).hexdigest()

    def save(self, data_dir: Path) -> None:
        """Write it; the last step of preparing, so a directory that has a manifest is complete."""
        text = msgspec.json.format(msgspec.json.encode(self, order="sorted"), indent=1)
        write_atomic(data_dir / FILE_NAME, text + b"\n")

    @classmethod
    def load(cls, data_dir: Path) -> "Manifest":
        """The manifest of a data directory. Raises UserError when there is none, or one that cannot be
        read.
        """
        path = data_dir / FILE_NAME
        try:
            manifest = msgspec.json.decode(path.read_bytes(), type=cls)
        except FileNotFoundError as error:
            raise UserError(f"{data_dir}: no prepared data here; run `atoll prepare` first") from error
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise UserError(
                f"{path}: damaged: {error}; prepare the data again in a fresh directory"
            ) from error
        if manifest.format != FORMAT:
            raise UserError(
                f"{path}: format {manifest.format}, but this atoll reads {FORMAT}; prepare the data again"
            )
        return manifest

    def open(self, data_dir: Path, path: str) -> CheckedFile:
        """A file of the data directory, checked block by block as it is read."""
        return CheckedFile(data_dir / path, self.files[path])
