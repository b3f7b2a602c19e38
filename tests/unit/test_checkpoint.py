"""Outer checkpoints: whole, verified against the root they name, and refused in a sentence otherwise."""

import mmap
from typing import Any

import numpy as np
import pytest
from worlds.swarm import LAYOUT

from atoll.agent import checkpoint
from atoll.agent.checkpoint import OuterCheckpoint
from atoll.agent.state import OuterState
from atoll.errors import UserError
from atoll.swarm.layout import root

PARAMETERS = np.random.default_rng(0).standard_normal(LAYOUT.num_elements).astype(np.float32)


@pytest.fixture
def state(tmp_path) -> OuterState:
    state = OuterState(tmp_path / "state", LAYOUT)
    state.parameters[:] = PARAMETERS
    state.momentum[:] = PARAMETERS[::-1]
    return state


def save(directory, state: OuterState, step: int = 7):
    return checkpoint.save(directory, LAYOUT, step, root(state.table()), state.parameters, state.momentum)


def test_a_checkpoint_gives_back_the_state(tmp_path, state) -> None:
    saved = OuterCheckpoint(save(tmp_path / "outer", state))
    saved.verify()
    assert (saved.step, saved.layout, saved.root) == (7, LAYOUT, root(state.table()))
    assert all(saved.chunk(i) == state.read(i)[1] for i in range(LAYOUT.num_chunks))


def test_a_state_0_has_zero_momentum(tmp_path) -> None:
    saved_root = checkpoint.flat_root(LAYOUT, PARAMETERS)
    saved = OuterCheckpoint(checkpoint.save(tmp_path, LAYOUT, 0, saved_root, PARAMETERS, None))
    saved.verify()
    half = len(saved.chunk(0)) // 2
    assert saved.chunk(0)[half:] == bytes(half)


@pytest.mark.parametrize("keep", [0, 1, 7, 8, 100, 5000, -1])
def test_a_truncated_checkpoint_is_refused(tmp_path, state, keep) -> None:
    path = save(tmp_path / "outer", state)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(UserError, match="damaged outer checkpoint"):
        OuterCheckpoint(path)


def test_a_changed_byte_in_the_tensors_fails_the_checksum(tmp_path, state) -> None:
    path = save(tmp_path / "outer", state)
    data = bytearray(path.read_bytes())
    for at in (-1, -4 * LAYOUT.num_elements - 1):  # in one tensor, then in the other
        data[at] ^= 1
        path.write_bytes(data)
        with pytest.raises(UserError, match="checksum"):
            OuterCheckpoint(path).verify()
        data[at] ^= 1


def test_a_changed_byte_anywhere_in_the_head_is_never_more_than_a_user_error(tmp_path, state) -> None:
    path = save(tmp_path / "outer", state)
    whole = path.read_bytes()
    length = int.from_bytes(whole[:8], "little")
    for at in range(8 + length):
        data = bytearray(whole)
        data[at] ^= 1
        path.write_bytes(data)
        try:
            OuterCheckpoint(path).verify()
        except UserError:
            continue


def test_a_checkpoint_that_is_not_there_is_refused(tmp_path) -> None:
    with pytest.raises(UserError, match="damaged outer checkpoint"):
        OuterCheckpoint(tmp_path / "none.safetensors")


def test_the_newest_comes_first_and_damaged_ones_are_passed_over(tmp_path, state) -> None:
    for step in (3, 20, 100):
        save(tmp_path / "a", state, step)
    save(tmp_path / "b", state, 50)
    (tmp_path / "a" / "00000100.safetensors").write_bytes(b"half")
    assert [
        saved.step for saved in checkpoint.newest([tmp_path / "a", tmp_path / "b", tmp_path / "none"])
    ] == [50, 20, 3]


def test_keeping_the_newest_two_tells_the_older_of_them(tmp_path, state) -> None:
    for step in (10, 20, 30):
        save(tmp_path / "outer", state, step)
    assert checkpoint.keep_newest(tmp_path / "outer", 2) == 20
    assert sorted(path.name for path in (tmp_path / "outer").iterdir()) == [
        "00000020.safetensors",
        "00000030.safetensors",
    ]


def test_keeping_more_than_there_are_deletes_none(tmp_path, state) -> None:
    save(tmp_path / "outer", state, 10)
    assert checkpoint.keep_newest(tmp_path / "outer", 2) == 10
    assert checkpoint.keep_newest(tmp_path / "empty", 2) == 0


def test_a_checkpoint_is_mapped_and_not_read(tmp_path) -> None:
    """Two checkpoints of a 10 B model are 160 GB: opening them to look at their steps must not read them."""
    path = checkpoint.save(tmp_path, LAYOUT, 0, checkpoint.flat_root(LAYOUT, PARAMETERS), PARAMETERS, None)
    owner: Any = OuterCheckpoint(path).parameters
    while isinstance(owner, np.ndarray | memoryview):
        owner = owner.base if isinstance(owner, np.ndarray) else owner.obj
    assert isinstance(owner, mmap.mmap)
