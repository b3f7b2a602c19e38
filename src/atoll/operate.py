"""`atoll status`, `invite`, `evict`: what people ask of a running coordinator."""

import asyncio
from pathlib import Path
from typing import Any

from atoll.agent import membership
from atoll.errors import UserError
from atoll.genesis import RunDir
from atoll.swarm import messages as m
from atoll.swarm.grpc_transport import GrpcTransport
from atoll.swarm.identity import COORDINATOR, OPERATOR, Credentials, RunKeys, Ticket
from atoll.swarm.records import Message
from atoll.swarm.transport import TransportError

ANSWER_SECONDS = 5.0


def status(run_dir: RunDir) -> dict[str, Any]:
    """The run as its coordinator sees it. Raises UserError when it cannot be asked."""
    answer = asyncio.run(ask(run_dir, m.Status()))
    assert isinstance(answer, m.StatusReply)
    return answer.status


async def ask(run_dir: RunDir, request: Message) -> m.AnyMessage:
    """One question to the coordinator, as the operator where the run's keys are here, else as an island of ours."""
    address, credentials = _who(run_dir)
    transport = GrpcTransport(credentials)
    try:
        stream = await transport.connect(address, COORDINATOR, "Operate", ANSWER_SECONDS)
        await stream.send(request)
        answer, _ = await stream.receive(ANSWER_SECONDS)
    except TransportError as error:
        raise UserError(f"the coordinator at {address} does not answer ({error}); is `atoll host` running?") from None
    finally:
        await transport.close()
    if isinstance(answer, m.Refused):
        raise UserError(answer.reason)
    return answer


def _who(run_dir: RunDir) -> tuple[str, Credentials]:
    ticket = run_dir.coordinator / "ticket"
    if ticket.exists():
        parsed = Ticket.parse(ticket.read_text())
        keys = RunKeys(run_dir.coordinator, parsed.run_name)
        return parsed.address, keys.member(OPERATOR)
    for directory in sorted(run_dir.islands.glob("*")) if run_dir.islands.exists() else []:
        if (member := membership.load(directory)) is not None:
            return member.address, member.credentials(directory)
    raise UserError(f"{run_dir.path}: no run here; name its directory, as in `atoll status {Path('runs') / 'demo'}`")
