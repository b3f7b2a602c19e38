"""What a trainer owes its agent, and makes of the agent's messages, whatever comes when: without a socket."""

import math
from pathlib import Path

import msgspec
import pytest

import examples
from atoll.agent.orders import Orders
from atoll.errors import UserError
from atoll.metrics import Metrics
from atoll.swarm import messages as m
from atoll.swarm.messages.trainer import ToAgent, ToTrainer
from atoll.swarm.records import Plan, Term

BLOCKS = {"a.tokens": (0, 3)}
ADOPT = m.Adopt(3, b"root", b"table")
PLAN = examples.plan(step=3, parent=b"root", first_inner_step=12)
AGAIN = msgspec.structs.replace(PLAN, term=Term(2, "another"), seconds_left=1.0)
OTHER = msgspec.structs.replace(PLAN, lease=((8, 8),))


class Talk:
    """`orders` of a trainer whose clock stands still, and what it has said since it was last asked."""

    def __init__(self) -> None:
        self.now = 0.0
        self._said: list[ToAgent] = []
        self.orders = Orders(self._said.append, lambda: self.now)

    def said(self) -> list[ToAgent]:
        said, self._said[:] = list(self._said), []
        return said

    def given(self, *messages: ToTrainer) -> m.Adopt | Plan | m.Stopped | None:
        """The next order once these messages have come."""
        for message in messages:
            self.orders.hear(message)
        return self.orders.next()

    def adopts(self) -> None:
        """Attach, and adopt the state of PLAN's step."""
        self.orders.attach()
        assert self.given(ADOPT) == ADOPT
        self.orders.adopted(ADOPT, b"root")
        assert self.said() == [m.Attached(), m.Adopted(3, ADOPT.root, b"root")]

    def trains(self, plan: Plan = PLAN) -> None:
        """Adopt, and be given a plan."""
        self.adopts()
        assert self.given(m.Work(plan)) == plan

    def proposes(self) -> m.Proposed:
        self.orders.propose(64, 2.0)
        (proposed,) = self.said()
        assert isinstance(proposed, m.Proposed)
        return proposed


@pytest.fixture
def talk() -> Talk:
    return Talk()


# ----------------------------------------------------------------------------------------------------- orders
def test_signs_of_life_are_no_orders(talk) -> None:
    talk.orders.attach()
    assert talk.given(m.Pulse(), m.Pulse()) is None


def test_orders_are_given_in_the_order_in_which_they_came(talk) -> None:
    talk.orders.attach()
    assert talk.given(ADOPT, m.Stopped("")) == ADOPT
    assert talk.given() == m.Stopped(""), "the run is finished"


def test_an_island_that_may_not_go_on_says_why(talk) -> None:
    talk.orders.attach()
    with pytest.raises(UserError, match="evicted"):
        talk.given(m.Stopped("evicted"))


# ---------------------------------------------------------------------------------------- progress, proposals
@pytest.mark.parametrize(
    ("seconds_left", "num_done"), [(math.inf, 4), (0.0, 1), (4.0, 2), (3.9, 1), (8.0, 4)]
)
def test_who_has_no_time_for_more_proposes_what_is_done(talk, seconds_left, num_done) -> None:
    talk.trains(msgspec.structs.replace(PLAN, seconds_left=seconds_left))
    done, go_on = 0, True
    while go_on and done < PLAN.inner_steps:
        talk.now += 2.0
        done += 1
        go_on = talk.orders.progress(2.5, 16)
    measured = Metrics(loss=2.5, tokens_per_second=8.0)
    assert talk.said() == [m.Progress(3, number, measured) for number in range(1, num_done + 1)]
    assert not talk.orders.moved_on
    talk.now += 0.5
    assert talk.proposes() == m.Proposed(
        step=3,
        tokens=64,
        inner_steps=num_done,
        loss=2.0,
        compute_seconds=2.0 * num_done + 0.5,
        handover_seconds=0.5,
        metrics=measured,
    )


def test_what_was_measured_goes_out_with_the_next_progress_and_with_the_proposal(talk) -> None:
    talk.adopts()
    talk.orders.measured(heldout_loss=2.6)
    assert talk.said() == []
    assert talk.given(m.Work(PLAN)) == PLAN
    talk.now += 2.0
    talk.orders.measured(gradient_norm=0.5, learning_rate=0.01)
    talk.orders.progress(2.5, 16)
    measured = Metrics(
        loss=2.5, heldout_loss=2.6, tokens_per_second=8.0, gradient_norm=0.5, learning_rate=0.01
    )
    assert talk.said() == [m.Progress(3, 1, measured)]
    assert talk.proposes().metrics == measured


def test_a_figure_that_is_none_of_the_metrics_is_refused(talk) -> None:
    with pytest.raises(TypeError, match="temperature"):
        talk.orders.measured(temperature=0.7)


def test_steps_reported_together_go_on_together(talk) -> None:
    talk.trains(msgspec.structs.replace(PLAN, seconds_left=6.0))
    talk.now += 4.0
    assert not talk.orders.progress(2.5, 32, inner_steps=2), "there is time for one more, but not for two"
    assert talk.said() == [m.Progress(3, 2, Metrics(loss=2.5, tokens_per_second=8.0))]
    assert talk.proposes().inner_steps == 2


def test_a_loop_that_does_not_ask_whether_there_is_time_has_done_it_all(talk) -> None:
    talk.trains()
    assert talk.proposes().inner_steps == PLAN.inner_steps


def test_an_order_that_waits_means_that_the_swarm_has_moved_on(talk) -> None:
    talk.trains()
    talk.orders.hear(ADOPT)
    assert not talk.orders.progress(2.0, 16)
    assert talk.orders.moved_on
    assert talk.given() == ADOPT
    assert not talk.orders.moved_on


# ---------------------------------------------------------------------------------------------- another agent
def test_another_agent_hears_from_which_state_the_trainer_began(talk) -> None:
    talk.trains()
    talk.orders.agent_replaced()
    assert talk.said() == [m.Attached(b"root")]


def test_a_trainer_that_waits_for_no_orders_yet_does_not_attach_to_another_agent(talk) -> None:
    talk.orders.agent_replaced()
    assert talk.said() == []


def test_what_a_dead_agent_ordered_counts_no_more(talk) -> None:
    talk.trains()
    talk.orders.hear(ADOPT)
    talk.orders.agent_replaced()
    assert not talk.orders.moved_on
    assert talk.given() is None


def test_the_same_plan_from_another_agent_disturbs_nobody_who_is_at_it(talk) -> None:
    talk.trains()
    talk.orders.hear(m.Work(AGAIN))
    assert talk.orders.progress(2.0, 16)
    assert not talk.orders.moved_on


@pytest.mark.parametrize(("seconds_left", "goes_on"), [(1.9, False), (2.0, True)])
def test_a_plan_that_is_told_again_says_how_much_time_is_left_from_then_on(
    talk, seconds_left, goes_on
) -> None:
    talk.trains(msgspec.structs.replace(PLAN, seconds_left=math.inf))
    talk.now += 2.0
    assert talk.orders.progress(2.5, 16)
    talk.now += 1.0
    talk.orders.hear(m.Work(msgspec.structs.replace(PLAN, seconds_left=1.0 + seconds_left)))
    talk.now += 1.0
    assert talk.orders.progress(2.5, 16) == goes_on, "an inner step takes 2 s"
    assert not talk.orders.moved_on


@pytest.mark.parametrize("before", [False, True])
def test_another_agent_hears_what_was_proposed_to_a_dead_one(talk, before) -> None:
    talk.trains()
    proposed = talk.proposes()
    if not before:
        assert talk.given() is None  # it waits for an order already
    assert talk.given(m.Work(AGAIN)) is None
    assert talk.said() == [proposed]


def test_who_has_trained_on_a_plan_adopts_again_before_another_one(talk) -> None:
    talk.trains()
    talk.proposes()
    assert talk.given(m.Work(OTHER)) is None
    assert talk.said() == [m.Attached()], "its weights are no more those where another plan begins"
    talk.orders.agent_replaced()
    assert talk.said() == [m.Attached()]


def test_another_plan_breaks_off_the_one_under_way(talk) -> None:
    talk.trains()
    talk.orders.hear(m.Work(OTHER))
    assert not talk.orders.progress(2.0, 16)
    assert talk.orders.moved_on
    talk.said()
    assert talk.given() is None
    assert talk.said() == [m.Attached()]


def test_a_plan_that_was_given_up_is_begun_from_its_state_when_it_comes_again(talk) -> None:
    talk.trains()
    assert talk.given() is None  # it asks for an order, and has not proposed
    assert talk.given(m.Work(AGAIN)) is None
    assert talk.said() == [m.Attached()]
    assert talk.given(ADOPT) == ADOPT
    talk.orders.adopted(ADOPT, b"root")
    assert talk.given(m.Work(AGAIN)) == AGAIN


# ------------------------------------------------------------------------------------------------------- data
def test_blocks_are_there_when_the_agent_says_so(talk) -> None:
    talk.orders.want(BLOCKS)
    assert talk.said() == [m.WantData(1, BLOCKS)]
    assert talk.orders.wanted is not None and talk.orders.data_dir is None
    talk.orders.hear(m.DataAt(1, "/data"))
    assert talk.orders.wanted is None
    assert talk.orders.data_dir == Path("/data")


def test_an_order_ends_the_wait_and_the_late_answer_is_none_to_the_next_question(talk) -> None:
    talk.orders.want(BLOCKS)
    talk.orders.hear(ADOPT)  # decided without us
    assert talk.orders.wanted is None and talk.orders.data_dir is None
    assert talk.given(m.DataAt(1, "/data")) == ADOPT
    assert talk.orders.data_dir is None, "given up before it was answered"
    talk.orders.want(BLOCKS)
    talk.orders.hear(m.DataAt(1, "/data"))
    assert talk.orders.wanted == m.WantData(2, BLOCKS)
    talk.orders.hear(m.DataAt(2, "/elsewhere"))
    assert talk.orders.data_dir == Path("/elsewhere")


def test_nothing_is_asked_while_an_order_waits(talk) -> None:
    talk.orders.hear(ADOPT)
    talk.orders.want(BLOCKS)
    assert talk.said() == []
    assert talk.orders.wanted is None and talk.orders.data_dir is None


def test_another_agent_is_asked_again_for_what_was_not_answered(talk) -> None:
    talk.trains()
    talk.orders.want(BLOCKS)
    talk.said()
    talk.orders.agent_replaced()
    assert talk.said() == [m.Attached(b"root"), m.WantData(1, BLOCKS)]
    talk.orders.hear(m.Work(AGAIN))
    assert talk.orders.wanted is not None, "the same plan again does not end the wait"
    talk.orders.hear(m.DataAt(1, "/data"))
    talk.orders.agent_replaced()
    assert talk.said() == [m.Attached(b"root")]
