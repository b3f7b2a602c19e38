"""What people ask of a coordinator: membership, the run's status, another ticket, an eviction."""

import math
import time

from atoll import __version__
from atoll.coordinator.overview import overview
from atoll.coordinator.probes import Probes
from atoll.coordinator.reach import why_not_dialled
from atoll.coordinator.server import HELLO_SECONDS, CoordinatorServer
from atoll.coordinator.status import StatusBoard
from atoll.coordinator.store import Enrolment
from atoll.errors import UserError
from atoll.events import Enrolled, Evaluated, Evicted, Readmitted
from atoll.swarm import messages as m
from atoll.swarm.address import HostPorts
from atoll.swarm.identity import (
    ISLAND,
    OPERATOR,
    RELAY,
    Ticket,
    common_name,
    fingerprint,
    needs_renewal,
    role_of,
)
from atoll.swarm.messages import enrolment, operator
from atoll.swarm.transport import NotUnderstood, Stream
from atoll.words import listed

MIN_ID_DIGITS = 4  # of an island's id, that may stand for all of it


class Requests:
    """The services `Enroll`, for strangers on a port of its own, and `Operate`, for members."""

    def __init__(self, server: CoordinatorServer, board: StatusBoard) -> None:
        self._server = server
        self._board = board
        self._probes = Probes()

    def ticket(self, uses: int, hours: float, hosts: tuple[HostPorts, ...] = ()) -> str:
        """A new ticket, as one line of text; good for so many islands and hours.

        It says where the run's host is, unless `hosts` are given for it to say.
        """
        server, authority = self._server, self._server.keys.authority
        secret = server.store.new_ticket(uses, hours)
        hosts = hosts or server.reach.hosts
        return Ticket(common_name(authority), hosts, fingerprint(authority), secret).text()

    async def enroll(self, stream: Stream[enrolment.ToCoordinator]) -> None:
        """Exchange a ticket's secret for a certificate, or look first; tell what the run is."""
        server = self._server
        request, _ = await stream.receive(HELLO_SECONDS)
        if isinstance(request, m.Probing):
            return  # filler without a question before it
        if not isinstance(request, m.Enroll):
            await self._before_joining(request, stream)
            return
        try:
            certificate = server.keys.issue(request.csr, RELAY if request.relay else ISLAND)
            island = common_name(certificate)
            kept = server.store.redeem(
                request.secret,
                island,
                request.contributor,
                certificate,
                place=request.place,
                link=request.link,
            )
        except UserError as error:
            await stream.send(m.TicketRefused(str(error)))
            return
        if needs_renewal(kept) or role_of(kept) != role_of(certificate):
            server.store.keep_certificate(island, certificate)
            kept = certificate
        told = Enrolled(
            island=island, contributor=request.contributor, place=request.place, link=request.link
        )
        server.events.write(told)
        server.reach.enrolled(island, stream.peer_host)
        await stream.send(m.Enrolled(kept, server.run))

    async def _before_joining(
        self, request: m.Look | m.Probe, stream: Stream[enrolment.ToCoordinator]
    ) -> None:
        """Tell a stranger what it should know before it joins; only one whose ticket is good."""
        try:
            self._server.store.check_ticket(request.secret)
        except UserError as error:
            await stream.send(m.TicketRefused(str(error)))
            return
        if isinstance(request, m.Probe):
            await self._probes.serve(stream)
        else:
            await stream.send(await self._looked(request, stream.peer_host))

    async def _looked(self, request: m.Look, seen_host: str) -> m.Looked:
        """What the run is, and whether the stranger can be reached."""
        server = self._server
        unreached = await why_not_dialled(seen_host, request.port) if request.port else None
        return m.Looked(
            run=server.run,
            version=m.VERSION,
            release=__version__,
            self_test=server.protocol.rules.self_test,
            time=time.time(),
            overview=overview(server.protocol),
            seen_host=seen_host,
            unreached=unreached,
        )

    async def operate(self, stream: Stream[operator.ToCoordinator]) -> None:
        """Status and evaluations, for any member; invite and evict, for whoever holds the run's keys."""
        try:
            request, _ = await stream.receive(HELLO_SECONDS)
        except NotUnderstood as error:
            await stream.send(m.RequestRefused(f"this is nothing to ask of a coordinator ({error})"))
            return
        await stream.send(self._answer(request, stream.peer))

    def _answer(self, request: operator.ToCoordinator, peer: str) -> operator.ToOperator:
        if isinstance(request, m.StatusRequest):
            return m.StatusReply(self._board.status())
        if isinstance(request, m.TellEvaluation):
            return self._evaluated(request, "" if peer == OPERATOR else peer)
        if isinstance(request, m.Renew):
            return self._renewed(request, peer)
        if peer != OPERATOR:
            return m.RequestRefused("only the run's operator may do this: use the machine that hosts the run")
        try:
            match request:
                case m.Invite():
                    return m.Invited(self.ticket(request.num_uses, request.hours))
                case m.EvictIsland():
                    return self._evict(*self._found(request.island), request.reason)
                case m.ReadmitIsland():
                    return self._readmit(*self._found(request.island))
        except UserError as error:
            return m.RequestRefused(str(error))

    def _renewed(self, request: m.Renew, island: str) -> operator.ToOperator:
        """A new certificate for a member's own key, and for what it is already."""
        server = self._server
        try:
            if reason := server.store.eviction_reason(island):
                raise UserError(f"{island} was evicted from this run: {reason}")
            role = role_of(server.store.certificate_of(island))
            certificate = server.keys.issue(request.csr, role or ISLAND)
        except UserError as error:
            return m.RequestRefused(str(error))
        if not role or common_name(certificate) != island:
            return m.RequestRefused("this is not the key by which this member is known; join with a ticket")
        server.store.keep_certificate(island, certificate)
        return m.Renewed(certificate)

    def _evaluated(self, told: m.TellEvaluation, island: str) -> operator.ToOperator:
        server = self._server
        is_finite = all(map(math.isfinite, told.heldout_losses.values()))
        is_finite = is_finite and all(score.is_finite for score in told.scores.values())
        if not is_finite or not (told.scores or told.heldout_losses):
            return m.RequestRefused("an evaluation needs a figure, and none may be infinite or no number")
        if told.step == 0:
            root = server.run.genesis_root
        else:
            records = server.store.commits(told.step - 1, 1) if told.step > 0 else []
            root = records[0].next_root if records else b""
        if told.root != root:
            return m.RequestRefused(f"the run has no state {told.step} with root {told.root.hex()[:12]}")
        server.events.write(
            Evaluated(
                step=told.step,
                island=island,
                root=root.hex(),
                scores=told.scores,
                heldout_losses=told.heldout_losses,
                samples=told.samples,
            )
        )
        return m.EvaluationTold()

    def _found(self, called: str) -> tuple[str, Enrolment]:
        """The one island that people call so: by its id, the beginning of it, or its contributor.

        Raises UserError if there is none, or more than one.
        """
        enrolled = self._server.store.enrolled()
        is_part = len(called) >= MIN_ID_DIGITS
        found = (
            [called]
            if called in enrolled
            else [
                island
                for island, kept in enrolled.items()
                if called and (kept.contributor == called or (is_part and island.startswith(called)))
            ]
        )
        if len(found) > 1:
            raise UserError(f"{called}: that is {listed(sorted(found))}; name one of them by its id")
        if not found:
            raise UserError(f"{called}: no such island in this run; `atoll status` lists them")
        return found[0], enrolled[found[0]]

    def _evict(self, island: str, kept: Enrolment, reason: str) -> operator.ToOperator:
        server = self._server
        num_others = server.store.evict(island, reason)
        server.protocol.doubt.awaited.discard(island)  # a member that is lost for good is not waited for
        why = f": {reason}" if reason else ""
        server.tell(island, m.Evicted(f"the operator has evicted this island{why}"))
        server.tell_revoked()
        for event in (Evicted(island=island, reason=reason), *server.alerts.forget(island)):
            server.events.write(event)
        return m.IslandEvicted(island, kept.contributor, num_others)

    def _readmit(self, island: str, kept: Enrolment) -> operator.ToOperator:
        if not kept.evicted:
            raise UserError(f"{island} is not evicted from this run; there is nothing to undo")
        self._server.store.readmit(island)
        self._server.tell_revoked()
        self._server.events.write(Readmitted(island=island))
        return m.IslandReadmitted(island, kept.contributor)
