"""An island's own contribution: its pseudo-gradient, encoded once, fixed by digests before anything is
sent.
"""

import time
from pathlib import Path

import msgspec
import numpy as np

from atoll.agent.codec import Bytes, encode
from atoll.agent.diloco import piece_bytes, pseudo_gradient, update_bytes
from atoll.agent.state import OuterState
from atoll.files import reserve, write_atomic
from atoll.swarm.layout import Layout, digest, root
from atoll.swarm.messages import Propose


class Kept(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What lies beside a payload's bytes, so that an agent that died can offer it again."""

    proposal: Propose
    codec: str
    table: bytes


class Payload:
    """Encoded pieces with the table of their digests; `proposal.payload` is the table's root."""

    def __init__(self, kept: Kept, data: Bytes, layout: Layout) -> None:
        self.proposal = kept.proposal
        self.codec = kept.codec
        self.table = kept.table
        self._data = data
        self._layout = layout

    def piece(self, index: int) -> memoryview:
        return self._data[piece_bytes(self._layout, self.codec, index)].data


def make(directory: Path, state: OuterState, codec: str, proposal: Propose) -> Payload:
    """Encode outer minus local parameters into `directory`; fills in the proposal's payload and norm, and
    adds what it took.

    Raises ValueError when the pseudo-gradient is not finite.
    """
    layout, began = state.layout, time.monotonic()
    path = directory / "payload.bytes"
    (directory / "payload.kept").unlink(missing_ok=True)
    reserve(path, update_bytes(layout, codec))
    data: Bytes = np.memmap(path, np.uint8, "r+")
    difference = np.empty(layout.piece_elements, np.float32)
    table = bytearray()
    square = 0.0
    for index in range(layout.num_pieces):
        elements = layout.piece(index)
        values = difference[: elements.stop - elements.start]
        square += float(pseudo_gradient(state.parameters[elements], state.local[elements], values))
        where = piece_bytes(layout, codec, index)
        encode(codec, values, data[where])
        table += digest(data[where].data)
    if not np.isfinite(square):
        raise ValueError("the pseudo-gradient is not finite: a parameter of this island is NaN or infinite")
    assert isinstance(data, np.memmap)
    data.flush()
    handover_seconds = proposal.handover_seconds + time.monotonic() - began
    proposal = msgspec.structs.replace(
        proposal, payload=root(bytes(table)), norm=float(square**0.5), handover_seconds=handover_seconds
    )
    kept = Kept(proposal, codec, bytes(table))
    write_atomic(directory / "payload.kept", msgspec.msgpack.encode(kept))
    return Payload(kept, data, layout)


def load(directory: Path, layout: Layout) -> Payload | None:
    """The payload made before a restart, or None; its pieces are checked by whoever receives them."""
    try:
        kept = msgspec.msgpack.decode((directory / "payload.kept").read_bytes(), type=Kept)
        data: Bytes = np.memmap(directory / "payload.bytes", np.uint8, "r")
    except (OSError, ValueError, msgspec.DecodeError):
        return None
    if root(kept.table) != kept.proposal.payload or len(data) != update_bytes(layout, kept.codec):
        return None
    return Payload(kept, data, layout)
