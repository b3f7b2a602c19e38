"""Where the others reach each member, as far as a coordinator can find out from where it stands.

It pings an agent at the addresses that the agent gives, and at the host that it sees the agent at. Of agents
on its own machine it cannot know in this way what a firewall or a router lets through: it begins by believing
them, and asks the first member that comes from outside to try.
"""

import asyncio
import contextlib
import os
import socket
from collections.abc import Callable
from typing import Literal

from atoll import events
from atoll.coordinator.effects import Reached
from atoll.swarm import messages as m
from atoll.swarm.address import Address, Addresses, HostPorts, is_local, is_loopback
from atoll.swarm.services import PING
from atoll.swarm.transport import Transport, TransportError, call

REACH_SECONDS = 3.0  # for an agent to answer a Ping
REACH_AGAIN_SECONDS = 15.0  # between two pings of an agent that did not answer
TRIED_SECONDS = 10.0  # for a member that was asked to ping another
LOOK_SECONDS = 1.0  # between two looks for a member from outside, while there is none
MAX_GIVEN = 4  # addresses that an agent may give
# Where the members can be. An address of a narrower scope than this would mislead some of them.
Scope = Literal["machine", "network", "internet"]


async def why_not_dialled(host: str, port: int) -> str:
    """Why nothing takes a connection at an address within a few seconds; "" if something does."""
    try:
        async with asyncio.timeout(REACH_SECONDS):
            _, writer = await asyncio.open_connection(host, port)
    except TimeoutError:
        return f"no answer within {REACH_SECONDS} s"
    except OSError as error:
        return os.strerror(error.errno).lower() if error.errno else str(error)
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
    return ""


class Reach:
    """One coordinator's knowledge of who can be reached where, its own ports included."""

    def __init__(
        self,
        transport: Transport,
        report: Callable[[events.Event], None],
        tell: Callable[[str, m.TryToReach], None],
        found: Callable[[Reached], None],
    ) -> None:
        self.hosts: tuple[HostPorts, ...] = ()  # of this run's host: from outside, then from its own network
        self.scope: Scope = "network"
        self._transport = transport
        self._report = report
        self._tell = tell
        self._found = found
        self._outside: list[str] = []  # members that can try for the others
        self._turn = 0  # whose turn of them it is
        self._tried: dict[tuple[str, str], asyncio.Future[str]] = {}  # by (who tries, whom)
        self._answered: set[Address] = set()  # addresses of this machine that were reached from outside

    def enrolled(self, island: str, seen_host: str) -> None:
        """A stranger has come in by the enrolment port, which so is open if it is from outside."""
        if self._is_outside(seen_host):
            self._note_answered(self.hosts[0].for_strangers, island)

    def entered(self, island: str, seen_host: str) -> None:
        """A member's line is up."""
        if self._is_outside(seen_host):
            self._outside.append(island)
            self._note_answered(self.hosts[0].for_members, island)

    def left(self, island: str) -> None:
        """A member's line has ended."""
        if island in self._outside:
            self._outside.remove(island)

    def heard(self, island: str, tried: m.Tried) -> None:
        """A member tells what came of its try to reach another."""
        if (answer := self._tried.get((island, tried.island))) and not answer.done():
            answer.set_result(tried.reason)

    async def follow(self, island: str, hello: m.Hello, seen_host: str) -> None:
        """Find out where an agent can be reached. One that only dials out cannot, and so owns nothing."""
        if not hello.port:
            return
        is_here = is_this_machine(seen_host)
        told = False
        while not (addresses := await self._reachable(island, hello, seen_host, is_here, told)):
            told = True
            await asyncio.sleep(REACH_AGAIN_SECONDS)
        self._found(Reached(island, hello.session, addresses))
        if is_here and self.scope != "machine":
            await self._have_tried(island, hello, addresses)

    async def _reachable(
        self, island: str, hello: m.Hello, seen_host: str, is_here: bool, told: bool
    ) -> Addresses:
        """Where an agent answers, of what it gives and what is seen; if nowhere, an event, once."""
        given = hello.addresses[:MAX_GIVEN]
        if is_here and given:
            return given  # whether they work can only be seen from outside
        seen = Address(seen_host, hello.port)
        tried = given if self._means_nothing_outside(seen_host) else tuple(dict.fromkeys((*given, seen)))
        reasons = await asyncio.gather(*(self._ping(island, address) for address in tried))
        if not told and all(reasons):
            why = "; ".join(reasons) or (
                "an address of its own network, which the others cannot use; to be reached it needs "
                "`--advertise HOST:PORT`, and that port forwarded by its router"
            )
            address = ", ".join(map(str, tried or (seen,)))
            self._report(events.Unreachable(island=island, address=address, reason=why))
        return tuple(address for address, reason in zip(tried, reasons, strict=True) if not reason)

    async def _ping(self, island: str, address: Address) -> str:
        """Why an agent does not answer at an address; "" if it does."""
        try:
            await call(self._transport, (address,), island, PING, m.Ping(), REACH_SECONDS)
        except TransportError as error:
            return str(error)
        return ""

    async def _have_tried(self, island: str, hello: m.Hello, addresses: Addresses) -> None:
        """Let members from outside try to reach an agent of this machine, until one of them could.

        One that gave its addresses is believed in spite of a failure: there may be nobody else. Of any other
        it is known then that it cannot be reached.
        """
        told = False
        while True:
            if not self._outside:
                await asyncio.sleep(LOOK_SECONDS)
                continue
            self._turn += 1
            witness = self._outside[self._turn % len(self._outside)]
            reason = await self._ask(witness, island, addresses)
            if reason == "":
                self._found(Reached(island, hello.session, addresses))
                self._note_answered(addresses[0], witness, island)
                return
            if reason is not None:
                if not told:
                    address = ", ".join(map(str, addresses))
                    self._report(
                        events.Unreachable(island=island, address=address, reason=reason, by=witness)
                    )
                    told = True
                if not hello.addresses:
                    self._found(Reached(island, hello.session, ()))
            await asyncio.sleep(REACH_AGAIN_SECONDS)

    async def _ask(self, witness: str, island: str, addresses: Addresses) -> str | None:
        """Why a member could not reach another, "" if it could; None if it does not say."""
        answer: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._tried[witness, island] = answer
        self._tell(witness, m.TryToReach(island, addresses))
        try:
            async with asyncio.timeout(TRIED_SECONDS):
                return await answer
        except TimeoutError:
            return None
        finally:
            del self._tried[witness, island]

    def _is_outside(self, seen_host: str) -> bool:
        return not is_this_machine(seen_host) and not self._means_nothing_outside(seen_host)

    def _means_nothing_outside(self, host: str) -> bool:
        """Whether members elsewhere can do nothing with an address, although this machine can."""
        if is_loopback(host):
            return self.scope != "machine"
        return self.scope == "internet" and is_local(host)

    def _note_answered(self, address: Address, by: str, island: str = "") -> None:
        if address not in self._answered:
            self._answered.add(address)
            self._report(events.Answered(island=island, address=str(address), by=by))


def is_this_machine(host: str) -> bool:
    """Whether an IP address is one of this machine's own."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind((host, 0))
    except OSError:  # such as for "memory", the host of tests
        return False
    return True
