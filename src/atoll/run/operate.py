"""`atoll status`, `invite`, `evict`: what people ask of a running coordinator."""

import asyncio
from pathlib import Path

from atoll.agent import membership
from atoll.errors import UserError
from atoll.run.directory import RunDir
from atoll.status import RunStatus
from atoll.swarm import messages as m
from atoll.swarm.grpc_transport import GrpcTransport
from atoll.swarm.identity import COORDINATOR, OPERATOR, Credentials, RunKeys, Ticket
from atoll.swarm.messages import operator
from atoll.swarm.services import OPERATE
from atoll.swarm.transport import TransportError, call

ANSWER_SECONDS = 5.0


def status(run_dir: RunDir) -> RunStatus:
    """The run as its coordinator sees it. Raises UserError when it cannot be asked."""
    answer = asyncio.run(ask(run_dir, m.StatusRequest()))
    assert isinstance(answer, m.StatusReply)
    return answer.status


async def ask(run_dir: RunDir, request: operator.ToCoordinator) -> operator.ToOperator:
    """The coordinator's answer: to the operator where the run's keys are here, else to an island of ours.

    Raises UserError when the coordinator refuses, with its reason, or cannot be asked.
    """
    address, credentials = _who(run_dir)
    transport = GrpcTransport(credentials)
    try:
        answer = await call(transport, address, COORDINATOR, OPERATE, request, ANSWER_SECONDS)
    except TransportError as error:
        raise UserError(
            f"the coordinator at {address} does not answer ({error}); is `atoll host` running?"
        ) from None
    finally:
        await transport.close()
    if isinstance(answer, m.RequestRefused):
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
    raise UserError(
        f"{run_dir.path}: no run here; name its directory, as in `atoll status {Path('runs') / 'demo'}`"
    )
