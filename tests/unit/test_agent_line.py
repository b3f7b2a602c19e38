"""A trainer's line to its agent: what travels on the socket, and what becomes of agents that die."""

import socket
import threading
from collections.abc import Callable
from contextlib import ExitStack, closing
from pathlib import Path

import pytest
from unit.test_orders import ADOPT, AGAIN, BLOCKS, OTHER, PLAN

from atoll.agent import line, membership
from atoll.agent.frames import frame, read_frame
from atoll.agent.line import MAX_RESTARTS, MISTAKE, AgentLine
from atoll.agent.settings import Settings
from atoll.errors import UserError
from atoll.swarm import messages as m
from atoll.swarm.layout import Layout, TensorSpec
from atoll.swarm.messages.trainer import AGENT_DOOR
from atoll.swarm.records import RunInfo


class Agent:
    """An agent that plays a script; it is gone when the script is over."""

    def __init__(self, script: Callable[["Agent"], int | None]) -> None:
        self.socket, self._far = socket.socketpair()
        self._far.settimeout(10)
        self._status = 1
        self._thread = threading.Thread(target=self._play, args=(script,))
        self._thread.start()

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    def _play(self, script: Callable[["Agent"], int | None]) -> None:
        self._status = script(self) or 1
        self._far.close()

    def say(self, *messages) -> None:
        for message in messages:
            self._far.sendall(frame(message))

    def hear(self, kind):
        message = read_frame(self._far, AGENT_DOOR)
        assert isinstance(message, kind)
        return message

    def ended(self) -> None:
        self._thread.join(10)

    def stop(self, seconds: float = 10.0) -> int:
        self.ended()
        self.socket.close()
        return self._status


@pytest.fixture
def line_to(tmp_path, monkeypatch):
    """A line whose agents play one script after the other; all are played to their end."""
    left, replaced = [], []
    monkeypatch.setattr(line, "FIRST_PAUSE_SECONDS", 0.0)

    def start(settings, ticket, log) -> Agent:
        assert (settings.directory, ticket, log) == (tmp_path, "ticket", tmp_path / "agent.log")
        return Agent(left.pop(0))

    def make(*scripts) -> AgentLine:
        left[:] = scripts
        settings = Settings(directory=tmp_path)
        made = AgentLine(
            settings,
            "ticket",
            tmp_path / "agent.log",
            replaced=lambda why, status: replaced.append((why, status)),
            start=start,
        )
        made.replaced = replaced
        return stack.enter_context(closing(made))

    with ExitStack() as stack:
        yield make
    assert left == []


def member(run_name: str = "run") -> membership.Membership:
    run = RunInfo(
        run_id=f"{run_name}-1",
        name=run_name,
        recipe={},
        genesis_root=b"",
        layout=Layout((TensorSpec("a", (2, 5)), TensorSpec("b", (3,)))),
        data_digest="",
        record_key=b"",
    )
    return membership.Membership(addresses=(), run_id=run.run_id, certificate=b"", authority=b"", run=run)


# ------------------------------------------------------------------------------------------------------- data
def test_blocks_are_there_when_the_agent_says_so(line_to) -> None:
    def agent(its) -> None:
        assert its.hear(m.WantData).blocks == {}
        its.say(m.Pulse(), m.DataAt(1, "/data"))
        assert its.hear(m.WantData).blocks == BLOCKS
        its.say(m.Pulse(), m.DataAt(2, "/data"))

    made = line_to(agent)
    assert made.data_dir() == Path("/data")
    assert made.provide(BLOCKS) == Path("/data")


def test_a_new_agent_is_asked_again(line_to) -> None:
    def dies(its) -> None:
        its.hear(m.WantData)

    def lives(its) -> None:
        wanted = its.hear(m.WantData)
        assert wanted.blocks == BLOCKS
        its.say(m.DataAt(wanted.number, "/data"))

    made = line_to(dies, lives)
    assert made.provide(BLOCKS) == Path("/data")
    assert made.replaced == [("the agent is gone", 1)]


def test_a_run_that_ends_meanwhile_ends_the_wait(line_to) -> None:
    def agent(its) -> None:
        its.hear(m.WantData)
        its.say(m.Stopped(""))
        its.hear(m.Attached)

    made = line_to(agent)
    assert made.provide(BLOCKS) is None
    assert list(made.orders()) == []


@pytest.mark.parametrize(("reason", "told"), [("evicted", "evicted"), ("", "the run is finished")])
def test_an_island_that_may_not_go_on_hears_it_where_it_asks_for_its_data(line_to, reason, told) -> None:
    def agent(its) -> None:
        its.hear(m.WantData)
        its.say(m.Stopped(reason))

    with pytest.raises(UserError, match=told):
        line_to(agent).data_dir()


# -------------------------------------------------------------------------------------------------- enrolment
def test_the_membership_is_what_the_agent_keeps(line_to, tmp_path) -> None:
    enrolled = threading.Event()

    def agent(its) -> None:
        membership._keep(tmp_path, member())
        enrolled.set()

    made = line_to(agent)
    assert enrolled.wait(10)
    assert made.membership() == member()


def test_an_agent_that_dies_before_it_has_enrolled_is_replaced(line_to, tmp_path) -> None:
    done = threading.Event()

    def dies(its) -> None:
        pass

    def enrols(its) -> None:
        membership._keep(tmp_path, member())
        its.say(m.Pulse())  # it is not told to do anything: the trainer is not attached yet
        assert done.wait(10)

    made = line_to(dies, enrols)
    try:
        assert made.membership() == member()
    finally:
        done.set()


def test_what_an_agent_waits_for_while_it_enrols_is_told_at_once(line_to, tmp_path) -> None:
    told, done = threading.Event(), threading.Event()

    def agent(its) -> None:
        its.say(m.Pulse(note="no coordinator answers yet"))
        assert told.wait(10), "the trainer hears it before the island is a member"
        membership._keep(tmp_path, member())
        assert done.wait(10)

    made = line_to(agent)
    heard: list[str] = []

    def hears(pulse: m.Pulse, waits: bool) -> None:
        assert waits
        heard.append(pulse.note)
        told.set()

    made._told = hears
    try:
        assert made.membership() == member()
    finally:
        done.set()
    assert heard == ["no coordinator answers yet"]


def test_an_agent_that_cannot_enrol_says_why(line_to) -> None:
    made = line_to(lambda its: its.say(m.Stopped("this ticket is used up")))
    with pytest.raises(UserError, match="this ticket is used up"):
        made.membership()


def test_enrolment_is_not_waited_for_for_ever(line_to, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(line, "ENROL_SECONDS", 0.0)
    done = threading.Event()
    made = line_to(lambda its: done.wait(10) and None)
    with pytest.raises(UserError, match="no membership within 0 s"):
        made.membership()
    done.set()


# ----------------------------------------------------------------------------------------------- dead agents
def test_an_agent_that_says_what_none_says_to_a_trainer_is_replaced(line_to) -> None:
    def false(its) -> None:
        its.hear(m.WantData)
        its.say(m.Ping())

    def true(its) -> None:
        its.say(m.DataAt(its.hear(m.WantData).number, "/data"))

    made = line_to(false, true)
    assert made.data_dir() == Path("/data")
    ((why, _),) = made.replaced
    assert why.startswith("a trainer takes no such message from its agent: ") and "'Ping'" in why


def test_a_trainer_hears_how_the_run_is_while_it_waits_and_while_it_trains(line_to) -> None:
    def agent(its) -> None:
        its.say(m.Pulse(note="before the first order"))
        its.hear(m.Attached)
        its.say(ADOPT, m.Pulse(note="waiting"))
        its.hear(m.Adopted)
        its.say(m.Work(PLAN))
        its.hear(m.Progress)
        its.say(m.Pulse(lost="the coordinator is gone"), m.Stopped(""))

    made = line_to(agent)
    told: list[tuple[str, bool]] = []
    made._told = lambda pulse, waits: told.append((pulse.lost or pulse.note, waits))
    orders = made.orders()
    assert next(orders) == ADOPT
    made.adopted(ADOPT, b"root")
    assert next(orders) == PLAN
    made.progress(2.0, 16)
    made._agent.ended()
    made.progress(2.0, 16)
    assert told == [("before the first order", True), ("waiting", True), ("the coordinator is gone", False)]


def test_a_trainer_works_on_while_its_agent_is_dead(line_to) -> None:
    looked = threading.Event()

    def dies_while_it_trains(its) -> None:
        its.hear(m.Attached)
        its.say(ADOPT)
        its.hear(m.Adopted)
        its.say(m.Work(PLAN))
        assert its.hear(m.Progress).inner_step == 1
        assert looked.wait(10)

    def dies_when_it_proposes(its) -> None:
        assert its.hear(m.Attached).loaded == b"root"
        its.say(m.Work(AGAIN))
        for number in (2, 3, 4):
            assert its.hear(m.Progress).inner_step == number
        its.hear(m.Proposed)

    def lives(its) -> None:
        assert its.hear(m.Attached).loaded == b"root"
        its.say(m.Work(AGAIN))
        assert its.hear(m.Proposed).inner_steps == 4
        its.say(m.Work(OTHER))
        assert its.hear(m.Attached).loaded == b"", "its weights are no more those where another plan begins"
        its.say(m.Stopped(""))

    made = line_to(dies_while_it_trains, dies_when_it_proposes, lives)
    orders = made.orders()
    assert next(orders) == ADOPT
    made.adopted(ADOPT, b"root")
    assert next(orders) == PLAN
    first = made._agent
    assert made.progress(2.0, 16)
    looked.set()
    first.ended()
    assert all(made.progress(2.0, 16) for _ in range(3))
    made.propose(64, 2.0)
    assert list(orders) == []
    assert made.replaced == [("the agent is gone", 1)] * 2


def test_an_order_that_came_before_the_agents_death_is_followed(line_to) -> None:
    """A new agent might not come so far: an island that is evicted must hear why."""

    def agent(its) -> None:
        its.hear(m.Attached)
        its.say(m.Work(PLAN))
        its.hear(m.Progress)
        its.say(m.Stopped("evicted"))

    made = line_to(agent)
    orders = made.orders()
    assert next(orders) == PLAN
    assert made.progress(2.0, 16)
    made._agent.ended()
    assert not made.progress(2.0, 16)
    assert made.moved_on
    with pytest.raises(UserError, match="evicted"):
        next(orders)


def test_a_frozen_agent_is_replaced(line_to, monkeypatch) -> None:
    thawed = threading.Event()

    def freezes(its) -> None:
        its.hear(m.Attached)
        assert thawed.wait(10)

    def lives(its) -> None:
        its.hear(m.Attached)
        its.say(m.Stopped(""))

    with monkeypatch.context() as patch:
        patch.setattr(line, "SILENT_SECONDS", 0.01)
        made = line_to(freezes, lives)
    frozen = made._agent
    monkeypatch.setattr(frozen, "stop", lambda seconds: thawed.set() or Agent.stop(frozen))
    assert list(made.orders()) == []
    assert made.replaced == [("it has said nothing for 60 s", 1)]


@pytest.mark.parametrize("last_word", [None, m.Pulse()])
def test_agents_that_die_young_again_and_again_are_given_up(line_to, tmp_path, last_word) -> None:
    def dies(its) -> None:
        if last_word is not None:
            its.say(last_word)

    made = line_to(*[dies] * (MAX_RESTARTS + 1))
    with pytest.raises(
        UserError, match=rf"cannot go on \(the agent is gone\); its log: {tmp_path}/agent.log"
    ):
        next(made.orders())
    assert len(made.replaced) == MAX_RESTARTS + 1


def test_an_agent_that_lived_makes_good_for_the_deaths_before(line_to, monkeypatch) -> None:
    monkeypatch.setattr(line, "YOUNG_SECONDS", 0.0)

    def ends(its) -> None:
        its.say(m.Stopped(""))

    assert list(line_to(*[lambda its: None] * (MAX_RESTARTS + 1), ends).orders()) == []


def test_an_agent_that_found_its_users_mistake_is_not_started_again(line_to) -> None:
    made = line_to(lambda its: MISTAKE)
    with pytest.raises(UserError, match="this island's agent cannot go on"):
        next(made.orders())
    assert made.replaced == [("the agent is gone", MISTAKE)]


def test_a_message_that_is_none_is_as_good_as_a_death(line_to) -> None:
    def babbles(its) -> None:
        its._far.sendall((1 << 30).to_bytes(4, "little"))

    def ends(its) -> None:
        its.say(m.Stopped(""))

    made = line_to(babbles, ends)
    assert list(made.orders()) == []
    ((why, _),) = made.replaced
    assert "over the limit" in why
