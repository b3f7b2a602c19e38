"""`atoll status`, `invite`, `evict`: what people ask of a running coordinator."""

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
from atoll.swarm.messages import operator
from atoll.swarm.services import OPERATE
from atoll.swarm.transport import TransportError, call

ANSWER_SECONDS = 5.0


def status(run_dir: RunDir) -> dict[str, Any]:
    """The run as its coordinator sees it, and its ledger. Raises UserError when it cannot be asked."""
    answer = asyncio.run(ask(run_dir, m.StatusRequest()))
    assert isinstance(answer, m.StatusReply)
    return answer.status | {"ledger": ledger(answer.status["islands"])}


def ledger(islands: Iterable[dict[str, Any]]) -> dict[str, dict[str, int]]:
    """Committed tokens of each contributor (an island that names none is its own), by source."""
    found: dict[str, Counter[str]] = {}
    for island in islands:
        if island["sources"]:
            found.setdefault(island["contributor"] or island["island"], Counter()).update(island["sources"])
    return {name: dict(sorted(found[name].items())) for name in sorted(found)}


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
