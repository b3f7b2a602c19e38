"""The manifest: what a directory of prepared data holds, and the hash of every block of its files."""

from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np
from blake3 import blake3

from atoll.data.blocks import CheckedFile, FileBlocks
from atoll.errors import UserError
from atoll.files import write_atomic

FORMAT = 3
FILE_NAME = "manifest.json"
TOKENIZER_DIR = "tokenizer"

Split = Literal["train", "heldout"]
Blocks = dict[str, tuple[int, ...]]  # block numbers by file, which is a path under the data directory


class Shard(msgspec.Struct, frozen=True, kw_only=True):
    """Whole tokenized documents: a file of token ids, and a file of the position at which each one starts.

    Where windows are packed from rows, a window that is not full ends with padding: a document of nothing
    but BOS, none of which is trained on.
    """

    tokens: str  # path under the data directory: uint16 or uint32, little-endian
    offsets: str  # path: num_documents + 1 uint64, little-endian; the last is num_tokens
    num_tokens: int  # BOS and padding included
    num_documents: int  # padding included
    num_bytes: int  # of UTF-8 text
    num_labels: int  # tokens that are predicted in the loss
    num_padding: int = 0  # tokens
    num_rows: int = 0  # where windows are packed from rows

    def column(self, name: str) -> str:
        """The path under the data directory of a column's file."""
        return f"{self.tokens.removesuffix('.tokens')}.{name}"


class Column(msgspec.Struct, frozen=True, kw_only=True):
    """What every shard has beside its tokens, in a file of its own."""

    name: str
    per: Literal["token", "document"]
    dtype: str  # numpy's name, with the order of its bytes
    width: int = 1  # values of an entry
    of: str = ""  # whose values a captured column has: a digest that names the model

    @property
    def entry_bytes(self) -> int:
        return np.dtype(self.dtype).itemsize * self.width

    def num_bytes(self, shard: Shard) -> int:
        """The size of the column's file of a shard."""
        return self.entry_bytes * (shard.num_tokens if self.per == "token" else shard.num_documents)


class LongRows(msgspec.Struct, frozen=True, kw_only=True):
    """Rows that have more tokens than a window."""

    num_skipped: int = 0  # rows
    num_cut: int = 0  # rows
    num_tokens: int = 0  # that are not in the data: of skipped rows, and cut off

    def __add__(self, other: "LongRows") -> "LongRows":
        return LongRows(
            num_skipped=self.num_skipped + other.num_skipped,
            num_cut=self.num_cut + other.num_cut,
            num_tokens=self.num_tokens + other.num_tokens,
        )


class PreparedSource(msgspec.Struct, frozen=True, kw_only=True):
    """A source's shards, in reading order, and how many of its rows are not in them."""

    train: list[Shard]
    heldout: list[Shard]
    skipped: dict[str, int] = {}  # bad rows by what is wrong with them, where `skip_bad_rows` allows them
    num_unwanted: int = 0  # rows that `keep` leaves out
    is_end_heldout: bool = False  # it has few documents, so its end is held out instead of whole ones
    too_long: LongRows = LongRows()

    @property
    def num_skipped(self) -> int:
        """How many bad rows were skipped."""
        return sum(self.skipped.values())

    def shards(self, split: Split) -> list[Shard]:
        return self.train if split == "train" else self.heldout

    def num_tokens(self, split: Split) -> int:
        return sum(shard.num_tokens for shard in self.shards(split))

    def num_documents(self, split: Split) -> int:
        return sum(shard.num_documents for shard in self.shards(split))

    def num_bytes(self, split: Split) -> int:
        return sum(shard.num_bytes for shard in self.shards(split))

    def num_labels(self, split: Split) -> int:
        return sum(shard.num_labels for shard in self.shards(split))

    def num_rows(self, split: Split) -> int:
        return sum(shard.num_rows for shard in self.shards(split))

    def num_padding(self, split: Split) -> int:
        return sum(shard.num_padding for shard in self.shards(split))


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """The content of `manifest.json`."""

    format: int
    tokenizer: str  # BLAKE3 of tokenizer.json, hex
    vocab_size: int
    bos_id: int
    sources: dict[str, PreparedSource]
    files: dict[str, FileBlocks]  # every other file of the directory, by path under it
    made_from: dict[str, Any]  # the keys of the recipe on which the data depends
    # Where windows are packed from rows: the tokens of a window. None where they are cut from a stream.
    window_tokens: int | None = None
    columns: list[Column] = []  # that every shard has
    left_out: dict[str, list[str]] = {}  # by source: what else was in its folder, in sentences

    @property
    def token_type(self) -> str:
        """numpy's name for the type of a token on disk."""
        return "<u2" if self.vocab_size <= 1 << 16 else "<u4"

    def digest(self) -> str:
        """The digest that names this data, in hex: equal text and tokenizer give equal digests everywhere."""
        content = msgspec.structs.replace(self, made_from={}, left_out={})
        return blake3(msgspec.json.encode(content, order="sorted")).hexdigest()

    def notes(self) -> list[str]:
        """What to tell about the sources: what is not in the data, and which ends are held out."""
        found: list[str] = []
        for name, source in self.sources.items():
            if source.skipped:
                by_kind = sorted(source.skipped.items(), key=lambda each: (-each[1], each[0]))
                reasons = ", ".join(f"{count:,} {kind}" for kind, count in by_kind)
                found.append(f"{name}: {_rows(source.num_skipped, 'bad ')} skipped: {reasons}")
            if source.num_unwanted:
                found.append(f"{name}: {_rows(source.num_unwanted)} left out by keep")
            if (long := source.too_long).num_tokens:
                parts = ((long.num_skipped, "left out"), (long.num_cut, "cut at the end"))
                told = " and ".join(f"{_rows(count)} {what}" for count, what in parts if count)
                found.append(
                    f"{name}: {told}, longer than the {self.window_tokens:,} tokens of a window: "
                    f"{long.num_tokens:,} tokens"
                )
            if source.is_end_heldout:
                num_tokens = source.num_tokens("heldout") - source.num_padding("heldout")
                found.append(f"{name}: its end is held out, {num_tokens:,} tokens, for it has few documents")
            if self.window_tokens:
                num_tokens, num_padding = source.num_tokens("train"), source.num_padding("train")
                share = source.num_labels("train") / (num_tokens - num_padding)
                found.append(
                    f"{name}: {share:.1%} of its tokens are trained on; its windows are "
                    f"{1 - num_padding / num_tokens:.1%} full"
                )
            found += [f"{name}: {text}" for text in self.left_out.get(name, [])]
        return found

    def save(self, data_dir: Path) -> None:
        """Write `manifest.json`: the last step of preparing, so a directory that has one is complete."""
        text = msgspec.json.format(msgspec.json.encode(self, order="sorted"), indent=1)
        write_atomic(data_dir / FILE_NAME, text + b"\n")

    @classmethod
    def load(cls, data_dir: Path) -> "Manifest":
        """The manifest of a directory. Raises UserError if it is missing, damaged or of another format."""
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
        """The file at `path` under the data directory, verified block by block as it is read."""
        return CheckedFile(data_dir / path, self.files[path])


def _rows(count: int, which: str = "") -> str:
    return f"{count:,} {which}{'row' if count == 1 else 'rows'}"
