"""An agent's process: `python -m atoll.agent SETTINGS` (JSON), with a socket to whoever started it."""

import asyncio
import os
import signal
import sys
import time
from collections.abc import Callable

import msgspec

from atoll import recipe as recipes
from atoll.agent import membership
from atoll.agent.process import TICKET, settings_of
from atoll.agent.renewal import keep_renewed
from atoll.agent.server import Agent
from atoll.agent.settings import Settings
from atoll.agent.trainer import SocketTrainer
from atoll.errors import UserError
from atoll.files import DirectoryLock, disk_error, remove_leftovers
from atoll.run.processes import LEASH
from atoll.swarm.grpc_transport import Caps, GrpcTransport
from atoll.swarm.identity import Ticket, check_clock, is_expired
from atoll.swarm.limiter import Limiter
from atoll.swarm.messages import Pulse, Stopped
from atoll.swarm.transport import TransportError
from atoll.words import one_line

ENROL_SECONDS, ENROL_PAUSE_SECONDS = 30.0, 1.0  # for a coordinator to answer a ticket; between two tries

Show = Callable[[Pulse], None]


async def run(settings: Settings, ticket: str, handle: int, show: Show = lambda pulse: None) -> str:
    """Enrol if need be, then be an agent until told to stop; the reason, "" for a finished run.

    A member needs no `ticket`. `handle` is the socket to whoever started this process, -1 for none. `show` is
    given what people may want to know, every second.
    """
    trainer = await SocketTrainer.open(handle) if handle >= 0 else None
    try:

        def waits(why: str) -> None:
            pulse = Pulse(note=one_line(why))
            show(pulse)
            if trainer is not None:
                print(f"atoll: {why}", file=sys.stderr, flush=True)
                trainer.tell(pulse)

        member = await _enrol(settings, ticket, waits)
        check_clock(member.certificate)
        lock = DirectoryLock(settings.directory)
        if not lock.acquire():
            raise UserError(
                f"{settings.directory}: another agent works here; choose another directory (--dir)"
            )
        for part in ("state", "log", "outer"):
            remove_leftovers(settings.directory / part)
        (settings.directory / "agent.pid").write_text(str(os.getpid()))
        recipe = recipes.parse(member.run.recipe, member.run_id)
        up, down = settings.caps.up_bytes_per_second, settings.caps.down_bytes_per_second
        caps = Caps(Limiter(up), Limiter(down))
        transport = GrpcTransport(member.credentials(settings.directory), caps)
        settings = msgspec.structs.replace(settings, coordinators=member.addresses)
        agent = Agent(settings, member.island, member.run, recipe, transport, trainer, show)
        renewing = asyncio.create_task(
            keep_renewed(settings.directory, transport, lambda: agent.coordinators)
        )
        try:
            return await agent.run()
        finally:
            renewing.cancel()
            await asyncio.gather(renewing, return_exceptions=True)
    except (UserError, OSError) as error:
        reason = disk_error(settings.directory, error)
        if trainer is not None and isinstance(reason, UserError):
            trainer.tell(Stopped(str(reason)))
            await asyncio.sleep(0.2)
        raise reason from error


async def _enrol(settings: Settings, ticket: str, waits: Callable[[str], None]) -> membership.Membership:
    if not ticket:
        if (member := membership.load(settings.directory)) is None:
            raise UserError(f"{settings.directory}: no membership is kept here; join with a ticket")
        if is_expired(member.certificate):
            raise UserError(
                f"{settings.directory}: its certificate has expired, as it was away for weeks; join again "
                "with the ticket"
            )
        return member
    parsed = Ticket.parse(ticket)
    where = " or ".join(str(host.for_strangers) for host in parsed.hosts)
    if membership.load(settings.directory) is None:
        waits(f"enrolling at {where}")
    deadline, told = time.monotonic() + ENROL_SECONDS, ""
    while True:
        try:
            return await membership.enrol(
                settings.directory,
                parsed,
                settings.contributor,
                place=settings.place,
                link=settings.link,
                relay=settings.relay,
            )
        except TransportError as error:
            if time.monotonic() > deadline:
                raise UserError(
                    f"no coordinator answers at {where} ({error}); is the run hosted, and is that port open "
                    "in its firewall and forwarded by its router?"
                ) from None
            if str(error) != told:
                waits(f"no coordinator answers yet ({error}); trying again for {ENROL_SECONDS:.0f} s")
                told = str(error)
            await asyncio.sleep(ENROL_PAUSE_SECONDS)


def relay(settings: Settings, ticket: str, show: Show) -> None:
    """Be a relay in the foreground, until Ctrl-C; `show` as in `run`."""
    if reason := asyncio.run(run(settings, ticket, -1, show)):
        raise UserError(f"this relay may not go on: {reason}")


def main() -> int:
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the trainer; we end when its socket does
    try:
        settings, ticket = settings_of(sys.argv[1]), os.environ.pop(TICKET, "")
        reason = asyncio.run(run(settings, ticket, int(os.environ.pop(LEASH, "-1"))))
    except UserError as error:
        print(f"atoll: {error}", file=sys.stderr)
        return 2
    if reason:
        print(f"atoll: the agent ends: {reason}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
