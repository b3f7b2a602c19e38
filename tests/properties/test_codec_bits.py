"""The kernels give, for every finite value, the bits of these numpy formulas: so all islands stay equal."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from atoll.agent import diloco
from atoll.agent.codecs import CODECS
from atoll.swarm.layout import BLOCK

LARGE = 2.0**110
TOP = float(np.finfo(np.float32).max)
SMALLEST_NORMAL = np.finfo(np.float32).tiny
# Halves meet round-to-even, subnormals and their neighbours the cut-off, powers of two the carries of bf16.
SHARP = [
    0.0,
    -0.0,
    1.0,
    -1.0,
    0.5,
    1.5,
    2.5,
    -0.5,
    127.0,
    63.5,
    126.5,
    1e-45,
    -1e-45,
    1.1754942e-38,
    1.17549435e-38,
    1.4e-36,
    1.5e-36,
    1e38,
    TOP,
    -TOP,
    3.0e38,
    1.00390625,
    1.01171875,
    1.9999999,
]
NUMBERS = st.one_of(st.sampled_from(SHARP), st.floats(-TOP, TOP, width=32))
WEIGHTS = st.floats(0, 1, width=32).map(np.float32)


@st.composite
def blocks(draw) -> np.ndarray:
    """Two blocks: some drawn values, repeated over each, at a drawn scale."""
    parts = []
    for _ in range(2):
        seeds = np.array(draw(st.lists(NUMBERS, min_size=1, max_size=40)), np.float32)
        parts.append(np.resize(seeds, BLOCK))
    return np.concatenate(parts)


def encoded(codec: str, values: np.ndarray) -> np.ndarray:
    out = np.full(CODECS[codec].max_bytes(len(values)), 0xA5, np.uint8)
    return out[: CODECS[codec].encode(values, out)]


def oracle(codec: str, values: np.ndarray) -> np.ndarray:
    if codec == "fp32":
        return values.view(np.uint8).copy()
    if codec == "bf16":
        bits = values.view(np.uint32).astype(np.uint64)
        return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16).view(np.uint8)
    by_block = values.reshape(-1, BLOCK)
    scales = np.abs(by_block).max(1) / np.float32(127)
    scales[scales < SMALLEST_NORMAL] = 0
    quotients = np.divide(by_block, scales[:, None], out=np.zeros_like(by_block), where=scales[:, None] > 0)
    return np.concatenate(
        [scales.view(np.uint8), np.rint(quotients).astype(np.int8).reshape(-1).view(np.uint8)]
    )


def decoded_oracle(codec: str, data: np.ndarray, count: int) -> np.ndarray:
    if codec == "fp32":
        return data.view(np.float32)
    if codec == "bf16":
        return (data.view(np.uint16).astype(np.uint32) << 16).view(np.float32)
    head = 4 * (count // BLOCK)
    return (
        data[:head].view(np.float32)[:, None]
        * data[head:].view(np.int8).reshape(-1, BLOCK).astype(np.float32)
    ).reshape(-1)


@given(blocks(), st.sampled_from(["fp32", "bf16", "int8"]))
@settings(max_examples=150)
def test_encoding_is_bit_equal_to_the_formula(values, codec) -> None:
    assert encoded(codec, values).tobytes() == oracle(codec, values).tobytes()


@given(blocks(), blocks(), WEIGHTS, st.sampled_from(["fp32", "bf16", "int8"]))
@settings(max_examples=150)
def test_adding_is_bit_equal_to_the_formula(values, start, weight, codec) -> None:
    data = encoded(codec, values)
    total = start.copy()
    CODECS[codec]._add(data, weight, total)  # without the check, which refuses what is too large to sum
    with np.errstate(over="ignore", invalid="ignore", under="ignore"):
        expected = start + weight * decoded_oracle(codec, data, len(values))
    assert np.array_equal(total, expected, equal_nan=True)
    finite = np.isfinite(expected)
    assert (total.view(np.uint32)[finite] == expected.view(np.uint32)[finite]).all()  # the sign of zero, too


@given(blocks())
@settings(max_examples=50)
def test_int8_never_leaves_its_range(values) -> None:
    quantised = encoded("int8", values)[8:].view(np.int8)
    assert quantised.min() >= -127


@given(blocks(), blocks(), blocks(), st.floats(0.0078125, 1, width=32), st.floats(0, 0.9990234375, width=32))
@settings(max_examples=100)
def test_the_outer_optimizer_is_bit_equal_to_the_formula(gradient, momentum, parameters, lr, mu) -> None:
    lr, mu = np.float32(lr), np.float32(mu)
    with np.errstate(over="ignore", invalid="ignore", under="ignore"):
        m = mu * momentum + gradient
        p = parameters - lr * (gradient + mu * m)
    diloco.nesterov(gradient, momentum, parameters, lr, mu)
    for got, expected in ((momentum, m), (parameters, p)):
        finite = np.isfinite(expected)
        assert np.array_equal(got, expected, equal_nan=True)
        assert (got.view(np.uint32)[finite] == expected.view(np.uint32)[finite]).all()


@given(
    st.lists(
        st.tuples(st.floats(-LARGE, LARGE, width=32), st.floats(-LARGE, LARGE, width=32)),
        min_size=1,
        max_size=50,
    ),
    st.floats(-LARGE, LARGE, width=32),
)
@settings(max_examples=200)
def test_a_swarm_of_one_with_rate_1_and_no_momentum_stays_within_an_ulp_of_the_inner_steps(
    pairs, before
) -> None:
    """There is no special case for a swarm of one. `before` is an old momentum."""
    outer, local = (np.resize(np.array(side, np.float32), BLOCK) for side in zip(*pairs, strict=True))
    gradient = np.empty_like(outer)
    diloco.pseudo_gradient(outer, local, gradient)
    total = np.zeros_like(outer)
    CODECS["fp32"].add_decoded(encoded("fp32", gradient), np.float32(1), total)
    moved = outer.copy()
    diloco.nesterov(total, np.full_like(outer, before), moved, np.float32(1), np.float32(0))
    off = np.abs(moved.astype(np.float64) - local)
    assert (off <= np.spacing(np.maximum(np.abs(outer), np.abs(local)))).all()
