"""Plans: what fits into a step is planned, and where the stages of the mixture began is decided once."""

import math

import pytest

from atoll.coordinator.members import Member, Members
from atoll.coordinator.plans import Plans
from atoll.coordinator.rules import Rules
from atoll.swarm import messages as m
from atoll.swarm.records import CommitRecord, Plan, Term

RULES = Rules("", b"", b"", 6, 4, 2, 8, (8, 16, 24), "int8", 0.7, 0.9, 1, 1)  # 4 inner steps of 2 windows; 3 stages of 2 steps


def make(plans: Plans, step: int) -> Plan:
    plans.settle(set(), Members(), 0.0)
    hello = m.Hello("", "", b"", "", False, 0, 0, b"", Term())
    plan = plans.make(Term(), step, b"", Member("a", hello, joined_at=0.0, last_heard=0.0), Members(), set(), 0.0)
    assert plan is not None
    return plan


def commit(step: int, lease: tuple[tuple[int, int], ...], stage_starts: tuple[int, ...]) -> CommitRecord:
    return CommitRecord(Term(), 0, step, 1, b"", b"", b"", (), (("a", lease),), b"", stage_starts)


def restored(commits: list[CommitRecord], stage_starts: tuple[int, ...]) -> Plans:
    plans = Plans(RULES)
    plans.restore([], commits, stage_starts, 0.0)
    return plans


def test_a_stage_begins_at_the_first_sample_that_was_never_handed_out() -> None:
    plans = restored([commit(0, ((0, 8),), (0,))], (0,))
    assert make(plans, 1).stage_starts == (0,)
    assert make(plans, 2).stage_starts == (0, 16)
    assert make(plans, 3).stage_starts == (0, 16)


def test_a_commit_tells_a_restored_backup_where_its_stage_began() -> None:
    plans = restored([commit(0, ((0, 8),), (0,))], (0,))
    plans.learn(commit(1, ((8, 8),), (0,)), Members(), 0.0)
    plans.learn(commit(2, ((40, 8),), (0, 40)), Members(), 0.0)  # others had samples 16 to 40, and gave them back
    assert make(plans, 3).stage_starts == (0, 40)
    assert plans["a"].lease == ((16, 8),)


def test_a_restart_after_that_knows_it_from_the_commit() -> None:
    plans = restored([commit(0, ((0, 8),), (0,)), commit(1, ((24, 8),), (0, 24))], (0,))
    assert make(plans, 2).stage_starts == (0, 24)


def test_a_stage_never_begins_before_the_one_before_it() -> None:
    """After a restart samples that were handed out and never spent are forgotten, so the first fresh one may lie lower."""
    plans = restored([commit(0, ((0, 8),), (0,)), commit(2, ((8, 8),), (0, 40))], (0, 40))
    assert plans.leases.fresh == 16
    assert make(plans, 4).stage_starts == (0, 40, 40)


def test_an_island_that_came_back_with_nothing_done_gets_what_is_left_of_the_step() -> None:
    plans, members = restored([], ()), Members()
    hello = m.Hello("", "", b"", "", False, 0, 0, b"", Term())
    for island in "ab":
        members.admit(island, hello, 0.0)
        assert plans.make(Term(), 0, b"", members[island], members, set(), 0.0)
    first = plans["a"]
    members["a"].beat = m.Beat(0, 3, 1.0, 1.0, 0, 0.0, 0.0, 0.0)  # what it had done before it died does not count
    members["b"].beat = m.Beat(0, 1, 1.0, 1.0, 0, 0.0, 0.0, 0.0)
    shorter = plans.shorten(first, members, set(), 1.0)
    assert (shorter.inner_steps, shorter.lease) == (3, ((0, 6),)) and plans["a"] == shorter
    assert plans.leases.take(2) == ((6, 2),), "the rest is free again"
    plans.observe(members["b"], 2.0)
    void = plans.shorten(shorter, members, {"b"}, 2.0)
    assert not void.inner_steps and "a" not in plans and "a" not in plans.missing
    again = Plans(RULES)
    again.restore([void, plans["b"]], [], (0,), 3.0)
    assert list(again) == ["b"], "a void plan is none, after a restart too"


# ------------------------------------------------------------------------------------------------- what fits into a step
HELLO = m.Hello("", "", b"", "", False, 0, 0, b"", Term())
LONG = Rules("", b"", b"", 60, 40, 2, 8, (2400,), "int8", 0.7, 0.9, 1, 1)  # 40 inner steps


def begun(*islands: str, seconds: float = 20.0) -> tuple[Plans, Members]:
    """A step that these islands began at 100.0, after one that took them `seconds`."""
    plans, members = Plans(LONG), Members()
    for island in islands:
        members.admit(island, HELLO, 0.0)
        assert plans.make(Term(), 0, b"", members[island], members, set(), 0.0)
    for island in islands:
        plans.observe(members[island], seconds)
    plans.settle(set(islands), members, seconds)
    for island in islands:
        assert plans.make(Term(), 1, b"", members[island], members, set(), 100.0)
    return plans, members


def joiner_steps(plans: Plans, members: Members, now: float, done: set[str]) -> int:
    members.admit("joiner", HELLO, now)
    plan = plans.make(Term(), 1, b"", members["joiner"], members, done, now)
    return plan.inner_steps if plan else 0


@pytest.mark.parametrize(("late", "inner_steps"), [(0.4, 40), (0.6, 38), (5.0, 30), (19.6, 0), (21.0, 0)])
def test_a_joiner_gets_what_it_can_do_before_the_others_are_done(late, inner_steps) -> None:
    plans, members = begun("a", "b")
    assert joiner_steps(plans, members, 100.0 + late, set()) == inner_steps


def test_a_slow_islands_rest_of_a_step_is_of_its_own_share() -> None:
    plans, members = begun("a", "b")
    members.admit("slow", HELLO, 100.0)
    members["slow"].pace.observe(1.0)  # seconds an inner step; the others need 0.5
    plan = plans.make(Term(), 1, b"", members["slow"], members, set(), 110.0)
    assert plan is not None and plan.inner_steps == 10


def test_without_the_joiner_the_step_could_not_open() -> None:
    plans, members = begun("a", "b")
    for island in "ab":
        members[island].leave(planned=True)
    assert joiner_steps(plans, members, 115.0, set()) == 40, "nobody is under way"
    plans, members = begun("a", "b")
    assert joiner_steps(plans, members, 122.5, set()) == 40, "they are late, and waited for no more"
    plans, members = begun("a", "b")
    assert joiner_steps(plans, members, 122.5, {"a"}) == 0, "one has proposed: the step opens"


def test_a_beat_that_boasts_makes_no_plan_of_less_than_nothing() -> None:
    plans, members = restored([], ()), Members()
    for island in "ab":
        members.admit(island, HELLO, 0.0)
        assert plans.make(Term(), 0, b"", members[island], members, set(), 0.0)
    members["b"].beat = m.Beat(0, 9, 1.0, 1.0, 0, 0.0, 0.0, 0.0)  # of 4
    assert plans.shorten(plans["a"], members, set(), 1.0).inner_steps == 0


def test_who_cannot_propose_in_time_is_not_waited_for() -> None:
    plans, members = begun("a", "b")
    for inner_step, hopeless in ((40, False), (36, False), (35, False), (34, True), (0, True)):
        members["a"].beat, members["a"].last_heard = m.Beat(1, inner_step, 1.0, 1.0, 0, 0.0, 0.0, 0.0), 119.9
        assert plans.is_hopeless("a", members) == hopeless, "2 s after the usual 20: four steps, and the one under way"
    assert not plans.is_hopeless("b", members), "it has not said how far it is"


def test_what_is_left_of_a_step_teaches_no_pace() -> None:
    plans, members = begun("a", "b")
    assert joiner_steps(plans, members, 115.0, set()) == 10
    plans.observe(members["joiner"], 122.0)
    assert not members["joiner"].pace.middle


def test_a_new_line_of_the_same_agent_keeps_its_pace() -> None:
    _, members = begun("a")
    members.admit("a", HELLO, 200.0)
    assert members["a"].pace.middle == 0.5
    members.admit("a", m.Hello("restarted", "", b"", "", False, 0, 0, b"", Term()), 210.0)
    assert not members["a"].pace.middle


def test_a_restart_in_the_middle_of_a_step_does_not_make_the_next_one_short() -> None:
    before, _ = begun("a", "b")
    plans, members = Plans(LONG), Members()
    plans.restore(list(before.values()), [], (0,), 118.0)
    for island in "ab":
        members.admit(island, HELLO, 118.5)
        plans.observe(members[island], 120.0)
    assert plans.arrivals.seconds() < 5.0, "the others of this step are waited for, but not for ever"
    plans.settle({"a", "b"}, members, 121.0)
    assert math.isinf(plans.arrivals.seconds())
    for island in "ab":
        plan = plans.make(Term(), 2, b"", members[island], members, set(), 121.0 if island == "a" else 125.0)
        assert plan is not None and plan.inner_steps == 40
