"""A tiny real state: production's kernels over 16 numbers, so that wrong bits show as wrong roots."""

import threading
from functools import cached_property

import numpy as np
from blake3 import blake3

from atoll.agent.arrays import Bytes, Floats
from atoll.agent.codecs import codec_named
from atoll.agent.mapped import as_bytes
from atoll.agent.pieces import Pieces, piece_rows
from atoll.agent.state import UNKNOWN, OuterState
from atoll.samples import Ranges
from atoll.swarm.layout import Layout, TensorSpec, digest, root
from atoll.swarm.records import Plan, Share, UpdateHeader

CODEC = codec_named("fp32")


class TinyLayout(Layout, frozen=True, dict=True):
    """Production's geometry without its padding: a few elements instead of blocks of 4,096."""

    def __post_init__(self) -> None:
        pass

    @cached_property
    def offsets(self) -> tuple[int, ...]:
        return (0, *np.cumsum([tensor.num_elements for tensor in self.tensors]).tolist())


LAYOUT = TinyLayout((TensorSpec("w", (16,)),), chunk_elements=8, piece_elements=4)


class TinyState(OuterState):
    """Production's outer state over plain arrays in place of mapped files."""

    def __init__(self, parameters: Floats, momentum: Floats) -> None:
        self.layout = LAYOUT
        self.parameters, self.momentum = parameters, momentum
        self.local = np.zeros_like(parameters)
        self._generation = np.zeros(1, np.uint64)
        self.versions = [UNKNOWN] * LAYOUT.num_chunks
        self._lock = threading.Lock()


def genesis(seed: int) -> tuple[Floats, Floats]:
    """Parameters and momentum of state 0."""
    parameters = np.random.default_rng(seed).standard_normal(LAYOUT.num_elements).astype(np.float32)
    return parameters, np.zeros_like(parameters)


def table_of(parameters: Floats, momentum: Floats) -> bytes:
    """The table of a state."""
    chunks = (LAYOUT.chunk(i) for i in range(LAYOUT.num_chunks))
    return b"".join(digest(as_bytes(parameters[c])) + digest(as_bytes(momentum[c])) for c in chunks)


def trained(outer: Floats, plan: Plan, lease: Ranges, island: str) -> Floats:
    """What an island's inner steps make of the outer parameters: a pure function of who trained on what."""
    key = f"{island} {plan.step} {lease}".encode() + plan.parent
    noise = np.frombuffer(blake3(key).digest(length=len(outer)), np.uint8)
    return (outer - (noise.astype(np.float32) - np.float32(127.5)) / np.float32(1024)).astype(np.float32)


def expected(
    parameters: Floats, momentum: Floats, header: UpdateHeader, payloads: dict[bytes, Bytes]
) -> tuple[Floats, Floats]:
    """The state that an update must lead to, by the formulas of the paper in numpy alone."""
    total = np.zeros_like(parameters)
    for share, weight in zip(header.participants, weights(header.participants), strict=True):
        total += np.float32(weight) * payloads[share.payload].view(np.float32)
    lr, mu = np.float32(header.lr), np.float32(header.momentum)
    momentum = (mu * momentum + total).astype(np.float32)
    return (parameters - lr * (total + mu * momentum)).astype(np.float32), momentum


def weights(participants: tuple[Share, ...]) -> list[float]:
    """By tokens, normalised over exactly the participants."""
    total = sum(share.tokens for share in participants)
    return [float(np.float32(share.tokens / total)) for share in participants]


def pieces_of(slots: Bytes) -> Pieces:
    """Encoded pieces with their table; fp32 fills every slot."""
    pieces = Pieces(LAYOUT, CODEC, slots)
    for index in range(LAYOUT.num_pieces):
        pieces.seal(index, len(pieces.slot(index)))
    return pieces


def slice_roots(slots: Bytes, parts: list[range]) -> list[bytes]:
    """What names the slices of these pieces."""
    table = pieces_of(slots).table
    return [root(piece_rows(table, part)) for part in parts]
