"""Plans: what fits into a step is planned, and where the stages of the mixture began is decided once."""

import math

import msgspec
import pytest

from atoll.coordinator.admission import objection_to_proposal
from atoll.coordinator.members import Member, Members
from atoll.coordinator.plans import Plans
from atoll.coordinator.rules import Rules
from atoll.samples import merge, num_samples
from atoll.swarm import messages as m
from atoll.swarm.records import CommitRecord, Plan, Term

RULES = Rules(
    recipe_digest="",
    self_test=b"",
    genesis_root=b"",
    num_outer_steps=6,
    inner_steps=4,
    windows_per_step=2,
    context_length=8,
    stage_ends=(8, 16, 24),
    codec="int8",
    lr=0.7,
    momentum=0.9,
    min_participants=1,
    num_pieces=1,
)  # 4 inner steps of 2 windows; 3 stages of 2 steps


def make(plans: Plans, step: int) -> Plan:
    plans.settle({}, Members(), 0.0)
    hello = m.Hello(
        session="",
        version=m.VERSION,
        recipe_digest="",
        self_test=b"",
        contributor="",
        relay=False,
        port=0,
        head=0,
        head_root=b"",
        term=Term(),
    )
    return plans.make(
        Term(), step, b"", Member(island="a", hello=hello, joined_at=0.0, last_heard=0.0), Members(), 0.0
    )


def commit(step: int, lease: tuple[tuple[int, int], ...], stage_starts: tuple[int, ...]) -> CommitRecord:
    return CommitRecord(
        term=Term(),
        branch=0,
        step=step,
        number=1,
        parent=b"",
        update=b"",
        next_root=b"",
        participants=(),
        leases=(("a", lease),),
        previous=b"",
        stage_starts=stage_starts,
    )


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
    plans.learn(
        commit(2, ((40, 8),), (0, 40)), Members(), 0.0
    )  # others had samples 16 to 40, and gave them back
    assert make(plans, 3).stage_starts == (0, 40)
    assert plans["a"].lease == ((16, 8),)


def test_a_restart_after_that_knows_it_from_the_commit() -> None:
    plans = restored([commit(0, ((0, 8),), (0,)), commit(1, ((24, 8),), (0, 24))], (0,))
    assert make(plans, 2).stage_starts == (0, 24)


def test_a_stage_never_begins_before_the_one_before_it() -> None:
    """After a restart samples that were handed out and never spent are forgotten, so the first fresh one may
    lie lower.
    """
    plans = restored([commit(0, ((0, 8),), (0,)), commit(2, ((8, 8),), (0, 40))], (0, 40))
    assert plans.leases.fresh == 16
    assert make(plans, 4).stage_starts == (0, 40, 40)


# -------------------------------------------------------------------------------------- what fits into a step
HELLO = m.Hello(
    session="",
    version=m.VERSION,
    recipe_digest="",
    self_test=b"",
    contributor="",
    relay=False,
    port=0,
    head=0,
    head_root=b"",
    term=Term(),
)
LONG = Rules(
    recipe_digest="",
    self_test=b"",
    genesis_root=b"",
    num_outer_steps=60,
    inner_steps=40,
    windows_per_step=2,
    context_length=8,
    stage_ends=(2400,),
    codec="int8",
    lr=0.7,
    momentum=0.9,
    min_participants=1,
    num_pieces=1,
)  # 40 inner steps


def begun(*islands: str, seconds: float = 20.0) -> tuple[Plans, Members]:
    """A step that these islands began at 100.0, after one that took them `seconds`."""
    plans, members = Plans(LONG), Members()
    for island in islands:
        members.admit(island, HELLO, 0.0)
        assert plans.make(Term(), 0, b"", members[island], members, 0.0)
    for island in islands:
        plans.observe(members[island], proposed(40), seconds)
    plans.settle(dict.fromkeys(islands, 40), members, seconds)
    for island in islands:
        assert plans.make(Term(), 1, b"", members[island], members, 100.0)
    return plans, members


def proposed(inner_steps: int, handover_seconds: float = 0.0) -> m.Propose:
    return m.Propose(
        step=1,
        parent=b"",
        lease=((0, 2 * inner_steps),),
        payload=b"d" * 32,
        tokens=16 * inner_steps,
        inner_steps=inner_steps,
        loss=1.0,
        norm=1.0,
        handover_seconds=handover_seconds,
    )


def beat(inner_step: int) -> m.Beat:
    return m.Beat(step=0, inner_step=inner_step)


def joiner_seconds(plans: Plans, members: Members, now: float, step: int = 1) -> float:
    members.admit("joiner", HELLO, now)
    plan = plans.make(Term(), step, b"", members["joiner"], members, now)
    return round(plan.seconds_left, 9)


@pytest.mark.parametrize(("late", "seconds"), [(0.0, 20.5), (5.0, 15.5), (19.9, 0.6), (21.0, 0.0)])
def test_a_joiner_has_until_the_others_are_done(late, seconds) -> None:
    plans, members = begun("a", "b")
    assert joiner_seconds(plans, members, 100.0 + late) == seconds, "20 s is usual, and 2.5 % jitter"


def test_copying_and_encoding_are_part_of_the_time_that_a_joiner_has() -> None:
    plans, members = begun("a", "b")
    for island in "ab":
        plans.observe(members[island], proposed(40, handover_seconds=6.0), 120.0)
    assert plans.handover.middle == 3.0, "between what they said of the last step, 0, and of this one"
    for island in "ab":
        plans.observe(members[island], proposed(40, handover_seconds=6.0), 120.0)
    members.admit("joiner", HELLO, 105.0)
    plan = plans.make(Term(), 1, b"", members["joiner"], members, 105.0)
    assert (plan.seconds_left, plan.handover_seconds) == (15.5, 6.0)
    assert plan.has_time(9, 10, 4.5), "19 inner steps of 0.5 s, and 6 s"
    assert not plan.has_time(9, 11, 4.5)
    again = Plans(LONG)
    again.restore([plan], [], (0,), 110.0)
    assert again.handover.middle == 6.0, "another leader knows it as well"


def test_handing_over_cannot_have_taken_longer_than_the_step_did() -> None:
    plans, members = begun("a", "b")
    for _ in range(3):
        plans.observe(members["a"], proposed(40, handover_seconds=1e9), 120.0)
    assert plans.handover.middle == 20.0


@pytest.mark.parametrize(
    ("seconds", "inner_steps"), [(math.inf, 40), (20.0, 40), (19.9, 39), (4.9, 9), (0.1, 1)]
)
def test_an_island_does_what_it_has_time_for_at_its_pace(seconds, inner_steps) -> None:
    plan = Plan(
        term=Term(),
        step=0,
        parent=b"",
        island="a",
        lease=((0, 80),),
        stage_starts=(0,),
        inner_steps=40,
        first_inner_step=0,
        seconds_left=seconds,
    )
    done = 0
    while done < plan.inner_steps and plan.has_time(done, 1, done * 0.5):
        done += 1
    assert done == inner_steps
    assert merge(span for part in plan.split_lease(done) for span in part) == plan.lease == plan.used(41)
    assert num_samples(plan.used(done)) == 2 * done


def test_without_the_joiner_the_step_could_not_open() -> None:
    plans, members = begun("a", "b")
    for island in "ab":
        members[island].leave(planned=True)
    assert joiner_seconds(plans, members, 115.0) == 20.5, "nobody is under way"
    plans, members = begun("a", "b")
    assert joiner_seconds(plans, members, 122.5) == 20.5, "they are late, and waited for no more"
    plans, members = begun("a", "b")
    plans.observe(members["a"], proposed(40), 122.0)
    assert joiner_seconds(plans, members, 122.5) == 0.0, "one has proposed: the step opens"


def first_step(began: float = 0.0) -> tuple[Plans, Members]:
    """Of a run: nobody knows how long it takes."""
    plans, members = restored([], ()), Members()
    for island in "ab":
        members.admit(island, HELLO, 0.0)
        assert plans.make(Term(), 0, b"", members[island], members, began)
    return plans, members


@pytest.mark.parametrize(("inner_step", "seconds"), [(0, math.inf), (1, 30.0), (2, 10.0), (4, 0.0), (9, 0.0)])
def test_in_the_first_step_the_others_beats_say_how_far_it_is(inner_step, seconds) -> None:
    plans, members = first_step()
    members["b"].beat = beat(inner_step)  # of 4; one that boasts makes no plan of less than nothing
    assert joiner_seconds(plans, members, 10.0, step=0) == seconds


def test_who_comes_back_with_nothing_done_is_told_how_long_it_has() -> None:
    plans, members = begun("a", "b")
    assert plans.seconds_left("a", members, 112.0) == pytest.approx(8.5)
    plans.observe(members["b"], proposed(40), 120.0)
    assert plans.seconds_left("a", members, 125.0) == 0.0


def test_after_a_restart_too() -> None:
    before, _ = begun("a", "b")
    plans, members = Plans(LONG), Members()
    plans.restore(list(before.values()), [], (0,), 300.0)
    members.admit("b", HELLO, 300.0)
    assert plans.seconds_left("a", members, 300.0) == 20.5
    members["b"].beat = msgspec.structs.replace(beat(30), step=1)  # of 40
    assert plans.seconds_left("a", members, 300.0) == pytest.approx(20.5 / 4)


def test_what_was_done_in_less_than_a_step_teaches_its_pace() -> None:
    plans, members = begun("a", "b")
    assert joiner_seconds(plans, members, 115.0) == 5.5
    plans.observe(members["joiner"], proposed(5), 120.0)
    assert members["joiner"].pace.middle == 1.0


def test_an_island_that_began_anew_teaches_none() -> None:
    plans, members = begun("a", "b")
    members.admit("a", msgspec.structs.replace(HELLO, session="restarted"), 110.0)
    plans.observe(members["a"], proposed(10), 120.0)
    assert not members["a"].pace.middle


def test_what_is_done_is_spent_and_the_rest_is_free_again() -> None:
    plans, members = begun("a", "b")
    assert plans["a"].lease == ((160, 80),)
    plans.settle({"a": 30, "b": 40}, members, 120.0)
    assert plans.leases.take(30) == ((220, 20), (320, 10))


@pytest.mark.parametrize(
    "changed",
    [
        {"lease": ((0, 4),)},
        {"lease": ((0, 8),)},
        {"inner_steps": 2},
        {"inner_steps": 0, "lease": ()},
        {"tokens": 49},
        {"tokens": 0},
        {"loss": math.nan},
        {"norm": math.inf},
        {"payload": b""},
        {"handover_seconds": math.nan},
        {"handover_seconds": -1.0},
    ],
)
def test_a_proposal_is_of_the_first_samples_of_its_plan(changed) -> None:
    plans, _ = first_step()
    proposal = m.Propose(
        step=0, parent=b"", lease=((0, 6),), payload=b"d" * 32, tokens=48, inner_steps=3, loss=1.0, norm=1.0
    )  # 3 inner steps of 2 windows of 8 tokens
    assert not objection_to_proposal(RULES, plans["a"], proposal)
    changed = msgspec.structs.replace(proposal, **changed)
    assert objection_to_proposal(RULES, plans["a"], changed)


def test_a_new_line_of_the_same_agent_keeps_its_pace() -> None:
    _, members = begun("a")
    members.admit("a", HELLO, 200.0)
    assert members["a"].pace.middle == 0.5
    members.admit(
        "a",
        m.Hello(
            session="restarted",
            version=m.VERSION,
            recipe_digest="",
            self_test=b"",
            contributor="",
            relay=False,
            port=0,
            head=0,
            head_root=b"",
            term=Term(),
        ),
        210.0,
    )
    assert not members["a"].pace.middle


def test_a_restart_in_the_middle_of_a_step_teaches_no_arrivals() -> None:
    before, _ = begun("a", "b")
    plans, members = Plans(LONG), Members()
    plans.restore(list(before.values()), [], (0,), 118.0)
    for island in "ab":
        members.admit(island, HELLO, 118.5)
        plans.observe(members[island], proposed(40), 120.0)
    assert plans.arrivals.seconds() < 5.0, "the others of this step are waited for, but not for ever"
    plans.settle({"a": 40, "b": 40}, members, 121.0)
    assert plans.arrivals.middle == 20.5, "as the earlier reign had learned"
    plan = plans.make(Term(), 2, b"", members["a"], members, 121.0)
    assert plan.seconds_left > 20.5
