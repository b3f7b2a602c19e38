"""The owner-sharded all-reduce of one attempt, at one agent.

Each participant streams its encoded slice, piece by piece in one order, to each owner, and receives the
reduced pieces on the same stream. An owner adds a piece as soon as all participants' copies are there: in
sorted id order, fp32, weighted; encodes the sum once; and serves everybody, itself included, those bytes.
"""

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import numpy as np

from atoll.agent.assembly import Assembly
from atoll.agent.payload import Payload
from atoll.agent.pieces import FalsePieces, check_piece, check_table
from atoll.swarm.layout import root
from atoll.swarm.messages import Fault, FaultKind, Piece, Reduced, ReduceOpen, peers
from atoll.swarm.records import Attempt, Slice
from atoll.swarm.services import REDUCE
from atoll.swarm.transport import Stream, Transport, TransportError, expect, together, within
from atoll.words import one_line

MAX_SLOWNESS = 9.0  # of one participant, relative to all others together
CREDITS = 8  # pieces an owner keeps unread per participant; more waits in the participant's socket
Report = Callable[[Reduced | Fault], Awaitable[None]]


class Patience:
    """How long an owner has waited for each participant, and how much longer it may."""

    def __init__(self, limit_seconds: float) -> None:
        """`limit_seconds` is what each may take before it is compared with the others."""
        self._limit_seconds = limit_seconds
        self._began_at = asyncio.get_running_loop().time()
        self._waited_seconds = defaultdict[str, float](float)

    async def wait(self, island: str, arrival: Awaitable[memoryview]) -> memoryview:
        """What arrives of a participant.

        Raises TransportError once the owner has waited for it longer than `limit_seconds` and MAX_SLOWNESS
        times as long as everything else has taken: who sends a piece now and then does not hold up the rest.
        """
        clock = asyncio.get_running_loop().time
        began_at, waited_seconds = clock(), self._waited_seconds[island]
        others_seconds = began_at - self._began_at - waited_seconds
        left_seconds = self._limit_seconds + MAX_SLOWNESS * others_seconds - waited_seconds
        data = await within(max(0.0, min(self._limit_seconds, left_seconds)), arrival, f"pieces of {island}")
        self._waited_seconds[island] += clock() - began_at
        return data


class Reduction:
    """One attempt: my payload goes out, my slices are reduced, the update comes in."""

    def __init__(
        self,
        me: str,
        attempt: Attempt,
        assembly: Assembly,
        payload: Payload | None,
        progress_seconds: float,
        report: Report,
    ) -> None:
        """An owner waits `progress_seconds` for a participant's next piece, a participant twice that."""
        self.me = me
        self.attempt = attempt
        self.assembly = assembly
        self.progress_seconds = progress_seconds
        self._layout = assembly.layout
        self._payload = payload
        self._report = report
        self._served: set[tuple[int, str]] = set()
        self._arrivals = {
            (number, share.island): asyncio.Queue[memoryview](CREDITS)
            for number, part in enumerate(attempt.slices)
            if part.owner == me
            for share in attempt.participants
            if share.island != me
        }

    async def run(self, transport: Transport) -> None:
        """Do my part; returns when every piece I can get on this way is in the assembly."""
        work: list[Coroutine[Any, Any, None]] = []
        for number, part in enumerate(self.attempt.slices):
            if part.owner == self.me:
                work.append(self._own(number, part))
            elif self._payload is not None and part.num_pieces:
                work.append(self._exchange(transport, number, part, self._payload))
        await together(*work)

    async def serve(self, stream: Stream[peers.ToOwner], opened: ReduceOpen, table: bytes) -> None:
        """Serve a participant's stream, as the owner of a slice.

        Raises TransportError for a stranger, a false table or a false piece.
        """
        share = self.attempt.share_of(stream.peer)
        arrivals = self._arrivals.get((opened.slice, stream.peer))
        if share is None or arrivals is None:
            raise TransportError(f"{stream.peer} has no part in slice {opened.slice}")
        if (opened.slice, stream.peer) in self._served:
            raise TransportError(f"{stream.peer} has sent slice {opened.slice} already")
        self._served.add((opened.slice, stream.peer))
        if root(table) != share.payload:
            raise TransportError(f"{stream.peer}: this table is not that of the payload that it proposed")
        try:
            check_table(table, self._layout, self.assembly.codec, range(self._layout.num_pieces))
        except FalsePieces as error:
            await self._fault(stream.peer, "refused", str(error))
            raise TransportError(f"{stream.peer}: {error}") from error
        part = self.attempt.slices[opened.slice]
        await together(self._take(stream, part, table, arrivals), self._give(stream, part))

    async def _take(
        self, stream: Stream[peers.ToOwner], part: Slice, table: bytes, arrivals: "asyncio.Queue[memoryview]"
    ) -> None:
        for index in part.pieces:
            message, data = await stream.receive(2 * self.progress_seconds)
            if expect(message, Piece).index != index or not check_piece(table, index, data):
                await self._fault(stream.peer, "refused", f"piece {index} is not the one that was proposed")
                raise TransportError("a piece was refused")
            await arrivals.put(data)

    async def _give(self, stream: Stream[peers.ToOwner], part: Slice) -> None:
        for index in part.pieces:
            await stream.send(Piece(index), await self.assembly.get(index))

    async def _own(self, number: int, part: Slice) -> None:
        """Reduce a slice that this agent owns, until a piece does not come or cannot be decoded."""
        codec, participants = self.assembly.codec, self.attempt.participants
        total = np.empty(self._layout.piece_elements, np.float32)
        squares = [0.0] * len(participants)
        patience = Patience(self.progress_seconds)
        for index in part.pieces:
            elements = self._layout.piece(index)
            values = total[: elements.stop - elements.start]
            values[:] = 0
            for at, share in enumerate(participants):
                try:
                    data = await patience.wait(share.island, self._copy(number, share.island, index))
                except TransportError as error:
                    await self._fault(share.island, "silent", str(error))
                    return
                try:
                    square = codec.add_decoded(
                        np.frombuffer(data, np.uint8), np.float32(share.weight), values
                    )
                except ValueError as error:  # what was proposed, and so its sender's own doing
                    await self._fault(share.island, "refused", f"piece {index} cannot be decoded: {error}")
                    return
                squares[at] += square
            reduced = np.empty(codec.max_bytes(len(values)), np.uint8)
            size = codec.encode(values, reduced)
            await self.assembly.put(index, reduced[:size].data)
        digest = root(self.assembly.slice_table(part))
        await self._report(
            Reduced(
                step=self.attempt.step,
                number=self.attempt.number,
                slice=number,
                digest=digest,
                squared_norms=tuple(squares),
            )
        )

    async def _copy(self, number: int, island: str, index: int) -> memoryview:
        """A participant's copy of one piece."""
        if island == self.me:
            assert self._payload is not None
            return self._payload.pieces[index]
        return await self._arrivals[number, island].get()

    async def _exchange(self, transport: Transport, number: int, part: Slice, payload: Payload) -> None:
        """My payload to an owner, its reduced pieces back."""
        try:
            addresses = self.attempt.addresses[part.owner]
            stream = await transport.connect(addresses, part.owner, REDUCE, self.progress_seconds)
            try:
                opening = ReduceOpen(self.attempt.step, self.attempt.number, number)
                await stream.send(opening, bytes(payload.pieces.table))
                await together(self._send_pieces(stream, part, payload), self._receive_pieces(stream, part))
            finally:
                await stream.close()
        except TransportError as error:
            await self._fault(part.owner, "unreachable", str(error))

    async def _send_pieces(self, stream: Stream[peers.ToParticipant], part: Slice, payload: Payload) -> None:
        for index in part.pieces:
            await within(
                2 * self.progress_seconds, stream.send(Piece(index), payload.pieces[index]), stream.peer
            )

    async def _receive_pieces(self, stream: Stream[peers.ToParticipant], part: Slice) -> None:
        for index in part.pieces:
            piece, data = await stream.receive(2 * self.progress_seconds)
            if piece.index != index:
                raise TransportError(f"{stream.peer} sent piece {piece.index} in place of {index}")
            await self.assembly.put(index, data)

    async def _fault(self, peer: str, kind: FaultKind, text: str) -> None:
        await self._report(
            Fault(
                step=self.attempt.step,
                number=self.attempt.number,
                peer=peer,
                kind=kind,
                text=one_line(text),
            )
        )
