"""What a trainer asks of its agent before it trains on a lease, and tells it as it does, whatever the agent
says meanwhile.
"""

import math
import socket
import threading
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from atoll.agent.settings import Settings
from atoll.agent.trainer import frame, read_frame
from atoll.errors import UserError
from atoll.island.ranks import Ranks
from atoll.mesh import Adopt, Swarm
from atoll.swarm import messages as m
from atoll.swarm.records import Plan, Term

BLOCKS = {"a.tokens": (0, 3)}
ADOPT = m.Adopt(4, b"root", b"table")


class Agent:
    """An agent that plays a script; it is gone when the script is over."""

    alive = True

    def __init__(self, script: Callable[["Agent"], None]) -> None:
        self.socket, self._far = socket.socketpair()
        self._far.settimeout(10)
        self._thread = threading.Thread(target=self._play, args=(script,))
        self._thread.start()

    def _play(self, script: Callable[["Agent"], None]) -> None:
        script(self)
        self._far.close()

    def say(self, *messages) -> None:
        for message in messages:
            self._far.sendall(frame(message))

    def hear(self, kind):
        message = read_frame(self._far)
        assert isinstance(message, kind)
        return message

    def stop(self, seconds: float = 10.0) -> int:
        self._thread.join(10)
        self.socket.close()
        return 1


@pytest.fixture
def swarm_with(monkeypatch, tmp_path):
    """A trainer's side, whose agents play one script after the other; all are played to their end."""
    left, swarms = [], []
    ranks = Ranks.of_torchrun()

    def start(self) -> None:
        self._agent = Agent(left.pop(0))
        self._agent.socket.settimeout(10)

    def make(*scripts) -> Swarm:
        left[:] = scripts
        swarms.append(Swarm(Settings(directory=tmp_path, coordinator=""), "", ranks))
        return swarms[-1]

    monkeypatch.setattr(Swarm, "_start_agent", start)
    yield make
    for swarm in swarms:
        swarm.close()
    ranks.close()
    assert left == []


def test_blocks_are_there_when_the_agent_says_so(swarm_with) -> None:
    def agent(its) -> None:
        assert its.hear(m.WantData).blocks == {}
        its.say(m.Pulse(), m.DataAt(1, "/data"))
        assert its.hear(m.WantData).blocks == BLOCKS
        its.say(m.Pulse(), m.DataAt(2, "/data"))

    swarm = swarm_with(agent)
    assert swarm.data_dir() == Path("/data")
    assert swarm.provide(lambda: BLOCKS)


def test_an_order_ends_the_wait_and_the_late_answer_is_none_to_the_next_question(swarm_with) -> None:
    def agent(its) -> None:
        first = its.hear(m.WantData)
        its.say(ADOPT)  # decided without us
        its.hear(m.Attached)
        second = its.hear(m.WantData)
        assert second.number != first.number
        its.say(m.DataAt(first.number, "/data"), ADOPT)
        third = its.hear(m.WantData)
        its.say(
            m.DataAt(second.number, "/data"),
            m.DataAt(third.number, "/data"),
            m.DataAt(first.number, "/data"),
            m.Stopped(""),
        )

    swarm = swarm_with(agent)
    assert not swarm.provide(lambda: BLOCKS)
    orders = swarm.orders()
    assert next(orders) == Adopt(4, ADOPT)
    assert not swarm.provide(lambda: BLOCKS)
    assert next(orders) == Adopt(4, ADOPT)
    assert swarm.provide(lambda: BLOCKS)
    assert list(orders) == []


def test_a_new_agent_is_asked_again(swarm_with) -> None:
    def dies(its) -> None:
        its.hear(m.WantData)

    def lives(its) -> None:
        wanted = its.hear(m.WantData)
        assert wanted.blocks == BLOCKS
        its.say(m.DataAt(wanted.number, "/data"))

    assert swarm_with(dies, lives).provide(lambda: BLOCKS)


def test_a_run_that_ends_meanwhile_ends_the_wait(swarm_with) -> None:
    def agent(its) -> None:
        its.hear(m.WantData)
        its.say(m.Stopped(""))
        its.hear(m.Attached)

    swarm = swarm_with(agent)
    assert not swarm.provide(lambda: BLOCKS)
    assert list(swarm.orders()) == []


@pytest.mark.parametrize(("reason", "told"), [("evicted", "evicted"), ("", "the run is finished")])
def test_an_island_that_may_not_go_on_hears_it_where_it_asks_for_its_data(swarm_with, reason, told) -> None:
    def agent(its) -> None:
        its.hear(m.WantData)
        its.say(m.Stopped(reason))

    with pytest.raises(UserError, match=told):
        swarm_with(agent).data_dir()


@pytest.mark.parametrize(
    ("seconds", "moves_on", "proposed"), [(math.inf, False, 4), (0.0, False, 1), (math.inf, True, None)]
)
def test_who_has_no_time_for_more_proposes_what_is_done(
    swarm_with, monkeypatch, seconds, moves_on, proposed
) -> None:
    plan, said, looked = (
        Plan(
            term=Term(),
            step=3,
            parent=b"",
            island="a",
            lease=((0, 8),),
            stage_starts=(0,),
            inner_steps=4,
            first_inner_step=12,
            seconds_left=seconds,
        ),
        threading.Event(),
        threading.Event(),
    )

    def agent(its) -> None:
        its.hear(m.Attached)
        its.say(m.Work(plan), *([ADOPT] if moves_on else []))
        said.set()
        for number in range(1, 2 if moves_on else (proposed or 4) + 1):
            assert its.hear(m.Progress).inner_step == number
        assert looked.wait(10)
        if proposed:
            told = its.hear(m.Proposed)
            assert (told.step, told.inner_steps, told.tokens) == (3, proposed, 16 * proposed)

    swarm = swarm_with(agent)
    monkeypatch.setattr(swarm, "_check", lambda parameters: None)
    monkeypatch.setattr(swarm, "_write_local", lambda parameters: None)
    assert next(swarm.orders()) == plan
    assert said.wait(10)
    done = 0
    while done < plan.inner_steps:
        done += 1
        if not swarm.progress(2.0, 16):
            break
    looked.set()
    assert swarm.moved_on == moves_on
    if not swarm.moved_on:
        swarm.propose({}, 16 * done, 2.0)


def test_a_loop_that_does_not_ask_whether_there_is_time_has_done_it_all(swarm_with, monkeypatch) -> None:
    plan = Plan(
        term=Term(),
        step=3,
        parent=b"",
        island="a",
        lease=((0, 8),),
        stage_starts=(0,),
        inner_steps=4,
        first_inner_step=12,
    )

    def agent(its) -> None:
        its.hear(m.Attached)
        its.say(m.Work(plan))
        assert its.hear(m.Proposed).inner_steps == 4

    swarm = swarm_with(agent)
    monkeypatch.setattr(swarm, "_check", lambda parameters: None)
    monkeypatch.setattr(swarm, "_write_local", lambda parameters: None)
    assert next(swarm.orders()) == plan
    swarm.propose({}, 8, 2.0)


def test_a_trainer_works_on_while_its_agent_is_dead(swarm_with, monkeypatch) -> None:
    plan, looked = (
        Plan(
            term=Term(),
            step=3,
            parent=b"",
            island="a",
            lease=((0, 8),),
            stage_starts=(0,),
            inner_steps=4,
            first_inner_step=12,
        ),
        threading.Event(),
    )
    again = msgspec.structs.replace(plan, term=Term(2, "another"), seconds_left=1.0)
    other = msgspec.structs.replace(plan, lease=((8, 8),))

    def dies_while_it_trains(its) -> None:
        its.hear(m.Attached)
        its.say(m.Work(plan))
        assert its.hear(m.Progress).inner_step == 1
        assert looked.wait(10)

    def dies_when_it_proposes(its) -> None:
        assert its.hear(m.Attached).loaded == b"root"
        its.say(m.Work(again))
        for number in (3, 4):
            assert its.hear(m.Progress).inner_step == number
        its.hear(m.Proposed)

    def lives(its) -> None:
        assert its.hear(m.Attached).loaded == b"root"
        its.say(m.Work(again))
        assert its.hear(m.Proposed).inner_steps == 4
        its.say(m.Work(other))
        assert its.hear(m.Attached).loaded == b"", "its weights are no more those where another plan begins"
        its.say(m.Stopped(""))

    swarm = swarm_with(dies_while_it_trains, dies_when_it_proposes, lives)
    monkeypatch.setattr(swarm, "_check", lambda parameters: None)
    monkeypatch.setattr(swarm, "_write_local", lambda parameters: None)
    orders = swarm.orders()
    assert next(orders) == plan
    swarm._loaded = b"root"
    first = swarm._agent
    assert swarm.progress(2.0, 16)
    looked.set()
    first._thread.join(10)
    assert all(swarm.progress(2.0, 16) for _ in range(3))  # the second is told to nobody
    swarm.propose({}, 64, 2.0)
    assert list(orders) == []
