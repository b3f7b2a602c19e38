"""Who may own and who takes part after faults; and messages of a member that must change nothing."""

from typing import Any

import msgspec
import pytest

import examples
from atoll.coordinator.effects import Effect, Joined, Persist, Reached, Received, Send
from atoll.coordinator.links import Links
from atoll.coordinator.members import Member, Members
from atoll.coordinator.protocol import Coordinator
from atoll.coordinator.split import equal, slices
from atoll.coordinator.standing import OWNERLESS_STEPS, Standing
from atoll.metrics import Metrics
from atoll.swarm import messages as m
from atoll.swarm import records as r
from atoll.swarm.address import Address

ATTEMPT = examples.attempt(
    participants=tuple(r.Share(island=i, payload=b"", tokens=1, weight=0.25) for i in "abcd"),
    slices=(r.Slice("a", 0, 2), r.Slice("b", 2, 2)),
)


HELLO = examples.hello(recipe_digest="recipe", self_test=b"test", head_root=b"g" * 32)


def charged(*charges: tuple[str, str, str]) -> Standing:
    standing = Standing()
    for accuser, peer, kind in charges:
        standing.charge(accuser, peer, kind, ATTEMPT)
    return standing


def test_an_accused_owner_loses_ownership_but_still_takes_part() -> None:
    standing = charged(("c", "a", "unreachable"))
    assert standing.ownerless_steps.keys() == {"a"}
    assert not standing.excluded


def test_an_owner_that_accuses_an_agent_without_a_slice_loses_its_own_ownership() -> None:
    assert charged(("a", "c", "silent")).ownerless_steps.keys() == {"a"}


def test_an_island_that_lost_its_own_payload_is_excluded() -> None:
    assert charged(("c", "c", "lost")).excluded == {"c"}


def test_one_refusal_costs_the_owner_that_refused_its_ownership() -> None:
    standing = charged(("a", "c", "refused"))
    assert standing.ownerless_steps.keys() == {"a"}
    assert not standing.excluded


def test_a_participant_that_two_owners_refuse_is_excluded() -> None:
    assert charged(("a", "c", "refused"), ("b", "c", "refused")).excluded == {"c"}


def test_two_refusals_of_one_owner_count_as_one() -> None:
    assert not charged(("a", "c", "refused"), ("a", "c", "refused")).excluded


def owners(standing: Standing, reachable: str) -> list[str]:
    """The owners among participants a, b and c, relay r and another island d, all ready at step 0."""
    members = Members()
    for island in "abcdr":
        hello = msgspec.structs.replace(HELLO, relay=island == "r")
        addresses = (Address("host", 1),) if island in reachable else ()
        members[island] = Member(
            island=island, hello=hello, joined_at=0.0, last_heard_at=0.0, addresses=addresses, ready_step=0
        )
    plan = Links(RULES, members).plan(["c", "b", "a"], 0, standing)
    return [part.owner for part in plan.slices] if plan else []


def test_owners_are_the_participants_that_can_be_reached() -> None:
    assert owners(charged(("c", "a", "unreachable")), reachable="abr") == ["b"]


def test_relays_own_only_where_no_participant_can() -> None:
    assert owners(Standing(), reachable="r") == ["r"]
    assert owners(Standing(), reachable="ar") == ["a"]


def test_another_island_owns_only_where_neither_participant_nor_relay_can() -> None:
    assert owners(Standing(), reachable="d") == ["d"]
    assert owners(Standing(), reachable="dr") == ["r"]


def test_nobody_owns_if_the_only_agent_that_could_has_lost_ownership() -> None:
    assert owners(charged(("c", "a", "x")), reachable="a") == []


def test_the_participant_with_most_charges_is_excluded_and_everybody_may_own_again() -> None:
    standing = charged(("a", "c", "silent"), ("b", "c", "silent"))
    assert standing.exclude_worst(["a", "b", "c"]) == "c"
    assert standing.excluded == {"c"}
    assert not standing.ownerless_steps


def test_nobody_is_excluded_without_a_charge() -> None:
    standing = Standing()
    assert standing.exclude_worst(["a", "b"]) == ""
    assert not standing.excluded


def test_a_charge_against_a_relay_excludes_no_participant() -> None:
    assert charged(("r", "r", "failed")).exclude_worst(["a", "b"]) == ""


@pytest.mark.parametrize(("owners", "pieces"), [(1, 1), (3, 10), (7, 7), (5, 3), (3, 1000)])
def test_slices_cover_all_pieces_equally_and_none_is_empty(owners: int, pieces: int) -> None:
    found = slices(equal([f"o{i}" for i in range(owners)]), pieces)
    assert [piece for part in found for piece in part.pieces] == list(range(pieces))
    sizes = {part.num_pieces for part in found}
    assert min(sizes) >= 1
    assert max(sizes) - min(sizes) <= 1


# -------------------------------------------------------------- what a message of one member must not change
RULES = examples.rules(
    recipe_digest="recipe",
    self_test=b"test",
    genesis_root=b"g" * 32,
    num_outer_steps=3,
    stage_ends=(12,),
    num_pieces=4,
)


def test_lost_ownership_comes_back_after_some_steps_or_with_a_new_connection() -> None:
    standing = charged(("c", "a", "unreachable"))
    num_steps = 0
    while not owners(standing, reachable="a"):
        standing.begin_step()
        num_steps += 1
    assert num_steps == OWNERLESS_STEPS
    standing = charged(("c", "a", "unreachable"))
    standing.begin_step()
    standing.restore_ownership("a")
    assert owners(standing, reachable="a") == ["a"]


def reduced(part: int) -> m.Reduced:
    return m.Reduced(step=0, number=1, slice=part, digest=b"d" * 32, squared_norms=(0.5, 0.5))


class Step:
    """A coordinator with two islands that have a plan."""

    def __init__(self) -> None:
        self.coordinator = Coordinator(RULES, r.Term(1, "n"), lambda data: b"signed")
        self.now = 0.0
        for island in "ab":
            self.step(Joined(island, msgspec.structs.replace(HELLO, session=island)))
            self.step(Reached(island, island, f"{island}:1"))
            self.hear(island, m.Ready(0, RULES.genesis_root, RULES.genesis_root))

    def step(self, event: Any) -> list[Effect]:
        self.now += 0.1
        return self.coordinator.step(event, self.now)

    def hear(self, island: str, message: r.Message) -> list[Effect]:
        return self.step(Received(island, message))

    def propose(self, island: str, **changes: object) -> list[Effect]:
        lease = self.coordinator.plans[island].lease
        proposal = m.Propose(
            step=0,
            parent=RULES.genesis_root,
            lease=lease,
            payload=b"p" * 32,
            tokens=64,
            inner_steps=4,
            loss=1.0,
            norm=1.0,
        )
        return self.hear(island, msgspec.structs.replace(proposal, **changes))


def persisted(effects: list[Effect], kind: type) -> list[Any]:
    records = [effect.record for effect in effects if isinstance(effect, Persist)]
    return [record for record in records if isinstance(record, kind)]


def test_an_attempt_is_durable_before_it_is_sent() -> None:
    step = Step()
    step.propose("a")
    effects = step.propose("b")
    (attempt,) = persisted(effects, r.Attempt)
    assert [share.weight for share in attempt.participants] == [0.5, 0.5]
    first = next(i for i, e in enumerate(effects) if isinstance(e, Send) and e.message == attempt)
    assert effects.index(Persist(attempt)) < first


def test_proposals_are_weighed_by_what_their_loss_counts() -> None:
    step = Step()
    step.propose("a", count=1)
    (attempt,) = persisted(step.propose("b", count=3), r.Attempt)
    assert [(share.weight, share.tokens) for share in attempt.participants] == [(0.25, 64), (0.75, 64)]


NAN, INFINITE = float("nan"), float("inf")
BROKEN = [
    {"tokens": 65},
    {"count": 0},
    {"count": 65},
    {"norm": NAN},
    {"norm": INFINITE},
    {"metrics": Metrics(heldout_loss=NAN)},
    {"metrics": Metrics(wait_seconds=INFINITE)},
    {"parent": b"x"},
    {"step": 1},
]


@pytest.mark.parametrize("changes", BROKEN)
def test_a_proposal_that_breaks_a_rule_does_not_count(changes) -> None:
    step = Step()
    step.propose("a", **changes)
    assert not step.coordinator.proposals


@pytest.mark.parametrize("tokens", [0, -64])
def test_a_proposal_without_tokens_does_not_count(tokens: int) -> None:
    step = Step()
    step.propose("a", tokens=tokens)
    step.propose("b", tokens=tokens)
    assert not step.coordinator.proposals


def test_a_slice_that_does_not_exist_cannot_be_reported() -> None:
    step = Step()
    step.propose("a")
    step.propose("b")
    step.hear("b", reduced(-1))
    step.hear("b", reduced(1))
    assert step.coordinator.attempt and step.coordinator.attempt.assembled is None


def test_a_slice_of_another_owner_cannot_be_reported() -> None:
    step = Step()
    step.propose("a")
    step.propose("b")
    step.hear("a", reduced(0))
    step.hear("a", reduced(1))
    step.hear("a", reduced(2))
    assert step.coordinator.attempt and step.coordinator.attempt.assembled is None
