"""The owner-sharded all-reduce of one attempt, at one agent.

Each participant streams its encoded slice, piece by piece in one order, to each owner, and receives the
reduced pieces on the same streams. An owner adds a piece as soon as all participants' copies are there: in
sorted id order, fp32, weighted; encodes the sum once; and serves everybody, itself included, those bytes.

Between a participant and an owner there may be several streams, the lanes, each on a connection of its own:
whichever is free takes the next piece. Where the attempt says how long it should take, all that goes to one
agent is spread over that time (`pacer.py`).
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from typing import Any

import numpy as np

from atoll.agent.assembly import Assembly
from atoll.agent.intake import Intake
from atoll.agent.lanes import MAX_LANES
from atoll.agent.measure import measure_piece
from atoll.agent.pacer import Pacer, Uplink
from atoll.agent.patience import Patience
from atoll.agent.payload import Payload
from atoll.agent.pieces import FalsePieces, check_piece, check_table
from atoll.swarm.layout import root
from atoll.swarm.messages import Fault, FaultKind, NoMorePieces, Piece, Reduced, ReduceOpen, peers
from atoll.swarm.records import Attempt, Slice
from atoll.swarm.services import REDUCE
from atoll.swarm.transport import Stream, Transport, TransportError, expect, together, within
from atoll.words import one_line

ROOM_BYTES = 64 << 20  # of pieces that an owner keeps unread, of all participants together
MIN_ROOM, MAX_ROOM = 8, 128  # pieces that it keeps of one
PATIENCE_SHARE = 0.25  # of the planned time: the least that a wait for the next piece may take
Report = Callable[[Reduced | Fault], Awaitable[None]]


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
        num_lanes: Callable[[str, float, int], int] = lambda owner, bytes_per_second, num_pieces: 1,
    ) -> None:
        """An owner waits `progress_seconds` for a participant's next piece, a participant twice that.

        Where that is longer, they wait for PATIENCE_SHARE of the planned time. `num_lanes` says how many to
        an owner that is sent so many bytes per second, 0: as many as it can be, in so many pieces.
        """
        self.me = me
        self.attempt = attempt
        self.assembly = assembly
        self.progress_seconds = max(progress_seconds, PATIENCE_SHARE * attempt.seconds)
        self._layout = assembly.layout
        self._payload = payload
        self._report = report
        self._num_lanes = num_lanes
        # By the loop's clock; 0: not yet. When it began, my payload had left, my slices were reduced, and
        # these had left.
        self.began_at = self.sent_at = self.reduced_at = self.given_at = 0.0
        self._served: set[tuple[int, str, int]] = set()
        others = [share.island for share in attempt.participants if share.island != me]
        room = max(MIN_ROOM, min(MAX_ROOM, ROOM_BYTES // (max(len(others), 1) * self._piece_bytes)))
        own = [(number, part) for number, part in enumerate(attempt.slices) if part.owner == me]
        self._intakes = {(n, other): Intake(part.pieces, room) for n, part in own for other in others}
        # What is still to be given of each slice to each participant; its lanes share the order.
        self._giving = {(n, other): iter(part.pieces) for n, part in own for other in others}
        self._pacers = self._paced()

    @property
    def num_bytes(self) -> int:
        """What is to leave by this agent's link, and as much is to come: at most, where sizes vary."""
        return self._uplink.num_pieces * self._piece_bytes

    @property
    def _piece_bytes(self) -> int:
        return self.assembly.codec.max_bytes(self._layout.piece_elements)

    def _paced(self) -> dict[str, Pacer]:
        """For each other agent, the pace of all that it is sent. They begin one after the other."""
        attempt = self.attempt
        agents = sorted({self.me, *attempt.involved})
        owned = Counter[str]()
        for part in attempt.slices:
            owned[part.owner] += part.num_pieces
        counts = {
            agent: (owned[agent] if attempt.share_of(self.me) else 0)
            + (owned[self.me] if attempt.share_of(agent) else 0)
            for agent in agents
            if agent != self.me
        }
        self._uplink = Uplink(sum(counts.values()), attempt.seconds)

        def phase(agent: str) -> float:
            return (agents.index(agent) - agents.index(self.me)) % len(agents) / len(agents)

        return {agent: Pacer(count, self._uplink, phase(agent)) for agent, count in counts.items()}

    async def run(self, transport: Transport) -> None:
        """Do my part; returns when every piece I can get on this way is in the assembly."""
        self.began_at = self.sent_at = asyncio.get_running_loop().time()
        for pacer in self._pacers.values():
            pacer.begin()
        work: list[Coroutine[Any, Any, None]] = []
        for number, part in enumerate(self.attempt.slices):
            if part.owner == self.me:
                work.append(self._own(number, part))
            elif self._payload is not None and part.num_pieces:
                work.append(self._exchange(transport, number, part, self._payload))
        await together(*work)

    # ----------------------------------------------------------------------------------------- as an owner
    async def serve(self, stream: Stream[peers.ToOwner], opened: ReduceOpen, table: bytes) -> None:
        """Serve a participant's lane, as the owner of a slice.

        Raises TransportError for a stranger, a false table or a false piece.
        """
        flow = (opened.slice, stream.peer)
        share, intake = self.attempt.share_of(stream.peer), self._intakes.get(flow)
        if share is None or intake is None:
            raise TransportError(f"{stream.peer} has no part in slice {opened.slice}")
        if (*flow, opened.lane) in self._served or not 0 <= opened.lane < MAX_LANES:
            raise TransportError(f"{stream.peer} has opened lane {opened.lane} already, or there is none")
        self._served.add((*flow, opened.lane))
        if opened.lane == 0:
            await self._check_table(stream.peer, share.payload, table)
            await intake.name(table)
        named = await within(self.progress_seconds, intake.table(), f"the table of {stream.peer}")
        await together(self._take(stream, intake, named), self._give(stream, self._giving[flow]))

    async def _check_table(self, island: str, payload: bytes, table: bytes) -> None:
        if root(table) != payload:
            raise TransportError(f"{island}: this table is not that of the payload that it proposed")
        try:
            check_table(table, self._layout, self.assembly.codec, range(self._layout.num_pieces))
        except FalsePieces as error:
            await self._fault(island, "refused", str(error))
            raise TransportError(f"{island}: {error}") from error

    async def _take(self, stream: Stream[peers.ToOwner], intake: Intake, table: bytes) -> None:
        while True:
            message, data = await stream.receive(2 * self.progress_seconds)
            if isinstance(message, NoMorePieces):
                return
            index = expect(message, Piece).index
            if not 0 <= index < self._layout.num_pieces or not check_piece(table, index, data):
                await self._fault(stream.peer, "refused", f"piece {index} is not the one that was proposed")
                raise TransportError("a piece was refused")
            await intake.put(index, data)

    async def _give(self, stream: Stream[peers.ToOwner], indices: Iterator[int]) -> None:
        for index in indices:
            piece = await self.assembly.get(index)
            await self._pacers[stream.peer].turn()
            await stream.send(Piece(index), piece)
        await stream.send(NoMorePieces())
        self.given_at = asyncio.get_running_loop().time()

    async def _own(self, number: int, part: Slice) -> None:
        """Reduce a slice that this agent owns, until a piece does not come or cannot be decoded."""
        codec, participants = self.assembly.codec, self.attempt.participants
        total = np.empty(self._layout.piece_elements, np.float32)
        squares, measured = [0.0] * len(participants), list[bytes]()
        patience = Patience(self.progress_seconds)
        for index in part.pieces:
            elements = self._layout.piece(index)
            values = total[: elements.stop - elements.start]
            values[:] = 0
            arrivals: dict[str, float] = {}
            for at, share in enumerate(participants):
                try:
                    data = await self._copy(number, share.island, index)
                except TransportError as error:
                    await self._fault(share.island, "silent", str(error))
                    return
                except FalsePieces as error:
                    await self._fault(self.me, "lost", str(error))
                    return
                if intake := self._intakes.get((number, share.island)):
                    arrivals[share.island] = intake.taken_came_at
                try:
                    copy = np.frombuffer(data, np.uint8)
                    squares[at] += codec.add_decoded(copy, np.float32(share.factor), values)
                    measured += self._measured(index, data)
                except ValueError as error:  # what was proposed, and so its sender's own doing
                    await self._fault(share.island, "refused", f"piece {index} cannot be decoded: {error}")
                    return
            out = np.empty(codec.max_bytes(len(values)), np.uint8)
            size = codec.encode(values, out)
            await self.assembly.put(index, out[:size].data)
            if late := patience.check(arrivals):
                await self._fault(late, "silent", f"the others have waited too long for piece {index}")
                return
        self.reduced_at = asyncio.get_running_loop().time()
        digest = root(self.assembly.slice_table(part))
        reduced = Reduced(
            step=self.attempt.step,
            number=self.attempt.number,
            slice=number,
            digest=digest,
            squared_norms=tuple(squares),
            measures=b"".join(measured),
        )
        await self._report(reduced)

    def _measured(self, index: int, copy: bytes | memoryview) -> list[bytes]:
        """What a participant's copy of a piece measures, for each dispute about this piece."""
        elements = self._layout.piece(index)
        part = (elements.start, elements.stop - elements.start)
        seeds = [disputed.seed for disputed in self.attempt.disputed if index in disputed.pieces]
        lanes = [measure_piece(self.assembly.codec, copy, *part, seed)[0] for seed in seeds]
        return [each.astype("<f8").tobytes() for each in lanes]

    async def _copy(self, number: int, island: str, index: int) -> memoryview:
        """A participant's copy of one piece.

        Raises TransportError when nothing of it comes any more, FalsePieces for a damaged one of our own.
        """
        if island == self.me:
            assert self._payload is not None
            own = self._payload.pieces
            if not check_piece(own.table, index, own[index]):  # what an owner would say of another's
                raise FalsePieces(index, "this island's own copy is damaged")
            return own[index]
        intake = self._intakes[number, island]
        while True:
            before = intake.num_arrived
            try:
                return await within(self.progress_seconds, intake.take(), f"piece {index} of {island}")
            except TransportError:
                if intake.num_arrived == before:
                    raise

    # -------------------------------------------------------------------------------------- as a participant
    async def _exchange(self, transport: Transport, number: int, part: Slice, payload: Payload) -> None:
        """My payload to an owner, its reduced pieces back."""
        indices, missing = iter(part.pieces), set(part.pieces)

        async def travel(lane: int) -> None:
            addresses = self.attempt.addresses[part.owner]
            stream = await transport.connect(addresses, part.owner, REDUCE, self.progress_seconds, lane)
            try:
                opening = ReduceOpen(self.attempt.step, self.attempt.number, number, lane)
                await stream.send(opening, b"" if lane else bytes(payload.pieces.table))
                await together(
                    self._send_pieces(stream, indices, payload), self._receive_pieces(stream, missing)
                )
            finally:
                await stream.close()

        try:
            rate = self._bytes_per_second(part.owner)
            num_lanes = self._num_lanes(part.owner, rate, part.num_pieces)
            await together(*(travel(lane) for lane in range(num_lanes)))
            if missing:
                raise TransportError(f"{part.owner} has sent {len(missing)} of its pieces on no lane")
        except TransportError as error:
            await self._fault(part.owner, "unreachable", str(error))

    def _bytes_per_second(self, agent: str) -> float:
        """How much is to flow to an agent; it is as much as comes from it. 0: as much as can be."""
        return self._pacers[agent].per_second * self._piece_bytes

    async def _send_pieces(
        self, stream: Stream[peers.ToParticipant], indices: Iterator[int], payload: Payload
    ) -> None:
        for index in indices:
            await self._pacers[stream.peer].turn(is_own=True)
            piece = payload.pieces[index]
            await within(2 * self.progress_seconds, stream.send(Piece(index), piece), stream.peer)
        await stream.send(NoMorePieces())
        self.sent_at = asyncio.get_running_loop().time()

    async def _receive_pieces(self, stream: Stream[peers.ToParticipant], missing: set[int]) -> None:
        while True:
            message, data = await stream.receive(2 * self.progress_seconds)
            if isinstance(message, NoMorePieces):
                return
            if message.index not in missing:
                raise TransportError(f"{stream.peer} sent piece {message.index}, which is not to come")
            await self.assembly.put(message.index, data)
            missing.remove(message.index)

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
