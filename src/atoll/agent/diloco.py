"""DiLoCo's outer half (arXiv 2311.08105, algorithm 1): the pseudo-gradient, and apply, the one operation on
states.
"""

import numpy as np

from atoll.agent.codec import Bytes, Floats, add_decoded, decode, encode, encoded_bytes, kernel
from atoll.swarm.layout import BLOCK, Layout, digest
from atoll.swarm.records import UpdateHeader


def apply(
    layout: Layout, header: UpdateHeader, update: Bytes, chunk: int, parameters: Floats, momentum: Floats
) -> None:
    """apply(update[t], chunk@t) -> chunk@t+1, in place on one chunk's `parameters` and `momentum` [chunk].

    `update` holds all encoded pieces, [update_bytes]. Elementwise IEEE fp32: the same bits on every machine.
    """
    start = layout.chunk(chunk).start
    for index in layout.pieces_of_chunk(chunk):
        elements = layout.piece(index)
        inside = slice(elements.start - start, elements.stop - start)
        gradient = decode(
            header.codec, update[piece_bytes(layout, header.codec, index)], elements.stop - elements.start
        )
        nesterov(
            gradient, momentum[inside], parameters[inside], np.float32(header.lr), np.float32(header.momentum)
        )


def piece_bytes(layout: Layout, codec: str, index: int) -> slice:
    """Where piece `index` lies among the encoded pieces."""
    elements = layout.piece(index)
    start = index * encoded_bytes(codec, layout.piece_elements)
    return slice(start, start + encoded_bytes(codec, elements.stop - elements.start))


def update_bytes(layout: Layout, codec: str) -> int:
    """The size of all encoded pieces: of a payload, and of an update."""
    return encoded_bytes(codec, layout.num_elements)


@kernel
def nesterov(gradient: Floats, momentum: Floats, parameters: Floats, lr: np.float32, mu: np.float32) -> None:
    """The outer optimizer in place, as torch.optim.SGD(nesterov=True): m <- mu m + g; p <- p - lr (g + mu
    m).
    """
    for i in range(gradient.size):
        m = mu * momentum[i] + gradient[i]
        momentum[i] = m
        parameters[i] = parameters[i] - lr * (gradient[i] + mu * m)


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
    """Digest of what all kernels make of a fixed input: compiles them, and betrays a machine whose arithmetic
    differs.
    """
    values = (np.arange(2 * BLOCK, dtype=np.float32) - BLOCK) ** 3 * np.float32(1e-7)
    results: list[bytes] = []
    for codec in ("fp32", "bf16", "int8"):
        out = np.empty(encoded_bytes(codec, len(values)), np.uint8)
        encode(codec, values, out)
        total = values.copy()
        add_decoded(codec, out, np.float32(1 / 3), total)
        results += [out.tobytes(), total.tobytes()]
    momentum, parameters = values.copy(), values[::-1].copy()
    nesterov(values, momentum, parameters, np.float32(0.7), np.float32(0.9))
    difference = np.empty_like(values)
    pseudo_gradient(parameters, values, difference)
    return digest(b"".join([*results, momentum.tobytes(), parameters.tobytes(), difference.tobytes()]))
