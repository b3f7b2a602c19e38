"""Sources -> tokenizer -> token shards -> manifest: what `atoll prepare` does.

The output depends on the recipe and the text only, not on the number of processes or on how often it was
interrupted. A directory with a manifest is complete: the manifest comes last.
"""

import os
import shutil
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import msgspec

from atoll.data.blocks import hash_blocks
from atoll.data.encode import Encoders, is_heldout
from atoll.data.journal import Journal
from atoll.data.loader import check_vocabulary
from atoll.data.manifest import FILE_NAME, FORMAT, TOKENIZER_DIR, Manifest
from atoll.data.mixture import Mixture
from atoll.data.progress import Report, Watch
from atoll.data.rows import Document
from atoll.data.sections import SHARDS_DIR, SourceWriter
from atoll.data.sources import Reading
from atoll.data.tokenizer import Tokenizer
from atoll.data.verify import verify
from atoll.errors import UserError
from atoll.files import DirectoryLock, disk_error, remove_leftovers
from atoll.recipe import Recipe, differing_keys

SAMPLE_BYTES_PER_TOKEN = 1024  # a trained tokenizer sees of each source at most this, times its vocabulary


def prepare(
    recipe: Recipe, data_dir: Path, progress: Report = lambda _: None, num_processes: int | None = None
) -> Manifest:
    """The manifest of `data_dir`, which holds the recipe's sources as token shards when this returns.

    What was prepared before is verified and kept; an interrupted preparation goes on where it was.
    `num_processes`: by default one for each core. Raises UserError for bad input (named by file and row), a
    directory made from another recipe (named by key) or damaged, and a full disk; no file is left
    half-written.
    """
    if (data_dir / FILE_NAME).exists():
        return check(recipe, data_dir)
    try:
        lock = DirectoryLock(data_dir)
    except OSError as error:
        raise disk_error(data_dir, error) from error
    try:
        if not lock.acquire():
            raise UserError(
                f"{data_dir}: another process is preparing data here; wait, or choose another directory"
            )
        if (data_dir / FILE_NAME).exists():  # somebody else's work of a moment ago
            return check(recipe, data_dir)
        return _prepare(recipe, data_dir, progress, num_processes or _num_cores())
    finally:
        lock.release()


def check(recipe: Recipe, data_dir: Path) -> Manifest:
    """The manifest of data that was prepared from this recipe, verified. Raises UserError for any other."""
    made_from = Manifest.load(data_dir).made_from
    if made_from != data_keys(recipe):
        try:
            keys = differing_keys(recipe, msgspec.convert(recipe.shared() | made_from, Recipe))
        except msgspec.ValidationError as error:
            raise UserError(
                f"{data_dir}: prepared from a recipe that this version of atoll refuses ({error}); choose "
                "another directory"
            ) from error
        raise UserError(f"{data_dir}: prepared from another recipe; these keys differ: {', '.join(keys)}")
    return verify(data_dir)


def data_keys(recipe: Recipe) -> dict[str, Any]:
    """The part of a recipe that prepared data depends on, as plain values."""
    shared = recipe.shared()
    return {key: shared[key] for key in ("tokenizer", "sources", "heldout_fraction")}


def _num_cores() -> int:
    """The cores that are ours, where the system tells (not on a Mac)."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _prepare(recipe: Recipe, data_dir: Path, progress: Report, num_processes: int) -> Manifest:
    common = {name: source for name, source in recipe.sources.items() if not source.partitioned}
    remove_leftovers(data_dir)
    journal, tokenizer = _begin(recipe, data_dir, progress)
    check_vocabulary(recipe, tokenizer.vocab_size)
    saved = sorted(path for path in (data_dir / TOKENIZER_DIR).iterdir())
    manifest = Manifest(
        format=FORMAT,
        tokenizer=tokenizer.digest(),
        vocab_size=tokenizer.vocab_size,
        bos_id=tokenizer.bos_id,
        sources={},
        files={path.relative_to(data_dir).as_posix(): hash_blocks(path) for path in saved},
        made_from=data_keys(recipe),
    )
    with Encoders(data_dir / TOKENIZER_DIR, recipe.heldout_fraction, num_processes) as encoders:
        for name, source in common.items():
            done = SourceWriter(name, source, data_dir, manifest.token_type, journal).write(
                encoders, progress
            )
            manifest.sources[name] = done.prepared
            manifest.files.update(done.blocks)
    Mixture.of(recipe, manifest)  # a source too small for one window is told now, not when training starts
    manifest.save(data_dir)
    Journal.forget(data_dir)
    return manifest


def _begin(recipe: Recipe, data_dir: Path, progress: Report) -> tuple[Journal, Tokenizer]:
    """What an interrupted preparation of this recipe left, or a new beginning; and the tokenizer, on the
    disk.
    """
    journal = Journal.load(data_dir, data_keys(recipe))
    if journal is not None:
        tokenizer = Tokenizer.load(data_dir / TOKENIZER_DIR)
        if tokenizer.digest() == journal.tokenizer:
            return journal, tokenizer
    for folder in (SHARDS_DIR, TOKENIZER_DIR):
        shutil.rmtree(data_dir / folder, ignore_errors=True)
    tokenizer = _tokenizer(recipe, progress)
    tokenizer.save(data_dir / TOKENIZER_DIR)
    journal = Journal(data_keys(recipe), tokenizer.digest())
    journal.save(data_dir)
    return journal, tokenizer


def _tokenizer(recipe: Recipe, progress: Report) -> Tokenizer:
    """The tokenizer that the recipe names, or one trained on the beginning of each source's training
    split.
    """
    if recipe.tokenizer.file is not None:
        return Tokenizer.load(Path(recipe.tokenizer.file).expanduser())
    vocab_size = recipe.tokenizer.train or 0
    texts = chain.from_iterable(
        _tokenizer_texts(name, recipe, SAMPLE_BYTES_PER_TOKEN * vocab_size, progress)
        for name, source in recipe.sources.items()
        if not source.partitioned
    )
    return Tokenizer.train(texts, vocab_size)


def _tokenizer_texts(name: str, recipe: Recipe, num_bytes: int, progress: Report) -> Iterator[str]:
    watch = Watch("tokenizer", name)
    num_documents = seen = 0
    for item in Reading(name, recipe.sources[name]):
        if not isinstance(item, Document):
            continue  # judged when shards are written
        text = item.text.encode()
        if is_heldout(text, recipe.heldout_fraction):
            continue
        yield item.text
        num_documents, seen = num_documents + 1, seen + len(text)
        progress(watch.progress(num_documents, seen, min(seen / num_bytes, 1.0)))
        if seen >= num_bytes:
            return
