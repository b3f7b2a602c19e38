"""Fetching bytes that a digest names: a donor of false bytes is dropped and named, and the next is asked."""

import asyncio
from collections.abc import Callable

import pytest
from worlds.swarm import LAYOUT

import examples
from atoll.agent import fetch
from atoll.agent.assembly import Assembly
from atoll.agent.donor import Donor
from atoll.agent.fetch import AT_ONCE, Donors, NobodyHas, batches, cut, fetch_slice
from atoll.agent.log import UpdateLog
from atoll.agent.pieces import FalsePieces, piece_row
from atoll.agent.state import OuterState
from atoll.swarm import messages as m
from atoll.swarm.address import Address, Addresses
from atoll.swarm.layout import digest, root
from atoll.swarm.memory_transport import MemoryTransport, Network
from atoll.swarm.records import Slice
from atoll.swarm.services import FETCH
from atoll.swarm.transport import Handler, Stream

GOOD = b"good" * 1000
ANY = 1 << 20


def in_frames(data: bytes) -> list[bytes]:
    return [data[at : at + m.FRAME_BYTES] for at in range(0, len(data), m.FRAME_BYTES)]


def answering(*frames: tuple[m.Found | m.Missing, bytes]) -> Handler:
    """A donor that answers every request with the same frames."""

    async def serve(stream: Stream) -> None:
        while True:
            await stream.receive(5)
            for message, bulk in frames:
                await stream.send(message, bulk)

    return serve


HONEST = answering((m.Found(len(GOOD), 4), GOOD))
FALSE = answering((m.Found(4), b"evil"))
WITHOUT = answering((m.Missing("not here"), b""))


class World:
    """Some donors, and a member that asks them."""

    def __init__(self, **handlers: Handler) -> None:
        self.network = Network()
        self.said: list[str] = []
        self._handlers = handlers

    async def donors(self) -> Donors:
        addresses: dict[str, Addresses] = {}
        for name, handler in self._handlers.items():
            port = await MemoryTransport(self.network, name).serve(Address("memory", 0), {FETCH: handler})
            addresses[name] = (Address("memory", port),)
        return Donors(MemoryTransport(self.network, "me"), addresses, self.said.append)

    def ask(
        self, limit: int = ANY, prefer: str = "", times: int = 1, expected: bytes = GOOD
    ) -> tuple[bytes, int]:
        """The last answer, which must be `expected`; `left` is then the donors that were not dropped."""

        def is_expected(data: bytes, _: int) -> bool:
            return data == expected

        async def main() -> tuple[bytes, int]:
            donors = await self.donors()
            try:
                for _ in range(times):
                    answer = await donors.ask(m.FetchTable(4), is_expected, limit, prefer)
                return answer
            finally:
                self.left = donors.names
                await donors.close()

        return asyncio.run(main())


def test_the_first_donor_that_has_the_bytes_is_used() -> None:
    world = World(a=WITHOUT, b=HONEST)
    assert world.ask() == (GOOD, 4)
    assert world.left == ["a", "b"]  # a donor without the bytes is not dropped
    assert world.said == []


def test_a_donor_of_false_bytes_is_dropped_and_named_and_the_next_is_asked() -> None:
    world = World(a=FALSE, b=HONEST)
    assert world.ask(times=2) == (GOOD, 4)
    assert world.left == ["b"]
    assert len(world.said) == 1
    assert world.said[0].startswith("a is dropped as a donor")


@pytest.mark.parametrize(
    "frames",
    [
        [(m.Found(ANY), GOOD)],  # announces more than was asked for
        [(m.Found(3), GOOD)],  # sends more than it announced
        [(m.Found(len(GOOD)), GOOD[:100]), (m.Found(len(GOOD)), GOOD)],  # the same, in a second frame
        [(m.Found(8), b"")],  # sends nothing
        # Frames that are too small: each would come in time, and the answer take for ever.
        [(m.Found(len(GOOD)), GOOD[:100]), (m.Found(len(GOOD)), GOOD[100:])],
        [(m.Found(-1), b"")],
    ],
)
def test_an_answer_of_a_false_size_is_refused_and_its_donor_dropped(frames) -> None:
    world = World(a=answering(*frames), b=HONEST)
    assert world.ask(limit=len(GOOD)) == (GOOD, 4)
    assert world.left == ["b"]


def test_an_answer_of_another_kind_drops_its_donor() -> None:
    world = World(a=answering((m.Pong(), b"")), b=HONEST)  # type: ignore[arg-type]
    world.ask()
    assert world.left == ["b"]


def test_a_donor_that_is_gone_is_dropped() -> None:
    async def hang_up(stream: Stream) -> None:
        await stream.receive(5)

    world = World(a=hang_up, b=HONEST)
    assert world.ask() == (GOOD, 4)
    assert world.left == ["b"]


def test_the_preferred_donor_is_asked_first() -> None:
    world = World(a=FALSE, b=HONEST)
    world.ask(prefer="b")
    assert world.left == ["a", "b"]


def test_if_no_donor_has_the_bytes_the_error_names_each_answer() -> None:
    with pytest.raises(NobodyHas, match=r"FetchTable: a: not here; b gave false bytes"):
        World(a=WITHOUT, b=FALSE).ask()
    with pytest.raises(NobodyHas, match="there is no donor"):
        World().ask()


def test_an_answer_in_many_frames_is_put_together() -> None:
    long = bytes(range(251)) * 2000
    frames = [(m.Found(len(long), 4), part) for part in in_frames(long)]
    assert len(frames) == 4
    assert World(a=answering(*frames)).ask(expected=long) == (long, 4)


def test_two_asks_of_one_donor_at_the_same_time_get_their_own_answers() -> None:
    """In a recovery one task may ask all donors for a table while another waits for a chunk of one."""

    async def echo(stream: Stream) -> None:
        while True:
            request, _ = await stream.receive(5)
            assert isinstance(request, m.FetchChunk)
            await asyncio.sleep(0.01 if request.index == 0 else 0)
            await stream.send(m.Found(1, request.index), bytes([request.index]))

    world = World(a=echo)

    async def main() -> None:
        donors = await world.donors()

        async def one(mine: bytes) -> None:
            for _ in range(3):
                answer = await donors.ask(m.FetchChunk(mine[0]), lambda data, _: data == mine, 1)
                assert answer == (mine, mine[0])

        try:
            await asyncio.gather(*(one(bytes([i])) for i in range(3)))
        finally:
            await donors.close()

    asyncio.run(main())


def test_a_donor_is_asked_two_things_at_once_and_no_more() -> None:
    now = most = 0

    async def main() -> None:
        both, release = asyncio.Event(), asyncio.Event()

        async def counting(stream: Stream) -> None:
            nonlocal now, most
            while True:
                await stream.receive(5)
                now += 1
                most = max(most, now)
                if now == AT_ONCE:
                    both.set()
                await release.wait()
                now -= 1
                await stream.send(m.Found(1), b"x")

        donors = await World(a=counting).donors()
        async with asyncio.timeout(5):
            asks = [asyncio.ensure_future(donors.ask(m.FetchTable(0), lambda *_: True, 1)) for _ in range(5)]
            await both.wait()
            for _ in range(200):  # turns in which a third could come, if it were asked
                await asyncio.sleep(0)
            release.set()
            await asyncio.gather(*asks)
        await donors.close()

    asyncio.run(main())
    assert most == AT_ONCE == 2


def test_an_ask_that_was_cancelled_leaves_no_answer_to_the_next() -> None:
    async def slow(stream: Stream) -> None:
        while True:
            request, _ = await stream.receive(5)
            assert isinstance(request, m.FetchChunk)
            await asyncio.sleep(0.01)
            await stream.send(m.Found(1, request.index), bytes([request.index]))

    async def main() -> None:
        donors = await World(a=slow).donors()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.005):
                await donors.ask(m.FetchChunk(1), lambda *_: True, 1)
        assert await donors.ask(m.FetchChunk(2), lambda *_: True, 1) == (b"\2", 2)
        await donors.close()

    asyncio.run(main())


def test_a_donor_that_fails_several_asks_at_once_is_reported_once() -> None:
    async def hang_up(stream: Stream) -> None:
        await stream.receive(5)

    world = World(a=hang_up)

    async def main() -> None:
        donors = await world.donors()
        asks = (donors.ask(m.FetchTable(0), lambda *_: True, 1) for _ in range(3))
        failed = await asyncio.gather(*asks, return_exceptions=True)
        assert [type(error) for error in failed] == [NobodyHas] * 3

    asyncio.run(main())
    assert len(world.said) == 1


# ----------------------------------------------------------------------------------------------------- slices
ATTEMPT = examples.attempt(slices=(Slice("a", 0, 2), Slice("b", 2, LAYOUT.num_pieces - 2)))


def filled(directory) -> Assembly:
    """An assembly with all its pieces."""
    assembly = Assembly(directory, LAYOUT, ATTEMPT)

    async def fill() -> None:
        for index in range(LAYOUT.num_pieces):
            await assembly.put(index, bytes([index]) * len(assembly.pieces.slot(index)))

    asyncio.run(fill())
    return assembly


@pytest.fixture
def source(tmp_path) -> Donor:
    (tmp_path / "log").mkdir()
    state, log = OuterState(tmp_path / "state", LAYOUT), UpdateLog(tmp_path / "log", LAYOUT, b"")
    donor = Donor(state, log, b"", lambda *_: None)
    donor.assembly = (ATTEMPT, filled(tmp_path / "log"))
    return donor


def get_slice(
    tmp_path, handlers: dict[str, Handler], part: Slice, slice_root: bytes
) -> tuple[Assembly, World]:
    (tmp_path / "mine").mkdir()
    mine, world = Assembly(tmp_path / "mine", LAYOUT, ATTEMPT), World(**handlers)

    async def main() -> None:
        donors = await world.donors()
        try:
            await fetch_slice(donors, 0, part, slice_root, mine, part.pieces)
        finally:
            world.left = donors.names
            await donors.close()

    asyncio.run(main())
    return mine, world


def spoilt(donor: Donor, spoil: Callable[[bytes], bytes]) -> Handler:
    """A donor whose tables are right and whose pieces are false."""

    async def serve(stream: Stream) -> None:
        while True:
            request, _ = await stream.receive(5)
            data, _ = donor._find(request)
            data = spoil(data) if isinstance(request, m.FetchPieces) else data
            for part in in_frames(data):
                await stream.send(m.Found(len(data)), part)

    return serve


@pytest.mark.parametrize("number", [0, 1])
def test_a_slice_comes_whole_from_a_donor(tmp_path, source, number) -> None:
    part, theirs = ATTEMPT.slices[number], source.assembly[1]
    mine, _ = get_slice(tmp_path, {"b": source.serve}, part, root(theirs.slice_table(part)))
    assert all(bytes(mine.pieces[i]) == bytes(theirs.pieces[i]) for i in part.pieces)
    assert mine.whole(part, root(theirs.slice_table(part)))


def test_pieces_that_do_not_match_the_table_are_fetched_from_the_next_donor(tmp_path, source) -> None:
    part, theirs = ATTEMPT.slices[0], source.assembly[1]
    handlers = {"a": spoilt(source, lambda data: data[:-1] + b"x"), "b": source.serve}
    mine, world = get_slice(tmp_path, handlers, part, root(theirs.slice_table(part)))
    assert mine.whole(part, root(theirs.slice_table(part)))
    assert world.left == ["b"]


def test_a_slice_whose_table_names_impossible_sizes_is_refused(tmp_path, source) -> None:
    part, table = ATTEMPT.slices[0], piece_row(b"short") + piece_row(b"x")
    false = answering((m.Found(len(table)), table))
    with pytest.raises(FalsePieces, match="piece 0 cannot be decoded: 5 bytes, where int8 takes"):
        get_slice(tmp_path, {"b": false}, part, root(table))


def test_pieces_are_asked_for_in_runs_of_bounded_size_and_number(monkeypatch) -> None:
    monkeypatch.setattr(fetch, "BATCH_BYTES", 10)
    monkeypatch.setattr(fetch, "MAX_PIECES", 3)
    sizes = [4, 6, 1, 0, 0, 0, 0, 20, 1]
    runs = [range(2), range(2, 5), range(5, 7), range(7, 8), range(8, 9)]
    assert batches(sizes, range(9)) == runs
    assert batches(sizes, [0, 2, 3, 8]) == [range(1), range(2, 4), range(8, 9)]
    assert batches(sizes, []) == []


def test_a_slice_that_nobody_has_is_an_error(tmp_path, source) -> None:
    with pytest.raises(NobodyHas, match="FetchSliceTable"):
        get_slice(tmp_path, {"b": source.serve}, ATTEMPT.slices[0], digest(b"another"))


@pytest.mark.parametrize(("first", "count"), [(-1, 2), (0, 0), (0, -1), (0, 3), (2, 1), (1 << 40, 1)])
def test_a_donor_gives_no_pieces_outside_the_slice(source, first, count) -> None:
    slice_root = root(source.assembly[1].slice_table(ATTEMPT.slices[0]))
    assert isinstance(source._find(m.FetchPieces(0, slice_root, first, count)), m.Missing)


@pytest.mark.parametrize(
    "request_",
    [
        m.FetchChunk(0),
        m.FetchTable(1),
        m.FetchManifest(),
        m.FetchBlock("../../etc/passwd", 0),
        m.FetchHeader(-7, b"x"),
    ],
)
def test_a_donor_answers_missing_for_what_it_does_not_have(source, request_) -> None:
    assert isinstance(source._find(request_), m.Missing)


def test_pieces_are_cut_out_of_an_answer_by_their_sizes() -> None:
    assert [bytes(part) for part in cut(b"abcde", [2, 0, 2, 1])] == [b"ab", b"", b"cd", b"e"]
