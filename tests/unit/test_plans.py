"""Where the stages of the mixture began is decided once, whatever a database forgets."""

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
    plans.heard("a", m.Beat(0, 3, 1.0, 1.0, 0, 0.0, 0.0, 0.0))  # what it had done before it died does not count
    plans.heard("b", m.Beat(0, 1, 1.0, 1.0, 0, 0.0, 0.0, 0.0))
    shorter = plans.shorten(first, members, set(), 1.0)
    assert (shorter.inner_steps, shorter.lease) == (3, ((0, 6),)) and plans["a"] == shorter
    assert plans.leases.take(2) == ((6, 2),), "the rest is free again"
    plans.observe(members["b"], 2.0)
    void = plans.shorten(shorter, members, {"b"}, 2.0)
    assert not void.inner_steps and "a" not in plans and "a" not in plans.missing
    again = Plans(RULES)
    again.restore([void, plans["b"]], [], (0,), 3.0)
    assert list(again) == ["b"], "a void plan is none, after a restart too"
