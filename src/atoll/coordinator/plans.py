"""Who trains on which samples in the open outer step: one plan for each island."""

import math
from collections import Counter

from atoll.coordinator import pace
from atoll.coordinator.deadlines import FLOOR_SHARE, Deadline, doubled
from atoll.coordinator.leases import Leases
from atoll.coordinator.members import Member, Members
from atoll.coordinator.rules import Rules
from atoll.samples import Ranges, merge, private_source, source_of
from atoll.swarm.messages import Propose
from atoll.swarm.records import CommitRecord, Plan, Term

# How long after the others an island may be done, until it was seen how much later they are.
FIRST_LATENESS_SECONDS = 30.0
MIN_PATIENCE_SECONDS, MAX_PATIENCE_SECONDS = 3.0, 10.0  # with who sends nothing
PATIENCE_REDUCTIONS = 5.0


class Plans(dict[str, Plan]):
    """The open step's plans by island, and the leases behind them.

    Times are seconds of the coordinator's clock.
    """

    def __init__(self, rules: Rules) -> None:
        super().__init__()
        self.leases = Leases()
        self.stage_starts: tuple[int, ...] = ()
        self.began_at = math.inf  # when the step's first plan was made, or this coordinator restored it
        self.step_seconds = math.inf  # how long the islands that are there are meant to train
        self.half_done_at = math.inf  # when as many had done their inner steps as were still at work
        self.lateness = Deadline(FIRST_LATENESS_SECONDS)  # from `half_done_at` to a proposal
        self.handovers = Deadline(0.0)  # from an island's last inner step to its proposal, as islands say
        self.reductions = Deadline(0.0)  # from an attempt's opening to its commit
        self.not_proposed: dict[str, None] = {}  # islands with a plan; an ordered set
        self.proposed_at: dict[str, float] = {}  # by island: when its first proposal of the step came
        self._at_work: dict[str, None] = {}  # of these, the ones whose inner steps are not done
        self._rules = rules
        # How many samples of one stage are spent or leased, by private source; "" counts all of them.
        self._num_given: Counter[str] = Counter()
        self._counted_stage = 0

    def restore(
        self, plans: list[Plan], commits: list[CommitRecord], stage_starts: tuple[int, ...], now: float
    ) -> None:
        """Go on after a restart: the open step's plans stand, and what commits have spent stays spent."""
        stage = self._stage_of(len(commits))
        self.update({plan.island: plan for plan in plans})
        self.not_proposed, self._at_work = dict.fromkeys(self), dict.fromkeys(self)
        spent = [lease for record in commits for _, lease in record.leases]
        self.leases.restore([plan.lease for plan in self.values()], spent)
        self.stage_starts = stage_starts[: stage + 1]  # a rewind may have gone back before the last stage
        for record in commits[-1:]:
            self._keep_stage_starts(record.stage_starts)
        if self:
            self.began_at = now
            self.handovers.observe(max(plan.handover_seconds for plan in plans))
        in_stage = [record for record in commits if self._stage_of(record.step) == stage]
        self._counted_stage = stage
        for lease in (lease for record in in_stage for _, lease in record.leases):
            self._count(lease, 1)
        for plan in self.values():
            self._count(plan.lease, 1)

    def add(self, term: Term, step: int, root: bytes, member: Member, members: Members, now: float) -> Plan:
        """The new plan of an island that has none in outer step `step`, from the state with that root.

        There is one however late it is: an island that takes part is at the next head in time.
        """
        rules = self._rules
        if not self:
            present = [m for m in members.values() if m.present and m.pace.median_seconds]
            paces = pace.believed([(m.pace.median_seconds, m.pace_is_shown) for m in present])
            reduction_seconds = self.reductions.median_seconds
            self.step_seconds = pace.step_seconds(paces, rules.inner_steps, reduction_seconds)
        inner_steps = pace.fair_share(member.pace.median_seconds, rules.inner_steps, self.step_seconds)
        seconds_left = self.seconds_left(member.island, members, now)
        stage = self._stage_of(step)
        while len(self.stage_starts) <= stage:
            self.stage_starts = (*self.stage_starts, max((self.leases.first_fresh(), *self.stage_starts)))
        lease = self._draw(inner_steps * rules.windows_per_step, stage, member.hello.partitions)
        plan = Plan(
            term=term,
            step=step,
            parent=root,
            island=member.island,
            lease=lease,
            stage_starts=self.stage_starts,
            inner_steps=inner_steps,
            first_inner_step=step * rules.inner_steps,
            seconds_left=seconds_left,
            handover_seconds=self.handovers.median_seconds,
        )
        self[member.island] = plan
        self.not_proposed[member.island] = self._at_work[member.island] = None
        member.advanced_at = now
        self.began_at = min(self.began_at, now)
        return plan

    def seconds_left(self, island: str, members: Members, now: float) -> float:
        """Seconds until an island that is told its plan now has to propose what it has done; inf: no limit.

        Whoever begins with the others has no limit until half of them are done: if all are slower than they
        were, the step lasts longer. Who comes later has what is left of the time that the step is meant to
        last.
        """
        if not any(i != island and i in members and members[i].present for i in self):
            return math.inf
        if self.half_done_at < math.inf:
            trained_seconds = self.half_done_at - self.began_at
            margin = max(self.lateness.usual_seconds(), pace.JITTER_SHARE * trained_seconds)
            return max(0.0, self.half_done_at + margin - now)
        elapsed = now - self.began_at
        if not self or elapsed <= pace.JITTER_SHARE * self.step_seconds:
            return math.inf
        return max(0.0, self.step_seconds + self.handovers.median_seconds - elapsed)

    def note_beat(self, member: Member, now: float) -> bool:
        """Note how far a member is; return whether half of the islands may be done by that."""
        plan = self.get(member.island)
        if plan is None or (member.inner_steps_done(plan.step) or 0) < plan.inner_steps:
            return False
        return self._note_done(member.island, now)

    def observe_proposal(self, member: Member, proposal: Propose, now: float) -> bool:
        """Learn from a member's first proposal in this step how long inner steps and the handover take it.

        Returns whether half of the islands may be done by that.
        """
        self.not_proposed.pop(member.island, None)
        self.proposed_at[member.island] = now
        half_done = self._note_done(member.island, now)
        self.lateness.observe(max(0.0, now - self.half_done_at))
        # An island may say anything, but its handover is not longer than the step.
        self.handovers.observe(min(proposal.handover_seconds, now - self.began_at))
        member.observe_pace(proposal.step, proposal.inner_steps, proposal.compute_seconds)
        return half_done

    def patience_seconds(self, number: int) -> float:
        """How long an agent is to wait for a next piece in attempt `number`: some times as long as a whole
        reduction usually takes, and longer each time that it fails. 0 where that is not known.
        """
        usual_seconds = self.reductions.median_seconds
        patience = max(MIN_PATIENCE_SECONDS, PATIENCE_REDUCTIONS * usual_seconds)
        return min(doubled(patience, number), MAX_PATIENCE_SECONDS) if self.reductions.is_learned else 0.0

    def lost_steps(self, now: float) -> float:
        """How many steps of the length of this one have passed since half of its islands were done; 0 where
        that is not known.
        """
        is_known = self.half_done_at < math.inf and self.length_seconds
        return max(0.0, now - self.half_done_at) / self.length_seconds if is_known else 0.0

    @property
    def length_seconds(self) -> float:
        """How long the islands of this step train, as far as that is known already; else 0."""
        if self.half_done_at < math.inf:
            return self.half_done_at - self.began_at
        return self.step_seconds if self.step_seconds < math.inf else 0.0

    @property
    def meant_end(self) -> float:
        """When the islands of this step are meant to have done their inner steps."""
        return self.began_at + (self.step_seconds if self.step_seconds < math.inf else 0.0)

    def half_are_done(self, members: Members, now: float) -> bool:
        """Whether now, for the first time, as many islands have done their inner steps as are still at work.

        Never before `meant_end`, since slow islands with few inner steps may be done long before the others.
        True once in a step: the others are then to be told how much time is left.
        """
        if not self or self.half_done_at < math.inf or now < self.meant_end:
            return False
        num_done = len(self) - len(self._at_work)
        num_at_work = len(self.called(members, now))
        if num_done < max(1, num_at_work, self._rules.min_participants):
            return False
        self.half_done_at = now
        return True

    @property
    def late_at(self) -> float:
        """When the step no longer waits for those that have not proposed; inf until half are done."""
        trained_seconds = self.half_done_at - self.began_at
        return self.half_done_at + max(self.lateness.limit_seconds(), FLOOR_SHARE * trained_seconds)

    def called(self, members: Members, now: float) -> list[Member]:
        """The members that are still at work on their inner steps."""
        return [members[i] for i in self._at_work if i in members and members[i].is_at_work(now)]

    def close_step(self, inner_steps: dict[str, int], members: Members, now: float) -> None:
        """The step is committed: what its participants used is spent, all other samples are free again.

        `inner_steps`: how many each participant did.
        """
        for island, plan in self.items():
            if island in inner_steps:
                _, unused = plan.split_lease(inner_steps[island])
                self._give_back(unused)
            else:
                self._give_back(plan.lease)
                if island in members and members[island].is_at_work(now):
                    self._observe_unfinished(plan, members[island], now)
        for each in (self, self.not_proposed, self.proposed_at, self._at_work):
            each.clear()
        self.began_at = self.half_done_at = math.inf

    def import_commit(self, record: CommitRecord, members: Members, now: float) -> None:
        """Take in a commit that this database had lost: its samples are spent, and the open plans void."""
        self.close_step({}, members, now)
        self._keep_stage_starts(record.stage_starts)
        self._enter_stage(self._stage_of(record.step))
        for _, lease in record.leases:
            self.leases.spend(lease)
            self._count(lease, 1)

    # ------------------------------------------------------------------------------------- samples and stages
    def _draw(self, count: int, stage: int, partitions: dict[str, int]) -> Ranges:
        """Lease `count` samples for an island that holds `partitions` (number by name).

        Its partitions give what their sources lack of their share in all samples of the stage, over the whole
        swarm; the mixture gives the rest.
        """
        self._enter_stage(stage)
        drawn: list[tuple[int, int]] = []
        left = count
        for source, share in sorted(self._rules.private_shares[stage].items()) if partitions else ():
            held = [number for name, number in sorted(partitions.items()) if source_of(name) == source]
            due = math.ceil(share * (self._num_given[""] + count)) - self._num_given[source]
            if held and (turns := max(0, min(due, left))):
                drawn += self.leases.take(turns, min(held, key=self.leases.num_turns))
                left -= turns
        lease = merge([*drawn, *(self.leases.take(left) if left else ())])
        self._count(lease, 1)
        return lease

    def _give_back(self, lease: Ranges) -> None:
        self.leases.give_back(lease)
        self._count(lease, -1)

    def _count(self, lease: Ranges, sign: int) -> None:
        for first, count in lease:
            self._num_given[""] += sign * count
            if source := private_source(first, self._rules.partitioned):
                self._num_given[source] += sign * count

    def _enter_stage(self, stage: int) -> None:
        """Begin to count anew in a new stage: shares are a stage's own."""
        if stage != self._counted_stage:
            self._counted_stage, self._num_given = stage, Counter()

    def _stage_of(self, step: int) -> int:
        """The stage of the mixture that an outer step is in."""
        return sum(step * self._rules.inner_steps >= end for end in self._rules.stage_ends[:-1])

    def _keep_stage_starts(self, stage_starts: tuple[int, ...]) -> None:
        """Add starts of stages that are not known here. A known start stays: it decides what a sample is."""
        self.stage_starts = max(self.stage_starts, stage_starts, key=len)

    # ---------------------------------------------------------------------------------------- who is how far
    def _note_done(self, island: str, now: float) -> bool:
        """Note that an island has done its inner steps; return whether half of all may be done by that.

        Not exactly, since this is called for every message of that kind, and must not look at every member.
        """
        if island not in self._at_work:
            return False
        del self._at_work[island]
        return 2 * len(self._at_work) <= len(self) and now >= self.meant_end and self.half_done_at == math.inf

    def _observe_unfinished(self, plan: Plan, member: Member, now: float) -> None:
        """Learn from an island that was too slow for the step: it would have come later still."""
        self.lateness.observe(max(0.0, now - self.half_done_at))
        inner_step_seconds = now - self.began_at  # at least, where it has not done a single one
        if member.beat is not None and member.inner_steps_done(plan.step):
            tokens = self._rules.windows_per_step * self._rules.context_length
            inner_step_seconds = tokens / max(member.beat.metrics.tokens_per_second, 1e-9)
        member.pace.observe(inner_step_seconds)
