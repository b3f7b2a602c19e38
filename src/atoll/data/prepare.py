"""Sources -> tokenizer -> token shards -> manifest: what `atoll prepare` does.

The output depends on the recipe and the text only. A directory with a manifest is complete: the manifest comes last.
"""

from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any, Literal, NamedTuple

import msgspec
from blake3 import blake3

from atoll.data import sources
from atoll.data.blocks import FileBlocks, hash_blocks
from atoll.data.loader import check_vocabulary
from atoll.data.manifest import FILE_NAME, FORMAT, TOKENIZER_DIR, Manifest, PreparedSource, verify
from atoll.data.mixture import Mixture
from atoll.data.tokenizer import Tokenizer
from atoll.data.tokens import ShardWriter
from atoll.errors import UserError
from atoll.files import DirectoryLock, disk_error
from atoll.recipe import Recipe, differing_keys

SAMPLE_BYTES_PER_TOKEN = 1024  # a trained tokenizer sees of each source at most this, times its vocabulary
BATCH_BYTES = 1 << 20  # text tokenized at a time


class Progress(NamedTuple):
    """How far a phase is with a source."""

    phase: Literal["tokenizer", "tokens"]
    source: str
    num_documents: int
    num_bytes: int


Report = Callable[[Progress], None]


def prepare(recipe: Recipe, data_dir: Path, progress: Report = lambda _: None) -> Manifest:
    """The manifest of `data_dir`, which holds the recipe's sources as token shards when this returns.

    What was prepared before is verified and kept. Raises UserError for bad input (named by file and row), a directory
    made from another recipe (named by key) or damaged, and a full disk; no file is left half-written.
    """
    if (data_dir / FILE_NAME).exists():
        return _verified(recipe, data_dir)
    try:
        lock = DirectoryLock(data_dir)
    except OSError as error:
        raise disk_error(data_dir, error) from error
    try:
        if not lock.acquire():
            raise UserError(f"{data_dir}: another process is preparing data here; wait, or choose another directory")
        if (data_dir / FILE_NAME).exists():  # somebody else's work of a moment ago
            return _verified(recipe, data_dir)
        return _prepare(recipe, data_dir, progress)
    finally:
        lock.release()


def is_heldout(text: bytes, fraction: float) -> bool:
    """Whether a document belongs to the held-out split: decided by its hash, so alike on every machine."""
    return int.from_bytes(blake3(text).digest(8), "big") < fraction * 2**64


def data_keys(recipe: Recipe) -> dict[str, Any]:
    """The part of a recipe that prepared data depends on, as plain values."""
    shared = recipe.shared()
    return {key: shared[key] for key in ("tokenizer", "sources", "heldout_fraction")}


def _verified(recipe: Recipe, data_dir: Path) -> Manifest:
    made_from = Manifest.load(data_dir).made_from
    if made_from != data_keys(recipe):
        keys = differing_keys(recipe, msgspec.convert(recipe.shared() | made_from, Recipe))
        raise UserError(f"{data_dir}: prepared from another recipe; these keys differ: {', '.join(keys)}")
    return verify(data_dir)


def _prepare(recipe: Recipe, data_dir: Path, progress: Report) -> Manifest:
    for name in recipe.sources:
        if not name.replace("-", "").replace("_", "").isalnum():
            raise UserError(f"sources.{name}: letters, digits, - and _ only, as it becomes a folder's name")
    tokenizer = _tokenizer(recipe, progress)
    check_vocabulary(recipe, tokenizer.vocab_size)
    saved = tokenizer.save(data_dir / TOKENIZER_DIR)
    manifest = Manifest(
        format=FORMAT,
        tokenizer=tokenizer.digest(),
        vocab_size=tokenizer.vocab_size,
        bos_id=tokenizer.bos_id,
        sources={},
        files={path.relative_to(data_dir).as_posix(): hash_blocks(path) for path in saved},
        made_from=data_keys(recipe),
    )
    for name in recipe.sources:
        manifest.sources[name], files = _write_shards(name, recipe, data_dir, manifest.token_type, tokenizer, progress)
        manifest.files.update(files)
    Mixture.of(recipe, manifest)  # a source too small for one window is told now, not when training starts
    manifest.save(data_dir)
    return manifest


def _tokenizer(recipe: Recipe, progress: Report) -> Tokenizer:
    """The tokenizer that the recipe names, or one trained on the beginning of each source's training split."""
    if recipe.tokenizer.file is not None:
        return Tokenizer.load(Path(recipe.tokenizer.file).expanduser())
    vocab_size = recipe.tokenizer.train or 0
    texts = chain.from_iterable(
        _tokenizer_texts(name, recipe, SAMPLE_BYTES_PER_TOKEN * vocab_size, progress) for name in recipe.sources
    )
    return Tokenizer.train(texts, vocab_size)


def _tokenizer_texts(name: str, recipe: Recipe, num_bytes: int, progress: Report) -> Iterator[str]:
    num_documents, seen = 0, 0
    for document in sources.read(name, recipe.sources[name]):
        if isinstance(document, sources.BadRow):
            continue  # judged when shards are written
        text = document.text.encode()
        if is_heldout(text, recipe.heldout_fraction):
            continue
        yield document.text
        num_documents, seen = num_documents + 1, seen + len(text)
        progress(Progress("tokenizer", name, num_documents, seen))
        if seen >= num_bytes:
            return


def _write_shards(
    name: str, recipe: Recipe, data_dir: Path, token_type: str, tokenizer: Tokenizer, progress: Report
) -> tuple[PreparedSource, dict[str, FileBlocks]]:
    source = recipe.sources[name]
    num_skipped = num_documents = num_bytes = 0

    def documents() -> Iterator[str]:
        nonlocal num_skipped
        for item in sources.read(name, source):
            if isinstance(item, sources.Document):
                yield item.text
            elif source.skip_bad_rows:
                num_skipped += 1
            else:
                advice = f"mend it, or set sources.{name}.skip_bad_rows = true"
                raise UserError(f"sources.{name}: {item.origin}: {item.reason}; {advice}")

    with (
        ShardWriter(data_dir, f"shards/{name}/train", token_type) as train,
        ShardWriter(data_dir, f"shards/{name}/heldout", token_type) as heldout,
    ):
        for batch in _batches(documents()):
            for text, tokens in zip(batch, tokenizer.encode_documents(batch), strict=True):
                encoded = text.encode()
                writer = heldout if is_heldout(encoded, recipe.heldout_fraction) else train
                writer.append(tokens, len(encoded))
                num_documents, num_bytes = num_documents + 1, num_bytes + len(encoded)
            progress(Progress("tokens", name, num_documents, num_bytes))
    if not train.shards:
        raise UserError(f"sources.{name}: every document was held out; lower heldout_fraction, or give more documents")
    return PreparedSource(train.shards, heldout.shards, num_skipped), train.files | heldout.files


def _batches(texts: Iterable[str]) -> Iterator[list[str]]:
    """Lists of texts of about BATCH_BYTES characters."""
    batch: list[str] = []
    size = 0
    for text in texts:
        batch.append(text)
        size += len(text)
        if size >= BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch
