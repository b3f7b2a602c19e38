"""The outer state: each chunk has its own version, is recognised by its hash, and is unknown when torn."""

import numpy as np
import pytest
from worlds.swarm import LAYOUT

from atoll.agent import checkpoint
from atoll.agent.codecs import CODECS
from atoll.agent.log import UpdateLog
from atoll.agent.mapped import MOMENTUM, PARAMETERS, loaded_root
from atoll.agent.pieces import Pieces, slots_bytes
from atoll.agent.recovery import Recovery
from atoll.agent.state import ROW_BYTES, UNKNOWN, OuterState
from atoll.swarm.layout import root, row
from atoll.swarm.records import Share, UpdateHeader

HEADER = UpdateHeader(
    step=0,
    parent=b"",
    codec="fp32",
    lr=0.7,
    momentum=0.9,
    participants=(Share(island="a", payload=b"", tokens=1, weight=1.0),),
    slices=(),
)


def floats(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(LAYOUT.num_elements).astype(np.float32)


@pytest.fixture
def state(tmp_path) -> OuterState:
    state = OuterState(tmp_path / "state", LAYOUT)
    for chunk in range(LAYOUT.num_chunks):
        where = LAYOUT.chunk(chunk)
        state.write(chunk, 0, floats(0)[where].tobytes() + floats(1)[where].tobytes())
    return state


@pytest.fixture
def update() -> Pieces:
    codec = CODECS["fp32"]
    pieces = Pieces(LAYOUT, codec, np.empty(slots_bytes(LAYOUT, codec), np.uint8))
    for index in range(LAYOUT.num_pieces):
        pieces.seal(index, codec.encode(floats(2)[LAYOUT.piece(index)], pieces.slot(index)))
    return pieces


def test_a_new_state_is_of_no_known_version(tmp_path) -> None:
    assert OuterState(tmp_path, LAYOUT).version == UNKNOWN


def test_a_chunk_is_read_as_it_was_written(state) -> None:
    where = LAYOUT.chunk(1)
    version, data = state.read(1)
    assert version == 0
    assert data == floats(0)[where].tobytes() + floats(1)[where].tobytes()


def test_applying_an_update_gives_the_table_that_was_computed_before(state, update) -> None:
    table = state.next_table(HEADER, update)
    assert all(state.apply(HEADER, update, i, row(table, i, ROW_BYTES)) for i in range(LAYOUT.num_chunks))
    assert state.table() == table
    assert state.version == 1


def test_computing_the_next_table_changes_nothing(state, update) -> None:
    before = state.table()
    state.next_table(HEADER, update)
    assert state.table() == before
    assert state.version == 0


def test_a_state_whose_chunks_differ_in_version_has_none(state, update) -> None:
    state.apply(HEADER, update, 0, row(state.next_table(HEADER, update), 0, ROW_BYTES))
    assert state.versions[:2] == [1, 0]
    assert state.version == UNKNOWN


def test_a_chunk_that_does_not_match_its_row_after_an_update_is_unknown(state, update) -> None:
    assert not state.apply(HEADER, update, 1, bytes(ROW_BYTES))
    assert state.versions[1] == UNKNOWN
    assert state.versions[0] == 0


def test_a_piece_that_cannot_be_decoded_leaves_its_chunk_of_no_known_version(state, update) -> None:
    table = state.next_table(HEADER, update)
    last = LAYOUT.pieces_of_chunk(1)[0]
    update.seal(last, len(update[last]) - 4)
    assert not state.apply(HEADER, update, 1, row(table, 1, ROW_BYTES))
    assert state.versions[1] == UNKNOWN
    assert state.apply(HEADER, update, 0, row(table, 0, ROW_BYTES))


def test_the_generation_is_even_before_and_after_every_change(state, update, tmp_path) -> None:
    before = int(state._generation[0])
    state.apply(HEADER, update, 0, bytes(ROW_BYTES))
    assert before % 2 == 0
    assert int(state._generation[0]) == before + 2


def test_a_generation_that_a_crash_left_odd_is_even_after_a_restart(state, tmp_path) -> None:
    state._generation[0] += 1
    assert int(OuterState(tmp_path / "state", LAYOUT)._generation[0]) % 2 == 0


def test_the_loaded_root_is_the_states_root_only_for_the_same_parameters(state) -> None:
    table = state.table()
    assert loaded_root(LAYOUT, table, np.array(state.parameters)) == root(table)
    other = np.array(state.parameters)
    other[-1] += 1
    assert loaded_root(LAYOUT, table, other) != root(table)


def recovery_of(state: OuterState, tmp_path) -> Recovery:
    return Recovery(state, UpdateLog(tmp_path / "log", LAYOUT, b""), root(state.table()), [])


@pytest.mark.parametrize("file", [PARAMETERS, MOMENTUM])
def test_after_a_restart_only_a_torn_chunk_is_unknown(state, tmp_path, file) -> None:
    recovery = recovery_of(state, tmp_path)
    recovery.log.keep_table(0, state.table())
    torn = np.memmap(tmp_path / "state" / file, np.float32, "r+")
    torn[LAYOUT.chunk(1).start] += 1
    recovery.state.versions = [UNKNOWN] * LAYOUT.num_chunks
    recovery._recognise(0)
    assert recovery.state.versions == [0, UNKNOWN, *[0] * (LAYOUT.num_chunks - 2)]


def test_a_state_without_any_table_is_not_recognised(state, tmp_path) -> None:
    recovery = recovery_of(state, tmp_path)
    state.versions = [UNKNOWN] * LAYOUT.num_chunks
    recovery._recognise(0)
    assert state.version == UNKNOWN


def test_state_0_has_the_root_that_prepare_names(tmp_path) -> None:
    state = OuterState(tmp_path, LAYOUT)
    state.parameters[:] = floats(3)
    assert root(state.table()) == checkpoint.flat_root(LAYOUT, floats(3))
