"""Codecs: sizes, errors within their bounds, and what is exact stays exact. `properties/test_codec_bits.py`
has the bits.
"""

import numpy as np
import pytest

from atoll.agent.codec import add_decoded, decode, encode, encoded_bytes
from atoll.swarm.layout import BLOCK

RANDOM = np.random.default_rng(0).standard_normal(2 * BLOCK).astype(np.float32)
CODECS = ("fp32", "bf16", "int8")


def through(codec: str, values: np.ndarray) -> np.ndarray:
    out = np.empty(encoded_bytes(codec, len(values)), np.uint8)
    encode(codec, values, out)
    return decode(codec, out, len(values))


@pytest.mark.parametrize(
    ("codec", "size"), [("fp32", 8 * BLOCK), ("bf16", 4 * BLOCK), ("int8", 2 * BLOCK + 8)]
)
def test_the_size_on_the_wire(codec: str, size: int) -> None:
    assert encoded_bytes(codec, 2 * BLOCK) == size


def test_fp32_is_exact() -> None:
    assert (through("fp32", RANDOM) == RANDOM).all()


def test_bf16_errs_by_at_most_a_256th() -> None:
    assert (np.abs(through("bf16", RANDOM) - RANDOM) <= np.abs(RANDOM) / 256).all()


def test_int8_errs_by_at_most_half_a_step_of_its_block() -> None:
    step = np.abs(RANDOM.reshape(-1, BLOCK)).max(1, keepdims=True) / 127
    error = np.abs(through("int8", RANDOM) - RANDOM).reshape(-1, BLOCK)
    assert (error <= step * (0.5 + 1e-5)).all()


def test_int8_keeps_the_largest_value_of_a_block_within_an_ulp() -> None:
    top = np.abs(RANDOM.reshape(-1, BLOCK)).argmax(1) + np.array([0, BLOCK])
    assert (np.abs(through("int8", RANDOM)[top] - RANDOM[top]) <= np.spacing(np.abs(RANDOM[top]))).all()


def test_a_block_is_not_coarsened_by_its_neighbour() -> None:
    values = np.concatenate([RANDOM[:BLOCK], 1000 * RANDOM[BLOCK:]])
    assert (through("int8", values)[:BLOCK] == through("int8", RANDOM)[:BLOCK]).all()


@pytest.mark.parametrize("codec", CODECS)
def test_zeros_stay_zeros(codec: str) -> None:
    assert (through(codec, np.zeros(BLOCK, np.float32)) == 0).all()


def test_a_block_too_small_for_a_normal_scale_is_zero_in_int8() -> None:
    assert (through("int8", np.full(BLOCK, 1e-39, np.float32)) == 0).all()


@pytest.mark.parametrize("codec", CODECS)
def test_encoding_what_was_decoded_gives_the_same_values(codec: str) -> None:
    once = through(codec, RANDOM)
    assert np.allclose(through(codec, once), once, rtol=2e-7, atol=0)


@pytest.mark.parametrize("codec", CODECS)
def test_a_sum_is_taken_in_the_order_of_the_calls(codec: str) -> None:
    """fp32 sums depend on the order: the value is rounded, then the product, then the sum, one share after
    the other.
    """
    shares = [RANDOM, 1e4 * RANDOM[::-1], RANDOM**3]
    weights = [np.float32(w) for w in (0.2, 0.3, 0.5)]
    total, expected = np.zeros(2 * BLOCK, np.float32), np.zeros(2 * BLOCK, np.float32)
    for values, weight in zip(shares, weights, strict=True):
        out = np.empty(encoded_bytes(codec, len(values)), np.uint8)
        encode(codec, values.astype(np.float32), out)
        add_decoded(codec, out, weight, total)
        expected = expected + weight * decode(codec, out, len(values))
    assert (total.view(np.uint32) == expected.view(np.uint32)).all()
