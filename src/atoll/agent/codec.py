"""fp32 <-> wire bytes. Every codec works on whole blocks; kernels are bit-equal to the numpy formulas in
tests.

    fp32   4 bytes a parameter, exact
    bf16   2 bytes, round to nearest even
    int8   1 byte + one fp32 scale per block of 4,096: q = rint(x / s), s = max|x| / 127

Never `fastmath`: replicas on different machines must get the same bits, so no contraction and no
reassociation.
"""

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba  # pyright: ignore[reportMissingTypeStubs]
import numpy as np
import numpy.typing as npt

from atoll.swarm.layout import BLOCK

Floats = npt.NDArray[np.float32]
Bytes = npt.NDArray[np.uint8]
_SMALLEST_NORMAL = np.float32(1.17549435e-38)
_Kernel = TypeVar("_Kernel", bound=Callable[..., Any])


def kernel(function: _Kernel) -> _Kernel:
    """Compiled by numba: without the GIL, cached on disk, IEEE arithmetic as written."""
    # pyright: ignore[reportUnknownMemberType]
    jit = cast(Callable[..., Callable[[_Kernel], _Kernel]], numba.njit)
    return jit(nogil=True, cache=True, fastmath=False, error_model="numpy")(function)


def encoded_bytes(codec: str, num_elements: int) -> int:
    """The size of `num_elements` (whole blocks) on the wire."""
    if codec == "int8":
        return num_elements + 4 * (num_elements // BLOCK)
    return num_elements * {"fp32": 4, "bf16": 2}[codec]


def encode(codec: str, values: Floats, out: Bytes) -> None:
    """Encode `values` [n] (fp32, finite, whole blocks) into `out` [encoded_bytes]."""
    if codec == "fp32":
        out.view(np.float32)[:] = values
    elif codec == "bf16":
        _to_bf16(values.view(np.uint32), out.view(np.uint16))
    else:
        num_blocks = len(values) // BLOCK
        _quantise(values, out[: 4 * num_blocks].view(np.float32), out[4 * num_blocks :].view(np.int8))


def add_decoded(codec: str, data: Bytes, weight: np.float32, total: Floats) -> None:
    """total += weight * decode(data), elementwise in fp32: first the decoded value, then the product, then
    the sum.
    """
    if codec == "fp32":
        _add_fp32(data.view(np.float32), weight, total)
    elif codec == "bf16":
        _add_bf16(data.view(np.uint16), weight, total)
    else:
        num_blocks = len(total) // BLOCK
        _add_int8(
            data[: 4 * num_blocks].view(np.float32), data[4 * num_blocks :].view(np.int8), weight, total
        )


def decode(codec: str, data: Bytes, num_elements: int) -> Floats:
    """The fp32 values [num_elements] that `data` stands for."""
    total = np.zeros(num_elements, np.float32)
    add_decoded(codec, data, np.float32(1), total)
    return total


@kernel
def _quantise(values: Floats, scales: Floats, out: npt.NDArray[np.int8]) -> None:
    for block in range(scales.size):
        top = np.float32(0)
        for i in range(block * BLOCK, (block + 1) * BLOCK):
            top = max(top, abs(values[i]))
        scale = top / np.float32(127)
        if scale < _SMALLEST_NORMAL:  # a subnormal scale is too coarse to divide by: such a block is zero
            scale = np.float32(0)
        scales[block] = scale
        for i in range(block * BLOCK, (block + 1) * BLOCK):
            out[i] = np.int8(np.rint(values[i] / scale)) if scale > 0 else np.int8(0)


@kernel
def _add_int8(scales: Floats, data: npt.NDArray[np.int8], weight: np.float32, total: Floats) -> None:
    for block in range(scales.size):
        scale = scales[block]
        for i in range(block * BLOCK, (block + 1) * BLOCK):
            total[i] += weight * (scale * np.float32(data[i]))


@kernel
def _add_fp32(data: Floats, weight: np.float32, total: Floats) -> None:
    for i in range(total.size):
        total[i] += weight * data[i]


@kernel
def _to_bf16(bits: npt.NDArray[np.uint32], out: npt.NDArray[np.uint16]) -> None:
    for i in range(bits.size):
        out[i] = np.uint16(
            (bits[i] + np.uint32(0x7FFF) + ((bits[i] >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)
        )


@kernel
def _add_bf16(data: npt.NDArray[np.uint16], weight: np.float32, total: Floats) -> None:
    # One block at a time: the widened bits need a buffer to be seen as fp32.
    wide = np.empty(BLOCK, np.uint32)
    for start in range(0, total.size, BLOCK):
        for i in range(BLOCK):
            wide[i] = np.uint32(data[start + i]) << np.uint32(16)
        values = wide.view(np.float32)
        for i in range(BLOCK):
            total[start + i] += weight * values[i]
