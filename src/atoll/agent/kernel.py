"""Loops over numbers, compiled: the one place that knows numba.

Never `fastmath`: replicas on different machines must get the same bits, so the compiler may neither fuse a
multiplication with an addition nor reorder a sum.
"""

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba  # pyright: ignore[reportMissingTypeStubs]

_Kernel = TypeVar("_Kernel", bound=Callable[..., Any])


def kernel(function: _Kernel) -> _Kernel:
    """`function`, compiled at its first call: runs without the GIL, is cached on disk, computes IEEE
    arithmetic as written.

    Indices are not checked: whoever calls a kernel has made sure that its arrays are long enough.
    """
    # pyright: ignore[reportUnknownMemberType]
    jit = cast(Callable[..., Callable[[_Kernel], _Kernel]], numba.njit)
    return jit(nogil=True, cache=True, fastmath=False, error_model="numpy")(function)
