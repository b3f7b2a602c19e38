"""One island asks others for bytes that a digest names, as `agent/fetch.py` does; each answer is checked."""

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from atoll.agent.fetch import ANSWER_SECONDS, NobodyHas, cut
from atoll.agent.pieces import PIECE_ROW_BYTES, check_piece, piece_rows, piece_sizes
from atoll.simulate.timeline import Work
from atoll.swarm.layout import root
from atoll.swarm.records import encode

if TYPE_CHECKING:
    from atoll.simulate.island import Island

Answer = tuple[bytes, int]  # bytes; the version where it matters
Find = Callable[["Island"], Answer | None]
CHUNK_BYTES = 4e6  # what a chunk weighs on the network


class NotGiven(Exception):
    """One donor could not give it."""


class Donors:
    """Asks donors in turn; one that does not answer, or gives false bytes, is dropped."""

    def __init__(self, island: "Island", names: Iterable[str]) -> None:
        self.names = sorted(set(names) - {island.name})
        self._island = island
        self._dialled: set[str] = set()

    def ask(
        self, find: Find, check: Callable[[bytes, int], bool], num_bytes: float, prefer: str = ""
    ) -> Work:
        """The first answer that passes `check`. Raises NobodyHas."""
        for name in sorted(self.names, key=lambda name: name != prefer):
            try:
                return (yield from self.ask_one(name, find, check, num_bytes))
            except NotGiven:
                continue
        raise NobodyHas(f"of {len(self.names)} donors")

    def ask_one(self, name: str, find: Find, check: Callable[[bytes, int], bool], num_bytes: float) -> Work:
        """One donor's answer. Raises NotGiven."""
        me, donor = self._island, self._island.world.agents[name]
        if name not in self._dialled and not (yield from me.dial(donor, ANSWER_SECONDS)):
            self._drop(name)
        self._dialled.add(name)
        yield me.network.delay(me.name, name)
        incarnation = donor.incarnation
        answer = find(donor) if donor.up and not donor.frozen else None
        if answer is None and donor.up and not donor.frozen:
            yield me.network.delay(name, me.name)
            raise NotGiven
        yield me.network.seconds(name, me.name, num_bytes)
        if answer is None or donor.incarnation != incarnation or not me.network.both_ways(me.name, name):
            if donor.up or donor.dark:  # nothing says that it is gone
                yield ANSWER_SECONDS
            self._drop(name)
        assert answer is not None
        data = donor.serve(answer[0])
        if not check(data, answer[1]):
            self._drop(name)
        return data, answer[1]

    def _drop(self, name: str) -> None:
        if name in self.names:
            self.names.remove(name)
        raise NotGiven


# ------------------------------------------------------------------------------------------- what a donor has
def header_of(step: int, update: bytes) -> Find:
    def find(donor: "Island") -> Answer | None:
        held = donor.disk.updates.get((step, update))
        return (encode(held.header), step) if held else None

    return find


def slice_of(step: int, slice_root: bytes) -> Find:
    """Table of a slice, then its pieces: from the update in the making, or from one that is held."""

    def find(donor: "Island") -> Answer | None:
        exchange = donor.exchange
        if exchange is not None and exchange.attempt.step == step:
            for part in exchange.attempt.slices:
                if exchange.whole(part, slice_root):
                    return exchange.table(part) + b"".join(exchange.pieces[i] for i in part.pieces), step
        for update in donor.disk.updates_of_step(step):
            for first, count, found in update.header.slices:
                if found == slice_root:
                    part, pieces = range(first, first + count), update.pieces
                    return piece_rows(pieces.table, part) + b"".join(pieces[i] for i in part), step
        return None

    return find


def table_of(step: int) -> Find:
    def find(donor: "Island") -> Answer | None:
        table = donor.disk.table(step)
        return (table, step) if table is not None else None

    return find


def chunk_of(index: int) -> Find:
    def find(donor: "Island") -> Answer | None:
        version, data = donor.state.read(index)
        return (data, version) if version >= 0 else None

    return find


def fetch_slice(donors: Donors, step: int, num_pieces: int, slice_root: bytes, prefer: str) -> Work:
    """The pieces of a slice, each checked. Raises NobodyHas."""
    width = PIECE_ROW_BYTES * num_pieces

    def check(data: bytes, _: int) -> bool:
        table = data[:width]
        if root(table) != slice_root or int(piece_sizes(table).sum()) != len(data) - width:
            return False
        pieces = cut(data[width:], piece_sizes(table).tolist())
        return all(check_piece(table, i, piece) for i, piece in enumerate(pieces))

    data, _ = yield from donors.ask(slice_of(step, slice_root), check, CHUNK_BYTES / 8 * num_pieces, prefer)
    return [bytes(piece) for piece in cut(data[width:], piece_sizes(data[:width]).tolist())]
