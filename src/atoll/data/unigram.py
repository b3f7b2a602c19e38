"""What a model must beat: the loss of guessing held-out tokens by their frequency in the training text."""

from pathlib import Path

import numpy as np

from atoll.data.manifest import Manifest, Split
from atoll.data.tokens import TokenStream
from atoll.errors import UserError

READ_TOKENS = 1 << 20


def heldout_weights(manifest: Manifest, mixture: dict[str, float]) -> dict[str, float]:
    """A mixture's weights over the sources that have held-out text, summing to 1: how held-out losses are
    averaged.

    Raises UserError when no source has any.
    """
    weights = {
        name: weight
        for name, weight in mixture.items()
        if weight and _num_predicted(manifest, name, "heldout")
    }
    if not weights:
        raise UserError("no document is held out; raise heldout_fraction")
    total = sum(weights.values())
    return {name: weight / total for name, weight in weights.items()}


def heldout_unigram_loss(data_dir: Path, mixture: dict[str, float]) -> float:
    """Nats per held-out token, when each token is predicted by its frequency in the training text.

    Both texts are taken as the mixture presents them: token frequencies of each source, averaged by its
    weight. BOS is never predicted (documents are isolated), so it counts on neither side. One is added to
    every training count, so that no token is impossible.
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
    """Bytes of text per predicted held-out token: loss in nats / ln 2 / this = bits per byte."""
    return sum(
        weight * manifest.sources[name].num_bytes("heldout") / _num_predicted(manifest, name, "heldout")
        for name, weight in heldout_weights(manifest, mixture).items()
    )


def _num_predicted(manifest: Manifest, source: str, split: Split) -> int:
    prepared = manifest.sources[source]
    return prepared.num_tokens(split) - prepared.num_documents(split)


def _token_counts(data_dir: Path, manifest: Manifest, source: str, split: Split) -> np.ndarray:
    """[vocab_size] int64: how often each token occurs, the first of every document left out."""
    stream = TokenStream(data_dir, manifest, source, split)
    counts = np.zeros(manifest.vocab_size, np.int64)
    for start in range(0, stream.num_tokens, READ_TOKENS):
        tokens, begins = stream.read(start, min(start + READ_TOKENS, stream.num_tokens))
        counts += np.bincount(tokens[~begins], minlength=manifest.vocab_size)
    return counts
