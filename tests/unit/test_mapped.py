"""The files that an agent and its trainer both map, read while the agent changes them."""

from collections.abc import Callable

import numpy as np
import pytest
from worlds.swarm import LAYOUT

from atoll.agent.mapped import OuterMapping
from atoll.agent.state import OuterState
from atoll.swarm.layout import root

NOBODY = np.zeros(LAYOUT.num_elements, np.float32)


@pytest.fixture
def state(tmp_path) -> OuterState:
    """The agent's side of the files, at a state of random numbers."""
    state = OuterState(tmp_path / "state", LAYOUT)
    for values in (state.parameters, state.momentum):
        values[:] = np.random.default_rng(0).standard_normal(LAYOUT.num_elements)
    return state


@pytest.fixture
def mapping(state, tmp_path) -> OuterMapping:
    return OuterMapping(tmp_path, LAYOUT)


def lives() -> bool:
    return True


def dead() -> bool:
    return False


def unasked() -> bool:
    raise AssertionError("nobody asks whether the agent lives when all is well")


class Copies:
    """Counts the times that it copied; `change` happens in the middle of the first one."""

    def __init__(self, change: Callable[[], None] = lambda: None) -> None:
        self.values, self.count = NOBODY.copy(), 0
        self._change = change

    def __call__(self, outer: np.ndarray) -> None:
        half = len(outer) // 2
        self.values[:half] = outer[:half]
        if self.count == 0:
            self._change()
        self.values[half:] = outer[half:]
        self.count += 1


def test_what_lies_still_is_copied_once(state, mapping) -> None:
    copies = Copies()
    assert mapping.read(copies, unasked)
    assert copies.count == 1
    assert np.array_equal(copies.values, state.parameters)


def test_what_changes_meanwhile_is_copied_again(state, mapping) -> None:
    def change() -> None:
        with state._changing():
            state.parameters[:] += 1

    copies = Copies(change)
    assert mapping.read(copies, lives)
    assert copies.count == 2
    assert np.array_equal(copies.values, state.parameters)


def test_what_is_changing_is_copied_until_it_is_changed(state, mapping) -> None:
    copies, changing = Copies(), state._changing()
    changing.__enter__()

    def lives_and_ends_the_change() -> bool:
        if copies.count == 3:
            changing.__exit__(None, None, None)
        return True

    assert mapping.read(copies, lives_and_ends_the_change)
    assert copies.count == 4


def test_a_change_that_nobody_will_end_is_not_waited_for(state, mapping) -> None:
    copies = Copies()
    with state._changing():
        assert not mapping.read(copies, dead)
    assert copies.count == 1


def test_all_ranks_go_by_what_the_first_one_reads(state, mapping) -> None:
    """Only the first knows whether the agent lives: another would wait for ever for the end of a change."""
    said = iter([1, (False, False), 1, (False, True)])
    copies = Copies()
    with state._changing():
        assert not mapping.read(copies, unasked, first=lambda compute: next(said))
    assert copies.count == 2
    assert list(said) == []


def test_the_proof_is_over_what_the_trainer_has_put_there(state, mapping) -> None:
    table = state.table()
    mapping.local[:] = state.parameters
    assert mapping.proof(table) == root(table)
    mapping.local[-1] += 1
    assert mapping.proof(table) != root(table)
    assert state.local[-1] == mapping.local[-1], "the agent encodes the same numbers"
