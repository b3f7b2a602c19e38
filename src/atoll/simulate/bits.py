"""What the numbers must be, by the documents' formulas in numpy alone: nothing of `agent/` is used here."""

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from blake3 import blake3

from atoll.swarm.layout import BLOCK, Layout
from atoll.swarm.records import Share

Floats = npt.NDArray[np.float32]
SMALLEST_NORMAL = np.float32(1.17549435e-38)


@dataclass(frozen=True)
class State:
    """An outer state. Arrays are [num_elements] fp32."""

    step: int
    parameters: Floats = field(repr=False)
    momentum: Floats = field(repr=False)

    def table(self, layout: Layout) -> bytes:
        """For each chunk the digest of its parameters and that of its momentum."""
        chunks = [layout.chunk(index) for index in range(layout.num_chunks)]
        return b"".join(
            hash_of(part[c].tobytes()) for c in chunks for part in (self.parameters, self.momentum)
        )

    def root(self, layout: Layout) -> bytes:
        return hash_of(self.table(layout))

    def after(self, gradient: Floats, lr: float, mu: float) -> "State":
        """The state that an update with these decoded values leads to: Nesterov SGD in fp32."""
        lr32, mu32 = np.float32(lr), np.float32(mu)
        momentum = (mu32 * self.momentum + gradient).astype(np.float32)
        parameters = (self.parameters - lr32 * (gradient + mu32 * momentum)).astype(np.float32)
        return State(self.step + 1, parameters, momentum)


def hash_of(data: bytes) -> bytes:
    return blake3(data).digest()


def encode(codec: str, values: Floats) -> bytes:
    """The encoding of a piece."""
    if codec == "fp32":
        return values.tobytes()
    blocks = values.reshape(-1, BLOCK)
    scales = (np.abs(blocks).max(1) / np.float32(127)).astype(np.float32)
    scales[scales < SMALLEST_NORMAL] = 0
    divisors = np.where(scales > 0, scales, np.float32(1))[:, None]
    quantised = np.where(scales[:, None] > 0, np.rint(blocks / divisors), 0).astype(np.int8)
    return scales.tobytes() + quantised.tobytes()


def decode(codec: str, data: bytes, num_elements: int) -> Floats:
    """The values that an encoding of so many elements stands for."""
    if codec == "fp32":
        return np.frombuffer(data, np.float32)
    num_blocks = num_elements // BLOCK
    scales = np.frombuffer(data, np.float32, num_blocks)
    quantised = np.frombuffer(data, np.int8, num_elements, 4 * num_blocks).reshape(-1, BLOCK)
    return (scales[:, None] * quantised.astype(np.float32)).reshape(-1)


def encoded(codec: str, layout: Layout, values: Floats) -> list[bytes]:
    """All pieces of a flat space."""
    return [encode(codec, values[layout.piece(index)]) for index in range(layout.num_pieces)]


def decoded(codec: str, layout: Layout, pieces: list[bytes]) -> Floats:
    parts = (layout.piece(index) for index in range(layout.num_pieces))
    values = [decode(codec, piece, part.stop - part.start) for piece, part in zip(pieces, parts, strict=True)]
    return np.concatenate(values)


def piece_table(pieces: list[bytes]) -> bytes:
    """The digest and the size of each piece."""
    return b"".join(hash_of(piece) + len(piece).to_bytes(4, "little") for piece in pieces)


def weights(participants: tuple[Share, ...]) -> list[float]:
    """By tokens, normalised over exactly the participants."""
    total = sum(share.tokens for share in participants)
    return [float(np.float32(share.tokens / total)) for share in participants]


def weighted_sum(codec: str, layout: Layout, parts: list[tuple[float, list[bytes]]]) -> list[bytes]:
    """The pieces of the update that (weight, pieces of a payload) make, added in this order."""
    total = np.zeros(layout.num_elements, np.float32)
    for weight, pieces in parts:
        total += np.float32(weight) * decoded(codec, layout, pieces)
    return encoded(codec, layout, total)
