"""A cap on what an agent may send or take: for people who want to keep some of their link."""

import asyncio

BURST_SECONDS = 0.2  # of the cap, which may pass at once: a frame is not cut up


class Limiter:
    """Lets at most so many bytes a second pass. Belongs to one event loop."""

    def __init__(self, bytes_per_second: float = 0.0) -> None:
        """0: there is no cap."""
        self.bytes_per_second = bytes_per_second
        self._free_at = 0.0  # by the loop's clock: when what has passed is paid for

    async def turn(self, size: int) -> None:
        """Wait until `size` more bytes may pass."""
        if not self.bytes_per_second:
            return
        now = asyncio.get_running_loop().time()
        self._free_at = max(self._free_at, now - BURST_SECONDS) + size / self.bytes_per_second
        if self._free_at > now:
            await asyncio.sleep(self._free_at - now)
