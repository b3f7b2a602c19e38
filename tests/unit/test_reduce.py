"""The all-reduce between two agents: pieces of different sizes arrive whole, and what a hostile peer chose is
refused.
"""

import asyncio
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from worlds import clock
from worlds.sparse import Sparse
from worlds.swarm import LAYOUT

import examples
from atoll.agent.assembly import Assembly
from atoll.agent.codecs import CODECS
from atoll.agent.lanes import MAX_LANES
from atoll.agent.payload import Kept, Payload
from atoll.agent.pieces import Pieces, piece_sizes, slots_bytes
from atoll.agent.reduce import Reduction
from atoll.swarm.address import Address
from atoll.swarm.layout import root
from atoll.swarm.memory_transport import MemoryTransport, Network
from atoll.swarm.messages import Fault, Propose, Reduced, ReduceOpen
from atoll.swarm.records import Share, Slice
from atoll.swarm.services import REDUCE
from atoll.swarm.transport import Stream, TransportError, expect

ALL = range(LAYOUT.num_pieces)
PROPOSAL = Propose(step=0, parent=b"", lease=(), payload=b"", tokens=1, inner_steps=1, loss=0.0, norm=0.0)


@pytest.fixture(autouse=True)
def sparse(monkeypatch) -> None:
    monkeypatch.setitem(CODECS, "sparse", Sparse())


def floats(seed: int) -> np.ndarray:
    """Values of which some are zero, in another share of each piece."""
    random = np.random.default_rng(seed)
    values = random.standard_normal(LAYOUT.num_elements).astype(np.float32)
    return values * (np.arange(LAYOUT.num_elements) % 5000 > 1000 * seed)


class Participant:
    """One whose payload is of these values; `spoil` changes the encoded pieces before they are sealed."""

    def __init__(self, name: str, values: np.ndarray, spoil: Callable[[bytes], bytes] = lambda p: p) -> None:
        self.name = name
        codec = CODECS["sparse"]
        slots = np.zeros(slots_bytes(LAYOUT, codec), np.uint8)
        pieces = Pieces(LAYOUT, codec, slots)
        for index in ALL:
            slot = pieces.slot(index)
            data = spoil(slot[: codec.encode(values[LAYOUT.piece(index)], slot)].tobytes())
            slot[: len(data)] = np.frombuffer(data, np.uint8)
            pieces.seal(index, len(data))
        self.payload = Payload(Kept(PROPOSAL, "sparse", bytes(pieces.table)), slots, LAYOUT)


class World:
    """Two participants, "owner" and "other"; the first reduces everything."""

    def __init__(
        self,
        directory: Path,
        owner: Participant,
        other: Participant,
        num_lanes: int = 1,
        seconds: float = 0.0,
    ) -> None:
        self.said: dict[str, list[Reduced | Fault]] = {"owner": [], "other": []}
        both = sorted((owner, other), key=lambda one: one.name)
        shares = tuple(
            Share(island=one.name, payload=root(one.payload.pieces.table), tokens=1, weight=0.5)
            for one in both
        )
        self.attempt = examples.attempt(
            codec="sparse",
            participants=shares,
            slices=(Slice("owner", 0, LAYOUT.num_pieces),),
            addresses={"owner": ()},
            seconds=seconds,
        )
        self.reductions: dict[str, Reduction] = {}
        for one in both:
            (directory / one.name).mkdir()
            assembly = Assembly(directory / one.name, LAYOUT, self.attempt)
            report = self._reporter(one.name)
            self.reductions[one.name] = Reduction(
                one.name, self.attempt, assembly, one.payload, 0.2, report, lambda *_: num_lanes
            )

    def _reporter(self, name: str) -> Callable[[Reduced | Fault], object]:
        async def report(message: Reduced | Fault) -> None:
            self.said[name].append(message)

        return report

    async def run(self) -> None:
        """Both do their part, until nothing more can come of it."""
        network, owner = Network(), self.reductions["owner"]

        async def serve(stream: Stream) -> None:
            opened, table = await stream.receive(1)
            await owner.serve(stream, expect(opened, ReduceOpen), bytes(table))

        port = await MemoryTransport(network, "owner").serve(Address("memory", 0), {REDUCE: serve})
        self.attempt.addresses["owner"] = (Address("memory", port),)
        transports = {name: MemoryTransport(network, name) for name in self.reductions}
        await asyncio.gather(*(one.run(transports[name]) for name, one in self.reductions.items()))

    def faults(self, name: str) -> list[tuple[str, str]]:
        """Who is accused by this one, and of what."""
        return [(said.peer, said.kind) for said in self.said[name] if isinstance(said, Fault)]


def test_pieces_of_different_sizes_are_reduced_and_arrive(tmp_path) -> None:
    world = World(tmp_path, Participant("owner", floats(0)), Participant("other", floats(1)))
    asyncio.run(world.run())
    mine, theirs = (world.reductions[name].assembly.pieces for name in ("owner", "other"))
    assert len(set(piece_sizes(mine.table).tolist())) > 1
    expected = np.float32(0.5) * floats(1) + np.float32(0.5) * floats(0)
    for index in ALL:
        where = LAYOUT.piece(index)
        data = np.frombuffer(theirs[index], np.uint8)
        assert (CODECS["sparse"].decode(data, where.stop - where.start) == expected[where]).all()
    assert mine.table == theirs.table
    reduced = world.said["owner"][0]
    assert (reduced.slice, reduced.digest) == (0, root(mine.table))
    norms = [float(np.sum(values.astype(np.float64) ** 2)) for values in (floats(1), floats(0))]
    assert reduced.squared_norms == pytest.approx(norms)
    assert world.said["other"] == []


@pytest.mark.parametrize("seconds", [0.0, 0.2])
def test_several_lanes_share_the_pieces_of_a_slice_and_all_arrive(tmp_path, seconds) -> None:
    world = World(tmp_path, Participant("owner", floats(0)), Participant("other", floats(1)), 4, seconds)
    opened: list[int] = []
    serve = world.reductions["owner"].serve

    async def watched(stream: Stream, opening: ReduceOpen, table: bytes) -> None:
        opened.append(opening.lane)
        assert bool(table) == (opening.lane == 0)
        await serve(stream, opening, table)

    world.reductions["owner"].serve = watched
    clock.run(world.run())
    mine, theirs = (world.reductions[name].assembly.pieces for name in ("owner", "other"))
    assert sorted(opened) == [0, 1, 2, 3]
    assert mine.table == theirs.table
    assert [said.digest for said in world.said["owner"] if isinstance(said, Reduced)] == [root(mine.table)]
    assert (len(world.said["owner"]), world.said["other"]) == (1, [])


def test_a_lane_that_is_opened_twice_or_is_none_is_refused(tmp_path) -> None:
    world = World(tmp_path, Participant("owner", floats(0)), Participant("other", floats(1)))
    owner = world.reductions["owner"]

    class Peer:
        peer = "other"

    async def main() -> None:
        owner._served.add((0, "other", 1))
        for lane in (1, -1, MAX_LANES):
            with pytest.raises(TransportError, match=f"lane {lane}"):
                await owner.serve(Peer(), ReduceOpen(0, 1, 0, lane), b"")  # type: ignore[arg-type]

    asyncio.run(main())


def swapped(piece: bytes) -> bytes:
    """Its positions in another order: of the right size, and no encoding."""
    positions = np.frombuffer(piece[: len(piece) // 2], np.uint32)
    return positions[::-1].tobytes() + piece[len(piece) // 2 :]


def test_a_proposed_piece_that_cannot_be_decoded_is_refused_and_its_sender_named(tmp_path) -> None:
    world = World(tmp_path, Participant("owner", floats(0)), Participant("other", floats(1), swapped))
    asyncio.run(world.run())
    assert world.faults("owner") == [("other", "refused")]
    assert "piece 0 cannot be decoded: its positions are not ascending" in world.said["owner"][0].text
    assert world.reductions["owner"].assembly.num_pieces == 0


def test_a_proposed_table_with_sizes_that_the_codec_cannot_give_is_refused(tmp_path) -> None:
    other = Participant("other", floats(1))
    other.payload.pieces.table = other.payload.pieces.table[:-1] + b"\x7f"
    world = World(tmp_path, Participant("owner", floats(0)), other)
    asyncio.run(world.run())
    assert ("other", "refused") in world.faults("owner")
    assert "where sparse takes 0 to 32768" in world.said["owner"][0].text


@pytest.mark.parametrize("spoil", [lambda piece: piece[:-8], lambda piece: piece + bytes(8), lambda _: b""])
def test_a_piece_that_is_shorter_or_longer_than_its_row_is_refused(tmp_path, spoil) -> None:
    class Lying(Pieces):
        def __getitem__(self, index: int) -> memoryview:
            return memoryview(spoil(bytes(super().__getitem__(index))))

    other = Participant("other", floats(1))
    honest = other.payload.pieces
    other.payload.pieces = Lying(LAYOUT, honest.codec, honest._slots, honest.table)
    world = World(tmp_path, Participant("owner", floats(0)), other)
    asyncio.run(world.run())
    assert ("other", "refused") in world.faults("owner")
    assert world.reductions["owner"].assembly.num_pieces == 0


def test_an_owner_whose_own_payload_was_damaged_since_says_that_it_is_lost(tmp_path) -> None:
    """As much of another's would be refused: it must not go into the sum unseen."""
    owner = Participant("owner", floats(0))
    owner.payload.pieces.slot(0)[0] ^= 1
    world = World(tmp_path, owner, Participant("other", floats(1)))
    asyncio.run(world.run())
    assert world.faults("owner") == [("owner", "lost")]
    assert world.reductions["owner"].assembly.num_pieces == 0


def test_a_reduced_piece_that_is_too_long_for_the_codec_is_not_stored(tmp_path) -> None:
    world = World(tmp_path, Participant("owner", floats(0)), Participant("other", floats(1)))
    owner = world.reductions["owner"].assembly

    async def too_much(index: int) -> memoryview:
        return memoryview(bytes(len(owner.pieces.slot(index)) + 1))

    owner.get = too_much
    asyncio.run(world.run())
    assert world.faults("other") == [("owner", "unreachable")]
    assert "piece 0 has 32769 bytes, where sparse takes 0 to 32768" in world.said["other"][0].text
    assert world.reductions["other"].assembly.num_pieces == 0
