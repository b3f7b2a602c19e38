"""Who may own slices and who may take part in an outer step, after the faults of its attempts."""

from collections import Counter
from dataclasses import dataclass, field

from atoll.swarm.messages import FaultKind
from atoll.swarm.records import Attempt

OWNERLESS_STEPS = 5  # a connection that stays dead costs its deadline once in so many steps, not in each


@dataclass
class Standing:
    """The rights of agents in one outer step.

    A fault is charged to both ends of a connection, since either may be to blame. It costs ownership first,
    participation last.
    """

    ownerless_steps: dict[str, int] = field(default_factory=dict[str, int])  # by island, this step included
    excluded: set[str] = field(default_factory=set[str])  # islands that take no part in this step any more
    _num_charges: Counter[str] = field(default_factory=Counter[str])  # by island
    _refusers: dict[str, set[str]] = field(default_factory=dict[str, set[str]])  # participant -> owners

    def of_next_step(self) -> "Standing":
        """Rights in the next outer step: all take part again; ownership comes back after its time."""
        return Standing({island: steps - 1 for island, steps in self.ownerless_steps.items() if steps > 1})

    def restore_ownership(self, island: str) -> None:
        """Let an island own again: it has a new connection, so the cause of its faults may be gone."""
        self.ownerless_steps.pop(island, None)

    def charge(self, accuser: str, peer: str, kind: FaultKind, attempt: Attempt) -> None:
        """Note a fault that `accuser` reported; `peer` is the other end, or the accuser itself.

        One of the two loses ownership, or takes no part any more if the fault is surely its own.
        """
        self._num_charges.update({accuser, peer})
        if kind == "lost":  # the accuser's own payload is gone
            self.excluded.add(accuser)
        elif kind == "refused":  # one owner may be lying, two hardly
            refusers = self._refusers.setdefault(peer, set())
            refusers.add(accuser)
            if len(refusers) > 1:
                self.excluded.add(peer)
            else:
                self.ownerless_steps[accuser] = OWNERLESS_STEPS
        else:
            self.ownerless_steps[peer if attempt.has_owner(peer) else accuser] = OWNERLESS_STEPS

    def charge_late(self, islands: set[str]) -> None:
        """Charge islands that did not do in time what depended on them alone; they lose ownership."""
        self.ownerless_steps |= dict.fromkeys(islands, OWNERLESS_STEPS)
        self._num_charges.update(islands)

    def exclude_worst(self, participants: list[str]) -> str:
        """Exclude the participant with most charges, because no owner is left; return it, "" if none has any.

        Everybody may own again.
        """
        charged = [island for island in participants if self._num_charges[island]]
        self.ownerless_steps = {}
        if not charged:
            return ""
        worst = max(charged, key=lambda island: self._num_charges[island])
        self.excluded.add(worst)
        return worst
