"""A teacher's distribution over the next token, in four bytes an entry.

Of each token K entries are kept: K - 1 of the likeliest next tokens, the likeliest first, and as the last
entry all others together, which is called the tail. An entry is a word of 32 bits: the token's id in as few
bits as the vocabulary needs, and its log-probability in the rest, rounded to one of about 2**15 levels
between 0 and -LOWEST that lie closer together near 0. So a word of a vocabulary of 128,256 tokens has 17 bits
of id, and rounds a log-probability by at most 0.001.

Shapes: ... any leading dimensions, K entries.
"""

import numpy as np
import torch
from torch import Tensor

LOWEST = 40.0  # nats: what is less likely than exp(-40) is kept as that
MIN_LEVEL_BITS = 10  # a vocabulary that leaves fewer is refused


class Entries:
    """Writes and reads words of a vocabulary of `vocab_size` tokens."""

    def __init__(self, vocab_size: int) -> None:
        """Raises ValueError for a vocabulary of more than 4 million tokens."""
        id_bits = max(1, (vocab_size - 1).bit_length())
        self._level_bits = 32 - id_bits
        if self._level_bits < MIN_LEVEL_BITS:
            raise ValueError(f"{vocab_size:,} tokens leave too few bits of a word to their log-probabilities")
        self._absent = (1 << self._level_bits) - 1  # the level of an entry that is not there
        self._highest = self._absent - 1  # the level of -LOWEST

    def encoded(self, ids: np.ndarray, logprobs: np.ndarray) -> np.ndarray:
        """Words uint32 [..., K] for ids int64 [..., K - 1] and log-probabilities float [..., K].

        A log-probability of -inf is that of an entry which is not there. Raises ValueError for one that is
        NaN or above 0 by more than rounding.
        """
        values = np.asarray(logprobs, np.float64)
        if not (values <= 1e-3).all():  # also when one is NaN
            raise ValueError("a log-probability is NaN or above 0")
        is_there = values > -np.inf
        share = np.sqrt(np.clip(-np.where(is_there, values, 0.0), 0.0, LOWEST) / LOWEST)
        levels = np.where(is_there, np.rint(share * self._highest), self._absent).astype(np.uint32)
        # An entry that is not there has the first one's id, so that no other token is taken for it.
        of_tokens = np.where(is_there[..., :-1], ids, ids[..., :1])
        of_all = np.concatenate([of_tokens, np.zeros_like(of_tokens[..., :1])], axis=-1).astype(np.uint32)
        return (of_all << np.uint32(self._level_bits)) | levels

    def decoded(self, words: Tensor) -> tuple[Tensor, Tensor]:
        """(ids int64 [..., K - 1], log-probabilities fp64 [..., K], normalised) of words uint32 [..., K]."""
        words = words.long()  # torch does not shift the others
        levels = words & self._absent
        values = -LOWEST * (levels.double() / self._highest).square()
        values = values.masked_fill(levels == self._absent, -torch.inf)
        return words[..., :-1] >> self._level_bits, values - values.logsumexp(-1, keepdim=True)
