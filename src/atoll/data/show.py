"""What `atoll prepare --check` and `atoll prepare --show N` print about prepared data."""

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np

from atoll.data.columns import TRAINED
from atoll.data.loader import Loader
from atoll.data.manifest import TOKENIZER_DIR
from atoll.data.prepare import check
from atoll.data.tokenizer import Tokenizer
from atoll.errors import UserError
from atoll.recipe import Recipe

BEGIN_TRAINED, END_TRAINED = "⟦", "⟧"


def checked(recipe: Recipe, data_dir: Path) -> str:
    """The sizes of the prepared data, source by source, after verifying all of it.

    Raises UserError where anything is wrong.
    """
    manifest = check(recipe, data_dir)
    lines = [
        f"data {manifest.digest()[:12]}: every block and every token is as it was written; "
        f"vocabulary of {manifest.vocab_size:,}"
    ]
    for name, source in manifest.sources.items():
        for split in ("train", "heldout"):
            num_tokens = source.num_tokens(split)
            num_windows = -(-num_tokens // recipe.inner.context_length)
            count, unit = source.num_documents(split), "documents"
            if is_packed := manifest.window_tokens is not None:
                count, unit = source.num_rows(split), "rows"
            text = (
                f"{name:16} {split:8} {num_tokens:14,} tokens {num_windows:11,} windows "
                f"{count:11,} {unit} {source.num_bytes(split) / 1e6:10,.1f} MB"
            )
            if is_packed:
                text += f" {source.num_labels(split):14,} trained on"
            lines.append(text)
    return "\n".join(lines + manifest.notes())


def sample(recipe: Recipe, data_dir: Path, index: int) -> str:
    """Sample `index` as text, with its source and the boundaries of its documents.

    Stages begin where they would with a single island, because the number of islands is not known beforehand.
    Raises UserError for a negative index.
    """
    if index < 0:
        raise UserError(f"--show {index}: samples count from 0")
    loader = Loader(data_dir, recipe)
    lengths = [stage.until * recipe.windows_per_step for stage in recipe.stage]
    starts = [0, *lengths[:-1]]
    found = loader.sample(index, starts)
    stage = int(np.searchsorted(starts, index, "right"))
    head = (
        f"sample {index:,}: window {found.window:,} of {found.source}, pass {found.pass_number + 1}, "
        f"stage {stage} of {len(starts)} (of one island alone)"
    )
    tokenizer = Tokenizer.load(data_dir / TOKENIZER_DIR)
    return "\n".join([head, *_documents(loader, tokenizer, recipe, found.source, found.window)])


def _documents(
    loader: Loader, tokenizer: Tokenizer, recipe: Recipe, source: str, window: int
) -> Iterator[str]:
    """Yield a heading and the text for each document's part of a training window."""
    stream = loader.stream(source, "train")
    start = window * recipe.inner.context_length
    stop = min(start + recipe.inner.context_length, stream.num_tokens)
    tokens, begins = stream.read(start, stop)
    trained = np.zeros(len(tokens), bool)
    if is_packed := loader.manifest.window_tokens is not None:
        trained = stream.column(TRAINED, start, stop).astype(bool)
    boundaries = sorted({0, *np.flatnonzero(begins).tolist(), len(tokens)})
    for low, high in pairwise(boundaries):
        continued = "" if begins[low] else ", continued"
        number = stream.document_at(start + low)
        head = f"──── document {number:,} of {source}{continued}, {high - low:,} tokens"
        if not is_packed:
            yield f"{head} ────"
            yield tokenizer.decode(tokens[low:high], skip_special_tokens=False)
        elif not (count := int(trained[low:high].sum())):
            yield f"──── padding, {high - low:,} tokens ────"
        else:
            yield f"{head}, {count:,} of them trained on, between {BEGIN_TRAINED} and {END_TRAINED} ────"
            yield _marked(tokenizer, tokens[low:high], trained[low:high])


def _marked(tokenizer: Tokenizer, tokens: np.ndarray, trained: np.ndarray) -> str:
    """The text of tokens, with what is trained on marked."""
    borders = [0, *(np.flatnonzero(np.diff(trained)) + 1).tolist(), len(tokens)]
    texts: list[str] = []
    for low, high in pairwise(borders):
        text = tokenizer.decode(tokens[low:high], skip_special_tokens=False)
        texts.append(f"{BEGIN_TRAINED}{text}{END_TRAINED}" if trained[low] else text)
    return "".join(texts)
