"""The next batch, read and on its way to the device while this one is trained on. Shapes: B windows, L tokens
each.
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
    """What the island reads of a batch: all [B, L]."""

    @property
    def tokens(self) -> np.ndarray: ...  # int64
    @property
    def labels(self) -> np.ndarray: ...  # int64, the next token; -100 is ignored
    @property
    def documents(self) -> np.ndarray: ...  # int32, one value per contiguous document


class Placed(NamedTuple):
    """A micro-batch where the model is."""

    tokens: Tensor  # [B, L] int64
    labels: Tensor  # [B, L] int64
    mask: Mask
    num_labels: int  # that count; known to the host, so that nobody asks the device


def place(batch: MicroBatch, device: torch.device) -> Placed:
    """Copy a micro-batch to the device; the copy from pinned memory does not wait for what the device is
    doing.
    """

    def moved(array: np.ndarray) -> Tensor:
        # torch.tensor copies: a loader may hand out read-only mappings, which torch must not alias.
        tensor = torch.tensor(array)
        return tensor if device.type == "cpu" else tensor.pin_memory().to(device, non_blocking=True)

    mask = Mask.of_documents(torch.tensor(batch.documents))
    return Placed(moved(batch.tokens), moved(batch.labels), mask, int((batch.labels != IGNORED).sum()))


def ahead(items: Iterable[Raw], prepare: Callable[[Raw], Ready]) -> Generator[Ready]:
    """`prepare` of each item, made by a thread while its predecessor is used. An error comes where its item
    would.

    Closing it waits for the item in the making.
    """
    iterator: Iterator[Raw] = iter(items)
    end = object()

    def following() -> Ready | object:
        item = next(iterator, end)
        return end if item is end else prepare(item)  # pyright: ignore[reportArgumentType]

    with ThreadPoolExecutor(1, "feed") as thread:
        coming = thread.submit(following)
        while (ready := coming.result()) is not end:
            coming = thread.submit(following)
            yield ready  # pyright: ignore[reportReturnType]
