"""The plan of links: slices solved from rates, liars and dead edges; and how long holders are waited for."""

import math

import pytest

import examples
from atoll.coordinator import effects as e
from atoll.coordinator.attempts import OpenAttempt
from atoll.coordinator.edges import FIRST_STEPS, DeadEdges
from atoll.coordinator.holding import Holding
from atoll.coordinator.links import MAX_SLOWNESS, USED_SHARE, Links
from atoll.coordinator.members import Member, Members
from atoll.coordinator.split import Site, slices, solve
from atoll.coordinator.standing import Standing
from atoll.metrics import Rates
from atoll.swarm import audit
from atoll.swarm import messages as m
from atoll.swarm.address import Address
from atoll.swarm.records import Share, Slice, header

SIZE = 1_000_000  # bytes of a payload
RULES = examples.rules(num_pieces=100, payload_bytes=SIZE, hold_seconds=5.0, progress_seconds=10.0)


def split(*rates: float, relay: float = 0.0) -> tuple[dict[str, float], float]:
    """Shares, and seconds per byte, of participants p0, p1, ... and perhaps a relay."""
    sites = {
        f"p{n}": Site(bytes_per_second=rate, participant=True, may_own=True) for n, rate in enumerate(rates)
    }
    if relay:
        sites["r"] = Site(bytes_per_second=relay, participant=False, may_own=True)
    found = solve(sites)
    assert found is not None
    return {island: round(share, 3) for island, share in found.shares.items()}, found.seconds_per_byte


# ------------------------------------------------------------------------------------------------- the split
def test_equal_links_own_equal_shares_and_need_what_an_all_reduce_needs() -> None:
    shares, seconds = split(10.0, 10.0, 10.0, 10.0)
    assert shares == dict.fromkeys(("p0", "p1", "p2", "p3"), 0.25)
    assert seconds == pytest.approx(2 * 3 / 4 / 10)


def test_the_slowest_owns_nothing_where_the_others_can_do_all_in_the_time_of_its_payload() -> None:
    shares, seconds = split(50.0, 100.0, 200.0, 200.0)
    assert seconds == pytest.approx(1 / 50)
    assert "p0" not in shares
    assert shares["p2"] == shares["p3"] == pytest.approx(3 * shares["p1"], abs=0.01)


def test_a_fast_relay_that_owns_all_halves_the_time_of_home_links() -> None:
    assert split(*[50.0] * 4)[1] == pytest.approx(1.5 / 50)
    shares, seconds = split(*[50.0] * 4, relay=400.0)
    assert shares == {"r": 1.0}
    assert seconds == pytest.approx(1 / 50)


def test_a_slow_relay_takes_a_little_beside_the_peers() -> None:
    shares, seconds = split(*[50.0] * 4, relay=20.0)
    assert 0 < shares["r"] < 0.2
    assert seconds < 1.5 / 50


def test_two_participants_exchange_a_payload_whoever_owns() -> None:
    shares, seconds = split(10.0, 40.0)
    assert seconds == pytest.approx(1 / 10)
    assert sum(shares.values()) == pytest.approx(1.0)


def test_one_participant_owns_all_and_nothing_travels() -> None:
    assert split(10.0) == ({"p0": 1.0}, pytest.approx(0.0, abs=1e-9))


def test_nobody_who_may_own_is_no_split() -> None:
    assert solve({"a": Site(bytes_per_second=1.0, participant=True, may_own=False)}) is None


@pytest.mark.parametrize("num_pieces", [1, 2, 7, 1000])
def test_slices_of_unequal_shares_cover_all_pieces(num_pieces: int) -> None:
    found = slices({"a": 0.001, "b": 0.55, "c": 0.449}, num_pieces)
    assert [piece for part in found for piece in part.pieces] == list(range(num_pieces))
    assert all(part.num_pieces for part in found)


# -------------------------------------------------------------------------------------------------- the plan
def members_of(rates: dict[str, float], relays: str = "r") -> Members:
    """Members whose links carry so many bytes a second each way; 0: they do not know."""
    members = Members()
    for island, rate in rates.items():
        members[island] = Member(
            island=island,
            hello=examples.hello(relay=island in relays),
            joined_at=0.0,
            last_heard_at=0.0,
            addresses=(Address("host", 1),),
            ready_step=0,
            beat=beat(rate),
        )
    return members


def beat(rate: float = 0.0, num_pieces: int = 0, attempt: int = 1) -> m.Beat:
    rates = Rates(up_bytes_per_second=rate, down_bytes_per_second=2 * rate)
    return m.Beat(step=0, inner_step=0, rates=rates, attempt=attempt, num_pieces=num_pieces)


def planned(links: Links, participants: str) -> tuple[dict[str, int], float]:
    """Pieces by owner, and the planned seconds."""
    plan = links.plan(list(participants), 0, Standing())
    assert plan is not None
    return {part.owner: part.num_pieces for part in plan.slices}, plan.seconds


def test_without_any_rate_participants_own_equal_slices_and_nothing_is_paced() -> None:
    links = Links(RULES, members_of({"a": 0, "b": 0, "r": 9e9}))
    assert planned(links, "ab") == ({"a": 50, "b": 50}, 0.0)


def test_a_link_that_is_not_known_is_taken_to_be_the_slowest() -> None:
    links = Links(RULES, members_of({"a": 1e6, "b": 3e6, "c": 0}))
    assert planned(links, "abc") == planned(Links(RULES, members_of({"a": 1e6, "b": 3e6, "c": 1e6})), "abc")


def test_an_attempt_says_how_long_it_should_take() -> None:
    links = Links(RULES, members_of(dict.fromkeys("abcd", 1e6)))
    owned, seconds = planned(links, "abcd")
    assert owned == dict.fromkeys("abcd", 25)
    assert seconds == pytest.approx(1.5 * SIZE / 1e6 / USED_SHARE)


def test_peers_are_left_alone_where_a_relay_makes_nothing_faster() -> None:
    links = Links(RULES, members_of({"a": 1e6, "b": 1e6, "r": 1e9}))
    assert planned(links, "ab")[0] == {"a": 50, "b": 50}


def test_a_relay_is_used_where_it_lowers_the_bound() -> None:
    links = Links(RULES, members_of({**dict.fromkeys("abcd", 1e6), "r": 8e6}))
    assert planned(links, "abcd")[0] == {"r": 100}


def test_rates_that_are_no_numbers_count_as_unknown() -> None:
    links = Links(RULES, members_of({"a": math.nan, "b": 1e6}))
    assert links.rate("a") == 0.0
    assert planned(links, "ab")[1] > 0


def attempt_of(links: Links, participants: str) -> OpenAttempt:
    plan = links.plan(list(participants), 0, Standing())
    assert plan is not None
    shares = tuple(
        Share(island=island, payload=b"", tokens=1, weight=1 / len(participants)) for island in participants
    )
    record = examples.attempt(participants=shares, slices=plan.slices, seconds=plan.seconds)
    return OpenAttempt(record, {}, 0.0)


def reduced(number: int, num_participants: int) -> m.Reduced:
    """An owner has done a slice."""
    squared_norms = (1.0,) * num_participants
    return m.Reduced(step=0, number=1, slice=number, digest=b"d" * 32, squared_norms=squared_norms)


def test_a_liar_is_believed_no_more_than_it_has_shown_after_one_attempt() -> None:
    claims = {**dict.fromkeys("abc", 1e6), "z": 1e12}
    honest = planned(Links(RULES, members_of(dict.fromkeys("abcz", 1e6))), "abcz")[1]
    links = Links(RULES, members_of(claims))
    lied = attempt_of(links, "abcz")
    seconds = 3.0
    for number, part in enumerate(lied.record.slices):  # the liar's link is like the others'
        lied.note_reduced(part.owner, reduced(number, 4), seconds if part.owner == "z" else 1.0)
    assert next(part.num_pieces for part in lied.record.slices if part.owner == "z") > 90
    links.learn(lied, seconds)
    owned, after = planned(links, "abcz")
    assert owned == {"a": 25, "b": 25, "c": 25, "z": 25}
    assert after == pytest.approx(honest, rel=0.05)


def test_who_claims_a_link_that_carries_nothing_holds_up_the_others_no_more_than_a_slow_one() -> None:
    honest = planned(Links(RULES, members_of(dict.fromkeys("abcz", 1e6))), "abcz")[1]
    liar = Links(RULES, members_of({**dict.fromkeys("abc", 1e6), "z": 1.0}))
    slow = Links(RULES, members_of({**dict.fromkeys("abc", 1e6), "z": 1e6 / MAX_SLOWNESS}))
    assert planned(liar, "abcz") == planned(slow, "abcz")
    assert honest < planned(liar, "abcz")[1] <= MAX_SLOWNESS * honest


def test_no_plan_is_longer_than_what_the_same_islands_have_just_needed() -> None:
    links = Links(RULES, members_of(dict.fromkeys("abcd", 1e6)))
    links.note_committed(attempt_of(links, "abc"), 0.7)
    assert planned(links, "abc")[1] == pytest.approx(0.7)
    assert planned(links, "ab")[1] == pytest.approx(0.7)
    assert planned(links, "abcd")[1] > 1.0  # another has come, whose link may be slower


def test_who_keeps_to_its_plans_is_believed_again() -> None:
    links = Links(RULES, members_of(dict.fromkeys("abcd", 1e6)))
    links.learn(attempt_of(links, "abcd"), 60.0)
    assert links.rate("a") < 1e5
    for _ in range(20):
        links.learn(attempt_of(links, "abcd"), 0.1)
    assert links.rate("a") == 1e6


def test_both_ends_of_a_dead_edge_own_nothing_while_others_can() -> None:
    links = Links(RULES, members_of(dict.fromkeys("abcd", 1e6)))
    links.edges.note("a", "b")
    assert planned(links, "abcd")[0] == {"c": 50, "d": 50}
    assert "a" in planned(links, "acd")[0]  # whom it cannot exchange with takes no part


def test_where_every_owner_has_a_dead_edge_they_are_tried_all_the_same() -> None:
    links = Links(RULES, members_of(dict.fromkeys("ab", 1e6)))
    links.edges.note("a", "b")
    assert planned(links, "ab")[0] == {"a": 50, "b": 50}


def test_a_dead_edge_is_tried_again_after_some_steps_and_later_each_time_that_it_fails() -> None:
    edges = DeadEdges()
    waits: list[int] = []
    for _ in range(3):
        edges.note("a", "b")
        waits.append(0)
        while not edges.serve("a", "abc"):
            edges.next_step()
            waits[-1] += 1
    assert waits == [FIRST_STEPS, 2 * FIRST_STEPS, 4 * FIRST_STEPS]


def test_a_new_connection_of_either_end_makes_an_edge_whole() -> None:
    edges = DeadEdges()
    edges.note("a", "b")
    edges.restore("b")
    assert edges.serve("a", "ab")


# ------------------------------------------------------------------------------------------------ the holders
class Assembled:
    """An update of "a" and "b" that was assembled at second 100, of which only "a" says that it holds it."""

    def __init__(self) -> None:
        self.members = members_of({"a": 0, "b": 0})
        self.holding = Holding(RULES, self.members)
        shares = tuple(Share(island=island, payload=b"", tokens=1, weight=0.5) for island in "ab")
        record = examples.attempt(participants=shares, slices=(Slice("a", 0, 1000),))
        self.attempt = OpenAttempt(record, {}, 90.0)
        self.attempt.note_reduced("a", reduced(0, 2), 100.0)
        nothing = bytes(audit.ROW_BYTES * len(audit.groups(record.slices)))
        held = m.Held(
            step=0, number=1, update=self.update, next_root=b"next", measure=nothing, own_measure=nothing
        )
        assert self.attempt.note_held("a", held)

    @property
    def update(self) -> bytes:
        assert self.attempt.assembled is not None
        return header(self.attempt.record, self.attempt.assembled).digest()

    def is_waited_for(self, now: float) -> bool:
        return self.holding.verdict(self.attempt, 0, now, e.Effects()) is None


def test_who_still_receives_is_waited_for_however_long_it_takes() -> None:
    world = Assembled()
    for second in range(101, 1000, 8):
        assert world.is_waited_for(second)
        world.attempt.note_beat("b", beat(num_pieces=second - 90), second)


def test_who_receives_nothing_any_more_is_not_waited_for() -> None:
    world = Assembled()
    world.attempt.note_beat("b", beat(num_pieces=500), 105.0)
    assert world.is_waited_for(114.9)
    assert not world.is_waited_for(115.1)


def test_who_drips_is_not_waited_for() -> None:
    world = Assembled()
    for second in range(101, 110):
        world.attempt.note_beat("b", beat(num_pieces=min(3, second - 100)), second)
    assert not world.is_waited_for(110.1)


def test_a_slow_disk_has_a_twentieth_of_the_step() -> None:
    """Who holds late would else be taken for one that does not want to measure."""
    world = Assembled()
    world.holding = Holding(RULES, world.members, lambda: 1000.0)
    for _ in range(5):
        world.holding.observe(world.attempt, "a", 101.0)
    world.attempt.note_beat("b", beat(num_pieces=1000), 150.0)
    assert world.is_waited_for(199.9)
    assert not world.is_waited_for(200.1)


def test_who_has_all_pieces_has_the_time_that_holding_takes_others() -> None:
    world = Assembled()
    for _ in range(5):
        world.holding.observe(world.attempt, "a", 101.0)
    world.attempt.note_beat("b", beat(num_pieces=1000), 150.0)
    assert world.is_waited_for(152.9)
    assert not world.is_waited_for(153.1)


def test_an_update_that_its_owner_alone_holds_is_not_committed_while_another_is_ready() -> None:
    world = Assembled()
    for now in (1e3, 1e5, 1e7):  # from the second time on a minority of holders would do
        verdict = world.holding.verdict(world.attempt, 0, now, e.Effects())
        assert verdict is not None
        assert verdict.held is None
    world.members["b"].leave(owes_proposal=True)
    verdict = world.holding.verdict(world.attempt, 0, 1e9, e.Effects())
    assert verdict is not None
    assert verdict.held is not None
