"""Plans: how much an island is planned, how much time it has, and where the mixture's stages began."""

import math

import msgspec
import pytest

import examples
from atoll.coordinator.admission import objection_to_proposal
from atoll.coordinator.members import Member, Members
from atoll.coordinator.plans import Plans
from atoll.samples import merge, num_samples
from atoll.swarm import messages as m
from atoll.swarm.records import CommitRecord, Plan, Term

# 4 inner steps of 2 windows; 3 stages of 2 steps.
RULES = examples.rules(stage_ends=(8, 16, 24))

HELLO = examples.hello(port=0)


def next_plan(plans: Plans, step: int) -> Plan:
    """The plan of a single island in `step`, after the step before it was closed."""
    plans.close_step({}, Members(), 0.0)
    member = Member(island="a", hello=HELLO, joined_at=0.0, last_heard_at=0.0)
    return plans.add(Term(), step, b"", member, Members(), 0.0)


def commit(step: int, lease: tuple[tuple[int, int], ...], stage_starts: tuple[int, ...]) -> CommitRecord:
    return examples.commit_record(step=step, leases=(("a", lease),), stage_starts=stage_starts)


def restored(commits: list[CommitRecord], stage_starts: tuple[int, ...]) -> Plans:
    plans = Plans(RULES)
    plans.restore([], commits, stage_starts, 0.0)
    return plans


def test_a_stage_begins_at_the_first_sample_that_was_never_leased() -> None:
    plans = restored([commit(0, ((0, 8),), (0,))], (0,))
    assert next_plan(plans, 1).stage_starts == (0,)
    assert next_plan(plans, 2).stage_starts == (0, 16)
    assert next_plan(plans, 3).stage_starts == (0, 16)


def test_an_imported_commit_says_where_its_stage_began() -> None:
    plans = restored([commit(0, ((0, 8),), (0,))], (0,))
    plans.import_commit(commit(1, ((8, 8),), (0,)), Members(), 0.0)
    # Other islands had leased samples 16 to 40, and no commit spent them.
    plans.import_commit(commit(2, ((40, 8),), (0, 40)), Members(), 0.0)
    assert next_plan(plans, 3).stage_starts == (0, 40)
    assert plans["a"].lease == ((16, 8),)


def test_a_restart_learns_where_a_stage_began_from_the_commit() -> None:
    plans = restored([commit(0, ((0, 8),), (0,)), commit(1, ((24, 8),), (0, 24))], (0,))
    assert next_plan(plans, 2).stage_starts == (0, 24)


def test_a_stage_never_begins_before_the_previous_one() -> None:
    """A restart forgets which samples were leased and never spent, so the first fresh one may lie lower."""
    plans = restored([commit(0, ((0, 8),), (0,)), commit(2, ((8, 8),), (0, 40))], (0, 40))
    assert plans.leases.first_fresh() == 16
    assert next_plan(plans, 4).stage_starts == (0, 40, 40)


# -------------------------------------------------------------------------------------- what fits into a step
# 40 inner steps of 2 windows.
LONG = examples.rules(num_outer_steps=60, inner_steps=40, stage_ends=(2400,))


def begun(*islands: str) -> tuple[Plans, Members]:
    """A step that these islands began at 100 s, after one that took them 20 s."""
    plans, members = Plans(LONG), Members()
    for island in islands:
        members.add(island, HELLO, 0.0)
        assert plans.add(Term(), 0, b"", members[island], members, 0.0)
    for island in islands:
        plans.observe_proposal(members[island], proposed(40), 20.0)
    plans.close_step(dict.fromkeys(islands, 40), members, 20.0)
    for island in islands:
        assert plans.add(Term(), 1, b"", members[island], members, 100.0)
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
    members.add("joiner", HELLO, now)
    plan = plans.add(Term(), step, b"", members["joiner"], members, now)
    return round(plan.seconds_left, 9)


@pytest.mark.parametrize(("late", "seconds"), [(0.0, 20.5), (5.0, 15.5), (19.9, 0.6), (21.0, 0.0)])
def test_a_joiner_has_until_the_others_are_done(late, seconds) -> None:
    plans, members = begun("a", "b")
    assert joiner_seconds(plans, members, 100.0 + late) == seconds, "20 s is usual, and 2.5 % jitter"


def test_copying_and_encoding_are_part_of_the_time_that_a_joiner_has() -> None:
    plans, members = begun("a", "b")
    for island in "ab":
        plans.observe_proposal(members[island], proposed(40, handover_seconds=6.0), 120.0)
    assert plans.handovers.median_seconds == 3.0, "the median of 0 s in the last step and 6 s in this one"
    for island in "ab":
        plans.observe_proposal(members[island], proposed(40, handover_seconds=6.0), 120.0)
    members.add("joiner", HELLO, 105.0)
    plan = plans.add(Term(), 1, b"", members["joiner"], members, 105.0)
    assert (plan.seconds_left, plan.handover_seconds) == (15.5, 6.0)
    assert plan.has_time(9, 10, 4.5), "19 inner steps of 0.5 s, and 6 s"
    assert not plan.has_time(9, 11, 4.5)
    restarted = Plans(LONG)
    restarted.restore([plan], [], (0,), 110.0)
    assert restarted.handovers.median_seconds == 6.0, "the next leader knows it from the plan"


def test_a_handover_counts_as_no_longer_than_the_step_took() -> None:
    plans, members = begun("a", "b")
    for _ in range(3):
        plans.observe_proposal(members["a"], proposed(40, handover_seconds=1e9), 120.0)
    assert plans.handovers.median_seconds == 20.0


@pytest.mark.parametrize(
    ("seconds", "inner_steps"), [(math.inf, 40), (20.0, 40), (19.9, 39), (4.9, 9), (0.1, 1)]
)
def test_an_island_does_as_many_inner_steps_as_it_has_time_for(seconds, inner_steps) -> None:
    plan = examples.plan(lease=((0, 80),), inner_steps=40, seconds_left=seconds)
    done = 0
    while done < plan.inner_steps and plan.has_time(done, 1, done * 0.5):
        done += 1
    assert done == inner_steps
    assert merge(span for part in plan.split_lease(done) for span in part) == plan.lease
    assert plan.used_lease(41) == plan.lease
    assert num_samples(plan.used_lease(done)) == 2 * done


def test_an_island_without_which_no_attempt_can_open_has_all_the_usual_time() -> None:
    plans, members = begun("a", "b")
    for island in "ab":
        members[island].leave(owes_proposal=True)
    assert joiner_seconds(plans, members, 115.0) == 20.5, "nobody else is under way"
    plans, members = begun("a", "b")
    assert joiner_seconds(plans, members, 122.5) == 20.5, "the others are late, and not waited for any more"
    plans, members = begun("a", "b")
    plans.observe_proposal(members["a"], proposed(40), 122.0)
    assert joiner_seconds(plans, members, 122.5) == 0.0, "one has proposed, so an attempt opens"


def first_step() -> tuple[Plans, Members]:
    """The first step of a run, begun by two islands at 0 s: nobody knows how long it takes."""
    plans, members = restored([], ()), Members()
    for island in "ab":
        members.add(island, HELLO, 0.0)
        assert plans.add(Term(), 0, b"", members[island], members, 0.0)
    return plans, members


@pytest.mark.parametrize(("inner_step", "seconds"), [(0, math.inf), (1, 30.0), (2, 10.0), (4, 0.0), (9, 0.0)])
def test_in_the_first_step_the_time_left_follows_from_the_others_beats(inner_step, seconds) -> None:
    plans, members = first_step()
    members["b"].beat = beat(inner_step)  # of 4; a beat that claims more gives no negative time
    assert joiner_seconds(plans, members, 10.0, step=0) == seconds


def test_an_island_that_comes_back_is_told_how_much_time_is_left() -> None:
    plans, members = begun("a", "b")
    assert plans.seconds_left("a", members, 112.0) == pytest.approx(8.5)
    plans.observe_proposal(members["b"], proposed(40), 120.0)
    assert plans.seconds_left("a", members, 125.0) == 0.0


def test_after_a_restart_of_the_coordinator_the_time_left_follows_from_plans_and_beats() -> None:
    before, _ = begun("a", "b")
    plans, members = Plans(LONG), Members()
    plans.restore(list(before.values()), [], (0,), 300.0)
    members.add("b", HELLO, 300.0)
    assert plans.seconds_left("a", members, 300.0) == 20.5
    members["b"].beat = msgspec.structs.replace(beat(30), step=1)  # of 40
    assert plans.seconds_left("a", members, 300.0) == pytest.approx(20.5 / 4)


def test_the_pace_is_learned_from_a_plan_that_was_done_in_part() -> None:
    plans, members = begun("a", "b")
    assert joiner_seconds(plans, members, 115.0) == 5.5
    plans.observe_proposal(members["joiner"], proposed(5), 120.0)
    assert members["joiner"].pace.median_seconds == 1.0


def test_no_pace_is_learned_from_an_island_that_was_started_again() -> None:
    plans, members = begun("a", "b")
    members.add("a", msgspec.structs.replace(HELLO, session="restarted"), 110.0)
    plans.observe_proposal(members["a"], proposed(10), 120.0)
    assert not members["a"].pace.median_seconds


def test_used_samples_are_spent_and_the_rest_of_a_lease_is_free_again() -> None:
    plans, members = begun("a", "b")
    assert plans["a"].lease == ((160, 80),)
    plans.close_step({"a": 30, "b": 40}, members, 120.0)
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
def test_a_proposal_that_does_not_match_its_plan_does_not_count(changed) -> None:
    plans, _ = first_step()
    # 3 inner steps of 2 windows of 8 tokens.
    proposal = m.Propose(
        step=0, parent=b"", lease=((0, 6),), payload=b"d" * 32, tokens=48, inner_steps=3, loss=1.0, norm=1.0
    )
    assert not objection_to_proposal(RULES, plans["a"], proposal)
    changed = msgspec.structs.replace(proposal, **changed)
    assert objection_to_proposal(RULES, plans["a"], changed)


def test_an_agent_that_reconnects_keeps_its_pace_and_a_new_process_does_not() -> None:
    _, members = begun("a")
    members.add("a", HELLO, 200.0)
    assert members["a"].pace.median_seconds == 0.5
    members.add("a", msgspec.structs.replace(HELLO, session="restarted"), 210.0)
    assert not members["a"].pace.median_seconds


def test_a_restart_within_a_step_does_not_change_the_usual_arrival() -> None:
    before, _ = begun("a", "b")
    plans, members = Plans(LONG), Members()
    plans.restore(list(before.values()), [], (0,), 118.0)
    for island in "ab":
        members.add(island, HELLO, 118.5)
        plans.observe_proposal(members[island], proposed(40), 120.0)
    assert plans.arrivals.limit_seconds() < 5.0, "the rest of this step is bounded"
    plans.close_step({"a": 40, "b": 40}, members, 121.0)
    assert plans.arrivals.median_seconds == 20.5, "as the earlier coordinator had learned"
    plan = plans.add(Term(), 2, b"", members["a"], members, 121.0)
    assert plan.seconds_left > 20.5
