"""What members say and measure about one another: who is left out by it, for how long, and who is not."""

import pytest

import examples
from atoll.coordinator.admission import Admission
from atoll.coordinator.attempts import OpenAttempt
from atoll.coordinator.holders import Holders, enough
from atoll.coordinator.members import Member, Members
from atoll.coordinator.standing import FORGIVEN_STEPS, MAX_OUT_STEPS, OWNERLESS_STEPS, Standing
from atoll.swarm import messages as m
from atoll.swarm import records as r
from atoll.swarm.address import Address

SHARES = tuple(r.Share(island=i, payload=b"", tokens=1, weight=0.2) for i in "abcde")
ATTEMPT = examples.attempt(participants=SHARES, slices=(r.Slice("a", 0, 1), r.Slice("b", 1, 1)))
FOUR_OWNERS = examples.attempt(
    participants=SHARES, slices=tuple(r.Slice(owner, k, 1) for k, owner in enumerate("abcd"))
)


def out_steps(standing: Standing, island: str) -> int:
    """For how many steps an island is out, this one included."""
    steps = 0
    while standing.is_out(island):
        standing.begin_step()
        steps += 1
    return steps


# ------------------------------------------------------------------------------------------------- standing
def test_each_conviction_lasts_twice_as_long_as_the_one_before() -> None:
    standing, lasted = Standing(), []
    for _ in range(9):
        standing.convict("x", "for a test")
        lasted.append(out_steps(standing, "x"))
    assert lasted == [1, 2, 4, 8, 16, 32, 64, 64, 64]
    assert max(lasted) == MAX_OUT_STEPS


def test_taking_part_without_a_fault_is_forgiving() -> None:
    standing = Standing()
    for _ in range(3):
        standing.convict("x", "for a test")
        out_steps(standing, "x")
    for _ in range(2 * FORGIVEN_STEPS):
        standing.note_committed("abx")
    standing.convict("x", "for a test")
    assert out_steps(standing, "x") == 2


def test_two_witnesses_of_one_hand_are_one() -> None:
    standing = Standing(lambda island: "one hand" if island in "ab" else island)
    standing.charge("a", "e", "refused", ATTEMPT)
    standing.charge("b", "e", "refused", ATTEMPT)
    assert not standing.excluded


def test_who_is_convicted_gives_its_accusers_their_ownership_back() -> None:
    standing = Standing()
    standing.charge("a", "e", "refused", ATTEMPT)
    assert standing.ownerless_steps.keys() == {"a"}
    standing.charge("b", "e", "refused", ATTEMPT)
    assert standing.excluded == {"e"}
    assert standing.ownerless_steps.keys() == {"e"}


def test_who_alone_accuses_three_others_is_left_out_and_they_may_own_again() -> None:
    standing = Standing()
    for owner in "abc":
        standing.charge("e", owner, "unreachable", FOUR_OWNERS)
    assert standing.excluded == {"e"}
    assert standing.ownerless_steps.keys() == {"e"}
    assert "whom nobody else accuses" in standing.reasons["e"]


def test_who_is_not_alone_with_what_it_says_stays() -> None:
    standing = Standing()
    for owner in "abc":
        standing.charge("e", owner, "unreachable", FOUR_OWNERS)
        standing.charge("d", owner, "unreachable", FOUR_OWNERS)
        if owner == "a":
            assert not standing.excluded
    assert not standing.excluded & {"a", "b", "c"}


def test_an_owner_that_several_cannot_reach_still_takes_part() -> None:
    standing = Standing()
    for participant in "cde":
        standing.charge(participant, "a", "unreachable", ATTEMPT)
    assert not standing.excluded
    assert standing.ownerless_steps.keys() == {"a"}


def test_an_owner_that_is_late_again_loses_ownership_for_longer() -> None:
    standing = Standing()
    standing.charge_late({"a"})
    first = standing.ownerless_steps["a"]
    standing.charge_late({"a"})
    assert (first, standing.ownerless_steps["a"]) == (OWNERLESS_STEPS, 2 * OWNERLESS_STEPS)


# ------------------------------------------------------------------------------------------ holders and votes
def members(tickets: dict[str, str], relays: str = "") -> Members:
    found = Members()
    for island, ticket in tickets.items():
        found[island] = Member(
            island=island,
            hello=examples.hello(relay=island in relays),
            joined_at=0.0,
            last_heard_at=0.0,
            ticket=ticket.encode(),
            addresses=(Address("host", 1),),
            ready_step=0,
        )
    return found


def holding(**roots: str) -> Holders:
    """Holders by root: `t="abc"` are three that hold the root t."""
    holders = Holders()
    for root, islands in roots.items():
        for island in islands:
            holders[island] = m.Held(step=0, number=1, update=b"update", next_root=root.encode())
    return holders


HONEST = {"a": "1", "b": "2", "c": "3", "d": "4", "r": "relay"}
FIVE = dict.fromkeys("vwxyz", "one")


@pytest.mark.parametrize(
    ("tickets", "roots", "largest"),
    [
        (HONEST | FIVE, {"true": "abcdr", "false": "vwxyz"}, "abcdr"),
        (HONEST | FIVE, {"true": "ab", "false": "vwxyz"}, "ab"),
        (dict.fromkeys("abcdvwxyz", "one") | {"r": "relay"}, {"true": "abcdr", "false": "vwxyz"}, "abcdr"),
        (dict.fromkeys("abcdx", "one"), {"true": "abcd", "false": "x"}, "abcd"),
        (HONEST, {"true": "ab", "false": "cd"}, ""),
        (HONEST, {"true": "abr", "false": "cd"}, "abr"),
    ],
)
def test_each_ticket_has_one_vote(tickets, roots, largest: str) -> None:
    _, found = holding(**roots).largest_group(members(tickets, relays="r"))
    assert found == set(largest)


def test_a_majority_of_identities_is_not_enough_without_a_majority_of_tickets() -> None:
    everybody = members(HONEST | FIVE)
    participants = set("abcd") | FIVE.keys()
    assert not enough(set(FIVE), participants, 10, everybody)
    assert enough(set(FIVE) | {"a", "b"}, participants, 10, everybody)
    assert not enough(set("abcd"), participants, 10, everybody)


def test_an_owner_and_its_other_identities_do_not_vouch_for_its_update() -> None:
    record = examples.attempt(
        participants=tuple(r.Share(island=i, payload=b"", tokens=1, weight=0.2) for i in "abvw"),
        slices=(r.Slice("v", 0, 1),),
    )
    attempt, everybody = OpenAttempt(record, {}, 0.0), members(HONEST | FIVE)
    ready = set("abcdrvwxyz")
    assert not attempt.is_held_by_others(set("vwxyz"), ready, everybody)
    assert attempt.is_held_by_others(set("vwxyza"), ready, everybody)


def test_donors_are_of_as_many_hands_as_there_are() -> None:
    sixteen = {f"relay{k:02}": "one" for k in range(16)}
    everybody = members(HONEST | sixteen)
    for island in sixteen:
        everybody[island].hello = examples.hello(relay=True)
    everybody.update_donors(0)
    assert set("abcdr") <= everybody.donors.keys()
    assert len(everybody.donors) == 16


# --------------------------------------------------------------------------------------------------- norms
def proposals(**norms: float) -> dict[str, m.Propose]:
    return {
        island: m.Propose(
            step=0,
            parent=b"",
            lease=(),
            payload=b"",
            tokens=1,
            inner_steps=4,
            loss=1.0,
            norm=norm,
        )
        for island, norm in norms.items()
    }


def test_a_norm_far_over_the_others_is_refused_with_a_reason() -> None:
    admission, offered = Admission(3.0, 10.0), proposals(a=1.0, b=1.2, c=0.8, x=11.0)
    assert admission.objection_to_norm("x", offered).startswith("a norm of 11, over 10 times the 1 ")
    assert not any(admission.objection_to_norm(island, offered) for island in "abc")


def test_with_fewer_than_three_islands_a_norm_is_compared_with_those_of_before() -> None:
    admission = Admission(3.0, 10.0)
    assert not admission.objection_to_norm("x", proposals(a=1.0, x=1e9))
    for _ in range(3):
        admission.note_committed(proposals(a=1.0, x=1.0), {})
    assert admission.objection_to_norm("x", proposals(a=1.0, x=1e9))
    assert not admission.objection_to_norm("x", proposals(a=1.0, x=9.0))


def test_who_did_more_inner_steps_may_have_gone_further() -> None:
    offered = proposals(a=1.0, b=1.0, x=30.0)
    offered["x"] = m.Propose(
        step=0, parent=b"", lease=(), payload=b"", tokens=1, inner_steps=40, loss=1.0, norm=30.0
    )
    assert not Admission(3.0, 10.0).objection_to_norm("x", offered)


def test_an_unusual_norm_is_clipped_to_what_is_usual_times_the_ratio() -> None:
    admission, offered = Admission(3.0, 10.0), proposals(a=1.0, b=1.2, c=0.8, x=6.0)
    assert admission.clip("x", offered) == 0.5
    assert [admission.clip(island, offered) for island in "abc"] == [1.0, 1.0, 1.0]
    assert not admission.objection_to_norm("x", offered)


def test_an_island_may_grow_with_the_others_or_up_to_them_but_not_alone() -> None:
    admission = Admission(3.0, 10.0)
    for _ in range(3):
        admission.note_committed(proposals(a=1.0, b=1.0, c=1.0, x=0.1, y=1.0), {})
    assert admission.clip("x", proposals(a=1.0, b=1.0, c=1.0, x=1.0)) == 1.0  # up to them
    assert admission.clip("x", proposals(a=1.0, b=1.0, c=1.0, x=1.5)) == pytest.approx(1.0 / 1.5)
    assert admission.clip("y", proposals(a=9.0, b=9.0, c=9.0, y=9.0)) == 1.0  # a learning rate that rises
    assert admission.clip("y", proposals(a=9.0, b=9.0, c=9.0, y=30.0)) == pytest.approx(27 / 30)


def test_what_was_clipped_is_no_measure_of_what_is_usual() -> None:
    admission = Admission(3.0, 10.0)
    for _ in range(3):
        admission.note_committed(proposals(x=1.0), {})
    for _ in range(8):
        offered = proposals(x=5.0)
        admission.note_committed(offered, {"x": admission.clip("x", offered)})
    assert admission.clip("x", proposals(x=100.0)) == pytest.approx(3 * 3 / 100)


def test_fewer_inner_steps_than_before_are_not_expected_to_give_less() -> None:
    """The first of them move an island furthest: a norm does not shrink in proportion."""
    admission, offered = Admission(3.0, 10.0), proposals(x=2.0)
    for _ in range(3):
        admission.note_committed(offered, {})
    short = m.Propose(step=0, parent=b"", lease=(), payload=b"", tokens=1, inner_steps=1, loss=1.0, norm=1.5)
    assert admission.clip("x", {"x": short}) == 1.0


def test_the_order_of_proposals_decides_nothing() -> None:
    offered = proposals(a=1.0, b=7.0, c=0.5, d=4.0, x=9.0)
    backwards = dict(reversed(offered.items()))
    one, other = Admission(3.0, 10.0), Admission(3.0, 10.0)
    one.note_committed(offered, {})
    other.note_committed(backwards, {})
    for island in offered:
        assert one.clip(island, offered) == other.clip(island, backwards)


def test_a_payload_that_lies_in_one_slice_is_seen_by_its_owner() -> None:
    offered = proposals(a=1.0, b=1.0, c=1.0, x=2.0)
    squares = {"a": 0.001, "b": 0.001, "c": 0.001, "x": 4.0}
    assert Admission(3.0, 10.0).lopsided(0.01, squares, offered) == {"x"}
    assert Admission(3.0, 10.0).lopsided(0.25, squares, offered) == set()  # spread evenly it may be as large
    assert Admission(3.0, 10.0).lopsided(0.01, {"a": 0.0, "x": 4.0}, proposals(a=1.0, x=2.0)) == set()


@pytest.mark.parametrize(
    ("squares", "witnesses"),
    [
        ({"a": 0.5, "b": 0.5}, ""),
        ({"a": 0.52, "b": 0.52}, ""),  # encoding rounds
        ({"a": 0.5, "b": 400.0}, "b"),
        ({"a": 400.0, "b": 400.0}, "ab"),
    ],
)
def test_the_fewest_owners_who_must_be_wrong_are_the_witnesses(squares, witnesses: str) -> None:
    assert Admission(3.0, 10.0).witnesses(proposals(x=1.0)["x"], squares) == set(witnesses)


# ---------------------------------------------------------------------------------------------- late owners
def reduced(number: int) -> m.Reduced:
    return m.Reduced(step=0, number=1, slice=number, digest=b"d" * 32, squared_norms=(0.0,) * 5)


def test_an_owner_that_drips_is_late_beside_the_others() -> None:
    attempt = OpenAttempt(FOUR_OWNERS, {}, 0.0)
    for number, owner in enumerate("abc"):
        attempt.note_reduced(owner, reduced(number), 2.0)
    for second in range(0, 60, 18):
        attempt.note_beat("d", m.Beat(step=0, inner_step=0, attempt=1, num_pieces=1 + second), float(second))
    late, due = attempt.late_owners(30.0, 0.0, 19.0)
    assert late == {"d"}
    assert due == 4 * 2.0 + 10.0


def test_a_lone_owner_that_drips_is_late_beside_earlier_reductions() -> None:
    alone = examples.attempt(participants=SHARES, slices=(r.Slice("a", 0, 4),))
    attempt = OpenAttempt(alone, {}, 0.0)
    attempt.note_beat("a", m.Beat(step=0, inner_step=0, attempt=1, num_pieces=1), 18.0)
    assert attempt.late_owners(30.0, 2.0, 19.0)[0] == {"a"}
    assert attempt.late_owners(30.0, 0.0, 19.0)[0] == set()


def test_an_owner_that_does_not_say_what_it_decoded_has_not_reduced() -> None:
    attempt = OpenAttempt(ATTEMPT, {}, 0.0)
    silent = m.Reduced(step=0, number=1, slice=0, digest=b"d" * 32, squared_norms=())
    assert not attempt.note_reduced("a", silent, 0.0)
    assert not attempt.note_reduced("b", reduced(1), 0.0)


def test_who_cost_much_time_is_left_out_for_so_long_that_it_is_a_twentieth_of_it() -> None:
    for lost_steps, out in ((0.05, 1), (0.5, 10), (3.0, 60), (100.0, MAX_OUT_STEPS)):
        standing = Standing()
        standing.lost_steps = lost_steps
        standing.convict("x", "for a test")
        assert out_steps(standing, "x") == out


def test_who_accuses_another_in_each_step_is_found_as_if_it_were_one_step() -> None:
    standing = Standing()
    for peer in "abc":
        assert not standing.excluded
        standing.begin_step()
        standing.charge("e", peer, "unreachable", FOUR_OWNERS)
    assert standing.excluded == {"e"}
    assert not standing.ownerless_steps.keys() & set("abc"), "its victims may own again"


def test_two_hands_that_say_the_same_in_different_steps_are_two_witnesses() -> None:
    standing = Standing()
    standing.charge("a", "e", "silent", FOUR_OWNERS)
    standing.begin_step()
    standing.charge("b", "e", "silent", FOUR_OWNERS)
    assert standing.excluded == {"e"}


def test_a_new_connection_gives_back_only_what_a_connection_can_have_cost() -> None:
    standing = Standing()
    standing.charge_late(["a"])
    standing.charge("c", "b", "unreachable", FOUR_OWNERS)
    for island in "ab":
        standing.restore_ownership(island)
    assert standing.ownerless_steps.keys() == {"a"}


def test_an_owner_that_two_hands_cannot_reach_does_not_own_again_by_dialling_in() -> None:
    standing = Standing()
    standing.charge("c", "a", "unreachable", FOUR_OWNERS)
    standing.charge("d", "a", "unreachable", FOUR_OWNERS)
    standing.restore_ownership("a")
    assert standing.ownerless_steps.keys() == {"a"} and not standing.excluded


def test_what_a_step_has_lost_is_owed_in_full_once_it_is_over() -> None:
    standing = Standing()
    standing.convict("x", "for a test")  # early: nothing seems lost
    standing.lost_steps = 1.0
    standing.note_committed("ab")
    standing.begin_step()
    assert out_steps(standing, "x") == 20


def test_who_is_convicted_at_a_commit_is_left_out_of_the_next_step() -> None:
    standing = Standing()
    standing.convict("x", "for a test", is_over=True)
    standing.begin_step()
    assert out_steps(standing, "x") == 1


def test_a_holder_is_waited_for_no_longer_because_it_says_that_pieces_come() -> None:
    attempt = OpenAttempt(FOUR_OWNERS, {}, 0.0)
    attempt.assembled_at = 4.0
    assert attempt.last_hold_at(2.0, 10.0) == float("inf")
    attempt.held_at.update(a=4.5, b=5.0, c=5.0)
    assert attempt.last_hold_at(2.0, 10.0) == 4.0 + 4.0 + 4 * 1.0 + 10.0
