"""fp32 values come back bit by bit, whatever they are; and nothing that a peer can send makes more of itself
than was asked.
"""

import contextlib
import tracemalloc
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from atoll.agent.exponents import restore, shrink

RANDOM = np.random.default_rng(0)


@pytest.mark.parametrize(
    ("values", "largest"),
    [
        (RANDOM.standard_normal(1 << 16), 0.84),
        (np.concatenate([scale * RANDOM.standard_normal(1 << 12) for scale in (1e-4, 2e-2, 1.0)]), 0.9),
        (np.zeros(1 << 12), 0.79),
        (np.array([np.nan, np.inf, -np.inf, -0.0, 1e-45]), 1.0),
        (np.empty(0), 1.0),
    ],
)
def test_values_come_back_and_take_less(values, largest) -> None:
    data = values.astype(np.float32).tobytes()
    shrunk = shrink(data)
    assert restore(shrunk, len(data)) == data
    assert len(shrunk) <= largest * len(data)


def test_noise_in_all_bits_goes_as_it_is() -> None:
    data = RANDOM.bytes(1 << 16)
    assert shrink(data) == data
    assert restore(data, len(data)) == data


@given(st.lists(st.integers(0, 2**32 - 1), max_size=300), st.integers(1, 200))
def test_any_bits_come_back(words: list[int], times: int) -> None:
    data = np.array(words, np.uint32).tobytes() * times
    shrunk = shrink(data)
    assert len(shrunk) <= len(data)
    assert restore(shrunk, len(data)) == data


NORMAL = RANDOM.standard_normal(1 << 12).astype(np.float32).tobytes()
SHRUNK = shrink(NORMAL)


@pytest.mark.parametrize(
    "false",
    [
        b"",
        SHRUNK[:-1],
        SHRUNK + b"x",
        SHRUNK[: 3 << 12],
        SHRUNK[:100],
        SHRUNK[: 3 << 12] + b"\xff" * 99,
        SHRUNK[: 3 << 12] + zlib.compress(bytes(10**6), wbits=-15),
        shrink(NORMAL[:-4]),
        shrink(2 * NORMAL),
    ],
)
def test_what_cannot_be_the_values_is_refused(false) -> None:
    with pytest.raises(ValueError, match="not "):
        restore(false, len(NORMAL))


def test_a_bomb_is_not_inflated() -> None:
    bomb = SHRUNK[: 3 << 12] + zlib.compress(bytes(30 << 20), wbits=-15)
    tracemalloc.start()
    with pytest.raises(ValueError, match="not the exponents"):
        restore(bomb, len(NORMAL))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 20


@given(st.binary(max_size=5000))
def test_garbage_is_refused_or_makes_exactly_what_was_asked(garbage: bytes) -> None:
    with contextlib.suppress(ValueError):
        assert len(restore(garbage, 4096)) == 4096
