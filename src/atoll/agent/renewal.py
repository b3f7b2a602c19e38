"""A member's certificate is good for some weeks; its agent has it renewed long before they are over."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from atoll.agent import membership
from atoll.errors import UserError
from atoll.swarm.address import Addresses
from atoll.swarm.identity import COORDINATOR, Credentials, island_key, needs_renewal
from atoll.swarm.messages import Renew, Renewed
from atoll.swarm.services import OPERATE
from atoll.swarm.transport import Transport, TransportError, call

LOOK_SECONDS = 3_600.0  # between two looks at the certificate; weeks are left for a coordinator to answer


class RenewableTransport(Transport, Protocol):
    """A transport whose credentials can be replaced while it is at work."""

    def renew(self, credentials: Credentials) -> None: ...


async def keep_renewed(
    directory: Path, transport: RenewableTransport, coordinators: Callable[[], Addresses]
) -> None:
    """Look at the certificate in an island's `directory` now and then, and have it renewed; for ever."""
    while True:
        await renew_if_due(directory, transport, coordinators())
        await asyncio.sleep(LOOK_SECONDS)


async def renew_if_due(directory: Path, transport: RenewableTransport, coordinators: Addresses) -> bool:
    """Whether a new certificate has come and is used, where half the life of the one that is kept is over.

    False too if no coordinator answers, it refuses, or the disk is full: then another look will do.
    """
    known = membership.load(directory)
    if known is None or not needs_renewal(known.certificate):
        return False
    _, _, csr = island_key(directory)
    try:
        answer = await call(transport, coordinators, COORDINATOR, OPERATE, Renew(csr))
        if not isinstance(answer, Renewed):
            return False
        renewed = membership.renewed(directory, answer.certificate)
    except (TransportError, UserError, OSError):
        return False
    transport.renew(renewed.credentials(directory))
    return True
