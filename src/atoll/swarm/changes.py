"""Waiting for something in this process to change."""

import asyncio


class Changes:
    """Those who wait for the next change; each looks for itself whether it is the one that it needs."""

    def __init__(self) -> None:
        self._waiters: list[asyncio.Future[None]] = []

    async def next(self) -> None:
        """Wait for the next change."""
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        await waiter

    def note(self) -> None:
        """Something has changed."""
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)
        self._waiters.clear()
