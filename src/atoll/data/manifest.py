"""The manifest: what a directory of prepared data holds, and the hash of every block of its files."""

from pathlib import Path
from typing import Any, Literal

import msgspec
from blake3 import blake3

from atoll.data.blocks import CheckedFile, FileBlocks
from atoll.errors import UserError
from atoll.files import write_atomic

FORMAT = 2
FILE_NAME = "manifest.json"
TOKENIZER_DIR = "tokenizer"

Split = Literal["train", "heldout"]
Blocks = dict[str, tuple[int, ...]]  # block numbers by file, which is a path under the data directory


class Shard(msgspec.Struct, frozen=True, kw_only=True):
    """Whole tokenized documents: a file of token ids, and a file of the position at which each one starts."""

    tokens: str  # path under the data directory: uint16 or uint32, little-endian
    offsets: str  # path: num_documents + 1 uint64, little-endian; the last is num_tokens
    num_tokens: int  # BOS included
    num_documents: int
    num_bytes: int  # of UTF-8 text


class PreparedSource(msgspec.Struct, frozen=True, kw_only=True):
    """A source's shards, in reading order, and how many of its rows are not in them."""

    train: list[Shard]
    heldout: list[Shard]
    skipped: dict[str, int] = {}  # bad rows by what is wrong with them, where `skip_bad_rows` allows them
    num_unwanted: int = 0  # rows that `keep` leaves out
    is_end_heldout: bool = False  # it has few documents, so its end is held out instead of whole ones

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


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """The content of `manifest.json`."""

    format: int
    tokenizer: str  # BLAKE3 of tokenizer.json, hex
    vocab_size: int
    bos_id: int
    sources: dict[str, PreparedSource]
    files: dict[str, FileBlocks]  # every other file of the directory, by path under it
    made_from: dict[str, Any]  # the keys of the recipe on which the data depends
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
            if source.is_end_heldout:
                num_tokens = source.num_tokens("heldout")
                found.append(f"{name}: its end is held out, {num_tokens:,} tokens, for it has few documents")
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
