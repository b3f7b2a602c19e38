"""Who trains on which samples in the open outer step: one plan for each island."""

import math
from collections import Counter

from atoll.coordinator.deadlines import Deadline
from atoll.coordinator.leases import Leases
from atoll.coordinator.members import Member, Members
from atoll.coordinator.rules import Rules
from atoll.samples import Ranges, merge, private_source, source_of
from atoll.swarm.messages import Propose
from atoll.swarm.records import CommitRecord, Plan, Term

# An island with this share of the fastest one's pace is planned all inner steps: noise changes no plan.
FULL_PLAN_SHARE = 0.9


class Plans(dict[str, Plan]):
    """The open step's plans by island, and the leases behind them.

    Times are seconds of the coordinator's clock.
    """

    def __init__(self, rules: Rules) -> None:
        super().__init__()
        self.leases = Leases()
        self.stage_starts: tuple[int, ...] = ()
        self.began_at = math.inf  # when the step's first plan was made, or this coordinator restored it
        self.arrivals = Deadline(math.inf)  # from `began_at` to a proposal
        self.handovers = Deadline(0.0)  # from an island's last inner step to its proposal, as islands say
        self.not_proposed: dict[str, None] = {}  # islands with a plan; an ordered set
        self._rules = rules
        # The usual seconds to a proposal, as an earlier coordinator had learned them; only while the open
        # step is one that it began, since how long ago that was is not known.
        self._restored_seconds: float | None = None
        self._told: dict[str, tuple[float, str]] = {}  # island -> (when it was first told its plan, session)
        self._fastest_pace = 0.0  # seconds per inner step, among those present when the step began
        # How many samples of one stage are spent or leased, by private source; "" counts all of them.
        self._num_given: Counter[str] = Counter()
        self._counted_stage = 0

    def restore(
        self, plans: list[Plan], commits: list[CommitRecord], stage_starts: tuple[int, ...], now: float
    ) -> None:
        """Go on after a restart: the open step's plans stand, and what commits have spent stays spent."""
        stage = self._stage_of(len(commits))
        self.update({plan.island: plan for plan in plans})
        self.not_proposed = dict.fromkeys(self)
        spent = [lease for record in commits for _, lease in record.leases]
        self.leases.restore([plan.lease for plan in self.values()], spent)
        self.stage_starts = stage_starts[: stage + 1]  # a rewind may have gone back before the last stage
        for record in commits[-1:]:
            self._keep_stage_starts(record.stage_starts)
        if self:
            self.began_at, self._restored_seconds = now, max(plan.seconds_left for plan in plans)
            self.arrivals = _seen_once(self._restored_seconds)
            self.handovers = _seen_once(max(plan.handover_seconds for plan in plans))
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
            paces = [m.pace.median_seconds for m in members.values() if m.present]
            self._fastest_pace = min(filter(None, paces), default=0.0)
        inner_steps = self._fair_share(member)
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
        self.not_proposed[member.island] = None
        self._told[member.island] = now, member.hello.session
        self.began_at = min(self.began_at, now)
        return plan

    def seconds_left(self, island: str, members: Members, now: float) -> float:
        """Seconds until the others usually have proposed, for an island that begins now; inf if unknown."""
        others = [members[i] for i in self if i != island and i in members and members[i].present]
        under_way = [member for member in others if member.island in self.not_proposed]
        elapsed, usual = max(0.0, now - self.began_at), self.arrivals.usual_seconds()
        others_are_done = not under_way or elapsed >= self.arrivals.limit_seconds()
        if others_are_done and len(others) - len(under_way) < self._rules.min_participants:
            return usual  # there are too few proposals without this island's: no attempt opens before it
        if self._restored_seconds is None and usual < math.inf:
            return max(0.0, usual - elapsed)
        furthest = min(1.0, max(map(self._fraction_done, under_way), default=1.0))
        if furthest == 1.0:
            return 0.0
        whole = self._restored_seconds or (elapsed / furthest if furthest else math.inf)
        return (1.0 - furthest) * whole

    def observe_proposal(self, member: Member, proposal: Propose, now: float) -> None:
        """Learn from a member's first proposal in this step how long inner steps and the handover take it."""
        self.not_proposed.pop(member.island, None)
        self.arrivals.observe(now - self.began_at)
        # An island may say anything, but its handover is not longer than the step.
        self.handovers.observe(min(proposal.handover_seconds, now - self.began_at))
        self._observe_pace(member, proposal.inner_steps, now)

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
                self._observe_unfinished(plan, members.get(island), now)
        for each in (self, self.not_proposed, self._told):
            each.clear()
        if self._restored_seconds is not None:
            self.arrivals = _seen_once(self._restored_seconds)  # those of this step count from the restart
        self.began_at, self._restored_seconds = math.inf, None

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

    # ---------------------------------------------------------------------------------------- pace and shares
    def _observe_unfinished(self, plan: Plan, member: Member | None, now: float) -> None:
        """Learn from an island that was too slow for the step: its pace so far, and a late arrival."""
        if member and member.present and (done := member.inner_steps_done(plan.step)) is not None:
            self._observe_pace(member, max(1, done), now)
            self.arrivals.observe(now - self.began_at)  # it would have come later still

    def _observe_pace(self, member: Member, inner_steps: int, now: float) -> None:
        told_at, session = self._told.get(member.island, (0.0, None))
        if session == member.hello.session:  # else it was started again, and when it began is not known
            member.pace.observe((now - told_at) / inner_steps)

    def _fair_share(self, member: Member) -> int:
        """Inner steps for a member: fewer the slower it is, so that all are done at about the same time."""
        pace = member.pace.median_seconds
        if not pace or not self._fastest_pace or self._fastest_pace / pace >= FULL_PLAN_SHARE:
            return self._rules.inner_steps
        return max(1, round(self._fastest_pace / pace * self._rules.inner_steps))

    def _fraction_done(self, member: Member) -> float:
        """How much of its plan a member has done, by its newest beat."""
        plan = self[member.island]
        return (member.inner_steps_done(plan.step) or 0) / plan.inner_steps


def _seen_once(seconds: float) -> Deadline:
    """A deadline that knows one duration, as an earlier coordinator had learned it; inf: none."""
    deadline = Deadline(math.inf)
    if seconds < math.inf:
        deadline.observe(seconds)
    return deadline
