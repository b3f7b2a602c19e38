"""Who trains on what in the open outer step: one plan per island, its samples leased, its inner steps in
proportion.
"""

import math
from collections import Counter

from atoll.coordinator.deadlines import Deadline
from atoll.coordinator.leases import Leases
from atoll.coordinator.members import Member, Members
from atoll.coordinator.rules import Rules
from atoll.samples import Ranges, merge, private_source, source_of
from atoll.swarm.messages import Propose
from atoll.swarm.records import CommitRecord, Plan, Term

CLOSE_ENOUGH = 0.9  # of the fastest: such an island does all inner steps, so that noise changes nothing


class Plans(dict[str, Plan]):
    """The open step's plans by island, and the leases behind them."""

    def __init__(self, rules: Rules) -> None:
        super().__init__()
        self.leases = Leases()
        self.stage_starts: tuple[int, ...] = ()
        self.began = math.inf  # when the step's first plan was made; after a restart: when we began
        self._restored: float | None = (
            None  # usual seconds in the earlier reign that began the step; who knows when
        )
        self.arrivals = Deadline(math.inf)  # from then to a proposal
        self.handover = Deadline(0.0)  # from the last inner step to a proposal, as islands say
        self.missing: dict[str, None] = {}  # who has not proposed, in the order of the plans
        self._begun: dict[str, tuple[float, str]] = {}  # when plans were told first, and to which session
        self._fastest = 0.0  # seconds per inner step, of those present when the step began
        self._rules = rules
        self._given: Counter[str] = (
            Counter()
        )  # samples of this stage, spent or out: in all (""), and by private source
        self._given_stage = 0

    def restore(
        self, plans: list[Plan], commits: list[CommitRecord], stage_starts: tuple[int, ...], now: float
    ) -> None:
        """After a restart: the open step's plans stand, and so do the leases that commits spent."""
        stage = self._stage(len(commits))
        self.update({plan.island: plan for plan in plans})
        self.missing = dict.fromkeys(self)
        spent = [lease for record in commits for _, lease in record.leases]
        self.leases.restore([plan.lease for plan in self.values()], spent)
        self.stage_starts = stage_starts[: stage + 1]  # a rewind may have gone back before the last stage
        for record in commits[-1:]:
            self._remember(record.stage_starts)
        if self:
            self.began, self._restored = now, max(plan.seconds_left for plan in plans)
            self.arrivals = _seen(self._restored)
            self.handover = _seen(max(plan.handover_seconds for plan in plans))
        leases = [
            lease for record in commits if self._stage(record.step) == stage for _, lease in record.leases
        ]
        self._given_stage = stage
        for lease in [*leases, *(plan.lease for plan in self.values())]:
            self._count(lease, 1)

    def make(self, term: Term, step: int, root: bytes, member: Member, members: Members, now: float) -> Plan:
        """A plan for `member` from state `step`, however late: whoever takes part is at the next head in
        time.
        """
        rules = self._rules
        if not self:
            self._fastest = min(
                (m.pace.middle for m in members.values() if m.present and m.pace.middle), default=0.0
            )
        inner_steps, seconds = self._fair_share(member), self.seconds_left(member.island, members, now)
        stage = self._stage(step)
        while len(self.stage_starts) <= stage:
            self.stage_starts = (*self.stage_starts, max((self.leases.fresh, *self.stage_starts)))
        lease = self._draw(inner_steps * rules.windows_per_step, stage, member.hello.partitions)
        first = step * rules.inner_steps
        plan = Plan(
            term=term,
            step=step,
            parent=root,
            island=member.island,
            lease=lease,
            stage_starts=self.stage_starts,
            inner_steps=inner_steps,
            first_inner_step=first,
            seconds_left=seconds,
            handover_seconds=self.handover.middle,
        )
        self[member.island] = plan
        self.missing[member.island] = None
        self._begun[member.island] = now, member.hello.session
        self.began = min(self.began, now)
        return plan

    def seconds_left(self, island: str, members: Members, now: float) -> float:
        """For an island that begins now, until proposals usually come; inf while nothing is known of that."""
        others = [members[i] for i in self if i != island and i in members and members[i].present]
        under_way = [member for member in others if member.island in self.missing]
        late, usual = max(0.0, now - self.began), self.arrivals.usual()
        if (not under_way or late >= self.arrivals.seconds()) and len(others) - len(
            under_way
        ) < self._rules.min_participants:
            return usual  # without the one who asks, the step cannot open
        if self._restored is None and usual < math.inf:
            return max(0.0, usual - late)
        furthest = min(1.0, max(map(self._fraction_done, under_way), default=1.0))
        whole = self._restored or (late / furthest if furthest else math.inf)
        return (1.0 - furthest) * whole if furthest < 1.0 else 0.0

    def _draw(self, count: int, stage: int, partitions: dict[str, int]) -> Ranges:
        """Samples for a plan: what its island's partitions owe to their sources' weight over the swarm, else
        the mixture's.
        """
        self._enter(stage)
        drawn: list[tuple[int, int]] = []
        left = count
        for source, share in sorted(self._rules.private_shares[stage].items()) if partitions else ():
            held = [number for name, number in sorted(partitions.items()) if source_of(name) == source]
            due = math.ceil(share * (self._given[""] + count)) - self._given[source]
            if held and (turns := max(0, min(due, left))):
                drawn += self.leases.take(turns, min(held, key=self.leases.turns))
                left -= turns
        lease = merge([*drawn, *(self.leases.take(left) if left else ())])
        self._count(lease, 1)
        return lease

    def _enter(self, stage: int) -> None:
        """Weights are of a stage: what earlier ones gave does not count in it."""
        if stage != self._given_stage:
            self._given_stage, self._given = stage, Counter()

    def _give_back(self, lease: Ranges) -> None:
        self.leases.give_back(lease)
        self._count(lease, -1)

    def _count(self, lease: Ranges, sign: int) -> None:
        for first, count in lease:
            self._given[""] += sign * count
            if source := private_source(first, self._rules.partitioned):
                self._given[source] += sign * count

    def _stage(self, step: int) -> int:
        """Of the mixture, in an outer step."""
        return sum(step * self._rules.inner_steps >= end for end in self._rules.stage_ends[:-1])

    def observe(self, member: Member, proposal: Propose, now: float) -> None:
        """`member` has proposed what it did: how long an inner step takes it, and what follows the last."""
        self.missing.pop(member.island, None)
        self.arrivals.observe(now - self.began)
        self.handover.observe(min(proposal.handover_seconds, now - self.began))  # whatever an island says
        self._observe_pace(member, proposal.inner_steps, now)

    def learn(self, record: CommitRecord, members: Members, now: float) -> None:
        """A commit that this database had lost: what it spent is spent, and plans of its step are void."""
        self.settle({}, members, now)
        self._remember(record.stage_starts)
        self._enter(self._stage(record.step))
        for _, lease in record.leases:
            self.leases.spend(lease)
            self._count(lease, 1)

    def _remember(self, stage_starts: tuple[int, ...]) -> None:
        """Where stages began is decided once: another start would make other samples of the same numbers."""
        self.stage_starts = max(self.stage_starts, stage_starts, key=len)

    def settle(self, inner_steps: dict[str, int], members: Members, now: float) -> None:
        """The step is committed with so many of participants: their samples are spent, all others are free
        again.
        """
        for island, plan in self.items():
            if island in inner_steps:
                self._give_back(plan.split_lease(inner_steps[island])[1])
            else:
                self._give_back(plan.lease)
                self._observe_unfinished(plan, members.get(island), now)
        for each in (self, self.missing, self._begun):
            each.clear()
        if self._restored is not None:
            self.arrivals = _seen(self._restored)  # what this step's were counts from the restart
        self.began, self._restored = math.inf, None

    def _observe_unfinished(self, plan: Plan, member: Member | None, now: float) -> None:
        """Too slow for the step: a fair share follows from its pace so far, and it would have come later than
        now.
        """
        if member and member.present and (done := member.inner_steps_done(plan.step)) is not None:
            self._observe_pace(member, max(1, done), now)
            self.arrivals.observe(now - self.began)

    def _observe_pace(self, member: Member, inner_steps: int, now: float) -> None:
        began, session = self._begun.get(member.island, (0.0, None))
        if session == member.hello.session:  # else it began anew, who knows when
            member.pace.observe((now - began) / inner_steps)

    def _fair_share(self, member: Member) -> int:
        """All of H for the fastest; fewer for a slower island, so that all are ready at about the same
        time.
        """
        if not member.pace.middle or not self._fastest:
            return self._rules.inner_steps
        ratio = self._fastest / member.pace.middle
        return (
            self._rules.inner_steps
            if ratio >= CLOSE_ENOUGH
            else max(1, round(ratio * self._rules.inner_steps))
        )

    def _fraction_done(self, member: Member) -> float:
        plan = self[member.island]
        return (member.inner_steps_done(plan.step) or 0) / plan.inner_steps


def _seen(seconds: float) -> Deadline:
    """Learned by an earlier reign: as if it had been seen once."""
    deadline = Deadline(math.inf)
    if seconds < math.inf:
        deadline.observe(seconds)
    return deadline
