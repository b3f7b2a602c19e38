"""What an agent does about its trainer: most of the outer step is played in tests/worlds and
tests/properties.
"""

import msgspec
import pytest

import examples
from atoll.agent.effects import Encode, Encoded, Failed, Hold, Reduce, Send, Tell
from atoll.agent.outer_step import OuterStep, step
from atoll.swarm import messages as m
from atoll.swarm.records import Assembled, Term

TERM = Term(1, "n")
PLAN = examples.plan(term=TERM, step=3, parent=b"root", first_inner_step=12, seconds_left=20.0)


@pytest.fixture
def agent() -> OuterStep:
    """At the head, nobody attached."""
    return OuterStep(
        island="a", relay=False, term=TERM, head=3, head_root=b"root", version=3, root=b"root", table=b"table"
    )


def test_a_trainer_that_holds_the_head_is_ready_at_once(agent) -> None:
    assert step(agent, m.Attached(b"root")) == [Send(m.Ready(3, b"root", b"root"))]


@pytest.mark.parametrize("loaded", [b"", b"older"])
def test_one_that_does_not_adopts_first(agent, loaded) -> None:
    assert step(agent, m.Attached(loaded)) == [Tell(m.Adopt(3, b"root", b"table"))]


def test_a_part_of_a_plan_is_proposed_as_that_and_again_to_whoever_says_the_plan_again(agent) -> None:
    step(agent, m.Attached(b"root"))
    assert step(agent, PLAN) == [Tell(m.Work(PLAN))]
    again = msgspec.structs.replace(PLAN, seconds_left=5.0)
    assert step(agent, again) == [Tell(m.Work(again))], "the trainer is at it, and hears what time is left"
    done = m.Proposed(step=3, tokens=48, inner_steps=3, loss=1.0, compute_seconds=20.0, handover_seconds=0.5)
    (encode,) = step(agent, done)
    assert step(agent, PLAN) == step(agent, done) == [], "it is being encoded"
    assert isinstance(encode, Encode)
    assert (encode.proposal.lease, encode.proposal.inner_steps) == (((0, 6),), 3)
    assert (encode.proposal.compute_seconds, encode.proposal.handover_seconds) == (19.5, 0.5)
    assert step(agent, Encoded(encode.proposal)) == [Send(encode.proposal)]
    assert step(agent, msgspec.structs.replace(PLAN, seconds_left=1.0)) == [Send(encode.proposal)]


def test_a_new_agent_tells_the_plan_to_a_trainer_that_may_be_at_it(agent) -> None:
    step(agent, m.Attached(b"root"))
    step(agent, PLAN)
    step(agent, m.Attached(b"root"))
    assert step(agent, PLAN) == [Tell(m.Work(PLAN))]


def holding(agent: OuterStep) -> Assembled:
    """The agent is at work on a Hold of this."""
    attempt = examples.attempt(term=TERM, step=3, parent=b"root")
    assembled = Assembled(term=TERM, step=3, number=attempt.number, digests=(b"slice",))
    assert step(agent, attempt) == [Reduce(attempt)]
    assert step(agent, assembled) == [Hold(attempt, assembled)]
    return assembled


def test_what_is_being_held_is_not_held_again(agent) -> None:
    """A line that flaps meanwhile makes the coordinator repeat itself."""
    assembled = holding(agent)
    assert step(agent, assembled) == []


def test_what_could_not_be_held_is_tried_again_when_it_is_repeated(agent) -> None:
    assembled = holding(agent)
    assert agent.attempt is not None
    work = Hold(agent.attempt, assembled)
    (fault,) = step(agent, Failed(work, "", "no donor"))
    assert isinstance(fault, Send)
    assert step(agent, assembled) == [work]
