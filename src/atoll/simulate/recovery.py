"""Brings an island's outer state to the head, as `agent/recovery.py` does: by chunks, then by updates."""

from typing import TYPE_CHECKING

import numpy as np

from atoll.agent import effects as e
from atoll.agent.effects import Advance
from atoll.agent.fetch import NobodyHas
from atoll.agent.log import Update
from atoll.agent.recovery import MAX_REPAIRS, MAX_REPLAY
from atoll.agent.state import ROW_BYTES, UNKNOWN
from atoll.simulate.bits import LAYOUT, TinyState, table_of
from atoll.simulate.fetch import CHUNK_BYTES, Donors, NotGiven, chunk_of, fetch_slice, header_of
from atoll.simulate.fetch import table_of as table_at
from atoll.simulate.timeline import Work
from atoll.simulate.work import APPLY_SECONDS, FSYNC_SECONDS, entry_of
from atoll.swarm.layout import digest, root, row
from atoll.swarm.records import UpdateHeader, decode

if TYPE_CHECKING:
    from atoll.simulate.island import Island


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
        island.put(e.Advanced(version, root(table), table))
        if version and version != before and version % island.world.setting.checkpoint_every == 0:
            yield FSYNC_SECONDS
            island.survive()
            _checkpoint(island, version)
    except NobodyHas as error:
        island.put(e.Failed(Advance(), "", str(error)))
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
    """As `Recovery.advance`, one thing after the other."""
    state, disk = island.state, island.disk
    if UNKNOWN in state.versions:
        _recognise(island, disk.head)
    repairs = 0
    while repairs < MAX_REPAIRS:
        target = disk.head
        stale = [i for i, v in enumerate(state.versions) if v == UNKNOWN or target - v > MAX_REPLAY]
        near = sorted(set(range(LAYOUT.num_chunks)).difference(stale))
        if stale:
            yield from _replace(island, stale, target, donors)
        yield from _follow(island, near, target, donors)
        if state.version == target:
            return target
        repairs += disk.head == target
    raise NobodyHas(f"state {disk.head} could not be reached in {MAX_REPAIRS} repairs")


def _follow(island: "Island", chunks: list[int], target: int, donors: Donors) -> Work:
    state, disk = island.state, island.disk
    for step in range(min((state.versions[chunk] for chunk in chunks), default=target), target):
        behind = [chunk for chunk in chunks if state.versions[chunk] == step]
        try:
            update = disk.committed(step) or (yield from _fetch_update(island, step, behind, donors))
        except NobodyHas:
            yield from _fetch_chunks(island, behind, target, donors)
            return
        table = yield from _table(island, step + 1, donors)
        for chunk in behind:
            island.applying = chunk
            yield APPLY_SECONDS
            state.apply(update.header, update.pieces, chunk, row(table, chunk, ROW_BYTES))
            island.applying = -1
            island.survive()
        if UNKNOWN in (state.versions[chunk] for chunk in behind):
            return


def _recognise(island: "Island", target: int) -> None:
    state = island.state
    tables = [(step, island.disk.table(step)) for step in range(target, max(-1, target - 3 * MAX_REPLAY), -1)]
    for chunk, version in enumerate(state.versions):
        if version == UNKNOWN:
            own = state.row(chunk)
            known = [step for step, table in tables if table and row(table, chunk, ROW_BYTES) == own]
            state.versions[chunk] = known[0] if known else UNKNOWN


def _replace(island: "Island", chunks: list[int], target: int, donors: Donors) -> Work:
    disk, state = island.disk, island.state
    for step in sorted(disk.checkpoints, reverse=True):
        if target - MAX_REPLAY <= step <= target:
            saved = TinyState(*disk.checkpoints[step])
            disk.tables[step] = table_of(saved.parameters, saved.momentum)
            for chunk in chunks:
                state.write(chunk, step, saved.read(chunk)[1])
            return
    yield from _fetch_chunks(island, chunks, target, donors)


def _fetch_chunks(island: "Island", chunks: list[int], target: int, donors: Donors) -> Work:
    for chunk in chunks:
        if island.disk.head > target:
            return
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


def _fetch_update(island: "Island", step: int, chunks: list[int], donors: Donors) -> Work:
    record = island.disk.records[step]
    raw, _ = yield from donors.ask(
        header_of(step, record.update), lambda d, _: digest(d) == record.update, 1_000
    )
    head = decode(raw, UpdateHeader)
    table = yield from _table(island, step + 1, donors)
    pieces: list[bytes] = []
    for _, count, slice_root in head.slices:
        pieces += yield from fetch_slice(donors, step, count, slice_root, "")
    data = b"".join(pieces)
    entry = entry_of(head, data, table)
    if len(chunks) == LAYOUT.num_chunks:  # else the agent has fetched only a part of it
        island.disk.hold(entry, data)
    return Update(entry, np.frombuffer(data, np.uint8), LAYOUT)
