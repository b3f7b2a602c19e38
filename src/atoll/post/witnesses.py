"""Models on this machine that say something of rows: a reference of preferences, and a teacher.

Shapes: B windows, L tokens of a window, K entries, V vocabulary size.
"""

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import torch

from atoll.data.loader import NO_LABEL, Batch
from atoll.data.manifest import Column
from atoll.errors import UserError
from atoll.model.attention import Mask
from atoll.model.head import top_log_probabilities
from atoll.model.hf import Model
from atoll.objective.entries import Entries
from atoll.objective.objective import Objective, place
from atoll.objective.preference import by_document
from atoll.recipe.objective import REFERENCE, TEACHER

# (windows, K) -> ids int64 [B, L, K - 1] and log-probabilities fp64 [B, L, K] of the next token, the others'
# last.
Says = Callable[[Batch, int], tuple[np.ndarray, np.ndarray]]


class Reference:
    """The log-probability of each document under the model that the run starts from."""

    def __init__(self, model: Model, objective: Objective, of: str, micro_batch: int) -> None:
        self.column = Column(name=REFERENCE, per="document", dtype="<f8", of=of)
        self._model, self._objective, self._micro_batch = model, objective, micro_batch
        self._device = next(model.parameters()).device

    @torch.no_grad()
    def values(self, batch: Batch) -> np.ndarray:
        self._model.eval()
        width = int(batch.documents.max()) + 1
        found = np.full((len(batch.tokens), width), np.nan)
        for start in range(0, len(found), self._micro_batch):
            part = slice(start, start + self._micro_batch)
            own = Batch(batch.tokens[part], batch.labels[part], batch.documents[part])
            sums, num_labels = by_document(self._model, place(own, self._device, self._objective))
            values = sums.where(num_labels > 0, torch.nan).cpu().numpy()
            found[part, : values.shape[1]] = values
        return found


class Rounding:
    """How far the words of entries are from what was said, over all labels so far."""

    def __init__(self) -> None:
        self.count, self.sum, self.largest = 0, 0.0, 0.0

    def add(self, words: np.ndarray, logprobs: np.ndarray, entries: Entries) -> None:
        """Of words [n, K], and the log-probabilities [n, K] that they stand for."""
        _, kept = entries.decoded(torch.from_numpy(words))
        is_there = np.isfinite(logprobs)
        errors = np.abs(kept.numpy()[is_there] - logprobs[is_there])
        self.count += errors.size
        self.sum += float(errors.sum())
        self.largest = max(self.largest, float(errors.max(initial=0.0)))

    def text(self) -> str:
        mean = self.sum / max(self.count, 1)
        return (
            f"4 bytes an entry; log-probabilities are off by {mean:.1e} nats in the mean, "
            f"{self.largest:.1e} at most"
        )


class Teacher:
    """A teacher's entries by token; `says` gives its distributions."""

    def __init__(self, says: Says, of: str, num_entries: int, vocab_size: int) -> None:
        self.column = Column(name=TEACHER, per="token", dtype="<u4", width=num_entries, of=of)
        self.rounding = Rounding()
        self._says, self._entries, self._num_entries = says, Entries(vocab_size), num_entries

    def values(self, batch: Batch) -> np.ndarray:
        ids, logprobs = self._says(batch, self._num_entries)
        try:
            words = self._entries.encoded(ids, logprobs)
        except ValueError as error:
            raise UserError(f"the teacher is broken: {error}; nothing was stored") from error
        is_label = batch.labels != NO_LABEL
        self.rounding.add(words[is_label], logprobs[is_label], self._entries)
        words[~is_label] = 0
        return words


class LocalModel:
    """A model on this machine, asked for its distributions."""

    def __init__(self, model: Model, vocab_size: int, micro_batch: int) -> None:
        """`vocab_size`: the tokenizer's; rows of the model beyond it are padding, and count as others."""
        self._model, self._vocab_size, self._micro_batch = model, vocab_size, micro_batch
        self._device = next(model.parameters()).device

    @torch.no_grad()
    def __call__(self, batch: Batch, num_entries: int) -> tuple[np.ndarray, np.ndarray]:
        """(ids int64 [B, L, K - 1], log-probabilities fp64 [B, L, K]) of the next token, the others' last."""
        self._model.eval()
        found: list[tuple[np.ndarray, np.ndarray]] = []
        for start in range(0, len(batch.tokens), self._micro_batch):
            part = slice(start, start + self._micro_batch)
            tokens = torch.tensor(batch.tokens[part]).to(self._device)
            hidden = self._model(tokens, Mask.of_documents(torch.tensor(batch.documents[part])))
            ids, logprobs = top_log_probabilities(
                hidden, self._model.head_weight, num_entries - 1, self._vocab_size
            )
            found.append((ids.cpu().numpy(), logprobs.double().cpu().numpy()))
        ids, logprobs = (np.concatenate(each) for each in zip(*found, strict=True))
        return ids, logprobs


def spans(documents: np.ndarray) -> list[tuple[int, int]]:
    """[start, stop) of each document of a window, whose tokens have these numbers [L]."""
    edges = [0, *(np.flatnonzero(np.diff(documents)) + 1).tolist(), len(documents)]
    return list(pairwise(edges))
