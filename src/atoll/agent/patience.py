"""How long an owner waits for each participant, beside the others: who drips is not waited for."""

import asyncio
from collections.abc import Mapping
from statistics import median_low

MAX_SLOWNESS = 9.0  # of one participant: what is waited for it alone, over what the others have taken


class Patience:
    """Compares, piece by piece, when the participants' copies have come. Belongs to one event loop."""

    def __init__(self, limit_seconds: float) -> None:
        """`limit_seconds` is what each may take before it is compared with the others."""
        self._limit_seconds = limit_seconds
        self._began_at = asyncio.get_running_loop().time()

    def check(self, arrivals: Mapping[str, float]) -> str:
        """Which participant has made half of the others, or more, wait too long; "" if none has.

        `arrivals`: when the copies of one piece came, by the loop's clock, of participants other than the
        owner. Nothing can be said of a single one: it may just have a slow link.
        """
        if len(arrivals) < 2:
            return ""
        slowest = max(arrivals, key=arrivals.__getitem__)
        others_at = median_low(at for island, at in arrivals.items() if island != slowest)
        allowed = self._limit_seconds + MAX_SLOWNESS * max(0.0, others_at - self._began_at)
        return slowest if arrivals[slowest] - max(others_at, self._began_at) > allowed else ""
