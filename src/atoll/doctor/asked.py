"""What a run's host says to somebody who has a ticket and has not joined."""

import asyncio
import socket
import time
from contextlib import closing, suppress

import msgspec

from atoll.errors import UserError
from atoll.metrics import Rates
from atoll.swarm.address import Address, is_loopback
from atoll.swarm.grpc_transport import enrolment_line
from atoll.swarm.identity import Ticket
from atoll.swarm.messages import Look, Looked, Probe, Probed, TicketRefused
from atoll.swarm.probe import send_filler, take_filler
from atoll.swarm.transport import NotUnderstood, TransportError, expect

ANSWER_SECONDS = 10.0  # the host may take a few to try our port, or to measure the lines of others
SHORTEST_SECONDS = 1e-3  # that filler is said to take: what was faster came out of a buffer


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """What came of asking."""

    ticket: Ticket
    looked: Looked | None = None  # None: there was no answer
    about: str = ""  # what is in the way: host, ticket, clock, versions; "": nothing
    failure: str = ""  # and why
    round_trip_seconds: float = 0.0
    ahead_seconds: float = 0.0  # of the host's clock, this machine's; as far as one answer tells
    rates: Rates = Rates()  # of the line to the host, as measured; 0: it was not


def ask(ticket: str, listen: Address | None, *, is_measured: bool) -> Asked:
    """Ask the host of a ticket what its run is, and to try this machine at `listen` meanwhile.

    None: it is not tried. `is_measured`: the line to the host is, too, which takes some seconds and 2 MB each
    way at most. Nothing of the ticket is used up, and nothing is kept. Raises UserError for what is no
    ticket.
    """
    return asyncio.run(_ask(Ticket.parse(ticket), listen, is_measured))


async def _ask(ticket: Ticket, listen: Address | None, is_measured: bool) -> Asked:
    try:
        first, seconds, ahead = await _look(ticket, 0)
    except NotUnderstood as error:
        why = f"{error}; install the host's version of atoll"
        return Asked(ticket=ticket, about="versions", failure=why)
    except TransportError as error:
        where = " or ".join(str(host.for_strangers) for host in ticket.hosts)
        return Asked(ticket=ticket, about="host", failure=f"no coordinator answers at {where} ({error})")
    except UserError as error:
        about = "clock" if "clock" in str(error) else "ticket"
        return Asked(ticket=ticket, about=about, failure=str(error))
    rates = Rates()
    if is_measured and not is_loopback(first.seen_host):
        with suppress(TransportError, UserError):  # an older host, one that is busy, or too slow a line
            rates = await _probe(ticket)
    found = Asked(ticket=ticket, looked=first, round_trip_seconds=seconds, ahead_seconds=ahead, rates=rates)
    if listen is None:
        return found
    try:
        tried = await _tried(ticket, listen)
    except (OSError, TransportError, UserError):
        return found  # what prevents listening is said where that is looked at
    return msgspec.structs.replace(found, looked=msgspec.structs.replace(first, unreached=tried.unreached))


async def _tried(ticket: Ticket, listen: Address) -> Looked:
    """As `_look`, with a port open meanwhile."""
    family = socket.AF_INET6 if ":" in listen.host else socket.AF_INET
    with closing(socket.create_server((listen.host, listen.port), family=family)) as listener:
        looked, _, _ = await _look(ticket, listener.getsockname()[1])
    return looked


async def _probe(ticket: Ticket) -> Rates:
    """What the line to the host carries, each way."""
    line = await enrolment_line(ticket)
    await line.stream.send(Probe(ticket.secret))
    sending = asyncio.create_task(send_filler(line.stream))
    try:
        answer, _ = await line.stream.receive(ANSWER_SECONDS)
        up, down = expect(answer, Probed), await take_filler(line.stream)
    finally:  # the host may have had enough before all was sent
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)
        await line.stream.close()
        await line.close()
    return Rates(up_bytes_per_second=_per_second(up), down_bytes_per_second=_per_second(down))


def _per_second(came: Probed) -> float:
    return came.num_bytes / max(came.seconds, SHORTEST_SECONDS)


async def _look(ticket: Ticket, port: int) -> tuple[Looked, float, float]:
    """(what the host says, seconds of a round trip, seconds that this clock is ahead of the host's)."""
    line = await enrolment_line(ticket)
    try:
        began, asked = time.monotonic(), time.time()
        await line.stream.send(Look(ticket.secret, port))
        answer, _ = await line.stream.receive(ANSWER_SECONDS)
        seconds = time.monotonic() - began
    finally:
        await line.stream.close()
        await line.close()
    if isinstance(answer, TicketRefused):
        raise UserError(answer.reason)
    if not isinstance(answer, Looked):
        raise NotUnderstood("the host answered something else")
    return answer, seconds, asked + seconds / 2 - answer.time
