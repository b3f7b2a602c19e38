"""The outer half of DiLoCo: the pseudo-gradient, Nesterov as torch has it, apply on chunks and on
everything.
"""

import numpy as np
import pytest

from atoll.agent import diloco
from atoll.agent.codecs import CODECS
from atoll.agent.pieces import FalsePieces, Pieces, slots_bytes
from atoll.swarm.layout import BLOCK, Layout, TensorSpec
from atoll.swarm.records import Share, UpdateHeader

LAYOUT = Layout((TensorSpec("a", (5, BLOCK)), TensorSpec("b", (7,))), 2 * BLOCK, BLOCK)
SIZE = LAYOUT.num_elements


def floats(seed: int, scale: float = 1.0) -> np.ndarray:
    return (scale * np.random.default_rng(seed).standard_normal(SIZE)).astype(np.float32)


def header(codec: str = "int8", lr: float = 0.7, momentum: float = 0.9) -> UpdateHeader:
    return UpdateHeader(
        step=0,
        parent=b"",
        codec=codec,
        lr=lr,
        momentum=momentum,
        participants=(Share(island="a", payload=b"", tokens=1, weight=1.0),),
        slices=(),
    )


def update_of(name: str, values: np.ndarray) -> Pieces:
    codec = CODECS[name]
    pieces = Pieces(LAYOUT, codec, np.empty(slots_bytes(LAYOUT, codec), np.uint8))
    for index in range(LAYOUT.num_pieces):
        pieces.seal(index, codec.encode(values[LAYOUT.piece(index)], pieces.slot(index)))
    return pieces


def test_nesterov_is_that_of_torch() -> None:
    """Momentum bit for bit; parameters within two ulps of the largest term, for torch fuses multiply and
    add.
    """
    torch = pytest.importorskip("torch")
    lr, mu = np.float32(0.7), np.float32(0.9)
    parameters, momentum = floats(0), np.zeros(SIZE, np.float32)
    for step in range(10):
        gradient = floats(step + 1, 0.01)
        theirs = torch.nn.Parameter(torch.from_numpy(parameters.copy()))
        optimizer = torch.optim.SGD([theirs], lr=float(lr), momentum=float(mu), nesterov=True)
        if step:
            optimizer.state[theirs]["momentum_buffer"] = torch.from_numpy(momentum.copy())
        theirs.grad = torch.from_numpy(gradient.copy())
        optimizer.step()
        before = parameters.copy()
        diloco.nesterov(gradient, momentum, parameters, lr, mu)
        assert momentum.tobytes() == optimizer.state[theirs]["momentum_buffer"].numpy().tobytes()
        largest = np.max(np.abs([before, gradient, lr * (gradient + mu * momentum)]), axis=0)
        assert (np.abs(parameters - theirs.detach().numpy()) <= 2 * np.spacing(largest)).all()


@pytest.mark.parametrize("codec", ["fp32", "bf16", "int8"])
def test_apply_on_chunks_is_apply_on_everything(codec: str) -> None:
    update = update_of(codec, floats(1))
    parameters, momentum = floats(2), floats(3)
    whole_parameters, whole_momentum = parameters.copy(), momentum.copy()
    for chunk in reversed(range(LAYOUT.num_chunks)):
        where = LAYOUT.chunk(chunk)
        diloco.apply(header(codec), update, chunk, parameters[where], momentum[where])
    pieces = [np.frombuffer(update[i], np.uint8) for i in range(LAYOUT.num_pieces)]
    gradient = np.concatenate([CODECS[codec].decode(piece, BLOCK) for piece in pieces])
    diloco.nesterov(gradient, whole_momentum, whole_parameters, np.float32(0.7), np.float32(0.9))
    assert parameters.tobytes() == whole_parameters.tobytes()
    assert momentum.tobytes() == whole_momentum.tobytes()


def test_apply_touches_nothing_but_its_chunk() -> None:
    parameters, momentum = floats(2), floats(3)
    before = parameters.copy()
    where = LAYOUT.chunk(1)
    diloco.apply(header(), update_of("int8", floats(1)), 1, parameters[where], momentum[where])
    changed = np.flatnonzero(parameters != before)
    assert changed.min() >= where.start
    assert changed.max() < where.stop


def test_a_piece_that_is_no_encoding_is_named() -> None:
    update = update_of("int8", floats(1))
    update.seal(1, len(update[1]) - 1)
    parameters, momentum = floats(2), floats(3)
    with pytest.raises(
        FalsePieces, match="piece 1 cannot be decoded: 4099 bytes, where int8 takes 4100"
    ) as no:
        diloco.apply(header(), update, 0, parameters[LAYOUT.chunk(0)], momentum[LAYOUT.chunk(0)])
    assert no.value.index == 1


def test_the_pseudo_gradient_is_outer_minus_local_and_tells_its_norm() -> None:
    outer, local, out = floats(1), floats(2), np.empty(SIZE, np.float32)
    square = diloco.pseudo_gradient(outer, local, out)
    assert (out == outer - local).all()
    assert square == pytest.approx(np.square(out.astype(np.float64)).sum(), rel=1e-12)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_one_value_that_is_not_finite_shows_in_the_norm(bad: float) -> None:
    local = floats(2)
    local[1234] = bad
    assert not np.isfinite(diloco.pseudo_gradient(floats(1), local, np.empty(SIZE, np.float32)))


def test_the_self_test_is_the_same_every_time() -> None:
    assert diloco.self_test() == diloco.self_test()


def test_the_self_test_betrays_other_arithmetic(monkeypatch) -> None:
    honest = diloco.self_test()

    def fused(gradient, momentum, parameters, lr, mu) -> None:  # as a compiler that contracts would
        m = (mu.astype(np.float64) * momentum + gradient).astype(np.float32)
        momentum[:] = m
        parameters[:] = parameters - lr * (gradient.astype(np.float64) + mu.astype(np.float64) * m)

    monkeypatch.setattr(diloco, "nesterov", fused)
    assert diloco.self_test() != honest
