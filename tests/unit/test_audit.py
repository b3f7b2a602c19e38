"""The audit of sums: honest ones always pass, false ones hardly ever, and who lied is told apart."""

from collections.abc import Callable

import numpy as np
import pytest

import examples
from atoll.agent.codecs import CODECS
from atoll.agent.measure import measure, measure_piece
from atoll.agent.pieces import Pieces, slots_bytes
from atoll.coordinator.attempts import OpenAttempt
from atoll.coordinator.audit import Audit
from atoll.swarm import audit
from atoll.swarm import messages as m
from atoll.swarm.audit import LANES
from atoll.swarm.layout import BLOCK, Layout, TensorSpec
from atoll.swarm.records import Disputed, Share, Slice, header

NUM_PIECES = 40
LAYOUT = Layout((TensorSpec("w", (NUM_PIECES, BLOCK)),), BLOCK, BLOCK)
OWNERS = (Slice("a", 0, 20), Slice("b", 20, 20))
OTHERS = (Slice("c", 0, 20), Slice("b", 20, 20))  # in the attempt after a false sum of a's
Change = Callable[[int, np.ndarray], np.ndarray]


def pieces_of(values: np.ndarray, codec: str) -> Pieces:
    coder = CODECS[codec]
    pieces = Pieces(LAYOUT, coder, np.zeros(slots_bytes(LAYOUT, coder), np.uint8))
    for index in range(NUM_PIECES):
        part = np.ascontiguousarray(values[LAYOUT.piece(index)], np.float32)
        pieces.seal(index, coder.encode(part, pieces.slot(index)))
    return pieces


def decoded(pieces: Pieces) -> np.ndarray:
    data = [np.frombuffer(pieces[index], np.uint8) for index in range(NUM_PIECES)]
    return np.concatenate([pieces.codec.decode(each, BLOCK) for each in data])


class World:
    """Participants "a" to "c" whose payloads are summed into an update; `change` is what owners do to it."""

    def __init__(self, seed: int, codec: str = "int8", change: Change = lambda index, values: values) -> None:
        random = np.random.default_rng(seed)
        common = random.standard_normal(LAYOUT.num_elements)
        self.payloads = {
            island: pieces_of(common + random.standard_normal(LAYOUT.num_elements), codec) for island in "abc"
        }
        self.proposals = {island: proposal(decoded(each)) for island, each in self.payloads.items()}
        total = np.zeros(LAYOUT.num_elements, np.float32)
        self.shares = []
        for island, weight, clip in (("a", 0.25, 1.0), ("b", 0.25, 0.5), ("c", 0.5, 1.0)):
            share = Share(island=island, payload=b"", tokens=1, weight=weight, clip=clip)
            total += np.float32(share.factor) * decoded(self.payloads[island])
            self.shares.append(share)
        parts = [change(index, total[LAYOUT.piece(index)].copy()) for index in range(NUM_PIECES)]
        self.update = pieces_of(np.concatenate(parts), codec)
        self.audit = Audit(lambda island: island, lambda island: False)

    def attempt(
        self, slices: tuple[Slice, ...] = OWNERS, disputed: tuple[Disputed, ...] = (), without: str = ""
    ) -> OpenAttempt:
        """One in which all has been reduced, and owners have measured what is disputed."""
        shares = tuple(share for share in self.shares if share.island not in without)
        record = examples.attempt(
            number=1 + bool(disputed), participants=shares, slices=slices, disputed=disputed
        )
        attempt = OpenAttempt(record, self.proposals, 0.0, b"secret")
        for number, part in enumerate(slices):
            measured = [
                measure_piece(CODECS["int8"], self.payloads[s.island][i], i * BLOCK, BLOCK, d.seed)[0]
                for i in part.pieces
                for s in shares
                for d in disputed
                if i in d.pieces
            ]
            reduced = m.Reduced(
                step=0,
                number=record.number,
                slice=number,
                digest=bytes([number]) * 32,
                squared_norms=(0.0,) * len(shares),
                measures=b"".join(lanes.astype("<f8").tobytes() for lanes in measured),
            )
            attempt.note_reduced(part.owner, reduced, 1.0)
        assert attempt.assembled is not None
        return attempt

    def false_owners(self, attempt: OpenAttempt, liar: str = "") -> set[str]:
        """As the coordinator finds them, once all hold; a `liar` says that its payload measures otherwise."""
        assert attempt.assembled is not None
        groups, seed = audit.groups(attempt.record.slices), attempt.assembled.seed
        update = audit.packed(measure(self.update, groups, seed))
        for share in attempt.record.participants:
            rows = measure(self.payloads[share.island], groups, seed)
            if share.island == liar:
                rows[:, :LANES] *= -1
            held = m.Held(
                step=0,
                number=attempt.record.number,
                update=header(attempt.record, attempt.assembled).digest(),
                next_root=b"n" * 32,
                measure=update,
                own_measure=audit.packed(rows),
            )
            assert attempt.note_held(share.island, held)
        return self.audit.false_owners(attempt, held)


def proposal(values: np.ndarray) -> m.Propose:
    norm = float(np.linalg.norm(values.astype(np.float64)))
    return m.Propose(step=0, parent=b"", lease=(), payload=b"", tokens=1, inner_steps=1, loss=None, norm=norm)


def of_piece_3(change: Callable[[np.ndarray], np.ndarray]) -> Change:
    return lambda index, values: change(values) if index == 3 else values


@pytest.mark.parametrize("codec", ["int8", "bf16", "fp32"])
def test_an_honest_sum_is_never_called_false(codec) -> None:
    for seed in range(5):
        world = World(seed, codec)
        assert world.false_owners(world.attempt()) == set()
        assert world.audit.disputed == ()


@pytest.mark.parametrize(
    "change",
    [
        of_piece_3(np.negative),
        of_piece_3(np.zeros_like),
        of_piece_3(lambda values: 2 * values),
        of_piece_3(lambda values: values[::-1].copy()),
        lambda index, values: values * np.float32(1.3 if index < 20 else 1),
    ],
    ids=["a negative piece", "a piece of nothing", "a piece twice", "a piece reversed", "a slice times 1.3"],
)
def test_a_false_sum_is_found_within_three_steps_and_charged_to_its_owner(change) -> None:
    missed = 0
    for seed in range(0, 12, 3):
        found = [
            world.false_owners(world.attempt())
            for world in (World(seed + k, change=change) for k in range(3))
        ]
        assert all(owners <= {"a"} for owners in found)
        missed += not any(found)
    assert missed == 0


def test_an_owner_gains_nothing_by_encoding_coarsely() -> None:
    """One huge value makes the scale of its block large, and the error that it allows."""

    def coarse(index: int, values: np.ndarray) -> np.ndarray:
        if index < 20:
            values[:] = -values
            values[0] = 50 * np.abs(values).max()
        return values

    assert World(1, "int8", coarse).false_owners(World(1).attempt()) == {"a"}


def test_the_owner_is_told_from_the_participant_by_the_next_attempt() -> None:
    world = World(0, change=of_piece_3(np.negative))
    assert world.false_owners(world.attempt()) == {"a"}
    found = world.audit.settle(world.attempt(OTHERS, world.audit.disputed))
    assert found.liars == {"a": "as an owner it made a false sum"}
    assert (found.cleared, found.doubtful, world.audit.disputed) == (set(), [], ())


def test_who_lies_about_its_own_payload_is_named_and_the_owner_is_cleared() -> None:
    world = World(0)
    assert world.false_owners(world.attempt(), liar="c") == {"a", "b"}
    owners = (Slice("b", 0, 20), Slice("a", 20, 20))
    found = world.audit.settle(world.attempt(owners, world.audit.disputed))
    assert found.liars.keys() == {"c"}
    assert (found.cleared, found.doubtful) == ({"a", "b"}, [])


@pytest.mark.parametrize(("relay", "liars"), [("", set()), ("ab", {"c"})])
def test_one_hand_alone_convicts_nobody_but_a_relay_decides(relay, liars) -> None:
    world = World(0)
    world.audit = Audit(lambda island: "one", lambda island: island in relay)
    world.false_owners(world.attempt(), liar="c")
    found = world.audit.settle(world.attempt(OWNERS, world.audit.disputed))
    assert found.liars.keys() == liars
    assert found.doubtful == ([] if liars else [("a", "c"), ("b", "c")])


def test_who_leaves_while_its_measure_is_in_dispute_is_left_out() -> None:
    world = World(0)
    assert world.false_owners(world.attempt(), liar="c") == {"a", "b"}
    found = world.audit.settle(world.attempt(OWNERS, world.audit.disputed, without="c"))
    assert found.liars.keys() == {"c"}
    assert found.cleared == {"a", "b"}


def test_without_the_measures_of_all_participants_nothing_is_called_false() -> None:
    world = World(0, change=of_piece_3(np.negative))
    attempt = world.attempt()
    world.false_owners(attempt)
    del attempt.holders["b"]
    assert world.audit.false_owners(attempt, attempt.holders["a"]) == set()


@pytest.mark.parametrize(
    "measure", [b"", bytes(audit.ROW_BYTES), bytes(7), np.full((4, 9), np.nan, "<f4").tobytes()]
)
def test_who_has_not_measured_does_not_hold(measure) -> None:
    attempt = World(0).attempt()
    assert attempt.assembled is not None
    groups = audit.groups(attempt.record.slices)
    assert len(groups) == 4
    held = m.Held(
        step=0,
        number=1,
        update=header(attempt.record, attempt.assembled).digest(),
        next_root=b"n" * 32,
        measure=bytes(4 * audit.ROW_BYTES),
        own_measure=measure,
    )
    assert not attempt.note_held("a", held)
    assert attempt.note_held("r", held)  # which takes no part


def test_groups_are_of_one_slice_each_and_cover_all_of_it() -> None:
    slices = (Slice("a", 0, 33), Slice("b", 33, 0), Slice("c", 33, 7))
    found = audit.groups(slices)
    assert found == [range(16), range(16, 32), range(32, 33), range(33, 40)]
    assert len(audit.groups((Slice("a", 0, 1 << 20), Slice("b", 1 << 20, 1 << 20)))) <= audit.MAX_GROUPS


def test_the_seed_is_of_what_nobody_can_know_before_the_update_is_fixed() -> None:
    one, other = World(0).attempt(), World(0).attempt()
    assert one.assembled is not None and other.assembled is not None
    assert one.assembled.seed == other.assembled.seed
    record = one.record
    without = OpenAttempt(record, {}, 0.0, b"another secret")
    for number, part in enumerate(record.slices):
        reduced = m.Reduced(
            step=0, number=1, slice=number, digest=bytes([number]) * 32, squared_norms=(0.0,) * 3
        )
        without.note_reduced(part.owner, reduced, 1.0)
    assert without.assembled is not None and without.assembled.seed != one.assembled.seed
