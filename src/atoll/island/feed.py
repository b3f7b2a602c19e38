"""Batches on their way to the device: the next one is read and copied while this one is trained on.

Shapes: B windows of a micro-batch, L tokens of a window.
"""

from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor

from atoll.model.attention import Mask
from atoll.model.head import IGNORED

Raw = TypeVar("Raw")
Ready = TypeVar("Ready")


class MicroBatch(Protocol):
    """What the island reads of a micro-batch in host memory; each array is [B, L]."""

    @property
    def tokens(self) -> np.ndarray: ...  # int64
    @property
    def labels(self) -> np.ndarray: ...  # int64: the next token, or -100 where none is predicted
    @property
    def documents(self) -> np.ndarray: ...  # int32, one value per contiguous document


class Placed(NamedTuple):
    """A micro-batch on the model's device."""

    tokens: Tensor  # [B, L] int64
    labels: Tensor  # [B, L] int64
    mask: Mask
    num_labels: int  # labels that count in the loss; on the host, so that nobody has to ask the device


def place(batch: MicroBatch, device: torch.device) -> Placed:
    """Copy a micro-batch to the device, from pinned memory, without waiting for the device's other work."""

    def moved(array: np.ndarray) -> Tensor:
        # torch.tensor copies: a loader may return read-only mappings, whose memory torch must not share.
        tensor = torch.tensor(array)
        return tensor if device.type == "cpu" else tensor.pin_memory().to(device, non_blocking=True)

    mask = Mask.of_documents(torch.tensor(batch.documents))
    return Placed(moved(batch.tokens), moved(batch.labels), mask, int((batch.labels != IGNORED).sum()))


def prefetched(items: Iterable[Raw], prepare: Callable[[Raw], Ready]) -> Generator[Ready]:
    """Yield `prepare(item)` for each item, computed by a thread while the previous one is in use.

    An exception in the thread is raised where its item would have been yielded. Closing the generator waits
    for the item that is being prepared.
    """
    iterator: Iterator[Raw] = iter(items)
    end = object()

    def prepare_next() -> Ready | object:
        item = next(iterator, end)
        return end if item is end else prepare(item)  # pyright: ignore[reportArgumentType]

    with ThreadPoolExecutor(1, "feed") as thread:
        coming = thread.submit(prepare_next)
        while (ready := coming.result()) is not end:
            coming = thread.submit(prepare_next)
            yield ready  # pyright: ignore[reportReturnType]
