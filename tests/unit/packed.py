"""Whole rows in windows, built by hand."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from unit.islands import Batch

from atoll.data.loader import NO_LABEL


class Document(NamedTuple):
    """A chat, or one side of a pair."""

    tokens: list[int]
    num_prompt: int  # tokens at its head that are not trained on


Row = tuple[Document, ...]  # a chat, or a pair: chosen, then rejected


def pack(windows: Sequence[Sequence[Row]], length: int) -> Batch:
    """A micro-batch whose windows hold these rows, whole, and padding after them."""
    shape = len(windows), length
    tokens, labels = np.zeros(shape, np.int64), np.full(shape, NO_LABEL)
    documents = np.zeros(shape, np.int32)
    for window, rows in enumerate(windows):
        at = number = 0
        for document in (document for row in rows for document in row):
            end = at + len(document.tokens)
            assert end <= length
            tokens[window, at:end] = document.tokens
            first = max(document.num_prompt, 1)
            labels[window, at + first - 1 : end - 1] = document.tokens[first:]
            documents[window, at:end] = number
            at, number = end, number + 1
        documents[window, at:] = number
    return Batch(tokens, labels, documents)


def some_pairs(count: int, seed: int = 0, vocab_size: int = 64) -> list[Row]:
    """Pairs of answers of 2 to 9 tokens to prompts of 2 to 5."""
    generator = np.random.default_rng(seed)
    pairs: list[Row] = []
    for _ in range(count):
        prompt = generator.integers(1, vocab_size, generator.integers(2, 6)).tolist()
        sides = (
            prompt + generator.integers(1, vocab_size, generator.integers(2, 10)).tolist() for _ in range(2)
        )
        pairs.append(tuple(Document(side, len(prompt)) for side in sides))
    return pairs


def chats(pairs: Sequence[Row]) -> list[Row]:
    """The chosen sides alone."""
    return [(chosen,) for chosen, _ in pairs]
