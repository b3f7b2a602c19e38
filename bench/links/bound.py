"""The least time that links leave an all-reduce, whoever owns how much: what it is compared with."""

from collections.abc import Sequence
from dataclasses import dataclass

STEPS = 60  # of a bisection: more than a float can tell apart


@dataclass(frozen=True, kw_only=True)
class Link:
    """One site: the slower of its two directions counts, since it sends as much as it receives."""

    mbit: float
    participant: bool = True
    owner: bool = True


def least_seconds(num_bytes: int, links: Sequence[Link]) -> float:
    """Seconds in which these links can reduce `num_bytes` encoded bytes, slices chosen best; no round trips.

    A site that owns the share x of the space sends S (c (1 - x) + x (n - c)): its own payload to the other
    owners, if it is a participant (c = 1), and what it reduced to the participants. It receives as much.
    """
    num_participants = sum(link.participant for link in links)

    def suffices(seconds: float) -> bool:
        owned = 0.0
        for link in links:
            capacity, own = link.mbit * 1e6 / 8 * seconds / num_bytes, float(link.participant)
            rest = num_participants - 2 * own
            if rest <= 0:  # one or two participants: owning costs nothing, or saves traffic
                owned += link.owner
                if capacity < min(own, own + rest):
                    return False
            elif capacity < own:
                return False
            elif link.owner:
                owned += min(1.0, (capacity - own) / rest)
        return owned >= 1.0

    low, high = 0.0, 8 * num_bytes * (1 + num_participants) / (min(link.mbit for link in links) * 1e6)
    for _ in range(STEPS):
        middle = (low + high) / 2
        low, high = (low, middle) if suffices(middle) else (middle, high)
    return high
