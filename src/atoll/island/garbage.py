"""Python's garbage collector, kept out of the inner steps."""

import gc
from collections.abc import Callable, Generator
from contextlib import contextmanager


@contextmanager
def manual_collection() -> Generator[Callable[[], object]]:
    """Yield a function that collects garbage; nothing else collects until the block ends.

    A full collection walks every object that torch made at import, about half a million, in the middle of
    some step, and an island's other ranks wait for it. So the caller chooses when a pause costs nothing, and
    the objects that are there at the start are frozen: no collection walks them.
    """
    was_enabled = gc.isenabled()
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield gc.collect
    finally:
        gc.unfreeze()
        if was_enabled:
            gc.enable()
