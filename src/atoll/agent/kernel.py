"""Loops over numbers, compiled: the one place that knows numba.

Never `fastmath`: replicas on different machines must get the same bits, so the compiler may neither fuse a
multiplication with an addition nor reorder a sum.
"""

import os
import sys
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, TypeVar, cast

import numba  # pyright: ignore[reportMissingTypeStubs]
from numba.core import config  # pyright: ignore[reportMissingTypeStubs]

_Kernel = TypeVar("_Kernel", bound=Callable[..., Any])


def kernel(function: _Kernel) -> _Kernel:
    """`function`, compiled at its first call: runs without the GIL, is cached on disk, computes IEEE
    arithmetic as written.

    Indices are not checked: whoever calls a kernel has made sure that its arrays are long enough.
    """
    # pyright: ignore[reportUnknownMemberType]
    jit = cast(Callable[..., Callable[[_Kernel], _Kernel]], numba.njit)
    compiled = jit(nogil=True, cache=True, fastmath=False, error_model="numpy")
    try:
        return compiled(function)
    except RuntimeError:  # it found no place for its cache: neither the package nor the home may be written
        config.CACHE_DIR = str(_own_cache())  # pyright: ignore[reportAttributeAccessIssue]
        return compiled(function)


@cache
def _own_cache() -> Path:
    """A directory of this user's for compiled code, where others' directories may not be written."""
    path = Path(tempfile.gettempdir()) / f"atoll-numba-{os.getuid()}"
    path.mkdir(mode=0o700, exist_ok=True)
    if path.is_symlink() or path.stat().st_uid != os.getuid():
        path = Path(tempfile.mkdtemp(prefix="atoll-numba-"))  # somebody else's: its code would be run
    print(f"atoll: compiled code is kept in {path}: neither package nor home may be written", file=sys.stderr)
    return path
