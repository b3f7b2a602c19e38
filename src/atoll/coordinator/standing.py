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
MAX_COST_SHARE = 0.05  # of everybody's time, that a convict may cost again and again
NUM_WITNESSES = 2  # of different hands, who convict
NUM_UNSHARED = 3  # whom one alone accuses: then it is the accuser
WITNESSED_STEPS = 16  # for which an accusation is remembered: who accuses another in each step is seen, too

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
        # By accuser, of whom it accuses: for how many steps that is remembered, this one included; of any
        # kind, and of those that an island without a fault would hardly be accused of.
        self._accused: defaultdict[str, dict[str, int]] = defaultdict(dict)
        self._witnessed: defaultdict[str, dict[str, int]] = defaultdict(dict)
        self._withheld: set[str] = set()  # whose lost ownership no new connection gives back
        self._restored: dict[str, int] = {}  # to whom one gave it back: for how many steps that is remembered
        self._convicted: set[str] = set()  # in this step

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
        self._convicted.clear()
        self._withheld &= self.ownerless_steps.keys()
        self._restored = _one_less(self._restored)
        for kept in (self._accused, self._witnessed):
            for accuser, accused in kept.items():
                kept[accuser] = _one_less(accused)

    def note_committed(self, participants: Iterable[str]) -> None:
        """An update of these is committed: they have cost nobody anything.

        Only now it is known what the step has lost (`lost_steps`), and so what its convicts owe.
        """
        for island in self._convicted & self._out_steps.keys():
            self._leave_out(island, self._owed_steps + 1, self.reasons[island])
        for island in participants:
            self._num_clean_steps[island] += 1
            if self._num_clean_steps[island] % FORGIVEN_STEPS == 0:
                for kept in (self._num_convictions, self._num_late, self._num_unmeasured):
                    kept[island] = max(0, kept[island] - 1)

    def restore_ownership(self, island: str) -> None:
        """Let an island own again: it has a new connection, so the cause of its faults may be gone.

        Unless these were not of its connections, or another new one has not helped a few steps ago.
        """
        if self._own_again(island):
            self._restored[island] = WITNESSED_STEPS

    def forgive(self) -> None:
        """Nobody is left who could take part: everybody gets another chance in this step."""
        self._out_steps, self.reasons, self.ownerless_steps = {}, {}, {}
        self._withheld.clear()
        for kept in (self._accusers, self._accused, self._witnessed):
            kept.clear()

    def charge(self, accuser: str, peer: str, kind: FaultKind, attempt: Attempt) -> None:
        """Note a fault that `accuser` reported; `peer` is the other end, or the accuser itself.

        One of the two loses ownership. It takes no part any more if the fault is surely its own, if
        NUM_WITNESSES say the same of it, or if it accuses NUM_UNSHARED whom nobody else accuses.
        """
        if self.is_out(accuser) or self.is_out(peer):
            return  # it is known already whose fault this is
        self._num_charges.update({accuser, peer})
        if kind == "lost":  # the accuser's own payload is gone, as after a loss of its disk
            self.convict(accuser, "its own payload is gone")
            return
        if accuser == peer:
            self._lose_ownership(accuser, OWNERLESS_STEPS)
            return
        self._accusers[peer].add(accuser)
        self._accused[accuser][peer] = WITNESSED_STEPS
        if kind != "unreachable":  # which one may be without any fault
            self._witnessed[accuser][peer] = WITNESSED_STEPS
        takes_loss = attempt.has_owner(peer) and kind != "refused" and accuser not in self._withheld
        loser = peer if takes_loss else accuser
        if loser in self._restored:
            self._withhold_ownership(loser, OWNERLESS_STEPS)
        self._lose_ownership(loser, OWNERLESS_STEPS)
        witnesses = self._hands(self._accusers[peer])
        if len(witnesses) >= NUM_WITNESSES and takes_loss:
            self._withhold_ownership(peer, OWNERLESS_STEPS)
        witnesses |= self._hands(other for other, accused in self._witnessed.items() if peer in accused)
        if len(witnesses) >= NUM_WITNESSES and kind != "unreachable":
            self.convict(peer, f"{len(witnesses)} others could not reduce with it")
        unshared = self._unshared(accuser)
        if len(unshared) >= NUM_UNSHARED:
            self.convict(accuser, f"it accused {len(unshared)} others, whom nobody else accuses")

    def charge_late(self, islands: Iterable[str]) -> None:
        """Charge islands that did not do in time, or not rightly, what depended on them alone; they lose
        ownership.

        For twice as long each time, and so that what they have cost is MAX_COST_SHARE of that at most.
        """
        for island in islands:
            self._num_charges[island] += 1
            self._num_late[island] += 1
            self._withhold_ownership(island, OWNERLESS_STEPS * 2 ** (self._num_late[island] - 1))

    def charge_unmeasured(self, islands: set[str]) -> None:
        """Charge participants that did not tell what their payloads measure, so that a sum went unchecked.

        That may happen to anybody who dies just then, once.
        """
        for island in sorted(islands):
            self._num_unmeasured[island] += 1
            if self._num_unmeasured[island] > 1:
                self.convict(island, "it did not tell, again, what its payload measures", is_over=True)

    def clear(self, island: str) -> None:
        """What an island was charged with as an owner was another's lie."""
        self._withheld.discard(island)
        self._own_again(island)
        self._num_late[island] = max(0, self._num_late[island] - 1)

    def convict(self, island: str, reason: str, *, is_over: bool = False) -> None:
        """Leave an island out of this step, and of doubling numbers of steps with each further conviction; of
        so many at least that what it has cost is MAX_COST_SHARE of them.

        If this step `is_over`, they begin with the next one. Whoever lost ownership by an exchange with it
        may own again.
        """
        if island in self._out_steps:
            return
        victims = self._accusers.pop(island, set()) | self._accused.pop(island, {}).keys()
        for peer, accusers in self._accusers.items():
            if island in accusers:
                accusers.discard(island)
                victims.add(peer)
        self._witnessed.pop(island, None)
        for kept in (self._accused, self._witnessed):
            for accused in kept.values():
                accused.pop(island, None)
        for victim in victims:
            self._own_again(victim)
        self._num_clean_steps[island] = 0
        self._num_convictions[island] += 1
        num_steps = max(2 ** (self._num_convictions[island] - 1), self._owed_steps)
        self._leave_out(island, num_steps + is_over, reason)
        self._convicted.add(island)

    def exclude_worst(self, participants: list[str]) -> str:
        """Convict the participant with most charges, because no owner is left; return it, "" if none has any.

        Everybody may own again.
        """
        charged = [island for island in participants if self._num_charges[island]]
        worst = max(charged, key=lambda island: self._num_charges[island], default="")
        if worst:
            self.lost_steps = 0.0  # it may be without any fault, and owes nothing of what the step loses
            self.convict(worst, "no owner could exchange with it")
            self._convicted.discard(worst)
        self.ownerless_steps = {}
        return worst

    @property
    def _owed_steps(self) -> int:
        """How many steps it takes until what was lost is MAX_COST_SHARE of them."""
        return math.ceil(self.lost_steps / MAX_COST_SHARE - 1e-9)

    def _leave_out(self, island: str, num_steps: int, reason: str) -> None:
        """Not less long than it is out already."""
        steps = max(min(num_steps, MAX_OUT_STEPS), self._out_steps.get(island, 0))
        self._out_steps[island] = steps
        self._lose_ownership(island, max(OWNERLESS_STEPS, steps))
        self._withheld.add(island)
        self.reasons[island] = reason

    def _own_again(self, island: str) -> bool:
        """Give ownership back, unless it is withheld; whether it had been lost."""
        return island not in self._withheld and self.ownerless_steps.pop(island, None) is not None

    def _lose_ownership(self, island: str, num_steps: int) -> None:
        """Not for less long than it has lost it already."""
        self.ownerless_steps[island] = max(num_steps, self.ownerless_steps.get(island, 0))

    def _withhold_ownership(self, island: str, num_steps: int) -> None:
        """For so many steps, or for more if more is owed, whatever connections it opens."""
        self._lose_ownership(island, min(max(num_steps, self._owed_steps), MAX_OUT_STEPS))
        self._withheld.add(island)

    def _unshared(self, accuser: str) -> set[str]:
        """The hands of those whom `accuser` accuses, and nobody of another hand."""
        hand, shared = self._hand(accuser), set[str]()
        for other, accused in self._accused.items():
            if self._hand(other) != hand:
                shared |= accused.keys()
        return self._hands(self._accused[accuser].keys() - shared)

    def _hands(self, islands: Iterable[str]) -> set[str]:
        return {self._hand(island) for island in islands}


def _one_less(steps: dict[str, int]) -> dict[str, int]:
    return {island: left - 1 for island, left in steps.items() if left > 1}
