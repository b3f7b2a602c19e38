"""What an objective is, and what it reads.

Shapes: B windows of a micro-batch, L tokens of a window, D documents of the window that has the most.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from atoll.model.attention import Mask
from atoll.model.head import IGNORED


class MicroBatch(Protocol):
    """What is read of a micro-batch in host memory."""

    @property
    def tokens(self) -> np.ndarray: ...  # [B, L] int64
    @property
    def labels(self) -> np.ndarray: ...  # [B, L] int64: the next token, or -100 where none is predicted
    @property
    def documents(self) -> np.ndarray: ...  # [B, L] int32: a document's number within its window, from 0
    @property
    def by_token(self) -> Mapping[str, np.ndarray]: ...  # columns, [B, L] or [B, L, k], aligned with labels
    @property
    def by_document(self) -> Mapping[str, np.ndarray]: ...  # columns, [B, D], NaN where there is none


@dataclass(frozen=True, kw_only=True)
class Placed:
    """A micro-batch on the model's device."""

    tokens: Tensor  # [B, L] int64
    labels: Tensor  # [B, L] int64
    documents: Tensor  # [B, L] int64
    mask: Mask
    by_token: dict[str, Tensor]
    by_document: dict[str, Tensor]
    # On the host, so that nobody has to ask the device.
    num_documents: int  # D
    count: int  # of what the objective counts


class Sums(NamedTuple):
    """Sums over a micro-batch of what an objective counts."""

    objective: Tensor  # scalar to minimise
    loss: Tensor  # scalar without gradient, for people: the objective without its regularisation
    metrics: dict[str, Tensor]  # further scalars without gradient, by name


class Model(Protocol):
    """What an objective needs of a model."""

    def __call__(self, tokens: Tensor, mask: Mask) -> Tensor: ...  # hidden states [B, L, hidden_size]
    @property
    def head_weight(self) -> Tensor: ...  # [vocab_size, hidden_size]


class Objective(Protocol):
    """What is minimised."""

    @property
    def counts(self) -> str: ...  # what, in the plural: "tokens", "pairs"
    @property
    def metrics(self) -> tuple[str, ...]: ...  # the names of its further sums

    def count(self, batch: MicroBatch) -> int:
        """How much of a micro-batch the sums are over; what weighs an island in the outer step, too."""
        ...

    def sums(self, model: Model, batch: Placed) -> Sums:
        """The sums over a micro-batch, which `count` divides."""
        ...


def num_labels(batch: MicroBatch) -> int:
    """How many tokens are predicted."""
    return int((batch.labels != IGNORED).sum())


def place(batch: MicroBatch, device: torch.device, objective: Objective) -> Placed:
    """Copy a micro-batch to the device, from pinned memory, without waiting for the device's other work."""

    def moved(array: np.ndarray) -> Tensor:
        # torch.tensor copies: a loader may return read-only mappings, whose memory torch must not share.
        tensor = torch.tensor(array)
        return tensor if device.type == "cpu" else tensor.pin_memory().to(device, non_blocking=True)

    return Placed(
        tokens=moved(batch.tokens),
        labels=moved(batch.labels),
        documents=moved(batch.documents).long(),
        mask=Mask.of_documents(torch.tensor(batch.documents)),
        by_token={name: moved(array) for name, array in batch.by_token.items()},
        by_document={name: moved(array) for name, array in batch.by_document.items()},
        num_documents=int(batch.documents.max()) + 1,
        count=objective.count(batch),
    )
