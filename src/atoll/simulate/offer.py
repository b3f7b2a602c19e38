"""A participant's stream to an owner, as a reduce over gRPC would carry it."""

from typing import TYPE_CHECKING

from atoll.simulate.bits import LAYOUT

if TYPE_CHECKING:
    from atoll.simulate.exchange import Exchange
    from atoll.simulate.island import Island

SLICE_BYTES = 1e6  # what the slices of an update weigh on the network, all together


class Offer:
    """A participant's stream to an owner: its payload's slice goes up, the reduced slice comes back."""

    def __init__(self, exchange: "Exchange", number: int, pieces: list[bytes], table: bytes) -> None:
        self.attempt = exchange.attempt
        self.number = number
        self.pieces = pieces
        self.table = table
        self.sender = exchange.island
        self._exchange = exchange
        self._incarnation = exchange.island.incarnation

    def answer(self, owner: "Island", pieces: list[bytes]) -> None:
        """The reduced slice, back to the participant."""
        part = self.attempt.slices[self.number]
        served = [owner.serve(piece) for piece in pieces]
        self._after(owner, SLICE_BYTES * part.num_pieces / LAYOUT.num_pieces, (self.number, served))

    def break_off(self) -> None:
        """The owner closed the stream."""
        self._after(self.sender.world.agents[self.attempt.slices[self.number].owner], 0.0, None)

    def _after(self, owner: "Island", num_bytes: float, what: tuple[int, list[bytes]] | None) -> None:
        timeline, network = owner.timeline, owner.network
        timeline.after(network.seconds(owner.name, self.sender.name, num_bytes), self._arrive, owner, what)

    def _arrive(self, owner: "Island", what: tuple[int, list[bytes]] | None) -> None:
        if not owner.network.both_ways(owner.name, self.sender.name):
            if not self._exchange.closed:
                owner.timeline.after(0.5, self._arrive, owner, what)  # sent again once the cut is over
        elif what is None:
            self.sender.do(self._incarnation, self._exchange.broke, (self.number,))
        else:
            self.sender.do(self._incarnation, self._exchange.arrived, what)
