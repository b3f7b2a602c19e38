"""bfloat16: half of an fp32 value, and the other half, so that together they are the value again.

A bf16 value is the upper 16 bits of an fp32 value, rounded to the nearest, ties to even. The lower 16 bits
tell which way it was rounded, but for ties: half way between two bf16 values both neighbours are possible.
"""

import numpy as np
import numpy.typing as npt

Halves = npt.NDArray[np.uint16]
Bits = npt.NDArray[np.uint32]
Ties = npt.NDArray[np.bool_]

TIE = 0x8000  # lower bits that lie half way between two bf16 values


def rounded(values: Bits) -> Halves:
    """The bf16 values, as their bits [n], nearest to finite fp32 values, given as theirs [n]."""
    even = (values >> np.uint32(16)) & np.uint32(1)
    return ((values + np.uint32(0x7FFF) + even) >> np.uint32(16)).astype(np.uint16)


def split(values: Bits) -> tuple[Halves, Ties]:
    """What rounding to bf16 takes away of fp32 values [n]: (the lower halves [n], for each tie among them, in
    order, whether it was rounded up).
    """
    lower = (values & np.uint32(0xFFFF)).astype(np.uint16)
    is_odd = ((values >> np.uint32(16)) & np.uint32(1)).astype(bool)
    return lower, is_odd[lower == TIE]


def joined(upper: Halves, lower: Halves, ties: Ties) -> Bits:
    """The fp32 values [n], as bits, whose bf16 values are `upper` [n] and of which `split` took the rest."""
    was_raised = lower > TIE
    was_raised[lower == TIE] = ties
    return (upper - was_raised.astype(np.uint16)).astype(np.uint32) << np.uint32(16) | lower
