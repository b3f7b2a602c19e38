"""What people ask of a coordinator: to become a member, how the run is, another ticket, that a member
goes.
"""

from atoll.coordinator.server import HELLO_SECONDS, CoordinatorServer
from atoll.coordinator.status import StatusBoard
from atoll.errors import UserError
from atoll.swarm import messages as m
from atoll.swarm.identity import OPERATOR, Ticket, common_name, fingerprint
from atoll.swarm.records import Message
from atoll.swarm.transport import Stream, expect


class Requests:
    """The services `Enroll`, for strangers on a port of its own, and `Operate`, for members."""

    def __init__(self, server: CoordinatorServer, board: StatusBoard) -> None:
        self._server = server
        self._board = board

    def ticket(self, uses: int, hours: float) -> str:
        """A new ticket, as one line of text; good for so many islands and hours."""
        server, authority = self._server, self._server.keys.authority
        secret = server.store.new_ticket(uses, hours)
        return Ticket(common_name(authority), server.address, fingerprint(authority), secret).text()

    async def enroll(self, stream: Stream) -> None:
        """Exchange a ticket's secret for a certificate, and tell what the run is."""
        message, _ = await stream.receive(HELLO_SECONDS)
        request, server = expect(message, m.Enroll), self._server
        try:
            certificate = server.keys.issue(request.csr)
            island = common_name(certificate)
            kept = server.store.redeem(request.secret, island, request.contributor[:80], certificate)
        except UserError as error:
            await stream.send(m.Refused(str(error)))
            return
        text = f"{island} enrolled for {request.contributor or 'nobody named'}"
        server.events.write("enrolled", text, island=island)
        await stream.send(m.Enrolled(kept, server.run))

    async def operate(self, stream: Stream) -> None:
        """Status, for any member; invite and evict, for whoever holds the run's keys."""
        request, _ = await stream.receive(HELLO_SECONDS)
        await stream.send(self._answer(request, stream.peer))

    def _answer(self, request: Message, peer: str) -> Message:
        if isinstance(request, m.Status):
            return m.StatusReply(self._board.status())
        if peer != OPERATOR:
            return m.Refused("only the run's operator may do this: use the machine that hosts the run")
        match request:
            case m.Invite():
                return m.Invited(self.ticket(request.uses, request.hours))
            case m.EvictIsland():
                return self._evict(request)
            case _:
                return m.Refused(f"{type(request).__name__} is nothing to ask of a coordinator")

    def _evict(self, request: m.EvictIsland) -> Message:
        server, island = self._server, request.island
        try:
            server.store.evict(island, request.reason)
        except UserError as error:
            return m.Refused(str(error))
        server.protocol.doubt.awaited.discard(island)  # a member that is lost for good is not waited for
        server.tell(island, m.Evict(request.reason or "evicted by the operator"))
        server.events.write("evicted", f"{island} is evicted: {request.reason}", island=island)
        return m.Done()
