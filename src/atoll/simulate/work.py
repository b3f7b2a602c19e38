"""What takes an agent time: encode, hold, advance; each as in `agent/server.py` and `agent/recovery.py`."""

import math
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from atoll.agent import outer_step
from atoll.agent.codec import encode as encode_piece
from atoll.agent.diloco import piece_bytes, pseudo_gradient, update_bytes
from atoll.agent.fetch import NobodyHas
from atoll.agent.log import Entry, Update
from atoll.agent.outer_step import Advance, Encode, Hold
from atoll.agent.payload import Kept
from atoll.agent.recovery import MAX_REPLAY
from atoll.agent.state import ROW_BYTES, UNKNOWN
from atoll.simulate.bits import CODEC, LAYOUT, TinyState, slice_tables, table_of
from atoll.simulate.fetch import CHUNK_BYTES, Donors, NotGiven, chunk_of, fetch_slice, header_of
from atoll.simulate.fetch import table_of as table_at
from atoll.simulate.timeline import Work
from atoll.swarm import messages as m
from atoll.swarm.layout import digest, root, row
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
        data, square = np.empty(update_bytes(LAYOUT, CODEC), np.uint8), 0.0
        values = np.empty(LAYOUT.piece_elements, np.float32)
        for index in range(LAYOUT.num_pieces):
            elements = LAYOUT.piece(index)
            square += float(pseudo_gradient(island.state.parameters[elements], island.state.local[elements], values))
            encode_piece(CODEC, values, data[piece_bytes(LAYOUT, CODEC, index)])
        (table,) = slice_tables(data, [(0, LAYOUT.num_pieces)])
        proposal = msgspec.structs.replace(work.proposal, payload=root(table), norm=math.sqrt(square))
        island.survive()
        island.payload = island.disk.keep_payload(Kept(proposal, CODEC, table), data.tobytes())
        island.world.invariants.payloads[root(table)] = data
        island.world.invariants.trained_on[root(table)] = island.trained_on
    finally:
        island.lock.release()
    island.put(outer_step.Encoded(proposal))


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
            table = island.state.next_table(head, np.frombuffer(data, np.uint8))
            island.survive()
            _keep(island, head, data, table)
            yield FSYNC_SECONDS
        finally:
            island.lock.release()
    except NobodyHas as error:
        island.put(outer_step.Failed(work, "", str(error)))
        return
    island.put(outer_step.Holding(m.Held(attempt.step, attempt.number, head.digest(), root(table))))


def _keep(island: "Island", head: UpdateHeader, data: bytes, table: bytes) -> None:
    tables = slice_tables(np.frombuffer(data, np.uint8), [(first, count) for first, count, _ in head.slices])
    island.disk.hold(Entry(head, tables, table), data)


def advance(island: "Island", pause: float) -> Work:
    """To the log's head; then `Advanced`, and an outer checkpoint where one is due."""
    yield pause
    before = island.state.version
    donors = Donors(island, island.donors)
    yield from island.lock.acquire()
    try:
        version = yield from _to_head(island, donors)
        table = island.state.table()
        island.disk.reached = version
        island.put(outer_step.Advanced(version, root(table), table))
        if version and version != before and version % island.world.setting.checkpoint_every == 0:
            yield FSYNC_SECONDS
            island.survive()
            _checkpoint(island, version)
    except NobodyHas as error:
        island.put(outer_step.Failed(Advance(), "", str(error)))
    finally:
        island.lock.release()


def _checkpoint(island: "Island", version: int) -> None:
    disk = island.disk
    disk.checkpoints[version] = (disk.parameters.copy(), disk.momentum.copy())
    for old in sorted(disk.checkpoints)[:-2]:
        del disk.checkpoints[old]
    disk.prune(min(min(disk.checkpoints), version - 2 * island.world.setting.checkpoint_every))
    disk.sync()  # a power cut after this finds these pages; later ones, or not


def _to_head(island: "Island", donors: Donors) -> Work:
    """As `Recovery.advance`."""
    state, disk = island.state, island.disk
    target = disk.head
    if UNKNOWN in state.versions:
        _recognise(island, target)
    stale = [i for i, v in enumerate(state.versions) if v == UNKNOWN or target - v > MAX_REPLAY]
    if stale:
        yield from _replace(island, stale, target, donors)
    for step in range(min(state.versions), target):
        update = disk.committed(step) or (yield from _fetch_update(island, step, donors))
        table = yield from _table(island, step + 1, donors)
        for chunk, version in enumerate(state.versions):
            if version == step:
                island.applying = chunk
                yield APPLY_SECONDS
                state.apply(update.header, update.data, chunk, row(table, chunk, ROW_BYTES))
                island.applying = -1
                island.survive()
        if UNKNOWN in state.versions:
            return (yield from _to_head(island, donors))
    return target


def _recognise(island: "Island", target: int) -> None:
    state = island.state
    tables = [(step, island.disk.table(step)) for step in range(target, max(-1, target - 3 * MAX_REPLAY), -1)]
    for chunk, version in enumerate(state.versions):
        if version == UNKNOWN:
            own = state.row(chunk)
            known = (step for step, table in tables if table is not None and row(table, chunk, ROW_BYTES) == own)
            state.versions[chunk] = next(known, UNKNOWN)


def _replace(island: "Island", chunks: list[int], target: int, donors: Donors) -> Work:
    disk, state = island.disk, island.state
    for step in sorted(disk.checkpoints, reverse=True):
        if target - MAX_REPLAY <= step <= target:
            saved = TinyState(*disk.checkpoints[step])
            disk.tables[step] = table_of(saved.parameters, saved.momentum)
            for chunk in chunks:
                state.write(chunk, step, saved.read(chunk)[1])
            return
    for chunk in chunks:
        for donor in list(donors.names):
            try:
                yield from _fetch_chunk(island, chunk, donor, donors)
                break
            except NotGiven:
                continue
        else:
            raise NobodyHas(f"chunk {chunk} of state {target}")


def _fetch_chunk(island: "Island", chunk: int, donor: str, donors: Donors) -> Work:
    data, version = yield from donors.ask_one(donor, chunk_of(chunk), lambda _, __: True, CHUNK_BYTES)
    if version > island.disk.head:
        raise NotGiven  # its record will come
    try:
        table = yield from _table(island, version, donors)
    except NobodyHas:
        raise NotGiven from None
    if digest(data[: len(data) // 2]) + digest(data[len(data) // 2 :]) != row(table, chunk, ROW_BYTES):
        if donor in donors.names:
            donors.names.remove(donor)
        raise NotGiven
    island.state.write(chunk, version, data)


def _table(island: "Island", step: int, donors: Donors) -> Work:
    if (table := island.disk.table(step)) is not None:
        return table
    expected = island.disk.root(step)
    data, _ = yield from donors.ask(table_at(step), lambda d, _: root(d) == expected, 1_000)
    island.disk.tables[step] = data
    return data


def _fetch_update(island: "Island", step: int, donors: Donors) -> Work:
    record = island.disk.records[step]
    raw, _ = yield from donors.ask(header_of(step, record.update), lambda d, _: digest(d) == record.update, 1_000)
    head = m.decode(raw)
    assert isinstance(head, UpdateHeader)
    table = yield from _table(island, step + 1, donors)
    pieces: list[bytes] = []
    for _, count, slice_root in head.slices:
        pieces += yield from fetch_slice(donors, step, count, slice_root, "")
    _keep(island, head, b"".join(pieces), table)
    update = island.disk.committed(step)
    assert isinstance(update, Update)
    return update
