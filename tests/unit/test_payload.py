"""An island's contribution: fixed by digests, refused when it is not finite, offered again after a death."""

import numpy as np
import pytest
from worlds.swarm import LAYOUT

from atoll.agent import payload
from atoll.agent.pieces import check_piece
from atoll.agent.state import OuterState
from atoll.swarm.layout import root
from atoll.swarm.messages import Propose

PROPOSAL = Propose(
    step=3,
    parent=b"parent",
    lease=((0, 2),),
    payload=b"",
    tokens=16,
    inner_steps=4,
    loss=1.5,
    norm=0.0,
    handover_seconds=2.0,
)


@pytest.fixture
def state(tmp_path) -> OuterState:
    state = OuterState(tmp_path / "state", LAYOUT)
    random = np.random.default_rng(0)
    state.parameters[:] = random.standard_normal(LAYOUT.num_elements)
    state.local[:] = state.parameters + 0.01 * random.standard_normal(LAYOUT.num_elements).astype(np.float32)
    return state


def values(made: payload.Payload) -> np.ndarray:
    sizes = [where.stop - where.start for where in map(LAYOUT.piece, range(LAYOUT.num_pieces))]
    decode, pieces = made.pieces.codec.decode, made.pieces
    return np.concatenate([decode(np.frombuffer(pieces[i], np.uint8), n) for i, n in enumerate(sizes)])


def test_a_payload_is_outer_minus_local(tmp_path, state) -> None:
    made = payload.make(tmp_path, state, "fp32", PROPOSAL)
    assert (values(made) == state.parameters - state.local).all()


def test_the_proposal_names_the_pieces_and_their_norm(tmp_path, state) -> None:
    made = payload.make(tmp_path, state, "int8", PROPOSAL)
    assert made.proposal.payload == root(made.pieces.table)
    assert all(check_piece(made.pieces.table, i, made.pieces[i]) for i in range(LAYOUT.num_pieces))
    assert made.proposal.norm == pytest.approx(np.linalg.norm(state.parameters - state.local), rel=1e-5)
    assert (made.proposal.step, made.proposal.tokens) == (3, 16)
    assert made.proposal.handover_seconds > PROPOSAL.handover_seconds == 2.0, (
        "what encoding took comes to what copying did"
    )


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_payload_that_is_not_finite_is_refused(tmp_path, state, bad) -> None:
    payload.make(tmp_path, state, "int8", PROPOSAL)
    state.local[-1] = bad
    with pytest.raises(ValueError, match="not finite"):
        payload.make(tmp_path, state, "int8", PROPOSAL)
    assert payload.load(tmp_path, LAYOUT) is None  # the old one's bytes are overwritten


def test_a_payload_outlives_its_agent(tmp_path, state) -> None:
    made = payload.make(tmp_path, state, "int8", PROPOSAL)
    again = payload.load(tmp_path, LAYOUT)
    assert again is not None
    assert again.proposal == made.proposal
    assert all(bytes(again.pieces[i]) == bytes(made.pieces[i]) for i in range(LAYOUT.num_pieces))


def test_no_payload_is_loaded_where_none_was_made(tmp_path) -> None:
    assert payload.load(tmp_path, LAYOUT) is None


@pytest.mark.parametrize("name", ["payload.kept", "payload.bytes"])
@pytest.mark.parametrize("size", [0, 100])
def test_a_truncated_payload_counts_as_absent(tmp_path, state, name, size) -> None:
    payload.make(tmp_path, state, "int8", PROPOSAL)
    path = tmp_path / name
    path.write_bytes(path.read_bytes()[:size])
    assert payload.load(tmp_path, LAYOUT) is None


def test_a_payload_whose_table_is_damaged_counts_as_absent(tmp_path, state) -> None:
    made = payload.make(tmp_path, state, "int8", PROPOSAL)
    path = tmp_path / "payload.kept"
    data = bytearray(path.read_bytes())
    data[data.index(made.pieces.table) + 5] ^= 1
    path.write_bytes(data)
    assert payload.load(tmp_path, LAYOUT) is None
