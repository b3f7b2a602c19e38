"""Who may own and who may take part in an outer step, after what went wrong in its attempts and in the last
steps.
"""

from collections import Counter
from dataclasses import dataclass, field

from atoll.swarm.messages import FaultKind
from atoll.swarm.records import Attempt

OWNERLESS_STEPS = 5  # an edge that stays dead costs its deadline once in so many steps, not in each


@dataclass
class Standing:
    """Faults are charged to both ends of an edge: ownership is dropped first, participation last."""

    no_owner: dict[str, int] = field(default_factory=dict[str, int])  # island -> steps yet, this one included
    out: set[str] = field(default_factory=set[str])
    _charges: Counter[str] = field(default_factory=Counter[str])
    _refusals: dict[str, set[str]] = field(
        default_factory=dict[str, set[str]]
    )  # sender -> owners that refused it

    def next_step(self) -> "Standing":
        """Everybody takes part again; who lost ownership owns nothing for some steps more."""
        return Standing({island: steps - 1 for island, steps in self.no_owner.items() if steps > 1})

    def forgive(self, island: str) -> None:
        """It has a new line: what was wrong with its edges may be over."""
        self.no_owner.pop(island, None)

    def charge(self, accuser: str, peer: str, kind: FaultKind, attempt: Attempt) -> None:
        """An edge failed: somebody on it loses ownership, or, where the fault is surely its own,
        participation.
        """
        self._charges.update({accuser, peer})
        if kind == "lost":  # my own payload is gone
            self.out.add(accuser)
        elif kind == "refused":  # one owner may be lying; two hardly
            refusers = self._refusals.setdefault(peer, set())
            refusers.add(accuser)
            if len(refusers) > 1:
                self.out.add(peer)
            else:
                self.no_owner[accuser] = OWNERLESS_STEPS
        else:
            self.no_owner[peer if attempt.owner_of(peer) else accuser] = OWNERLESS_STEPS

    def late(self, islands: set[str]) -> None:
        """These did not do in time what they alone could: charged, and owners no more."""
        self.no_owner |= dict.fromkeys(islands, OWNERLESS_STEPS)
        self._charges.update(islands)

    def exclude_worst(self, participants: list[str]) -> str:
        """With no owner left, the participant on most failed edges goes, and ownership is free again; "" if
        none failed.
        """
        charged = [island for island in participants if self._charges[island]]
        self.no_owner = {}
        if not charged:
            return ""
        worst = max(charged, key=lambda island: self._charges[island])
        self.out.add(worst)
        return worst
