"""What members report and measure about one another, and what follows from it for their standing."""

from collections.abc import Callable, Iterable

import numpy as np

from atoll import events
from atoll.coordinator.admission import Admission
from atoll.coordinator.attempts import OpenAttempt
from atoll.coordinator.audit import Audit
from atoll.coordinator.deadlines import doubled
from atoll.coordinator.delays import Delays
from atoll.coordinator.effects import Effects
from atoll.coordinator.holding import Verdict
from atoll.coordinator.members import Members
from atoll.coordinator.plans import Plans
from atoll.coordinator.rules import Rules
from atoll.coordinator.standing import Standing
from atoll.events.step import Cause
from atoll.swarm.messages import Fault, Propose
from atoll.swarm.records import Disputed


class Evidence:
    """Weighs what is said, charges who is to blame, and reports whom that leaves out."""

    def __init__(self, rules: Rules, members: Members, plans: Plans) -> None:
        self.standing = Standing(members.hand)
        self.audit = Audit(members.hand, members.is_relay)
        self._delays = Delays(members.hand)
        self._rules, self._members, self._plans = rules, members, plans
        self._has_opened = False  # an attempt of this step
        self._gone: set[str] = set()  # who left an attempt of this step
        self._known: set[str] = set()  # islands that had a plan before: they need not compile any more
        self._admission = Admission(rules.clip_norm_ratio, rules.max_norm_ratio)

    def begin_step(self) -> None:
        """The next outer step: its attempts are heard anew."""
        self._has_opened = False
        self._gone.clear()
        self.standing.begin_step()
        self.audit.begin_step()

    def admitted(self, proposals: dict[str, Propose], do: Effects) -> dict[str, Propose]:
        """Those of these proposals that are not too large; who made the others is left out of the step."""
        able = dict(proposals)
        for island in proposals:
            if reason := self._admission.objection_to_norm(island, proposals):
                del able[island]
                do.refuse_proposal(island, reason)
                self._convict(island, f"it proposed {reason}", do)
        return able

    def told(
        self, proposals: dict[str, Propose], do: Effects
    ) -> tuple[dict[str, float], tuple[Disputed, ...]]:
        """What an attempt at these proposals says besides: their clips, and what owners are to measure."""
        if not self._has_opened:
            self._charge_late_proposals(do.now)
        self._has_opened = True
        return self.clips(proposals, do), self.audit.disputed

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

    def weigh_reduced(self, attempt: OpenAttempt, do: Effects) -> tuple[Cause | None, list[str]]:
        """(why an attempt that has just been reduced is to be closed, on whose account); None: it is not."""
        found = self.audit.settle(attempt)
        for owner in sorted(found.cleared):
            self.standing.clear(owner)
        for island, reason in sorted(found.liars.items()):
            self._convict(island, reason, do)
        for owner, island in found.doubtful:
            self._following(do, lambda w=owner, i=island: self._refuse(w, i, attempt))
        if found.liars or found.doubtful:
            return "false sum", sorted(
                {*found.liars, *(island for pair in found.doubtful for island in pair)}
            )
        if false := self.charge_false_norms(attempt, do):
            return "refused", false
        self._charge_slow_owners(attempt, do)
        return None, []

    def weigh_held(
        self, attempt: OpenAttempt, verdict: Verdict, do: Effects
    ) -> tuple[Cause | None, set[str]]:
        """Why an attempt for which no more is waited is to be closed, and on whose account; None: its update
        is to be committed.
        """
        if verdict.held is not None:
            false = self.audit.false_owners(attempt, verdict.held)
            self.charge_late(sorted(false), do.now)
            return ("false sum", false) if false else (None, set())
        if verdict.is_equal:
            self._charge_not_holding(attempt, verdict.islands, do.now)
            return "not held", verdict.islands
        for island in sorted(verdict.islands):
            self._convict(island, "its update leads to another state than that of the others", do)
        return "unequal", verdict.islands

    def charge_late(self, islands: Iterable[str], now: float) -> None:
        """These did not do in time, or not rightly, what depended on them alone."""
        self.standing.lost_steps = self._plans.lost_steps(now)
        self.standing.charge_late(islands)

    def charge_gone(self, attempt: OpenAttempt, islands: list[str], do: Effects) -> None:
        """These left an attempt that counted on them, or fell silent: all begin anew.

        Who does so twice in a step, or often, is left out, or owns no more if it only owned; nobody is
        charged if most are gone at once.
        """
        if 2 * len(islands) > len(attempt.record.involved):
            return
        pause_seconds = doubled(self._rules.fault_seconds, attempt.record.number)
        seconds = do.now - attempt.opened_at + pause_seconds
        for island in islands:
            is_overdrawn = self._delays.note(island, seconds, self._plans.length_seconds)
            if (is_overdrawn or island in self._gone) and island in attempt.participants:
                self._convict(island, "it left, again, an attempt that counted on it", do)
            elif is_overdrawn or island in self._gone:
                self.charge_late([island], do.now)
            self._gone.add(island)

    def _charge_late_proposals(self, now: float) -> None:
        """Whoever is again and again the last to propose, or does not, is not waited for any more."""
        awaited = (i for i in self._plans.not_proposed if not self.standing.is_out(i))
        times = {i: now for i in awaited if self._members.is_waited_for(i, False, now)}
        times |= self._plans.proposed_at
        for island in self._delays.compare(times, self._plans.length_seconds).keys() & self._known:
            if island in self._members:
                self._members[island].put_on_probation()

    def _charge_slow_owners(self, attempt: OpenAttempt, do: Effects) -> None:
        """Whoever is again and again the last to reduce its slices owns none for a while."""
        delays = self._delays.compare(attempt.owners_done_at(), self._plans.length_seconds)
        self.charge_late(sorted(delays), do.now)

    def _charge_slow_holders(self, attempt: OpenAttempt, do: Effects) -> None:
        """Whoever is again and again the last to hold the update, or does not, is left out."""
        times = {island: attempt.held_at.get(island, do.now) for island in attempt.participants}
        for island, delay in self._delays.compare(times, self._plans.length_seconds).items():
            self._convict(island, f"all waited {delay:.0f} s for it to hold updates", do, is_over=True)

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

    def exclude_worst(self, participants: list[str], do: Effects) -> bool:
        """Nobody may own: leave out the participant with most failed exchanges. Whether there was one."""
        found: list[str] = []
        self._following(do, lambda: found.append(self.standing.exclude_worst(participants)))
        return found != [""]

    def _charge_not_holding(self, attempt: OpenAttempt, islands: set[str], now: float) -> None:
        """Charge those that did not hold an update in time. If they were all that took part, whoever is left
        out gets another chance: without it the step might never be committed.
        """
        self.charge_late(sorted(islands), now)
        if islands >= attempt.proposals.keys():
            self.standing.forgive()

    def note_committed(self, attempt: OpenAttempt, do: Effects) -> None:
        """Its update is committed; unchecked, if a participant has not told what its payload measures."""
        self.standing.lost_steps = self._plans.lost_steps(do.now)
        self.standing.note_committed(attempt.participants)
        self._charge_slow_holders(attempt, do)
        self._delays.note_committed(do.now - self._plans.began_at)
        self._known |= self._plans.keys()
        if silent := attempt.participants - attempt.holders.keys():
            do.report(events.Unaudited(islands=tuple(sorted(silent))))
            self._following(do, lambda: self.standing.charge_unmeasured(silent))
        clips = {share.island: share.clip for share in attempt.record.participants}
        self._admission.note_committed({island: attempt.proposals[island] for island in clips}, clips)

    def _refuse(self, witness: str, island: str, attempt: OpenAttempt) -> None:
        self.standing.charge(witness, island, "refused", attempt.record)

    def _convict(self, island: str, reason: str, do: Effects, *, is_over: bool = False) -> None:
        self._following(do, lambda: self.standing.convict(island, reason, is_over=is_over))

    def _following(self, do: Effects, change: Callable[[], object]) -> None:
        """Make a change of the standing, and report whom it leaves out."""
        before, self.standing.lost_steps = self.standing.excluded, self._plans.lost_steps(do.now)
        change()
        for island in sorted(self.standing.excluded - before):
            do.report(events.Excluded(island=island, reason=self.standing.reasons[island]))
