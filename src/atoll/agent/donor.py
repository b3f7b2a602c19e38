"""The donor's side of Fetch: an agent answers from what it has, and never pauses anything else for it.

While it reduces, state and data for others take little of its link, and all of it otherwise. What somebody
lacks of the update in the making goes out at once: a step waits for it.
"""

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import Callable

from atoll.agent.assembly import Assembly
from atoll.agent.exponents import shrink
from atoll.agent.log import UpdateLog
from atoll.agent.pieces import Pieces, piece_rows
from atoll.agent.state import OuterState
from atoll.swarm import messages as m
from atoll.swarm import records as r
from atoll.swarm.messages import peers
from atoll.swarm.transport import Stream, within

MAX_PIECES = 256  # per request: bounds what one answer can hold a donor to
IDLE_SECONDS = 3_600.0
READ_SECONDS = 15.0  # for a frame of an answer: who does not read is let go
ANSWERS_AT_ONCE = 6  # to one member: more of its requests wait, and take no memory
# Between two frames, while a reduction runs: it is hardly noticed, and an asker sees that we live.
YIELD_SECONDS = 1.0
DataBlock = Callable[[str, int], bytes | None]  # (file, block) of the prepared data; file "" is the manifest


class Donor:
    """Answers Fetch requests from what this agent has; never pauses anything else."""

    def __init__(
        self,
        state: OuterState,
        log: UpdateLog,
        genesis_root: bytes,
        data_block: DataBlock,
        metered: bool = False,
    ) -> None:
        """A `metered` one gives only what its own slices of the newest update are."""
        self.state = state
        self.log = log
        self.genesis_root = genesis_root
        self.data_block = data_block
        self.metered = metered
        self._clear = asyncio.Event()  # no reduction runs
        self._clear.set()
        self.assembly: tuple[r.Attempt, Assembly] | None = None  # the update in the making, if any
        # By who asks.
        self._turns = defaultdict[str, asyncio.Semaphore](lambda: asyncio.Semaphore(ANSWERS_AT_ONCE))

    @property
    def progress(self) -> tuple[int, int]:
        """The open attempt's number, and how many pieces of its update are here."""
        if self.assembly is None:
            return 0, 0
        attempt, assembly = self.assembly
        return attempt.number, assembly.num_pieces

    def give_way(self, reducing: bool) -> None:
        """A reduction begins here, or has ended."""
        if reducing:
            self._clear.clear()
        else:
            self._clear.set()

    async def serve(self, stream: Stream[peers.ToDonor]) -> None:
        """Answer one request after the other until the peer closes."""
        while True:
            request, _ = await stream.receive(IDLE_SECONDS)
            async with self._turns[stream.peer]:
                answer = await asyncio.to_thread(self._find, request)
                is_urgent = isinstance(request, m.FetchHeader | m.FetchSliceTable | m.FetchPieces)
                await self._answer(stream, answer, is_urgent)

    async def _answer(
        self, stream: Stream[peers.ToDonor], answer: tuple[bytes, int] | m.Missing, is_urgent: bool
    ) -> None:
        """Send an answer; what is not urgent gives way to a reduction.

        Raises TransportError for who does not read it, at least a frame every READ_SECONDS.
        """
        if isinstance(answer, m.Missing):
            await stream.send(answer)
            return
        data, step = answer
        view = memoryview(data)
        for start in range(0, len(view) or 1, m.FRAME_BYTES):  # of nothing there is one frame too
            if not is_urgent and not self._clear.is_set():
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(YIELD_SECONDS):
                        await self._clear.wait()
            frame = stream.send(m.Found(len(view), step), view[start : start + m.FRAME_BYTES])
            await within(READ_SECONDS, frame, stream.peer)

    def _find(self, request: peers.ToDonor) -> tuple[bytes, int] | m.Missing:
        data: bytes | None = None
        step = -1
        if self.metered and not isinstance(request, m.FetchSliceTable | m.FetchPieces):
            return m.Missing("this island's link is metered: it gives no state and no data")
        match request:
            case m.FetchHeader():
                update = self.log.update(request.step, request.update)
                data = r.encode(update.header) if update else None
            case m.FetchSliceTable():
                if found := self._slice(request.step, request.slice_root):
                    pieces, part = found
                    data = piece_rows(pieces.table, part)
            case m.FetchPieces():
                if found := self._slice(request.step, request.slice_root):
                    pieces, part = found
                    first, count = request.first_piece, request.num_pieces
                    if first >= 0 and 0 < count <= min(MAX_PIECES, len(part) - first):
                        data = b"".join(pieces[index] for index in part[first : first + count])
            case m.FetchTable():
                data = self.log.table(request.step, self.genesis_root)
            case m.FetchChunk():
                if 0 <= request.index < self.state.layout.num_chunks:
                    step, chunk = self.state.read(request.index)
                    data = shrink(chunk) if step >= 0 else None
            case m.FetchManifest():
                data = self.data_block("", 0)
            case m.FetchBlock():
                data = self.data_block(request.file, request.index)
        return (data, step) if data is not None else m.Missing(f"{type(request).__name__}: not here")

    def _slice(self, step: int, slice_root: bytes) -> tuple[Pieces, range] | None:
        """The pieces of an update of that step, and which of them are the slice with that root.

        None if no such slice is here.
        """
        if self.assembly is not None:
            attempt, assembly = self.assembly
            for part in attempt.slices:
                if attempt.step == step and assembly.whole(part, slice_root):
                    return assembly.pieces, part.pieces
        for update in () if self.metered else self.log.updates_of_step(step):
            for first, count, found in update.header.slices:
                if found == slice_root:
                    return update.pieces, range(first, first + count)
        return None
