"""Fetch: one way to get bytes that a digest names, from any donor. The donor's side is `donor.py`."""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Container, Sequence
from functools import partial
from itertools import accumulate

from atoll.agent.assembly import Assembly
from atoll.agent.donor import MAX_PIECES
from atoll.agent.pieces import PIECE_ROW_BYTES, check_piece, check_table, piece_sizes
from atoll.swarm import messages as m
from atoll.swarm import records as r
from atoll.swarm.address import Addresses
from atoll.swarm.layout import root
from atoll.swarm.messages import peers
from atoll.swarm.services import FETCH
from atoll.swarm.transport import Stream, Transport, TransportError, together

ANSWER_SECONDS = 15.0
AT_ONCE = 2  # requests to a donor, on a stream each: while one answer travels, the next is prepared
# Of pieces asked for at once: as much as a chunk, whose requests wait for the same streams.
BATCH_BYTES = 8 << 20


class NobodyHas(Exception):
    """No donor could give what was asked for; the text says what, and what each donor answered."""


class Donors:
    """Asks donors in turn; one that is gone, or gives bytes that fail their check, is dropped (and named)."""

    def __init__(
        self, transport: Transport, addresses: dict[str, Addresses], report: Callable[[str], None]
    ) -> None:
        self._transport = transport
        self._addresses = dict(addresses)
        self._report = report
        # By donor; one request at a time on a stream.
        self._idle: defaultdict[str, list[Stream[peers.ToFetcher]]] = defaultdict(list)
        self._turns: defaultdict[str, asyncio.Semaphore] = defaultdict(lambda: asyncio.Semaphore(AT_ONCE))

    @property
    def names(self) -> list[str]:
        return sorted(self._addresses)

    async def ask(
        self, request: peers.ToDonor, check: Callable[[bytes, int], bool], limit: int, prefer: str = ""
    ) -> tuple[bytes, int]:
        """(bytes, step) from the first donor whose answer passes `check` and is at most `limit` bytes.

        Raises NobodyHas.
        """
        answers: list[str] = []
        for donor in sorted(self.names, key=lambda name: name != prefer):
            try:
                return await self.ask_one(donor, request, check, limit)
            except TransportError as error:
                answers.append(str(error))
        detail = "; ".join(answers) if answers else "there is no donor"
        raise NobodyHas(f"{type(request).__name__}: {detail}")

    async def ask_one(
        self, donor: str, request: peers.ToDonor, check: Callable[[bytes, int], bool], limit: int
    ) -> tuple[bytes, int]:
        """As `ask`, of one donor; TransportError when it has not, or is dropped."""
        try:
            async with self._turns[donor]:
                data, step = await self._request(donor, request, limit)
        except TransportError as error:
            if not isinstance(error, _NotThere):
                await self.drop(donor, f"{donor} is dropped as a donor: {error}")
            raise
        if not check(data, step):
            await self.drop(
                donor, f"{donor} is dropped as a donor: its answer to {type(request).__name__} is false"
            )
            raise TransportError(f"{donor} gave false bytes")
        return data, step

    async def close(self) -> None:
        for donor in list(self._idle):
            await self._close_idle(donor)

    async def _request(self, donor: str, request: peers.ToDonor, limit: int) -> tuple[bytes, int]:
        addresses = self._addresses.get(donor)
        if not addresses:
            raise _NotThere(f"{donor} is no longer a donor")  # dropped, and reported, while we waited
        idle = self._idle[donor]
        stream = (
            idle.pop() if idle else await self._transport.connect(addresses, donor, FETCH, ANSWER_SECONDS)
        )
        try:
            await stream.send(request)
            answer = await self._answer(stream, donor, limit)
        except BaseException:  # the rest of this answer would be taken for the next one's
            await stream.close()
            raise
        self._idle[donor].append(stream)
        if isinstance(answer, m.Missing):
            raise _NotThere(f"{donor}: {answer.reason}")
        return answer

    async def _answer(
        self, stream: Stream[peers.ToFetcher], donor: str, limit: int
    ) -> tuple[bytes, int] | m.Missing:
        data = bytearray()
        while True:
            found, bulk = await stream.receive(ANSWER_SECONDS)
            if isinstance(found, m.Missing):
                return found
            if found.num_bytes > limit or len(bulk) != min(
                m.FRAME_BYTES, found.num_bytes - len(data)
            ):  # nor may it drip
                of = f"{len(bulk)} bytes after {len(data)} of {found.num_bytes}"
                raise TransportError(
                    f"{donor}: an answer of {of}; at most {limit} were expected, in full frames"
                )
            data += bulk
            if len(data) == found.num_bytes:
                return bytes(data), found.step

    async def drop(self, donor: str, why: str) -> None:
        """Ask this one no more; `why` names it to people."""
        await self._close_idle(donor)
        if self._addresses.pop(donor, None):  # two that fail at the same time are one report
            self._report(why)

    async def _close_idle(self, donor: str) -> None:
        for stream in self._idle.pop(donor, []):
            await stream.close()


class _NotThere(TransportError):
    """An honest donor without these bytes, or one that is dropped already: nothing more to report."""


async def fetch_slice(
    donors: Donors, step: int, part: r.Slice, slice_root: bytes, assembly: Assembly, wanted: Container[int]
) -> None:
    """Put the wanted pieces of a slice into `assembly`, each checked against the slice's table.

    Raises NobodyHas; FalsePieces when the table with that root names sizes that the codec cannot give.
    """
    table, _ = await donors.ask(
        m.FetchSliceTable(step, slice_root),
        lambda data, _: root(data) == slice_root,
        PIECE_ROW_BYTES * part.num_pieces,
        part.owner,
    )
    check_table(table, assembly.layout, assembly.codec, part.pieces)
    sizes: list[int] = piece_sizes(table).tolist()
    waiting = batches(sizes, [i for i in range(part.num_pieces) if part.first_piece + i in wanted])

    async def take() -> None:
        while waiting:
            indices = waiting.pop(0)
            parts = sizes[indices.start : indices.stop]
            request = m.FetchPieces(step, slice_root, indices.start, len(indices))
            check = partial(_are_pieces, table, indices, parts)
            data, _ = await donors.ask(request, check, sum(parts), part.owner)
            for i, piece in zip(indices, cut(data, parts), strict=True):
                await assembly.put(part.first_piece + i, piece)

    # Two: while the pieces of one answer are checked, the next ones are on their way.
    await together(take(), take())


def _are_pieces(table: bytes, indices: range, sizes: Sequence[int], data: bytes, _: int) -> bool:
    """Whether `data` are these pieces of a table, one after the other."""
    return len(data) == sum(sizes) and all(map(partial(check_piece, table), indices, cut(data, sizes)))


def batches(sizes: Sequence[int], indices: Sequence[int]) -> list[range]:
    """`indices`, ascending, in ranges for one request each.

    A range has at most MAX_PIECES pieces, and BATCH_BYTES bytes unless it is a single piece.
    """
    found: list[range] = []
    num_bytes = 0
    for i in indices:
        num_bytes += sizes[i]
        last = found[-1] if found else range(0)
        if last and last.stop == i and len(last) < MAX_PIECES and num_bytes <= BATCH_BYTES:
            found[-1] = range(last.start, i + 1)
        else:
            found.append(range(i, i + 1))
            num_bytes = sizes[i]
    return found


def cut(data: bytes, sizes: Sequence[int]) -> list[memoryview]:
    """`data` in parts of these sizes, which add up to its own."""
    ends = list(accumulate(sizes))
    return [memoryview(data)[end - size : end] for size, end in zip(sizes, ends, strict=True)]
