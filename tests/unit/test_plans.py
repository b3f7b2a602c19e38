"""Plans: how much an island is planned, how much time it has, and where the mixture's stages began."""

import math

import msgspec
import pytest

import examples
from atoll.coordinator.admission import objection_to_proposal
from atoll.coordinator.members import Member, Members, Showing
from atoll.coordinator.pace import believed
from atoll.coordinator.plans import Plans
from atoll.metrics import Metrics
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
        plans.observe_proposal(members[island], proposed(40, 20.0), 20.0)
    plans.close_step(dict.fromkeys(islands, 40), members, 20.0)
    begin(plans, members, *islands)
    return plans, members


def begin(plans: Plans, members: Members, *islands: str, now: float = 100.0) -> None:
    for island in islands:
        assert plans.add(Term(), 1, b"", members[island], members, now)


def proposed(inner_steps: int, compute_seconds: float, handover_seconds: float = 0.0) -> m.Propose:
    return m.Propose(
        step=1,
        parent=b"",
        lease=((0, 2 * inner_steps),),
        payload=b"d" * 32,
        tokens=16 * inner_steps,
        inner_steps=inner_steps,
        loss=1.0,
        norm=1.0,
        compute_seconds=compute_seconds,
        handover_seconds=handover_seconds,
    )


def called(plans: Plans, members: Members, island: str, proposal: m.Propose, now: float) -> list[str]:
    """Who is told how much time is left, when this proposal comes."""
    plans.observe_proposal(members[island], proposal, now)
    if not plans.half_are_done(members, now):
        return []
    return [member.island for member in plans.called(members, now)]


def beat(inner_step: int) -> m.Beat:
    return m.Beat(step=1, inner_step=inner_step)


def joiner_plan(plans: Plans, members: Members, now: float) -> Plan:
    members.add("joiner", HELLO, now)
    return plans.add(Term(), 1, b"", members["joiner"], members, now)


def test_who_begins_with_the_others_has_no_limit_until_half_of_them_are_done() -> None:
    """If all of them are slower than they were, on a busy machine say, the step lasts longer."""
    plans, members = begun("a", "b", "c", "d")
    assert {plan.seconds_left for plan in plans.values()} == {math.inf}
    assert called(plans, members, "a", proposed(40, 60.0), 160.0) == []
    assert plans.seconds_left("b", members, 160.0) == 0.0, "it comes back long after the usual end"
    assert plans.late_at == math.inf, "and yet all are waited for"
    assert called(plans, members, "b", proposed(40, 61.0), 161.0) == ["c", "d"], "now half are done"
    assert plans.seconds_left("c", members, 161.0) == pytest.approx(0.025 * 61)
    assert plans.late_at == pytest.approx(161.0 + 0.05 * 61)
    assert called(plans, members, "c", proposed(38, 62.0), 162.0) == [], "told once"


def test_an_island_that_is_alone_is_never_cut() -> None:
    plans, members = begun("a")
    assert plans["a"].seconds_left == plans.seconds_left("a", members, 500.0) == math.inf
    members.add("b", HELLO, 0.0)
    plans, members = begun("a", "b")
    members["b"].leave(owes_proposal=True)
    assert plans.seconds_left("a", members, 500.0) == math.inf, "the other one is gone"


def test_islands_whose_beats_say_that_they_are_done_count_before_they_have_encoded() -> None:
    plans, members = begun("a", "b", "c")
    for island, inner_step in (("a", 40), ("b", 39)):
        members[island].note_beat(beat(inner_step), 118.0)
        assert not plans.note_beat(members[island], 118.0)
    members["b"].note_beat(beat(40), 119.0)
    assert not plans.note_beat(members["b"], 119.0), "20 s are meant"
    assert not plans.half_are_done(members, 119.9) and plans.half_are_done(members, 120.0)
    assert [member.island for member in plans.called(members, 120.0)] == ["c"]


def test_the_pacemaker_is_not_cut_because_slow_islands_had_little_to_do() -> None:
    plans, members = Plans(LONG), Members()
    for island in "abcd":
        members.add(island, HELLO, 0.0)
        members[island].pace.observe(1.0 if island == "a" else 29.0)
    begin(plans, members, *"abcd")
    for island in "bcd":
        assert called(plans, members, island, proposed(1, 29.0), 129.0) == []
    assert not plans.half_are_done(members, 139.9) and plans.half_are_done(members, 140.0)


def test_a_step_is_not_short_of_participants_because_some_were_quick() -> None:
    plans, members = Plans(msgspec.structs.replace(LONG, min_participants=3)), Members()
    for island in "abcd":
        members.add(island, HELLO, 100.0)
    begin(plans, members, *"abcd")
    for island in "ab":
        assert called(plans, members, island, proposed(40, 20.0), 120.0) == []
    assert called(plans, members, "c", proposed(40, 20.0), 130.0) == ["d"]


def test_islands_that_are_gone_or_stuck_are_not_half_of_anything() -> None:
    plans, members = begun("a", "b", "c", "d")
    members["b"].leave(owes_proposal=True)
    assert called(plans, members, "a", proposed(40, 20.0), 120.0) == []
    for now, inner_step in ((200.0, 1), (330.0, 2)):
        members["c"].note_beat(beat(inner_step), now)
        members["d"].note_beat(beat(5), now)
        assert plans.half_are_done(members, now) == (now == 330.0), (
            "the trainer of d has stood still for 120 s"
        )
    assert [member.island for member in plans.called(members, 330.0)] == ["c"]


@pytest.mark.parametrize(("late", "seconds"), [(5.0, 15.0), (19.9, 0.1), (21.0, 0.0)])
def test_a_joiner_has_what_is_left_of_the_time_that_the_step_is_meant_to_last(late, seconds) -> None:
    plans, members = begun("a", "b")
    assert joiner_plan(plans, members, 100.0 + late).seconds_left == pytest.approx(seconds)


def test_who_has_the_update_a_moment_after_the_others_is_no_joiner() -> None:
    plans, members = begun("a", "b")
    assert joiner_plan(plans, members, 100.4).seconds_left == math.inf


def test_a_joiner_of_the_first_step_trains_until_it_is_called() -> None:
    plans, members = Plans(LONG), Members()
    members.add("a", HELLO, 0.0)
    begin(plans, members, "a", now=0.0)
    assert joiner_plan(plans, members, 10.0).seconds_left == math.inf
    assert called(plans, members, "a", proposed(40, 20.0), 20.0) == ["joiner"]


def test_copying_and_encoding_are_part_of_the_time_that_a_joiner_has() -> None:
    plans, members = begun("a", "b")
    for _ in range(2):
        for island in "ab":
            plans.observe_proposal(members[island], proposed(40, 20.0, 6.0), 126.0)
        plans.close_step(dict.fromkeys("ab", 40), members, 126.0)
        begin(plans, members, *"ab")
    plan = joiner_plan(plans, members, 105.0)
    assert (plan.seconds_left, plan.handover_seconds) == (21.0, 6.0)
    assert plan.has_time(9, 20, 4.5, 4.5) and not plan.has_time(9, 22, 4.5, 4.5), "0.5 s each, and 6 s"
    restarted = Plans(LONG)
    restarted.restore([plan], [], (0,), 110.0)
    assert restarted.handovers.median_seconds == 6.0, "the next leader knows it from the plan"


def test_a_handover_counts_as_no_longer_than_the_step_took() -> None:
    plans, members = begun("a", "b")
    for _ in range(3):
        plans.observe_proposal(members["a"], proposed(40, 20.0, 1e9), 120.0)
    assert plans.handovers.median_seconds == 20.0


# --------------------------------------------------------------------------------------- unequal islands
def paced(paces: dict[str, float], reduction_seconds: float = 0.0) -> dict[str, int]:
    """How many of 40 inner steps islands are planned that need so many seconds for each."""
    plans, members = Plans(LONG), Members()
    for island, pace in paces.items():
        members.add(island, HELLO, 0.0)
        members[island].pace.observe(pace)
    plans.reductions.observe(reduction_seconds)
    begin(plans, members, *paces)
    return {island: plan.inner_steps for island, plan in plans.items()}


def test_slower_islands_do_what_fits_into_the_time_of_the_fastest() -> None:
    assert paced({"a": 0.5, "b": 0.54, "c": 1.0, "d": 3.0, "e": 90.0}) == {
        "a": 40,
        "b": 40,
        "c": 20,
        "d": 6,
        "e": 1,
    }


def test_one_fast_island_does_not_make_steps_that_consist_of_reductions() -> None:
    """At 1 s a reduction, a step trains for 9 s at least, unless the median island needs less for it all."""
    fast = {"a": 0.5, "b": 0.5, "c": 0.5, "fast": 0.03}
    assert paced(fast) == {"a": 2, "b": 2, "c": 2, "fast": 40}
    assert paced(fast, reduction_seconds=1.0) == {"a": 18, "b": 18, "c": 18, "fast": 40}
    assert paced(fast, reduction_seconds=60.0) == dict.fromkeys(fast, 40)


def test_short_steps_do_not_make_steps_shorter() -> None:
    """Beside a fast island the others do one inner step each; once it has left, they do all again."""
    plans, members = Plans(LONG), Members()
    for island in ("a", "b", "fast"):
        members.add(island, HELLO, 0.0)
        members[island].pace.observe(0.01 if island == "fast" else 0.5)
    begin(plans, members, "a", "b", "fast")
    assert plans["a"].inner_steps == 1
    for island, plan in list(plans.items()):
        proposal = proposed(plan.inner_steps, plan.inner_steps * members[island].pace.median_seconds)
        plans.observe_proposal(members[island], proposal, 100.5)
    plans.close_step(dict.fromkeys(plans, 1), members, 101.0)
    members["fast"].leave(owes_proposal=False)
    begin(plans, members, "a", "b", now=102.0)
    assert {plan.inner_steps for plan in plans.values()} == {40}
    assert {plan.seconds_left for plan in plans.values()} == {math.inf}


@pytest.mark.parametrize(
    ("seconds", "inner_steps"), [(math.inf, 40), (20.0, 40), (19.9, 39), (4.9, 9), (0.1, 1)]
)
def test_an_island_does_as_many_inner_steps_as_it_has_time_for(seconds, inner_steps) -> None:
    plan = examples.plan(lease=((0, 80),), inner_steps=40, seconds_left=seconds)
    done = 0
    while done < plan.inner_steps and plan.has_time(done, 1, done * 0.5, done * 0.5):
        done += 1
    assert done == inner_steps
    assert merge(span for part in plan.split_lease(done) for span in part) == plan.lease
    assert plan.used_lease(41) == plan.lease
    assert num_samples(plan.used_lease(done)) == 2 * done


def test_an_island_that_was_started_again_says_itself_how_long_it_trained() -> None:
    plans, members = begun("a", "b")
    members.add("a", msgspec.structs.replace(HELLO, session="restarted"), 110.0)
    plans.observe_proposal(members["a"], proposed(10, 5.0), 120.0)
    assert members["a"].pace.median_seconds == 0.5


def test_after_a_restart_of_the_coordinator_all_train_until_half_are_done() -> None:
    before, _ = begun("a", "b", "c")
    plans, members = Plans(LONG), Members()
    plans.restore(list(before.values()), [], (0,), 300.0)
    for island in "abc":
        members.add(island, HELLO, 300.0)
        assert plans.seconds_left(island, members, 310.0) == math.inf
    assert called(plans, members, "a", proposed(40, 20.0), 311.0) == []
    assert called(plans, members, "b", proposed(40, 20.0), 312.0) == ["c"]
    assert plans.late_at < 345.0, "who does not come is not waited for, whatever the last leader had learned"


@pytest.mark.parametrize(("inner_step", "pace"), [(0, 22.0), (1, 15.0)])
def test_an_island_that_was_too_slow_for_the_step_is_planned_less(inner_step, pace) -> None:
    plans, members = begun("a", "b")
    joiner_plan(plans, members, 100.0)
    rate = 16 / 15.0 if inner_step else 0.0  # of 16 tokens every 15 s
    metrics = Metrics(tokens_per_second=rate)
    members["joiner"].note_beat(m.Beat(step=1, inner_step=inner_step, metrics=metrics), 115.0)
    plans.close_step({"a": 40, "b": 40}, members, 122.0)
    assert members["joiner"].pace.median_seconds == pytest.approx(pace)
    begin(plans, members, "a", "b", "joiner", now=123.0)
    assert plans["joiner"].inner_steps == 1


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
        {"compute_seconds": math.inf},
        {"compute_seconds": -1.0},
        {"handover_seconds": -1.0},
    ],
)
def test_a_proposal_that_does_not_match_its_plan_does_not_count(changed) -> None:
    plans = restored([], ())
    next_plan(plans, 0)
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


# -------------------------------------------------------------------------- claims that beats must show
def test_who_proposes_at_once_is_believed_twice_the_speed_of_the_middle() -> None:
    assert believed([(1.0, True), (1.0, True), (1.2, True), (0.001, False)]) == [1.0, 1.0, 1.2, 0.5]
    assert believed([(15.0, True), (15.0, True), (1.0, True)]) == [15.0, 15.0, 1.0]
    assert believed([(0.1, False), (0.1, False)]) == [0.1, 0.1]
    assert believed([]) == []


def test_an_inner_step_took_at_least_what_the_beats_leave_possible() -> None:
    showing = Showing(0, 0, 100.0)
    assert showing.least_pace is None
    showing.note(0, 100.0)
    for done in range(1, 11):
        showing.note(done, 100.0 + 2 * done)
    assert showing.least_pace == (20 - 1) / 11
    showing.note(3, 130.0)  # going back is no progress
    assert showing.least_pace == (20 - 1) / 11
