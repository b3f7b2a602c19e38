"""A residual counts only if its payload was committed, whenever the agent dies."""

from pathlib import Path

import numpy as np
import pytest
from worlds.sparse import KEPT, Sparse
from worlds.swarm import LAYOUT

import examples
from atoll.agent import payload, residual
from atoll.agent.codecs import CODECS
from atoll.agent.state import OuterState
from atoll.swarm.messages import Propose
from atoll.swarm.records import CommitRecord, Share

SIZE = LAYOUT.num_elements


class Island:
    """One that proposes in every step, and whatever of it is committed."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.state = OuterState(directory / "state", LAYOUT)
        self.records: list[CommitRecord] = []

    def encode(self, seed: int = 0) -> payload.Payload:
        """The pseudo-gradient of the next step, encoded."""
        random = np.random.default_rng([len(self.records), seed])
        self.state.local[:] = -random.standard_normal(SIZE)
        proposal = Propose(
            step=len(self.records),
            parent=b"",
            lease=(),
            payload=b"",
            tokens=1,
            inner_steps=1,
            loss=0.0,
            norm=0.0,
        )
        settled = residual.settled(self.directory, "me", self.records)
        return payload.make(self.directory, self.state, "sparse", proposal, settled)

    def commit(self, *made: payload.Payload) -> None:
        """The next step, of these payloads of mine and of another island's."""
        mine = [Share(island="me", payload=each.proposal.payload, tokens=1, weight=0.5) for each in made]
        record = examples.commit_record(
            step=len(self.records),
            participants=(*mine, Share(island="other", payload=b"x" * 32, tokens=1, weight=0.5)),
        )
        self.records.append(record)

    @property
    def left_over(self) -> np.ndarray:
        """What the next payload will begin with."""
        path = residual.settled(self.directory, "me", self.records)
        if path is None or not path.exists():
            return np.zeros(SIZE, np.float32)
        return np.fromfile(path, np.float32)

    def files(self) -> list[str]:
        return sorted(path.name for path in self.directory.glob("residual*"))


def values(made: payload.Payload) -> np.ndarray:
    pieces = [np.frombuffer(made.pieces[i], np.uint8) for i in range(LAYOUT.num_pieces)]
    sizes = [where.stop - where.start for where in map(LAYOUT.piece, range(LAYOUT.num_pieces))]
    return np.concatenate([made.pieces.codec.decode(*pair) for pair in zip(pieces, sizes, strict=True)])


@pytest.fixture
def island(tmp_path, monkeypatch) -> Island:
    monkeypatch.setitem(CODECS, "sparse", Sparse())
    return Island(tmp_path)


def test_what_a_committed_payload_did_not_send_is_added_to_the_next(island) -> None:
    first = island.encode()
    gradient = -np.array(island.state.local)
    assert np.count_nonzero(values(first)) == SIZE // KEPT
    island.commit(first)
    assert (island.left_over + values(first) == gradient).all()
    left_over = island.left_over
    second = island.encode()
    island.commit(second)
    assert (island.left_over + values(second) == left_over - np.array(island.state.local)).all()


def test_a_residual_does_not_count_before_its_commit(island) -> None:
    made = island.encode()
    assert (island.left_over == 0).all()
    island.commit(made)
    assert (island.left_over != 0).any()


def test_an_island_that_is_left_out_keeps_the_old_residual(island) -> None:
    island.commit(island.encode())
    before = island.left_over
    island.encode()
    island.commit()  # without it
    assert (island.left_over == before).all()
    made = island.encode()
    gradient = -np.array(island.state.local)
    island.commit(made)
    assert (island.left_over + values(made) == before + gradient).all()


def test_a_payload_that_is_encoded_again_begins_with_the_same_residual(island) -> None:
    island.commit(island.encode())
    first, second = island.encode(), island.encode()
    assert first.proposal.payload == second.proposal.payload


def test_a_commit_of_a_payload_that_was_encoded_again_since_leaves_nothing_over(island) -> None:
    """To take the older residual would be to add again what that payload has sent."""
    island.commit(island.encode())
    overtaken = island.encode(seed=1)
    island.encode(seed=2)
    island.commit(overtaken)
    assert (island.left_over == 0).all()


class Death(Exception):
    """As if the agent were killed at this moment."""


@pytest.mark.parametrize("moment", ["NextResidual", "NextResidual.keep", "write_atomic"])
def test_an_agent_that_dies_while_it_encodes_keeps_the_old_residual_and_no_payload(
    island, monkeypatch, moment
) -> None:
    island.commit(island.encode())
    before = island.left_over

    def die(*_: object) -> None:
        raise Death

    with monkeypatch.context() as patch:
        patch.setattr(f"atoll.agent.payload.{moment}", die)
        with pytest.raises(Death):
            island.encode()
    assert (island.left_over == before).all()
    assert payload.load(island.directory, LAYOUT) is None
    made = island.encode()
    gradient = -np.array(island.state.local)
    island.commit(made)
    assert (island.left_over + values(made) == before + gradient).all()


def test_an_agent_that_died_before_the_commit_finds_payload_and_residual_after_it(island) -> None:
    made = island.encode()
    again = Island(island.directory)
    kept = payload.load(again.directory, LAYOUT)
    assert kept is not None and kept.proposal == made.proposal
    again.commit(kept)
    assert (again.left_over + values(kept) == -np.array(again.state.local)).all()


def test_a_rewind_takes_back_the_residuals_of_what_it_abandons(island) -> None:
    island.commit(island.encode())
    before = island.left_over
    island.commit(island.encode())
    del island.records[1:]
    assert (island.left_over == before).all()
    del island.records[0:]
    assert (island.left_over == 0).all()


def test_a_rewind_to_a_state_whose_residual_is_gone_begins_with_none(island) -> None:
    for _ in range(3):
        island.commit(island.encode())
    del island.records[1:]
    assert (island.left_over == 0).all()


def test_no_more_than_two_residuals_are_kept(island) -> None:
    for _ in range(4):
        island.commit(island.encode())
        island.encode()
        island.commit()
    assert len(island.files()) == 2


def test_a_residual_of_another_size_counts_as_absent(island) -> None:
    island.commit(island.encode())
    path = residual.settled(island.directory, "me", island.records)
    path.write_bytes(path.read_bytes()[:-4])
    made = island.encode()
    assert (values(made)[values(made) != 0] == -np.array(island.state.local)[values(made) != 0]).all()
