"""An agent's process: `python -m atoll.agent SETTINGS` (JSON), with a socket to whoever started it."""

import asyncio
import os
import signal
import sys

import msgspec

from atoll import recipe as recipes
from atoll.agent import membership
from atoll.agent.server import Agent
from atoll.agent.settings import Arguments, Settings, arguments_of
from atoll.agent.trainer import SocketTrainer
from atoll.errors import UserError
from atoll.files import DirectoryLock, disk_error, remove_leftovers
from atoll.swarm.grpc_transport import GrpcTransport
from atoll.swarm.identity import Ticket
from atoll.swarm.messages import Stopped
from atoll.swarm.transport import TransportError

ENROL_PAUSE_SECONDS = 1.0
ENROL_TRIES = 30


async def run(arguments: Arguments) -> str:
    """Enrol if need be, then be an agent until told to stop; the reason, "" for a finished run."""
    settings = arguments.settings
    trainer = await SocketTrainer.open(arguments.handle) if arguments.handle >= 0 else None
    try:
        member = await _enrol(settings, arguments.ticket)
        lock = DirectoryLock(settings.directory)
        if not lock.acquire():
            raise UserError(
                f"{settings.directory}: another agent works here; choose another directory (--dir)"
            )
        for part in ("state", "log", "outer"):
            remove_leftovers(settings.directory / part)
        (settings.directory / "agent.pid").write_text(str(os.getpid()))
        recipe = recipes.parse(member.run.recipe, member.run_id)
        transport = GrpcTransport(member.credentials(settings.directory))
        settings = msgspec.structs.replace(settings, coordinator=member.address)
        agent = Agent(settings, member.island, member.run, recipe, transport, trainer)
        return await agent.run()
    except (UserError, OSError) as error:
        reason = disk_error(settings.directory, error)
        if trainer is not None and isinstance(reason, UserError):
            trainer.tell(Stopped(str(reason)))
            await asyncio.sleep(0.2)
        raise reason from error


async def _enrol(settings: Settings, ticket: str) -> membership.Membership:
    if not ticket:
        if (member := membership.load(settings.directory)) is None:
            raise UserError(f"{settings.directory}: no membership is kept here; join with a ticket")
        return member
    parsed = Ticket.parse(ticket)
    reason = ""
    for _ in range(ENROL_TRIES):
        try:
            return await membership.enrol(settings.directory, parsed, settings.contributor)
        except TransportError as error:
            reason = str(error)
            await asyncio.sleep(ENROL_PAUSE_SECONDS)
    raise UserError(
        f"no coordinator at {parsed.address} ({reason}); is the run up, and are both its ports open?"
    )


def relay(settings: Settings, ticket: str) -> None:
    """Be a relay in the foreground, until Ctrl-C."""
    if reason := asyncio.run(run(Arguments(settings, ticket, -1))):
        raise UserError(f"this relay may not go on: {reason}")


def main() -> int:
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the trainer; we end when its socket does
    try:
        reason = asyncio.run(run(arguments_of(sys.argv[1])))
    except UserError as error:
        print(f"atoll: {error}", file=sys.stderr)
        return 2
    if reason:
        print(f"atoll: the agent ends: {reason}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
