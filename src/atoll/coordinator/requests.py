"""What people ask of a coordinator: membership, the run's status, another ticket, an eviction."""

from atoll.coordinator.server import HELLO_SECONDS, CoordinatorServer
from atoll.coordinator.status import StatusBoard
from atoll.errors import UserError
from atoll.events import Enrolled, Evicted
from atoll.swarm import messages as m
from atoll.swarm.address import HostPorts
from atoll.swarm.identity import OPERATOR, Ticket, common_name, fingerprint
from atoll.swarm.messages import enrolment, operator
from atoll.swarm.transport import NotUnderstood, Stream


class Requests:
    """The services `Enroll`, for strangers on a port of its own, and `Operate`, for members."""

    def __init__(self, server: CoordinatorServer, board: StatusBoard) -> None:
        self._server = server
        self._board = board

    def ticket(self, uses: int, hours: float, hosts: tuple[HostPorts, ...] = ()) -> str:
        """A new ticket, as one line of text; good for so many islands and hours.

        It says where the run's host is, unless `hosts` are given for it to say.
        """
        server, authority = self._server, self._server.keys.authority
        secret = server.store.new_ticket(uses, hours)
        hosts = hosts or server.reach.hosts
        return Ticket(common_name(authority), hosts, fingerprint(authority), secret).text()

    async def enroll(self, stream: Stream[enrolment.ToCoordinator]) -> None:
        """Exchange a ticket's secret for a certificate, and tell what the run is."""
        server = self._server
        request, _ = await stream.receive(HELLO_SECONDS)
        try:
            certificate = server.keys.issue(request.csr)
            island = common_name(certificate)
            kept = server.store.redeem(request.secret, island, request.contributor[:80], certificate)
        except UserError as error:
            await stream.send(m.TicketRefused(str(error)))
            return
        server.events.write(Enrolled(island=island, contributor=request.contributor[:80]))
        server.reach.enrolled(island, stream.peer_host)
        await stream.send(m.Enrolled(kept, server.run))

    async def operate(self, stream: Stream[operator.ToCoordinator]) -> None:
        """Status, for any member; invite and evict, for whoever holds the run's keys."""
        try:
            request, _ = await stream.receive(HELLO_SECONDS)
        except NotUnderstood as error:
            await stream.send(m.RequestRefused(f"this is nothing to ask of a coordinator ({error})"))
            return
        await stream.send(self._answer(request, stream.peer))

    def _answer(self, request: operator.ToCoordinator, peer: str) -> operator.ToOperator:
        if isinstance(request, m.StatusRequest):
            return m.StatusReply(self._board.status())
        if peer != OPERATOR:
            return m.RequestRefused("only the run's operator may do this: use the machine that hosts the run")
        match request:
            case m.Invite():
                return m.Invited(self.ticket(request.num_uses, request.hours))
            case m.EvictIsland():
                return self._evict(request)

    def _evict(self, request: m.EvictIsland) -> operator.ToOperator:
        server, island = self._server, request.island
        try:
            server.store.evict(island, request.reason)
        except UserError as error:
            return m.RequestRefused(str(error))
        server.protocol.doubt.awaited.discard(island)  # a member that is lost for good is not waited for
        server.tell(island, m.Evicted(request.reason or "evicted by the operator"))
        server.events.write(Evicted(island=island, reason=request.reason))
        return m.IslandEvicted()
