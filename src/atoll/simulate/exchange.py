"""An island's part in one attempt's reduction, with the waits and faults of `agent/reduce.py`."""

from itertools import repeat
from typing import TYPE_CHECKING

import numpy as np

from atoll.agent.payload import Payload
from atoll.agent.pieces import check_piece, piece_row
from atoll.agent.work import PROGRESS_SECONDS
from atoll.simulate.bits import CODEC, LAYOUT
from atoll.simulate.offer import SLICE_BYTES, Offer
from atoll.simulate.timeline import Signal, Work
from atoll.swarm.layout import root
from atoll.swarm.messages import Fault, FaultKind, Reduced
from atoll.swarm.records import Attempt, Slice

if TYPE_CHECKING:
    from atoll.simulate.island import Island


class Exchange:
    """One attempt at one island. `pieces` fills up; `changed` fires when something came or was given up."""

    def __init__(self, island: "Island", attempt: Attempt) -> None:
        self.island = island
        self.attempt = attempt
        self.pieces: dict[int, bytes] = {}
        self.changed = Signal()
        self.closed = False
        self.unfinished: set[int] = set()  # slices that I reduce or wait for
        self._offers: dict[tuple[int, str], Offer] = {}
        self._awaited: dict[int, int] = {}  # slice of mine -> the participant whose copy is next
        self._payload: Payload | None = island.payload if attempt.share_of(island.name) else None

    def is_of(self, attempt: Attempt) -> bool:
        return (self.attempt.step, self.attempt.number) == (attempt.step, attempt.number)

    def begin(self) -> None:
        for number, part in enumerate(self.attempt.slices):
            if part.owner == self.island.name:
                self.unfinished.add(number)
                self._awaited[number] = 0
                self._reduce(number)
            elif self._payload is not None and part.num_pieces:
                self.unfinished.add(number)
                self.island.spawn(self._offer(number, part, self._payload))

    def close(self, silently: bool = False) -> None:
        """Stop, and break the streams of participants; `silently` tells nobody. What has arrived stays."""
        if not self.closed:
            self.closed = True
            for (number, _), offer in self._offers.items():
                if number in self.unfinished and not silently:
                    offer.break_off()
            self._settle(*self.unfinished)

    def whole(self, part: Slice, slice_root: bytes) -> bool:
        """Whether a slice is here with exactly the bytes that `slice_root` names."""
        return all(i in self.pieces for i in part.pieces) and root(self.table(part)) == slice_root

    def table(self, part: Slice) -> bytes:
        """The rows of a slice's pieces, all of them here."""
        return b"".join(piece_row(self.pieces[i]) for i in part.pieces)

    # ----------------------------------------------------------------------------------------------- an owner
    def take(self, offer: Offer) -> None:
        """A participant's copy of a slice of mine, checked against what it proposed."""
        if offer.number >= len(self.attempt.slices):  # of an attempt with this number from before a backup
            offer.break_off()
            return
        part, sender = self.attempt.slices[offer.number], offer.sender.name
        share = self.attempt.share_of(sender)
        if (
            share is None
            or self.closed
            or part.owner != self.island.name
            or root(offer.table) != share.payload
        ):
            offer.break_off()
        elif len(offer.pieces) != part.num_pieces or not all(
            map(check_piece, repeat(offer.table), part.pieces, offer.pieces)
        ):
            self._fault(sender, "refused", "a piece is not the one that was proposed")
            offer.break_off()
        else:
            self._offers[offer.number, sender] = offer
            if offer.number in self._awaited:
                self._reduce(offer.number)
            elif all(i in self.pieces for i in part.pieces):
                offer.answer(self.island, [self.pieces[i] for i in part.pieces])

    def _reduce(self, number: int) -> None:
        """Go on with a slice of mine, participant by participant in sorted order; wait for the next copy."""
        participants = self.attempt.participants
        at = self._awaited[number]
        while at < len(participants):
            name = participants[at].island
            if name != self.island.name and (number, name) not in self._offers:
                break
            at += 1
        if at < len(participants):
            if at != self._awaited[number] or at == 0:
                self.island.later(PROGRESS_SECONDS, self._silent, number, at)
            self._awaited[number] = at
            return
        del self._awaited[number]
        part = self.attempt.slices[number]
        for offset, index in enumerate(part.pieces):
            self.pieces[index] = self._sum(number, offset, index)
        self._settle(number)
        reduced = Reduced(
            step=self.attempt.step,
            number=self.attempt.number,
            slice=number,
            digest=root(self.table(part)),
            squared_norms=(0.0,) * len(participants),
        )
        self.island.put(reduced)
        pieces = [self.pieces[i] for i in part.pieces]
        for (of, _), offer in self._offers.items():
            if of == number:
                offer.answer(self.island, pieces)

    def _sum(self, number: int, offset: int, index: int) -> bytes:
        """The weighted sum of all copies of one piece, encoded once."""
        total = np.zeros(LAYOUT.piece_elements, np.float32)
        for share in self.attempt.participants:
            if share.island == self.island.name:
                assert self._payload is not None
                data = bytes(self._payload.pieces[index])
            else:
                data = self._offers[number, share.island].pieces[offset]
            CODEC.add_decoded(np.frombuffer(data, np.uint8), np.float32(share.weight), total)
        reduced = np.empty(CODEC.max_bytes(len(total)), np.uint8)
        return reduced[: CODEC.encode(total, reduced)].tobytes()

    def _silent(self, number: int, at: int) -> None:
        if not self.closed and self._awaited.get(number) == at:
            del self._awaited[number]
            self._fault(self.attempt.participants[at].island, "silent", "no piece came in time")
            self._settle(number)

    # ------------------------------------------------------------------------------------------ a participant
    def _offer(self, number: int, part: Slice, payload: Payload) -> Work:
        island, owner = self.island, self.island.world.agents[part.owner]
        if not (yield from island.dial(owner, PROGRESS_SECONDS)):
            self.broke(number)
            return
        incarnation = owner.incarnation
        island.later(2 * PROGRESS_SECONDS, self.broke, number)
        yield island.network.seconds(
            island.name, owner.name, SLICE_BYTES * part.num_pieces / LAYOUT.num_pieces
        )
        while not island.network.both_ways(island.name, owner.name):
            yield 0.5
        if self.closed or number not in self.unfinished:
            return
        pieces = [island.serve(bytes(payload.pieces[i])) for i in part.pieces]
        if owner.up and owner.incarnation == incarnation:
            table = bytes(payload.pieces.table)
            owner.do(incarnation, owner.offered, (Offer(self, number, pieces, table),))
        elif not owner.dark:
            self.broke(number)

    def arrived(self, number: int, pieces: list[bytes]) -> None:
        part = self.attempt.slices[number]
        if not self.closed and number in self.unfinished:
            self.pieces.update(zip(part.pieces, pieces, strict=True))
            self._settle(number)

    def broke(self, number: int) -> None:
        """The stream to an owner ended, or too long nothing came on it."""
        if not self.closed and number in self.unfinished:
            self._fault(self.attempt.slices[number].owner, "unreachable", "the stream broke or stood still")
            self._settle(number)

    # ------------------------------------------------------------------------------------------- small things
    def _fault(self, peer: str, kind: FaultKind, text: str) -> None:
        self.island.put(
            Fault(step=self.attempt.step, number=self.attempt.number, peer=peer, kind=kind, text=text)
        )

    def _settle(self, *numbers: int) -> None:
        self.unfinished -= set(numbers)
        self.changed.fire()
