"""Who may own slices and who may take part, by the evidence of this outer step and of those before it.

A fault is charged to both ends of a connection, since either may be to blame. It costs ownership first, and
participation once several others, of different hands, say the same. Whoever costs the swarm time again and
again is left out for doubling times, and is forgiven by taking part without a fault.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable

from atoll.swarm.messages import FaultKind
from atoll.swarm.records import Attempt

OWNERLESS_STEPS = 5  # a connection that stays dead costs its deadline once in so many steps, not in each
MAX_OUT_STEPS = 64  # for which an island is left out at once
FORGIVEN_STEPS = 8  # commits that an island must take part in until one of its convictions is forgotten
MAX_COST_SHARE = 0.1  # of everybody's time, that one island may cost again and again
NUM_WITNESSES = 2  # of different hands, who convict
NUM_UNSHARED = 3  # whom one alone accuses: then it is the accuser

Hand = Callable[[str], str]  # the hand that an island is of (`members.py`)


def own_hand(island: str) -> str:
    """As `Hand`, where nothing is known of anybody: each island is of its own."""
    return island


class Standing:
    """The rights of agents in the open outer step."""

    def __init__(self, hand: Hand = own_hand) -> None:
        self.ownerless_steps: dict[str, int] = {}  # by island, this step included
        self.reasons: dict[str, str] = {}  # of those that are left out, for people
        self._hand = hand
        self.lost_steps = 0.0  # that what is charged now has cost everybody
        self._out_steps: dict[str, int] = {}  # islands that take no part: for how long, this step included
        self._num_convictions: Counter[str] = Counter()
        self._num_late: Counter[str] = Counter()
        self._num_unmeasured: Counter[str] = Counter()
        self._num_clean_steps: Counter[str] = Counter()  # since the last conviction
        self._num_charges: Counter[str] = Counter()  # in this step
        self._accusers: defaultdict[str, set[str]] = defaultdict(set)  # in this step, by whom they accuse

    def is_out(self, island: str) -> bool:
        """Whether an island takes no part in this step any more."""
        return island in self._out_steps

    @property
    def excluded(self) -> set[str]:
        """The islands that take no part in this step any more."""
        return set(self._out_steps)

    def begin_step(self) -> None:
        """The next outer step: what lasted until now has one step less to last."""
        self.ownerless_steps = _one_less(self.ownerless_steps)
        self._out_steps = _one_less(self._out_steps)
        self.reasons = {island: self.reasons[island] for island in self._out_steps}
        self._num_charges.clear()
        self._accusers.clear()

    def note_committed(self, participants: Iterable[str]) -> None:
        """An update of these is committed: they have cost nobody anything."""
        for island in participants:
            self._num_clean_steps[island] += 1
            if self._num_clean_steps[island] % FORGIVEN_STEPS == 0:
                for kept in (self._num_convictions, self._num_late, self._num_unmeasured):
                    kept[island] = max(0, kept[island] - 1)

    def restore_ownership(self, island: str) -> None:
        """Let an island own again: it has a new connection, so the cause of its faults may be gone."""
        self.ownerless_steps.pop(island, None)

    def forgive(self) -> None:
        """Nobody is left who could take part: everybody gets another chance in this step."""
        self._out_steps, self.reasons, self.ownerless_steps = {}, {}, {}
        self._accusers.clear()

    def charge(self, accuser: str, peer: str, kind: FaultKind, attempt: Attempt) -> None:
        """Note a fault that `accuser` reported; `peer` is the other end, or the accuser itself.

        One of the two loses ownership. It takes no part any more if the fault is surely its own, if
        NUM_WITNESSES say the same of it, or if it accuses NUM_UNSHARED whom nobody else accuses.
        """
        if self.is_out(accuser) or self.is_out(peer):
            return  # it is known already whose fault this is
        self._num_charges.update({accuser, peer})
        if kind == "lost":  # the accuser's own payload is gone, as after a loss of its disk
            self._leave_out(accuser, 1, "its own payload is gone")
            return
        if accuser == peer:
            self.ownerless_steps[accuser] = OWNERLESS_STEPS
            return
        self._accusers[peer].add(accuser)
        takes_loss = attempt.has_owner(peer) and kind != "refused"
        self.ownerless_steps[peer if takes_loss else accuser] = OWNERLESS_STEPS
        witnesses = self._hands(self._accusers[peer])
        if len(witnesses) >= NUM_WITNESSES and kind != "unreachable":  # which one may be without any fault
            self.convict(peer, f"{len(witnesses)} others could not reduce with it")
        unshared = self._hands(p for p, accusers in self._accusers.items() if accusers == {accuser})
        if len(unshared) >= NUM_UNSHARED:
            self.convict(accuser, f"it accused {len(unshared)} others, whom nobody else accuses")

    def charge_late(self, islands: set[str]) -> None:
        """Charge islands that did not do in time, or not rightly, what depended on them alone; they lose
        ownership.

        For twice as long each time.
        """
        self._num_charges.update(islands)
        for island in islands:
            self._num_late[island] += 1
            steps = OWNERLESS_STEPS * 2 ** (self._num_late[island] - 1)
            self.ownerless_steps[island] = min(steps, MAX_OUT_STEPS)

    def charge_unmeasured(self, islands: set[str]) -> None:
        """Charge participants that did not tell what their payloads measure, so that a sum went unchecked.

        That may happen to anybody who dies just then, once.
        """
        for island in sorted(islands):
            self._num_unmeasured[island] += 1
            if self._num_unmeasured[island] > 1:
                self.convict(island, "it did not tell, again, what its payload measures")

    def clear(self, island: str) -> None:
        """What an island was charged with as an owner was another's lie."""
        self.restore_ownership(island)
        self._num_late[island] = max(0, self._num_late[island] - 1)

    def convict(self, island: str, reason: str) -> None:
        """Leave an island out of this step, and of doubling numbers of steps with each further conviction; of
        so many at least that what it has cost is MAX_COST_SHARE of them.

        Whoever lost ownership by an exchange with it may own again.
        """
        if island in self._out_steps:
            return
        victims = self._accusers.pop(island, set())
        for peer, accusers in self._accusers.items():
            if island in accusers:
                accusers.discard(island)
                victims.add(peer)
        for victim in victims:
            self.ownerless_steps.pop(victim, None)
        self.ownerless_steps[island] = OWNERLESS_STEPS
        self._num_clean_steps[island] = 0
        self._num_convictions[island] += 1
        owed_steps = math.ceil(self.lost_steps / MAX_COST_SHARE - 1e-9)
        num_steps = max(2 ** (self._num_convictions[island] - 1), owed_steps)
        self._leave_out(island, min(num_steps, MAX_OUT_STEPS), reason)

    def exclude_worst(self, participants: list[str]) -> str:
        """Convict the participant with most charges, because no owner is left; return it, "" if none has any.

        Everybody may own again.
        """
        charged = [island for island in participants if self._num_charges[island]]
        worst = max(charged, key=lambda island: self._num_charges[island], default="")
        if worst:
            self.lost_steps = 0.0  # it may be without any fault
            self.convict(worst, "no owner could exchange with it")
        self.ownerless_steps = {}
        return worst

    def _leave_out(self, island: str, num_steps: int, reason: str) -> None:
        self._out_steps[island] = num_steps
        self.reasons[island] = reason

    def _hands(self, islands: Iterable[str]) -> set[str]:
        return {self._hand(island) for island in islands}


def _one_less(steps: dict[str, int]) -> dict[str, int]:
    return {island: left - 1 for island, left in steps.items() if left > 1}
