"""Python's garbage collector, off the hot path."""

import gc
from collections.abc import Callable, Generator
from contextlib import contextmanager


@contextmanager
def collected_by_hand() -> Generator[Callable[[], object]]:
    """No automatic collection inside; what is given collects, where a pause costs nothing.

    A full collection walks every object that torch made at import, about half a million, in the middle of
    some step; with several ranks the others wait for it. So those are frozen: never walked again.
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
