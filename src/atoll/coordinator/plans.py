"""Who trains on what in the open outer step: one plan per island, its samples leased, its inner steps in proportion."""

import math
from collections import Counter

import msgspec

from atoll.coordinator.deadlines import Deadline
from atoll.coordinator.leases import Leases, Ranges, merge, split
from atoll.coordinator.members import Member, Members
from atoll.coordinator.rules import Rules
from atoll.samples import private_source, source_of
from atoll.swarm.layout import DIGEST_BYTES
from atoll.swarm.messages import Propose
from atoll.swarm.records import CommitRecord, Plan, Term

CLOSE_ENOUGH = 0.9  # of the fastest: such an island does all inner steps, so that noise changes nothing
ON_TIME_SHARE, ON_TIME_SECONDS = 0.025, 0.1  # of a step: whoever begins so late does all of it, for the same reason


class Plans(dict[str, Plan]):
    """The open step's plans by island, and the leases behind them."""

    def __init__(self, rules: Rules) -> None:
        super().__init__()
        self.leases = Leases()
        self.stage_starts: tuple[int, ...] = ()
        self.began = math.inf  # when the step's first plan was made; after a restart: when we began
        self._restored = False  # by an earlier reign: what is learned of arrivals in this step is not true of others
        self.arrivals = Deadline(math.inf)  # from then to a proposal
        self.missing: dict[str, None] = {}  # who has not proposed, in the order of the plans
        self._made: dict[str, float] = {}  # when plans of a whole share were: what is left of a step teaches no pace
        self._fastest = 0.0  # seconds per inner step, of those present when the step began
        self._rules = rules
        self._given: Counter[str] = Counter()  # samples of this stage, spent or out: in all (""), and by private source
        self._given_stage = 0

    def restore(self, plans: list[Plan], commits: list[CommitRecord], stage_starts: tuple[int, ...], now: float) -> None:
        """After a restart: the open step's plans stand, and so do the leases that commits spent."""
        stage = self._stage(len(commits))
        self.update({plan.island: plan for plan in plans if plan.inner_steps})
        self.missing = dict.fromkeys(self)
        spent = [lease for record in commits for _, lease in record.leases]
        self.leases.restore([plan.lease for plan in self.values()], spent)
        self.stage_starts = stage_starts[: stage + 1]  # a rewind may have gone back before the last stage
        for record in commits[-1:]:
            self._remember(record.stage_starts)
        self.began, self._restored = (now, True) if self else (math.inf, False)
        leases = [lease for record in commits if self._stage(record.step) == stage for _, lease in record.leases]
        self._given_stage = stage
        for lease in [*leases, *(plan.lease for plan in self.values())]:
            self._count(lease, 1)

    def make(
        self, term: Term, step: int, root: bytes, member: Member, members: Members, done: set[str], now: float
    ) -> Plan | None:
        """A plan for `member` from state `step`; None when too little of the step is left. `done`: who has proposed."""
        rules = self._rules
        if not self:
            self._fastest = min((m.pace.middle for m in members.values() if m.present and m.pace.middle), default=0.0)
        share = self._fair_share(member)
        inner_steps = self._fitting(share, member.island, members, done, now)
        if inner_steps < 1:
            return None
        stage = self._stage(step)
        while len(self.stage_starts) <= stage:
            self.stage_starts = (*self.stage_starts, max((self.leases.fresh, *self.stage_starts)))
        lease = self._draw(inner_steps * rules.windows_per_step, stage, member.hello.partitions)
        first = step * rules.inner_steps
        plan = Plan(term, step, root, member.island, lease, self.stage_starts, inner_steps, first)
        self[member.island] = plan
        self.missing[member.island] = None
        if inner_steps == share:
            self._made[member.island] = now
        self.began = min(self.began, now)
        return plan

    def shorten(self, plan: Plan, members: Members, done: set[str], now: float) -> Plan:
        """Its island came back with nothing done: what is left of the step, on the first of its samples; perhaps nothing."""
        inner_steps = self._fitting(plan.inner_steps, plan.island, members, done, now)
        kept, rest = split(plan.lease, inner_steps * self._rules.windows_per_step)
        self._give_back(rest)
        self[plan.island] = shorter = msgspec.structs.replace(plan, lease=kept, inner_steps=inner_steps)
        self._made.pop(plan.island, None)
        if not inner_steps:
            for each in (self, self.missing):
                each.pop(plan.island, None)
        return shorter

    def _draw(self, count: int, stage: int, partitions: dict[str, int]) -> Ranges:
        """Samples for a plan: what its island's partitions owe to their sources' weight over the swarm, else the mixture's."""
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

    def allows(self, island: str, proposal: Propose) -> bool:
        """Whether a proposal is of its island's lease and within it, and finite."""
        most = self[island].num_samples * self._rules.context_length
        whole = proposal.lease == self[island].lease and 0 < proposal.tokens <= most and len(proposal.payload) == DIGEST_BYTES
        return whole and math.isfinite(proposal.norm) and math.isfinite(proposal.loss)

    def observe(self, member: Member, now: float) -> None:
        """`member` has proposed: how long an inner step takes it."""
        self.missing.pop(member.island, None)
        self.arrivals.observe(now - self.began)
        if (made := self._made.pop(member.island, None)) is not None:
            member.pace.observe((now - made) / self[member.island].inner_steps)

    def is_hopeless(self, island: str, members: Members) -> bool:
        """Whether an island is so far behind that it cannot propose before proposals are waited for no more."""
        plan, member = self[island], members.get(island)
        if member is None or (done := member.inner_steps_done(plan.step)) is None:
            return False
        earliest = member.last_heard + (plan.inner_steps - done - 1) * member.pace.middle
        return earliest > self.began + self.arrivals.seconds()

    def learn(self, record: CommitRecord, members: Members, now: float) -> None:
        """A commit that this database had lost: what it spent is spent, and plans of its step are void."""
        self.settle(set(), members, now)
        self._remember(record.stage_starts)
        self._enter(self._stage(record.step))
        for _, lease in record.leases:
            self.leases.spend(lease)
            self._count(lease, 1)

    def _remember(self, stage_starts: tuple[int, ...]) -> None:
        """Where stages began is decided once: another start would make other samples of the same numbers."""
        self.stage_starts = max(self.stage_starts, stage_starts, key=len)

    def settle(self, participants: set[str], members: Members, now: float) -> None:
        """The step is committed: its participants' leases are spent, the others' are free again."""
        for island, plan in self.items():
            if island not in participants:
                self._give_back(plan.lease)
                self._observe_unfinished(plan, members.get(island), now)
        for each in (self, self.missing, self._made):
            each.clear()
        if self._restored:
            self.arrivals = Deadline(math.inf)
        self.began, self._restored = math.inf, False

    def _observe_unfinished(self, plan: Plan, member: Member | None, now: float) -> None:
        """Too slow for the step: a fair share follows from its pace so far, and it would have come later than now."""
        made = self._made.get(plan.island)
        if made is not None and member and member.present and (done := member.inner_steps_done(plan.step)) is not None:
            member.pace.observe((now - made) / max(1, done))
            self.arrivals.observe(now - self.began)

    def _fair_share(self, member: Member) -> int:
        """All of H for the fastest; fewer for a slower island, so that all are ready at about the same time."""
        if not member.pace.middle or not self._fastest:
            return self._rules.inner_steps
        ratio = self._fastest / member.pace.middle
        return self._rules.inner_steps if ratio >= CLOSE_ENOUGH else max(1, round(ratio * self._rules.inner_steps))

    def _fitting(self, share: int, island: str, members: Members, done: set[str], now: float) -> int:
        """How many inner steps of its share an island that begins now can do before the others are done."""
        others = [members[i] for i in self if i != island and i in members and members[i].present]
        return math.floor(share * max(0.0, self._fraction_left(others, done, now)))

    def _fraction_left(self, others: list[Member], done: set[str], now: float) -> float:
        """Of the step: until proposals usually come or, where none ever came, by how far the others are."""
        late, usual = now - self.began, self.arrivals.middle
        under_way = [member for member in others if member.island not in done]
        if (not under_way or late >= self.arrivals.seconds()) and len(others) - len(under_way) < self._rules.min_participants:
            return 1.0  # without the one who asks, the step cannot open
        if math.isinf(usual):
            return 0.0 if len(under_way) < len(others) else 1.0 - max(map(self._fraction_done, under_way))
        return 1.0 if late < max(ON_TIME_SHARE * usual, ON_TIME_SECONDS) else 1.0 - late / usual

    def _fraction_done(self, member: Member) -> float:
        plan = self[member.island]
        return (member.inner_steps_done(plan.step) or 0) / plan.inner_steps
