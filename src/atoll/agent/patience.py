"""How long an owner waits for each participant, beside the others: who drips is not waited for."""

import asyncio
from collections import defaultdict
from collections.abc import Awaitable
from typing import TypeVar

from atoll.swarm.transport import within

MAX_SLOWNESS = 9.0  # of one participant, relative to all others together

T = TypeVar("T")


class Patience:
    """How long an owner has waited for each participant of a slice, and how much longer it may."""

    def __init__(self, limit_seconds: float) -> None:
        """`limit_seconds` is what each may take before it is compared with the others."""
        self._limit_seconds = limit_seconds
        self._began_at = asyncio.get_running_loop().time()
        self._waited_seconds = defaultdict[str, float](float)

    async def wait(self, island: str, arrival: Awaitable[T]) -> T:
        """What arrives of a participant.

        Raises TransportError once the owner has waited for it longer than `limit_seconds` and MAX_SLOWNESS
        times as long as everything else has taken: who sends a piece now and then does not hold up the rest.
        """
        clock = asyncio.get_running_loop().time
        began_at, waited_seconds = clock(), self._waited_seconds[island]
        others_seconds = began_at - self._began_at - waited_seconds
        left_seconds = self._limit_seconds + MAX_SLOWNESS * others_seconds - waited_seconds
        arrived = await within(max(0.0, left_seconds), arrival, f"pieces of {island}")
        self._waited_seconds[island] += clock() - began_at
        return arrived
