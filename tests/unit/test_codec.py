"""Codecs: sizes, errors within their bounds, and what is exact stays exact. `properties/test_codec_bits.py`
has the bits.
"""

from typing import get_args, get_type_hints

import numpy as np
import pytest
from worlds.sparse import Sparse

from atoll.agent.codecs import CODECS, codec_named
from atoll.errors import UserError
from atoll.recipe import Outer
from atoll.run.genesis import LARGE_PIECE_ELEMENTS
from atoll.swarm.layout import BLOCK
from atoll.swarm.transport import MAX_FRAME_BYTES

RANDOM = np.random.default_rng(0).standard_normal(2 * BLOCK).astype(np.float32)


def encoded(codec: str, values: np.ndarray) -> np.ndarray:
    out = np.empty(CODECS[codec].max_bytes(len(values)), np.uint8)
    return out[: CODECS[codec].encode(values, out)]


def through(codec: str, values: np.ndarray) -> np.ndarray:
    return CODECS[codec].decode(encoded(codec, values), len(values))


@pytest.mark.parametrize(
    ("codec", "size"), [("fp32", 8 * BLOCK), ("bf16", 4 * BLOCK), ("int8", 2 * BLOCK + 8)]
)
def test_the_size_on_the_wire(codec: str, size: int) -> None:
    assert len(encoded(codec, RANDOM)) == size
    assert CODECS[codec].min_bytes(2 * BLOCK) == CODECS[codec].max_bytes(2 * BLOCK) == size


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
        data = encoded(codec, values.astype(np.float32))
        CODECS[codec].add_decoded(data, weight, total)
        expected = expected + weight * CODECS[codec].decode(data, len(values))
    assert (total.view(np.uint32) == expected.view(np.uint32)).all()


# -------------------------------------------------------------------------------------------- any codec
EVERY = [*CODECS.values(), Sparse()]


def test_a_recipe_can_name_every_codec_and_no_other() -> None:
    assert get_args(get_type_hints(Outer)["codec"]) == tuple(CODECS)


def test_a_codec_that_this_version_does_not_know_is_named() -> None:
    with pytest.raises(
        UserError, match="no codec is called 'int4'; this version of atoll knows fp32, bf16, int8"
    ):
        codec_named("int4")


@pytest.mark.parametrize("codec", EVERY)
def test_a_piece_fits_a_frame_with_room_to_spare(codec) -> None:
    assert codec.max_bytes(LARGE_PIECE_ELEMENTS) < MAX_FRAME_BYTES - 1000


@pytest.mark.parametrize("codec", EVERY)
@pytest.mark.parametrize("values", [RANDOM, 0 * RANDOM, -RANDOM])
def test_whatever_is_encoded_is_of_a_size_within_the_bounds_and_decodes(codec, values) -> None:
    out = np.empty(codec.max_bytes(len(values)), np.uint8)
    size = codec.encode(values, out)
    assert codec.min_bytes(len(values)) <= size <= codec.max_bytes(len(values))
    assert len(codec.decode(out[:size], len(values))) == len(values)


@pytest.mark.parametrize("codec", EVERY)
def test_decoding_tells_the_squared_norm(codec) -> None:
    out = np.empty(codec.max_bytes(len(RANDOM)), np.uint8)
    data = out[: codec.encode(RANDOM, out)]
    square = codec.add_decoded(data, np.float32(0.5), np.zeros_like(RANDOM))
    expected = np.sum(codec.decode(data, len(RANDOM)).astype(np.float64) ** 2)
    assert square == pytest.approx(expected, rel=1e-6)


NAN_BITS = np.array([0x7FC00000, 0x7FFFFFFF, 0xFFFFFFFF, 0x7F800001], np.uint32).view(np.float32)
SPECIAL = [np.float32(np.inf), np.float32(-np.inf), *NAN_BITS, np.float32(1e38), np.float32(-3.4e38)]


@pytest.mark.parametrize("codec", EVERY)
@pytest.mark.parametrize("special", SPECIAL)
def test_a_value_that_is_not_finite_or_overflows_a_sum_never_passes_for_a_number(codec, special) -> None:
    """Encoded like any other, among honest values, it is refused by whoever decodes it."""
    values = RANDOM.copy()
    values.view(np.uint32)[7] = special.view(np.uint32)  # a copy as a float would change some NaNs
    out = np.empty(codec.max_bytes(len(values)), np.uint8)
    with np.errstate(all="ignore"):
        data = out[: codec.encode(values, out)]
        with pytest.raises(ValueError, match="not finite, or too large"):
            codec.decode(data, len(values))


@pytest.mark.parametrize("scale", [*SPECIAL, np.float32(2.7e36)])
@pytest.mark.parametrize("element", [0, 127, -128])
def test_no_scale_makes_int8_values_that_are_not_finite(scale, element) -> None:
    data = np.full(BLOCK + 4, element, np.int8).view(np.uint8)
    data[:4] = np.frombuffer(scale.tobytes(), np.uint8)
    try:
        decoded = CODECS["int8"].decode(data, BLOCK)
    except ValueError:
        return
    assert np.isfinite(decoded).all()
    assert element == 0


@pytest.mark.parametrize("special", ["ffff", "7fff", "807f", "80ff", "817f"])
def test_no_bits_of_bf16_decode_to_a_value_that_is_not_finite(special: str) -> None:
    data = np.zeros(2 * BLOCK, np.uint8)
    data[100:102] = np.frombuffer(bytes.fromhex(special), np.uint8)
    with pytest.raises(ValueError, match="not finite"):
        CODECS["bf16"].decode(data, BLOCK)


@pytest.mark.parametrize("codec", EVERY)
@pytest.mark.parametrize("change", [-1, 1])
def test_bytes_of_a_wrong_size_are_no_encoding(codec, change) -> None:
    out = np.empty(codec.max_bytes(len(RANDOM)) + 1, np.uint8)
    size = codec.encode(RANDOM, out[:-1]) + change
    with pytest.raises(ValueError, match=f"{size} bytes"):
        codec.decode(out[:size], len(RANDOM))
