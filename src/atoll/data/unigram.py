"""The loss that a model must beat: of predicting held-out tokens by their frequency in the training text."""

from pathlib import Path

import numpy as np

from atoll.data.columns import TRAINED
from atoll.data.manifest import Manifest, Split
from atoll.data.tokens import TokenStream
from atoll.errors import UserError

READ_TOKENS = 1 << 20


def heldout_weights(manifest: Manifest, mixture: dict[str, float]) -> dict[str, float]:
    """The weights, summing to 1, by which the held-out losses of the sources are averaged.

    They are the mixture's, of the sources that have held-out text. Raises UserError when none has any.
    """
    weights = {
        name: weight
        for name, weight in mixture.items()
        if weight and manifest.sources[name].num_labels("heldout")
    }
    if not weights:
        raise UserError("no document is held out; raise heldout_fraction")
    total = sum(weights.values())
    return {name: weight / total for name, weight in weights.items()}


def heldout_unigram_loss(data_dir: Path, mixture: dict[str, float]) -> float:
    """Nats per held-out token, if each token is predicted by its frequency in the training text.

    The frequencies of both texts are those of each source, averaged by its weight in the mixture. BOS is
    never predicted, since documents are isolated, so it is not counted. One is added to every training count,
    so that no token has probability 0. Raises UserError when no source has held-out text.
    """
    manifest = Manifest.load(data_dir)
    weights = heldout_weights(manifest, mixture)
    total = sum(mixture.values())
    train, heldout = np.zeros(manifest.vocab_size), np.zeros(manifest.vocab_size)
    for name, weight in mixture.items():
        counts = _token_counts(data_dir, manifest, name, "train") + 1.0
        train += weight / total * counts / counts.sum()
    for name, weight in weights.items():
        counts = _token_counts(data_dir, manifest, name, "heldout")
        heldout += weight * counts / counts.sum()
    return float(-(heldout * np.log(train)).sum())


def heldout_bytes_per_token(manifest: Manifest, mixture: dict[str, float]) -> float:
    """Bytes of text per predicted held-out token; bits per byte are a loss in nats / ln 2 / this."""
    return sum(
        weight * manifest.sources[name].num_bytes("heldout") / manifest.sources[name].num_labels("heldout")
        for name, weight in heldout_weights(manifest, mixture).items()
    )


def _token_counts(data_dir: Path, manifest: Manifest, source: str, split: Split) -> np.ndarray:
    """[vocab_size] int64: how often each token is predicted, so not the first of a document."""
    stream = TokenStream(data_dir, manifest, source, split)
    counts = np.zeros(manifest.vocab_size, np.int64)
    for start in range(0, stream.num_tokens, READ_TOKENS):
        stop = min(start + READ_TOKENS, stream.num_tokens)
        tokens, begins = stream.read(start, stop)
        is_label = ~begins
        if manifest.window_tokens is not None:
            is_label &= stream.column(TRAINED, start, stop).astype(bool)
        counts += np.bincount(tokens[is_label], minlength=manifest.vocab_size)
    return counts
