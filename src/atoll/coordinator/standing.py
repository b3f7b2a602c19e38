"""Who may own and who may take part in one outer step, after what went wrong in its attempts so far."""

from collections import Counter
from dataclasses import dataclass, field

from atoll.swarm.records import Attempt


@dataclass
class Standing:
    """Faults are charged to both ends of an edge: ownership is dropped first, participation last."""

    no_owner: set[str] = field(default_factory=set[str])
    out: set[str] = field(default_factory=set[str])
    _charges: Counter[str] = field(default_factory=Counter[str])
    _refusals: dict[str, set[str]] = field(default_factory=dict[str, set[str]])  # sender -> owners that refused it

    def charge(self, accuser: str, peer: str, kind: str, attempt: Attempt) -> None:
        """An edge failed: somebody on it loses ownership, or, where the fault is surely its own, participation."""
        self._charges.update({accuser, peer})
        if kind == "lost":  # my own payload is gone
            self.out.add(accuser)
        elif kind == "refused":  # one owner may be lying; two hardly
            refusers = self._refusals.setdefault(peer, set())
            refusers.add(accuser)
            if len(refusers) > 1:
                self.out.add(peer)
            else:
                self.no_owner.add(accuser)
        else:
            self.no_owner.add(peer if attempt.owner_of(peer) else accuser)

    def late(self, islands: set[str]) -> None:
        """These did not do in time what they alone could: charged, and owners no more."""
        self.no_owner |= islands
        self._charges.update(islands)

    def owners(self, ranked: list[list[str]], reachable: set[str]) -> list[str]:
        """Of the first group that has any: those that the others can reach and that may still own."""
        able = reachable - self.no_owner
        for group in ranked:
            if fit := [island for island in group if island in able]:
                return fit
        return []

    def exclude_worst(self, participants: list[str]) -> str:
        """With no owner left, the participant on most failed edges goes, and ownership is free again; "" if none failed."""
        charged = [island for island in participants if self._charges[island]]
        self.no_owner = set()
        if not charged:
            return ""
        worst = max(charged, key=lambda island: self._charges[island])
        self.out.add(worst)
        return worst
