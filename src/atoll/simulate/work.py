"""What takes an agent time: encode and hold, as in `agent/server.py`. Advance is in `recovery.py`."""

import math
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from atoll.agent import effects as e
from atoll.agent.diloco import pseudo_gradient
from atoll.agent.effects import Encode, Hold
from atoll.agent.fetch import NobodyHas
from atoll.agent.log import Entry
from atoll.agent.payload import Kept
from atoll.agent.pieces import Pieces, slots_bytes
from atoll.simulate.bits import CODEC, LAYOUT, pieces_of
from atoll.simulate.fetch import Donors, fetch_slice
from atoll.simulate.timeline import Work
from atoll.swarm import messages as m
from atoll.swarm.layout import root
from atoll.swarm.records import UpdateHeader, header

if TYPE_CHECKING:
    from atoll.simulate.island import Island

ENCODE_SECONDS, APPLY_SECONDS, FSYNC_SECONDS = 0.05, 0.01, 0.01


def encode(island: "Island", work: Encode) -> Work:
    """The payload: encoded once, fixed by digests, durable; then `Encoded`."""
    yield from island.lock.acquire()
    try:
        island.disk.payload = None  # what was kept is overwritten
        yield ENCODE_SECONDS
        data, square = np.empty(slots_bytes(LAYOUT, CODEC), np.uint8), 0.0
        pieces = Pieces(LAYOUT, CODEC, data)
        values = np.empty(LAYOUT.piece_elements, np.float32)
        for index in range(LAYOUT.num_pieces):
            elements = LAYOUT.piece(index)
            square += float(
                pseudo_gradient(island.state.parameters[elements], island.state.local[elements], values)
            )
            pieces.seal(index, CODEC.encode(values, pieces.slot(index)))
        table = bytes(pieces.table)
        proposal = msgspec.structs.replace(
            work.proposal, payload=root(table), norm=math.sqrt(square), handover_seconds=ENCODE_SECONDS
        )
        island.survive()
        island.payload = island.disk.keep_payload(Kept(proposal, CODEC.name, table), data.tobytes())
        island.world.invariants.payloads[root(table)] = data
        island.world.invariants.trained_on[root(table)] = island.trained_on
    finally:
        island.lock.release()
    island.put(e.Encoded(proposal))


def hold(island: "Island", work: Hold) -> Work:
    """Complete the update, compute where it leads, make both durable; then `Holding`."""
    exchange = island.exchange
    if exchange is None:
        return
    attempt = exchange.attempt
    head = header(attempt, work.assembled)
    donors = Donors(island, {*island.donors, *attempt.addresses})
    try:
        if (reducing := island.reducing()) is not None and not reducing.over:
            yield reducing.ended
        for part, slice_root in zip(attempt.slices, work.assembled.digests, strict=True):
            if not exchange.whole(part, slice_root):
                pieces = yield from fetch_slice(donors, attempt.step, part.num_pieces, slice_root, part.owner)
                exchange.pieces.update(zip(part.pieces, pieces, strict=True))
        yield from island.lock.acquire()
        try:
            yield 2 * APPLY_SECONDS
            data = b"".join(exchange.pieces[i] for i in range(LAYOUT.num_pieces))
            table = island.state.next_table(head, pieces_of(np.frombuffer(data, np.uint8)))
            island.survive()
            island.disk.hold(entry_of(head, data, table), data)
            yield FSYNC_SECONDS
        finally:
            island.lock.release()
    except NobodyHas as error:
        island.put(e.Failed(work, "", str(error)))
        return
    island.put(e.Holding(m.Held(attempt.step, attempt.number, head.digest(), root(table))))


def entry_of(head: UpdateHeader, data: bytes, table: bytes) -> Entry:
    """What is kept beside an update's bytes."""
    return Entry(head, bytes(pieces_of(np.frombuffer(data, np.uint8)).table), table)
