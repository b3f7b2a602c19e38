"""`atoll status`, `invite`, `evict`: questions and orders to a running coordinator."""

import asyncio
from pathlib import Path
from typing import TypeVar

from atoll.agent import membership
from atoll.errors import UserError
from atoll.run.directory import RunDir
from atoll.run.kept import kept_in
from atoll.status import RunStatus
from atoll.swarm import messages as m
from atoll.swarm.address import Address, Addresses
from atoll.swarm.grpc_transport import GrpcTransport
from atoll.swarm.identity import COORDINATOR, OPERATOR, Credentials, RunKeys, Ticket
from atoll.swarm.messages import operator
from atoll.swarm.records import Message
from atoll.swarm.services import OPERATE
from atoll.swarm.transport import TransportError, call

ANSWER_SECONDS = 5.0

Answer = TypeVar("Answer", bound=Message)


class NoAnswer(UserError):
    """The coordinator does not answer."""


def status(run_dir: RunDir) -> RunStatus:
    """The run as its coordinator sees it; or, while none answers, as the files of one that ran here know it.

    Raises UserError if neither can be had.
    """
    try:
        return answered(run_dir, m.StatusRequest(), m.StatusReply).status
    except NoAnswer:
        if (kept := kept_in(run_dir)) is None:
            raise
        return kept


def answered(run_dir: RunDir, request: operator.ToCoordinator, kind: type[Answer]) -> Answer:
    """The coordinator's answer, of this kind. Raises UserError as `ask` does."""
    answer = asyncio.run(ask(run_dir, request))
    assert isinstance(answer, kind)
    return answer


async def ask(run_dir: RunDir, request: operator.ToCoordinator) -> operator.ToOperator:
    """The coordinator's answer to one request.

    Asks as the operator if the run's keys are in `run_dir`, else as one of its islands. Raises NoAnswer, or
    UserError if the coordinator refuses.
    """
    addresses, credentials = _addresses_and_credentials(run_dir)
    transport = GrpcTransport(credentials)
    try:
        answer = await call(transport, addresses, COORDINATOR, OPERATE, request, ANSWER_SECONDS)
    except TransportError as error:
        raise NoAnswer(f"no coordinator answers ({error}); is `atoll host` running?") from None
    finally:
        await transport.close()
    if isinstance(answer, m.RequestRefused):
        raise UserError(answer.reason)
    return answer


def _addresses_and_credentials(run_dir: RunDir) -> tuple[Addresses, Credentials]:
    ticket = run_dir.coordinator / "ticket"
    if ticket.exists():
        keys = RunKeys(run_dir.coordinator, Ticket.parse(ticket.read_text()).run_name)
        return (Address.parse(run_dir.local_address.read_text()),), keys.new_credentials(OPERATOR)
    for directory in sorted(run_dir.islands.glob("*")) if run_dir.islands.exists() else []:
        if (member := membership.load(directory)) is not None:
            return member.addresses, member.credentials(directory)
    raise UserError(
        f"{run_dir.path}: no run here; name its directory, as in `atoll status {Path('runs') / 'demo'}`"
    )
