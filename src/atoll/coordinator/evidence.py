"""What members report and measure about one another, and what follows from it for their standing."""

from collections.abc import Callable, Iterable

import numpy as np

from atoll import events
from atoll.coordinator.admission import Admission
from atoll.coordinator.attempts import OpenAttempt
from atoll.coordinator.effects import Effects
from atoll.coordinator.rules import Rules
from atoll.coordinator.standing import Standing
from atoll.swarm.messages import Fault, Propose


class Evidence:
    """Weighs what is said, charges who is to blame, and reports whom that leaves out."""

    def __init__(self, rules: Rules, hand: Callable[[str], str]) -> None:
        """`hand`: the hand that an island is of (`members.py`)."""
        self.standing = Standing(hand)
        self._rules = rules
        self._admission = Admission(rules.clip_norm_ratio, rules.max_norm_ratio)

    def begin_step(self) -> None:
        """The next outer step: its attempts are heard anew."""
        self.standing.begin_step()

    def admitted(self, proposals: dict[str, Propose], do: Effects) -> dict[str, Propose]:
        """Those of these proposals that are not too large; who made the others is left out of the step."""
        able = dict(proposals)
        for island in proposals:
            if reason := self._admission.objection_to_norm(island, proposals):
                del able[island]
                do.refuse_proposal(island, reason)
                self._convict(island, f"it proposed {reason}", do)
        return able

    def clips(self, proposals: dict[str, Propose], do: Effects) -> dict[str, float]:
        """What each of these proposals with an unusual norm is multiplied by: fp32 numbers below 1."""
        found = {island: float(np.float32(self._admission.clip(island, proposals))) for island in proposals}
        clipped = {island: clip for island, clip in found.items() if clip < 1}
        for island, clip in sorted(clipped.items()):
            do.report(events.Clipped(island=island, norm=proposals[island].norm, factor=clip))
        return clipped

    def hear(self, accuser: str, fault: Fault, attempt: OpenAttempt, do: Effects) -> bool:
        """Weigh a fault that an agent reports; whether it could know of it.

        Who could not hold the update is only not waited for as a holder, and charges the owner whose slice it
        did not get, if it names one.
        """
        peer = fault.peer or accuser
        if not attempt.is_heard(accuser, peer, fault.kind):
            return False
        do.report(events.Fault(island=accuser, peer=peer, fault=fault.kind, detail=fault.text))
        if fault.kind == "failed":
            attempt.note_unable(accuser)
        if fault.kind != "failed" or accuser != peer:
            self._following(do, lambda: self.standing.charge(accuser, peer, fault.kind, attempt.record))
        return True

    def charge_false_norms(self, attempt: OpenAttempt, do: Effects) -> list[str]:
        """Charge whose payloads were larger than they said, or than the others' in one slice, as their owners
        measured; return who they are.
        """
        false = self._charge_lopsided(attempt, do)
        for island in sorted(attempt.participants):
            witnesses = self._admission.witnesses(attempt.proposals[island], attempt.measured(island))
            if witnesses:
                false.append(island)
            if witnesses == {island}:
                self._convict(island, "its payload is larger than it said, by its own measure", do)
            for witness in sorted(witnesses - {island}):
                self._following(do, lambda w=witness, i=island: self._refuse(w, i, attempt))
        return false

    def _charge_lopsided(self, attempt: OpenAttempt, do: Effects) -> list[str]:
        found: list[str] = []
        proposals = {island: attempt.proposals[island] for island in sorted(attempt.participants)}
        for owner, num_pieces, squares in attempt.measured_slices():
            part = num_pieces / self._rules.num_pieces
            for island in sorted(self._admission.lopsided(part, squares, proposals) - {owner}):
                found.append(island)
                self._following(do, lambda w=owner, i=island: self._refuse(w, i, attempt))
        return found

    def convict_dissenting(self, islands: Iterable[str], do: Effects) -> None:
        """Leave out who has computed another state than the others."""
        for island in islands:
            self._convict(island, "its update leads to another state than that of the others", do)

    def exclude_worst(self, participants: list[str], do: Effects) -> bool:
        """Nobody may own: leave out the participant with most failed exchanges. Whether there was one."""
        found: list[str] = []
        self._following(do, lambda: found.append(self.standing.exclude_worst(participants)))
        return found != [""]

    def charge_not_holding(self, attempt: OpenAttempt, islands: set[str]) -> None:
        """Charge those that did not hold an update in time. If they were all that took part, whoever is left
        out gets another chance: without it the step might never be committed.
        """
        self.standing.charge_late(islands)
        if islands >= attempt.proposals.keys():
            self.standing.forgive()

    def note_committed(self, attempt: OpenAttempt) -> None:
        """Its update is committed."""
        self.standing.note_committed(attempt.participants)
        clips = {share.island: share.clip for share in attempt.record.participants}
        self._admission.note_committed({island: attempt.proposals[island] for island in clips}, clips)

    def _refuse(self, witness: str, island: str, attempt: OpenAttempt) -> None:
        self.standing.charge(witness, island, "refused", attempt.record)

    def _convict(self, island: str, reason: str, do: Effects) -> None:
        self._following(do, lambda: self.standing.convict(island, reason))

    def _following(self, do: Effects, change: Callable[[], object]) -> None:
        """Make a change of the standing, and report whom it leaves out."""
        before = self.standing.excluded
        change()
        for island in sorted(self.standing.excluded - before):
            do.report(events.Excluded(island=island, reason=self.standing.reasons[island]))
