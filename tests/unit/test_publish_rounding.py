"""bf16 values and what rounding took away are the fp32 values again, and torch rounds as we do."""

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from atoll.publish import rounding

# Ties among them, odd and even, of both signs; subnormals; the largest value that stays finite.
EDGES = np.array(
    [0, 0x8000, 0x18000, 0x28000, 0x3F808000, 0x3F818000, 0xBF808000, 0x7FFF, 1, 0x7F7F7FFF, 0x80000000],
    np.uint32,
)
finite = st.floats(width=32, allow_nan=False, allow_infinity=False, min_value=-(2.0**127), max_value=2.0**127)


def as_torch_rounds(values: np.ndarray) -> np.ndarray:
    rounded = torch.from_numpy(values.view(np.float32).copy()).to(torch.bfloat16)
    return rounded.view(torch.int16).numpy().view(np.uint16)


@given(arrays.arrays(np.float32, 40, elements=finite))
def test_rounding_is_that_of_torch_and_can_be_taken_back(values: np.ndarray) -> None:
    bits = np.concatenate([values.view(np.uint32), EDGES])
    upper = rounding.rounded(bits)
    assert np.array_equal(upper, as_torch_rounds(bits))
    assert np.array_equal(rounding.joined(upper, *rounding.split(bits)), bits)


def test_only_ties_leave_a_choice() -> None:
    lower, ties = rounding.split(EDGES)
    assert np.count_nonzero(lower == rounding.TIE) == len(ties) == 6
    assert ties.any() and not ties.all()
