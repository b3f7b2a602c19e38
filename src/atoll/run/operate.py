"""`atoll status`, `invite`, `evict`: questions and orders to a running coordinator."""

import asyncio
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from atoll.agent import membership
from atoll.errors import UserError
from atoll.run.directory import RunDir
from atoll.swarm import messages as m
from atoll.swarm.grpc_transport import GrpcTransport
from atoll.swarm.identity import COORDINATOR, OPERATOR, Credentials, RunKeys, Ticket
from atoll.swarm.records import Message
from atoll.swarm.transport import TransportError

ANSWER_SECONDS = 5.0


def status(run_dir: RunDir) -> dict[str, Any]:
    """The run as its coordinator sees it, and its ledger. Raises UserError if it does not answer."""
    answer = asyncio.run(ask(run_dir, m.Status()))
    assert isinstance(answer, m.StatusReply)
    return answer.status | {"ledger": ledger(answer.status["islands"])}


def ledger(islands: Iterable[dict[str, Any]]) -> dict[str, dict[str, int]]:
    """Committed tokens by contributor and source; an island without a contributor stands for itself."""
    tokens: dict[str, Counter[str]] = {}
    for island in islands:
        if island["sources"]:
            tokens.setdefault(island["contributor"] or island["island"], Counter()).update(island["sources"])
    return {name: dict(sorted(tokens[name].items())) for name in sorted(tokens)}


async def ask(run_dir: RunDir, request: Message) -> m.AnyMessage:
    """The coordinator's answer to one request.

    Asks as the operator if the run's keys are in `run_dir`, else as one of its islands. Raises UserError if
    the coordinator does not answer, or refuses.
    """
    address, credentials = _address_and_credentials(run_dir)
    transport = GrpcTransport(credentials)
    try:
        stream = await transport.connect(address, COORDINATOR, "Operate", ANSWER_SECONDS)
        await stream.send(request)
        answer, _ = await stream.receive(ANSWER_SECONDS)
    except TransportError as error:
        raise UserError(
            f"the coordinator at {address} does not answer ({error}); is `atoll host` running?"
        ) from None
    finally:
        await transport.close()
    if isinstance(answer, m.Refused):
        raise UserError(answer.reason)
    return answer


def _address_and_credentials(run_dir: RunDir) -> tuple[str, Credentials]:
    ticket = run_dir.coordinator / "ticket"
    if ticket.exists():
        parsed = Ticket.parse(ticket.read_text())
        keys = RunKeys(run_dir.coordinator, parsed.run_name)
        return parsed.address, keys.new_credentials(OPERATOR)
    for directory in sorted(run_dir.islands.glob("*")) if run_dir.islands.exists() else []:
        if (member := membership.load(directory)) is not None:
            return member.address, member.credentials(directory)
    raise UserError(
        f"{run_dir.path}: no run here; name its directory, as in `atoll status {Path('runs') / 'demo'}`"
    )
