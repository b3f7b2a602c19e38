"""An island's directory: a membership is kept, given back, and never mixed with that of another run."""

import asyncio
import math

import msgspec
import pytest
from worlds.swarm import LAYOUT

import examples
from atoll.agent import membership
from atoll.agent.membership import Membership
from atoll.coordinator.members import Member, Members
from atoll.errors import UserError
from atoll.swarm.address import Address, Addresses, HostPorts
from atoll.swarm.identity import RunKeys, Ticket, common_name, fingerprint, island_key
from atoll.swarm.records import RunInfo
from atoll.swarm.transport import TransportError

RUN = RunInfo(
    run_id="test-1",
    name="test",
    recipe={},
    genesis_root=b"root",
    layout=LAYOUT,
    data_digest="",
    record_key=b"key",
)


SOMEWHERE = (Address("x", 1),)


@pytest.fixture
def kept(tmp_path) -> Membership:
    keys = RunKeys(tmp_path / "keys", "test")
    _, _, request = island_key(tmp_path / "island")
    run = msgspec.structs.replace(RUN, run_id=common_name(keys.authority))
    kept = Membership(
        addresses=(Address("host", 1),),
        run_id=run.run_id,
        certificate=keys.issue(request),
        authority=keys.authority,
        run=run,
    )
    membership._keep(tmp_path / "island", kept)
    return kept


def ticket_for(kept: Membership, host: str = "host") -> Ticket:
    return Ticket(kept.run_id, (HostPorts(host, 1, 2, 3),), fingerprint(kept.authority), "secret")


def test_a_membership_is_kept_whole(tmp_path, kept) -> None:
    assert membership.load(tmp_path / "island") == kept


def test_an_empty_directory_holds_no_membership(tmp_path) -> None:
    assert membership.load(tmp_path) is None


def test_the_island_is_called_after_its_key(tmp_path, kept) -> None:
    assert kept.island == island_key(tmp_path / "island")[0] == kept.credentials(tmp_path / "island").name


def test_a_damaged_membership_is_refused_with_what_to_do(tmp_path, kept) -> None:
    path = tmp_path / "island" / "membership.msgpack"
    for data in (b"", b"damaged", path.read_bytes()[:-1]):
        path.write_bytes(data)
        with pytest.raises(UserError, match="join again with a ticket"):
            membership.load(tmp_path / "island")


def test_a_ticket_of_the_same_run_needs_no_coordinator(tmp_path, kept) -> None:
    assert asyncio.run(membership.enrol(tmp_path / "island", ticket_for(kept), "")) == kept


def test_a_ticket_with_a_new_address_moves_the_membership(tmp_path, kept) -> None:
    moved = asyncio.run(membership.enrol(tmp_path / "island", ticket_for(kept, "elsewhere"), ""))
    assert moved == msgspec.structs.replace(kept, addresses=(Address("elsewhere", 1),))
    assert membership.load(tmp_path / "island") == moved


def test_a_coordinator_that_is_not_there_is_a_transport_error(tmp_path) -> None:
    ticket = Ticket("test-1", (HostPorts("127.0.0.1", 1, 2, 3),), b"f", "secret")
    with pytest.raises(TransportError, match=r"127\.0\.0\.1:2: connection refused"):
        asyncio.run(membership.enrol(tmp_path, ticket, ""))
    assert membership.load(tmp_path) is None


# ------------------------------------------------------------------------------- as the coordinator sees them
def member(island: str, relay: bool = False, ready: int = 3, addresses: Addresses = SOMEWHERE) -> Member:
    found = Member(
        island=island,
        hello=examples.hello(session=island, relay=relay),
        joined_at=0.0,
        last_heard_at=0.0,
        addresses=addresses,
    )
    found.ready_step = ready
    return found


def members(*some: Member) -> Members:
    result = Members()
    result.update({each.island: each for each in some})
    return result


def test_who_is_ready_is_present_and_at_the_head() -> None:
    frozen, gone = member("c"), member("d")
    frozen.frozen, gone.connected = True, False
    some = members(member("b"), member("a"), frozen, gone, member("e", ready=2))
    assert [each.island for each in some.ready(3)] == ["a", "b"]


def test_who_is_silent_is_noticed_at_its_own_moment() -> None:
    early, late = member("a"), member("b")
    some = members(early, late)
    assert some.mark_frozen(1.0, 2.5) == ([], 2.5)
    late.note_heard(1.2)
    assert some.mark_frozen(2.4, 2.5) == ([], 2.5)
    assert some.mark_frozen(2.5, 2.5) == ([early], 3.7)
    assert early.note_heard(3.0) and not early.note_heard(3.1)


def test_a_coordinator_that_slept_takes_nobody_for_silent_before_it_has_read_what_came() -> None:
    some = members(member("a"))
    some.mark_frozen(1.0, 2.5)
    assert some.mark_frozen(30.0, 2.5) == ([], math.inf), "not again at once"
    assert len(some.mark_frozen(31.0, 2.5)[0]) == 1


def test_donors_can_be_reached_and_relays_come_first() -> None:
    some = members(member("a"), member("b", addresses=()), member("z", relay=True), member("c", ready=2))
    assert some.update_donors(3)
    assert list(some.donors) == ["z", "a"]
    assert not some.update_donors(3)


def test_a_first_departure_with_a_plan_open_is_forgiven() -> None:
    one = member("a")
    one.leave(owes_proposal=True)
    assert one.probation_steps == 0
    assert not one.present


def test_a_flapping_island_is_not_waited_for_until_it_completed_ever_more_steps() -> None:
    one = member("a")
    probations = []
    for _ in range(4):
        one.leave(owes_proposal=True)
        probations.append(one.probation_steps)
    assert probations == [0, 2, 4, 8]
    members(one).shorten_probation([one.island])
    assert one.probation_steps == 7


def test_leaving_between_plans_is_no_flapping() -> None:
    one = member("a")
    for _ in range(5):
        one.leave(owes_proposal=False)
    assert one.probation_steps == 0
