"""What is needed next is prepared by a thread while what came before it is in use."""

from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Raw = TypeVar("Raw")
Ready = TypeVar("Ready")


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
