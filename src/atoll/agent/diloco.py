"""DiLoCo's outer half (arXiv 2311.08105, algorithm 1): the pseudo-gradient, and the outer optimizer."""

import math

import numpy as np

from atoll.agent.arrays import Floats
from atoll.agent.codecs import CODECS, Codec
from atoll.agent.kernel import kernel
from atoll.agent.measure import add_signed
from atoll.agent.pieces import FalsePieces, Pieces
from atoll.swarm.audit import LANES
from atoll.swarm.layout import BLOCK, digest
from atoll.swarm.records import UpdateHeader


class Direction:
    """How large an update is, and whether it goes where those before it went; for people."""

    def __init__(self) -> None:
        self._update = self._both = self._momentum = 0.0

    def note(self, gradient: Floats, momentum: Floats) -> None:
        """A piece of it, and of the momentum that it meets."""
        update, both, before = products(gradient, momentum)
        self._update, self._both = self._update + float(update), self._both + float(both)
        self._momentum += float(before)

    @property
    def norm(self) -> float | None:
        """Of the update; None where it overflows."""
        return math.sqrt(self._update) if math.isfinite(self._update) else None

    @property
    def cosine(self) -> float | None:
        """To the momentum; None where one of them is zero."""
        size = math.sqrt(self._update) * math.sqrt(self._momentum)
        return max(-1.0, min(1.0, self._both / size)) if 0.0 < size < math.inf else None


def apply(
    header: UpdateHeader,
    pieces: Pieces,
    chunk: int,
    parameters: Floats,
    momentum: Floats,
    direction: Direction | None = None,
) -> None:
    """apply(update[t], chunk@t) -> chunk@t+1, in place on one chunk's `parameters` and `momentum` [chunk].

    `pieces` are the update's; those of the chunk must be here. Elementwise IEEE fp32: the same bits on every
    machine. `direction`, where it is given, learns what the update is. Raises FalsePieces for a piece that is
    no encoding; the chunk is then undefined.
    """
    layout = pieces.layout
    start = layout.chunk(chunk).start
    lr, mu = np.float32(header.lr), np.float32(header.momentum)
    for index in layout.pieces_of_chunk(chunk):
        elements = layout.piece(index)
        inside = slice(elements.start - start, elements.stop - start)
        data = np.frombuffer(pieces[index], np.uint8)
        try:
            gradient = pieces.codec.decode(data, elements.stop - elements.start)
        except ValueError as error:
            raise FalsePieces(index, str(error)) from error
        if direction is not None:
            direction.note(gradient, momentum[inside])
        nesterov(gradient, momentum[inside], parameters[inside], lr, mu)


@kernel
def nesterov(gradient: Floats, momentum: Floats, parameters: Floats, lr: np.float32, mu: np.float32) -> None:
    """The outer optimizer, in place, as torch.optim.SGD(nesterov=True).

    momentum <- mu momentum + g; parameters <- parameters - lr (g + mu momentum).
    """
    for i in range(gradient.size):
        m = mu * momentum[i] + gradient[i]
        momentum[i] = m
        parameters[i] = parameters[i] - lr * (gradient[i] + mu * m)


@kernel
def products(gradient: Floats, momentum: Floats) -> tuple[np.float64, np.float64, np.float64]:
    """(gradient · gradient, gradient · momentum, momentum · momentum)."""
    update, both, before = 0.0, 0.0, 0.0
    for i in range(gradient.size):
        g, m = np.float64(gradient[i]), np.float64(momentum[i])
        update += g * g
        both += g * m
        before += m * m
    return np.float64(update), np.float64(both), np.float64(before)


@kernel
def pseudo_gradient(outer: Floats, local: Floats, out: Floats) -> np.float64:
    """out = outer - local; returns its squared norm, infinite or NaN when any value is."""
    total = 0.0
    for i in range(outer.size):
        difference = outer[i] - local[i]
        out[i] = difference
        total += np.float64(difference) * np.float64(difference)
    return np.float64(total)


def self_test() -> bytes:
    """The digest of what all kernels make of a fixed input.

    It compiles them, and shows when this machine's arithmetic differs from others'.
    """
    values = (np.arange(2 * BLOCK, dtype=np.float32) - BLOCK) ** 3 * np.float32(1e-7)
    results = [result for codec in CODECS.values() for result in _tested(codec, values)]
    momentum, parameters = values.copy(), values[::-1].copy()
    products(values, momentum)
    nesterov(values, momentum, parameters, np.float32(0.7), np.float32(0.9))
    difference = np.empty_like(values)
    pseudo_gradient(parameters, values, difference)
    lanes = np.zeros(LANES)
    add_signed(values, np.uint64(1), np.uint64(0), lanes)
    return digest(
        b"".join([*results, lanes.tobytes(), momentum.tobytes(), parameters.tobytes(), difference.tobytes()])
    )


def _tested(codec: Codec, values: Floats) -> list[bytes]:
    """What a codec makes of `values`: as a sum, and where it keeps a residual, as an island's payload."""
    results: list[bytes] = []
    residual = np.zeros((codec.num_residuals, len(values)), np.float32)
    for kept in (None, residual) if codec.num_residuals else (None,):
        out = np.empty(codec.max_bytes(len(values)), np.uint8)
        encoded = out[: codec.encode(values, out, kept)]
        total = values.copy()
        codec.add_decoded(encoded, np.float32(1 / 3), total)
        results += [encoded.tobytes(), total.tobytes()]
    return [*results, residual.tobytes()]
