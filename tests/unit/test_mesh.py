"""The swarm's side of the mesh: torch's parameters to and from the agent's files, and what a loop is told."""

from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from unit.test_agent_line import Agent, member
from unit.test_orders import BLOCKS, PLAN

from atoll.agent import membership
from atoll.agent.line import AgentLine
from atoll.agent.settings import Settings
from atoll.agent.state import OuterState
from atoll.errors import UserError
from atoll.island.ranks import Ranks
from atoll.mesh import Plan, Swarm
from atoll.swarm import messages as m
from atoll.swarm.layout import root


@pytest.fixture
def state(tmp_path) -> OuterState:
    """The files of an agent that has enrolled, at a state of random numbers."""
    membership._keep(tmp_path, member())
    state = OuterState(tmp_path / "state", member().run.layout)
    for place, values in ((place, state.parameters) for _, place in state.layout.tensor_slices()):
        values[place] = np.random.default_rng(place.start).standard_normal(place.stop - place.start)
    return state


@contextmanager
def swarm_of(directory: Path, script):
    """The swarm's side of an island of one rank, whose agent plays a script to its end."""
    with closing(Ranks.of_torchrun()) as ranks:
        settings = Settings(directory=directory, private_dir=directory / "private")
        line = AgentLine(settings, start=lambda *_: Agent(script))
        with closing(Swarm(ranks, line)) as swarm:
            yield swarm


def parameters_of(state: OuterState) -> dict[str, torch.Tensor]:
    """Parameters of the run's shapes, as a model has them."""
    return {tensor.name: torch.nn.Parameter(torch.zeros(tensor.shape)) for tensor in state.layout.tensors}


def order(state: OuterState) -> m.Adopt:
    table = state.table()
    return m.Adopt(3, root(table), table)


def test_adopting_copies_the_outer_state_and_proves_it(state, tmp_path) -> None:
    def agent(its) -> None:
        its.hear(m.Attached)
        its.say(order(state))
        assert its.hear(m.Adopted) == m.Adopted(3, root(state.table()), root(state.table()))
        its.say(m.Stopped(""))

    parameters = parameters_of(state)
    with swarm_of(tmp_path, agent) as swarm:
        for given in swarm.orders():
            swarm.adopt(given, parameters)
    for tensor, place in state.layout.tensor_slices():
        values = parameters[tensor.name].detach().numpy()
        assert np.array_equal(values.reshape(-1), state.parameters[place])


def test_what_is_proven_is_what_the_parameters_can_hold(state, tmp_path) -> None:
    def agent(its) -> None:
        its.hear(m.Attached)
        its.say(order(state))
        assert its.hear(m.Adopted).loaded != root(state.table())
        its.say(m.Stopped(""))

    parameters = {name: value.detach().bfloat16() for name, value in parameters_of(state).items()}
    with swarm_of(tmp_path, agent) as swarm:
        for given in swarm.orders():
            swarm.adopt(given, parameters)


def test_a_proposal_lies_in_the_mapping_when_the_agent_hears_of_it(state, tmp_path) -> None:
    def agent(its) -> None:
        its.hear(m.Attached)
        its.say(m.Work(PLAN))
        assert its.hear(m.Progress).inner_step == 4
        assert its.hear(m.Proposed).inner_steps == 4
        for number, (_, place) in enumerate(state.layout.tensor_slices()):
            assert np.all(state.local[place] == number)
        assert np.count_nonzero(state.local) == 3, "of the last tensor; nothing is written between them"
        its.say(m.Stopped(""))

    parameters = parameters_of(state)
    with swarm_of(tmp_path, agent) as swarm:
        for given in swarm.orders():
            assert given == PLAN
            for number, value in enumerate(parameters.values()):
                value.data.fill_(number)
            assert swarm.progress(2.0, 64, inner_steps=4)
            swarm.propose(parameters, 64, 2.0)


@pytest.mark.parametrize("change", ["missing", "another name", "another shape"])
def test_a_model_that_is_not_the_runs_is_refused(state, tmp_path, change) -> None:
    parameters = parameters_of(state)
    name = next(iter(parameters))
    value = parameters.pop(name)
    if change == "another name":
        parameters["other"] = value
    if change == "another shape":
        parameters[name] = torch.zeros(1, *value.shape)
    with swarm_of(tmp_path, lambda its: None) as swarm:
        for use in (
            lambda: swarm.adopt(order(state), parameters),
            lambda: swarm.propose(parameters, 64, 2.0),
        ):
            with pytest.raises(UserError, match=f"not the run's: {name}.* differ in name or shape"):
                use()


def test_a_loop_is_told_that_the_swarm_has_moved_on(state, tmp_path) -> None:
    def agent(its) -> None:
        its.hear(m.Attached)
        its.say(m.Work(PLAN))
        its.hear(m.WantData)
        its.say(order(state))
        its.hear(m.Progress)
        its.hear(m.Adopted)
        its.say(m.Work(PLAN))
        its.say(m.DataAt(its.hear(m.WantData).number, "/data"))
        its.say(m.Stopped(""))

    told = []
    with swarm_of(tmp_path, agent) as swarm:
        for given in swarm.orders():
            assert not swarm.moved_on
            if isinstance(given, Plan):
                told.append(swarm.provide(lambda: BLOCKS))
                assert swarm.moved_on != told[-1]
                if swarm.moved_on:
                    assert not swarm.progress(2.0, 16)
                    assert swarm.moved_on
            else:
                swarm.adopt(given, parameters_of(state))
    assert told == [False, True]


def test_what_a_loop_may_know_of_its_island(state, tmp_path) -> None:
    with swarm_of(tmp_path, lambda its: its.say(m.DataAt(its.hear(m.WantData).number, "/data"))) as swarm:
        assert swarm.data_dir() == Path("/data")
        assert swarm.run == member().run
        assert swarm.private_dir == tmp_path / "private"
