"""Who trains on what in the open outer step: one plan per island, its samples leased, its inner steps in proportion."""

import math

from atoll.coordinator.leases import Leases
from atoll.coordinator.members import Member, Members
from atoll.coordinator.rules import Rules
from atoll.swarm.layout import DIGEST_BYTES
from atoll.swarm.messages import Propose
from atoll.swarm.records import CommitRecord, Plan, Term

CLOSE_ENOUGH = 0.9  # of the fastest: such an island does all inner steps, so that noise changes nothing


class Plans(dict[str, Plan]):
    """The open step's plans by island, and the leases behind them."""

    def __init__(self, rules: Rules) -> None:
        super().__init__()
        self.leases = Leases()
        self.stage_starts: tuple[int, ...] = ()
        self.began = math.inf  # when the step's first plan was made
        self._made: dict[str, float] = {}
        self._rules = rules

    def restore(self, plans: list[Plan], commits: list[CommitRecord], stage_starts: tuple[int, ...], now: float) -> None:
        """After a restart: the open step's plans stand, and so do the leases that commits spent."""
        self.update({plan.island: plan for plan in plans})
        spent = [lease for record in commits for _, lease in record.leases]
        self.leases.restore([plan.lease for plan in self.values()], spent)
        self.stage_starts = stage_starts
        self.began = now if self else math.inf

    def make(
        self, term: Term, step: int, root: bytes, member: Member, members: Members, done: set[str], now: float
    ) -> Plan | None:
        """A plan for `member` from state `step`; None when too little of the step is left. `done`: who has proposed."""
        rules = self._rules
        inner_steps = min(self._fair_share(member, members), self._remaining(step, members, done))
        if inner_steps < 1:
            return None
        stage = sum(step * rules.inner_steps >= end for end in rules.stage_ends[:-1])
        while len(self.stage_starts) <= stage:
            self.stage_starts = (*self.stage_starts, self.leases.fresh)
        lease = self.leases.take(inner_steps * rules.windows_per_step)
        first = step * rules.inner_steps
        plan = Plan(term, step, root, member.island, lease, self.stage_starts, inner_steps, first)
        self[member.island] = plan
        self._made[member.island] = now
        self.began = min(self.began, now)
        return plan

    def allows(self, island: str, proposal: Propose) -> bool:
        """Whether a proposal is of its island's lease and within it, and finite."""
        most = self[island].num_samples * self._rules.context_length
        whole = proposal.lease == self[island].lease and 0 < proposal.tokens <= most and len(proposal.payload) == DIGEST_BYTES
        return whole and math.isfinite(proposal.norm) and math.isfinite(proposal.loss)

    def observe(self, member: Member, now: float) -> None:
        """`member` has proposed: how long an inner step takes it."""
        if (made := self._made.pop(member.island, None)) is not None:
            member.pace.observe((now - made) / self[member.island].inner_steps)

    def learn(self, record: CommitRecord) -> None:
        """A commit that this database had lost: what it spent is spent, and plans of its step are void."""
        self.settle(set())
        for _, lease in record.leases:
            self.leases.spend(lease)

    def settle(self, participants: set[str]) -> None:
        """The step is committed: its participants' leases are spent, the others' are free again."""
        for island, plan in self.items():
            if island not in participants:
                self.leases.give_back(plan.lease)
        self.clear()
        self._made.clear()
        self.began = math.inf

    def _fair_share(self, member: Member, members: Members) -> int:
        """All of H for the fastest; fewer for a slower island, so that all are ready at about the same time."""
        paces = [m.pace.middle for m in members.values() if m.present and m.pace.middle]
        if not member.pace.middle or not paces:
            return self._rules.inner_steps
        ratio = min(paces) / member.pace.middle
        return self._rules.inner_steps if ratio >= CLOSE_ENOUGH else max(1, round(ratio * self._rules.inner_steps))

    def _remaining(self, step: int, members: Members, done: set[str]) -> int:
        """All of H, or for a joiner in mid-step what those under way still have before them."""
        if done and done >= self.keys() and len(done) < self._rules.min_participants:
            return self._rules.inner_steps  # nobody is under way, and without this one the step cannot open
        passed = [
            self._rules.inner_steps * (1.0 if island in done else beat.inner_step / plan.inner_steps)
            for island, plan in self.items()
            if (member := members.get(island)) and member.present and (beat := member.beat) and beat.step == step
        ]
        return self._rules.inner_steps - math.ceil(max(passed, default=0.0))
