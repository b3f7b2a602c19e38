"""What `atoll prepare` does with text: sources -> tokenizer -> token shards -> manifest.

The output depends only on the recipe and the text, not on the number of processes or on interruptions. The
manifest is written last, so a directory that has one is complete.
"""

import os
import shutil
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

from atoll.data.blocks import hash_blocks
from atoll.data.chat_encoder import ChatEncoder
from atoll.data.columns import TRAINED
from atoll.data.encode import Encoders, How
from atoll.data.heldout import Cut, find_cut, is_heldout
from atoll.data.journal import Journal
from atoll.data.loader import check_vocabulary
from atoll.data.manifest import FILE_NAME, FORMAT, TOKENIZER_DIR, Manifest
from atoll.data.mixture import Mixture
from atoll.data.progress import Report, Watch
from atoll.data.rows import Document
from atoll.data.sections import SHARDS_DIR, SourceWriter
from atoll.data.shapes import Row
from atoll.data.sources import SourceReader
from atoll.data.tokenizer import Tokenizer
from atoll.data.verify import verify
from atoll.errors import UserError
from atoll.files import DirectoryLock, disk_error, remove_leftovers
from atoll.given import expanded
from atoll.recipe import Recipe
from atoll.recipe.paths import leaves

Cuts = dict[str, Cut | None]  # by source
SAMPLE_BYTES_PER_TOKEN = 1024  # of text that training a tokenizer reads of each source, per vocabulary entry


def prepare(
    recipe: Recipe, data_dir: Path, progress: Report = lambda _: None, num_processes: int | None = None
) -> Manifest:
    """Prepare the recipe's sources in `data_dir` and return the manifest.

    Data that is already prepared is verified and kept; an interrupted preparation is continued.
    `num_processes`: by default one for each core. Raises UserError for bad input (naming file and row), for a
    directory that is damaged or made from another recipe (naming the keys), and for a full disk. No file is
    left half-written.
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
        if (data_dir / FILE_NAME).exists():  # another process finished between the first look and the lock
            return check(recipe, data_dir)
        return _prepare(recipe, data_dir, progress, num_processes or _num_cores())
    finally:
        lock.release()


def check(recipe: Recipe, data_dir: Path) -> Manifest:
    """The manifest of `data_dir`, verified. Raises UserError for damage, or data made from another recipe."""
    made_from, ours = Manifest.load(data_dir).made_from, data_keys(recipe)
    if not made_from:
        raise UserError(
            f"{data_dir}: was fetched from a run's members, as far as it was needed here; prepare it in "
            "another directory (--dir)"
        )
    if made_from != ours:
        left, right = leaves(made_from), leaves(ours)
        keys = sorted(key for key in left.keys() | right.keys() if left.get(key) != right.get(key))
        raise UserError(f"{data_dir}: prepared from another recipe; these keys differ: {', '.join(keys)}")
    return verify(data_dir)


def data_keys(recipe: Recipe) -> dict[str, Any]:
    """The part of a recipe on which prepared data depends, as plain values."""
    shared = recipe.shared()
    keys = {key: shared[key] for key in ("tokenizer", "sources", "heldout_fraction")}
    if recipe.objective.rows != "stream":
        chat = {key: shared["chat"][key] for key in ("template", "train_on", "too_long")}
        keys |= {"chat": chat, "inner": {"context_length": recipe.inner.context_length}}
        keys["objective"] = {"rows": recipe.objective.rows}
    return keys


def _num_cores() -> int:
    """The number of cores that this process may use, or of all cores where the system does not say."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _prepare(recipe: Recipe, data_dir: Path, progress: Report, num_processes: int) -> Manifest:
    common = {name: source for name, source in recipe.sources.items() if not source.partitioned}
    rows = recipe.objective.rows
    is_packed = rows != "stream"
    remove_leftovers(data_dir)
    cuts = {
        name: find_cut(SourceReader(name, source, form=rows), recipe.heldout_fraction, is_whole=is_packed)
        for name, source in common.items()
    }
    journal, tokenizer = _begin(recipe, cuts, data_dir, progress)
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
        window_tokens=recipe.inner.context_length if is_packed else None,
        columns=[TRAINED] if is_packed else [],
    )
    how = How(recipe.heldout_fraction, rows, recipe.chat.train_on)
    with Encoders(data_dir / TOKENIZER_DIR, how, num_processes) as encoders:
        for name in common:
            writer = SourceWriter(name, recipe, cuts[name], data_dir, manifest, journal)
            done = writer.write(encoders, progress)
            manifest.sources[name] = done.prepared
            if writer.left_out:
                manifest.left_out[name] = writer.left_out
            manifest.files.update(done.blocks)
    Mixture.of(recipe, manifest)  # refuses a source of less than one window now, not when training starts
    manifest.save(data_dir)
    Journal.delete(data_dir)
    return manifest


def _begin(recipe: Recipe, cuts: Cuts, data_dir: Path, progress: Report) -> tuple[Journal, Tokenizer]:
    """The journal and the tokenizer that an interrupted preparation of this recipe left, or new ones.

    Both are saved in `data_dir`. Shards and tokenizer of any other preparation are removed.
    """
    journal = Journal.load(data_dir, data_keys(recipe))
    if journal is not None:
        tokenizer = Tokenizer.load(data_dir / TOKENIZER_DIR)
        if tokenizer.digest() == journal.tokenizer:
            return journal, tokenizer
    for folder in (SHARDS_DIR, TOKENIZER_DIR):
        shutil.rmtree(data_dir / folder, ignore_errors=True)
    tokenizer = _tokenizer(recipe, cuts, progress)
    tokenizer.save(data_dir / TOKENIZER_DIR)
    journal = Journal(data_keys(recipe), tokenizer.digest())
    journal.save(data_dir)
    return journal, tokenizer


def _tokenizer(recipe: Recipe, cuts: Cuts, progress: Report) -> Tokenizer:
    """The tokenizer that the recipe names, or one trained on the beginning of each source's training text.

    Where the recipe is about chats, it has the recipe's template.
    """
    tokenizer = _bare_tokenizer(recipe, cuts, progress)
    if recipe.objective.rows == "stream":
        return tokenizer
    tokenizer = tokenizer.with_template(recipe.chat.template)
    ChatEncoder(tokenizer, recipe.chat.train_on)  # refuses a template that cannot be trained with
    return tokenizer


def _bare_tokenizer(recipe: Recipe, cuts: Cuts, progress: Report) -> Tokenizer:
    if recipe.tokenizer.file is not None:
        return Tokenizer.load(expanded(recipe.tokenizer.file))
    vocab_size = recipe.tokenizer.train or 0
    texts = chain.from_iterable(
        _tokenizer_texts(name, recipe, cuts[name], SAMPLE_BYTES_PER_TOKEN * vocab_size, progress)
        for name, source in recipe.sources.items()
        if not source.partitioned
    )
    return Tokenizer.train(texts, vocab_size)


def _tokenizer_texts(
    name: str, recipe: Recipe, cut: Cut | None, num_bytes: int, progress: Report
) -> Iterator[str]:
    """Yield a source's documents that are not held out, until they are `num_bytes` of UTF-8 together."""
    watch = Watch("tokenizer", name)
    num_documents = bytes_read = 0
    rows = recipe.objective.rows
    reader = SourceReader(name, recipe.sources[name], form=rows)
    for item in reader:
        if not isinstance(item, Document):
            continue  # bad rows are reported when the shards are written
        if cut is None:
            parts = [(item.text, is_heldout(item.text.encode(), recipe.heldout_fraction))]
        else:
            parts = cut.parts(item.text, reader.place)
        for text in (text for text, is_end in parts if not is_end):
            yield from [text] if rows == "stream" else Row.of(text).texts()
            num_documents, bytes_read = num_documents + 1, bytes_read + len(text.encode())
        progress(watch.progress(num_documents, bytes_read, min(bytes_read / num_bytes, 1.0)))
        if bytes_read >= num_bytes:
            return
