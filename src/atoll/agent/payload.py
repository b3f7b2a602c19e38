"""An island's own contribution: its pseudo-gradient, encoded once, named by a digest before it is sent."""

import math
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np

from atoll.agent.arrays import Bytes
from atoll.agent.codecs import codec_named
from atoll.agent.diloco import pseudo_gradient
from atoll.agent.pieces import Pieces, check_table, slots_bytes
from atoll.agent.residual import NextResidual
from atoll.agent.state import OuterState
from atoll.errors import UserError
from atoll.files import reserve, write_atomic
from atoll.swarm.layout import Layout, root
from atoll.swarm.messages import Propose


class Kept(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What lies beside a payload's bytes, so that an agent that died can offer it again."""

    proposal: Propose
    codec: str
    table: bytes


class Payload:
    """Encoded pieces, and the proposal that names the root of their table."""

    def __init__(self, kept: Kept, slots: Bytes, layout: Layout) -> None:
        self.proposal = kept.proposal
        self.pieces = Pieces(layout, codec_named(kept.codec), slots, kept.table)


def make(
    directory: Path,
    state: OuterState,
    codec: str,
    proposal: Propose,
    settled: Path | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Payload:
    """Encode outer minus local parameters into `directory`. The proposal of the result is `proposal` with the
    payload's root and norm, and with the seconds that this took, by `clock`, added to its handover.

    `settled` is where the residual of the island's last committed payload lies (`residual.settled`); None,
    like a file that is not there, stands for zeros. Raises ValueError when the pseudo-gradient is not finite,
    UserError when the disk is full.
    """
    layout, began, coder = state.layout, clock(), codec_named(codec)
    path = directory / "payload.bytes"
    (directory / "payload.kept").unlink(missing_ok=True)
    reserve(path, slots_bytes(layout, coder))
    slots: Bytes = np.memmap(path, np.uint8, "r+")
    pieces = Pieces(layout, coder, slots)
    residual = NextResidual(directory, layout, coder, settled) if coder.num_residuals else None
    difference = np.empty(layout.piece_elements, np.float32)
    square = sent_square = 0.0
    for index in range(layout.num_pieces):
        elements = layout.piece(index)
        values = difference[: elements.stop - elements.start]
        square += float(pseudo_gradient(state.parameters[elements], state.local[elements], values))
        left_over = residual.piece(elements) if residual is not None else None
        before = left_over.sum(0) if left_over is not None else 0.0  # what is sent besides the values
        pieces.seal(index, coder.encode(values, pieces.slot(index), left_over))
        if left_over is not None:
            sent = values + before - left_over.sum(0)
            sent_square += float(np.sum(sent.astype(np.float64) ** 2))
    if not np.isfinite(square):
        raise ValueError("the pseudo-gradient is not finite: a parameter of this island is NaN or infinite")
    pieces.flush()
    table = bytes(pieces.table)
    if residual is not None:
        residual.keep(proposal.step, root(table))
    handover_seconds = proposal.handover_seconds + clock() - began
    norm = math.sqrt(square if residual is None else sent_square)
    proposal = msgspec.structs.replace(
        proposal, payload=root(table), norm=norm, handover_seconds=handover_seconds
    )
    kept = Kept(proposal, codec, table)
    write_atomic(directory / "payload.kept", msgspec.msgpack.encode(kept))
    return Payload(kept, slots, layout)


def load(directory: Path, layout: Layout) -> Payload | None:
    """The payload made before a restart, or None; its pieces are checked by whoever receives them."""
    try:
        kept = msgspec.msgpack.decode((directory / "payload.kept").read_bytes(), type=Kept)
        slots: Bytes = np.memmap(directory / "payload.bytes", np.uint8, "r")
        codec = codec_named(kept.codec)
        check_table(kept.table, layout, codec, range(layout.num_pieces))
    except (OSError, UserError, ValueError, msgspec.DecodeError):
        return None
    if root(kept.table) != kept.proposal.payload or len(slots) != slots_bytes(layout, codec):
        return None
    return Payload(kept, slots, layout)
