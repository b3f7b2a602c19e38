"""What the coordinator believes of the members' links, and the plan that it makes of it for an attempt.

Agents say what their links carry (`Rates`, in every beat), which nobody can check. But an attempt that relied
on a claim shows what it was worth: an owner that needs much longer than planned is believed no more than it
has shown, until it has kept to its plans for a while. A claim to be slow holds up the others by a bounded
factor, and no plan is longer than what the same islands have just shown that they need.
"""

from collections.abc import Mapping
from statistics import median_low

from atoll.coordinator.attempts import OpenAttempt
from atoll.coordinator.edges import DeadEdges
from atoll.coordinator.members import Members
from atoll.coordinator.owners import owner_groups
from atoll.coordinator.rules import Rules
from atoll.coordinator.split import LinkPlan, Site, Split, equal, slices, solve
from atoll.coordinator.standing import Standing
from atoll.swarm.messages import Fault

ENOUGH_GAIN = 1.02  # more owners, or other ones, must make it faster by so much
USED_SHARE = 0.99  # of what links carry: a queue that overflows costs more than a link that idles
LATE = (
    1.5  # times the planned time, and LATE_SECONDS: an owner that needs longer has a slower link than it says
)
LATE_SECONDS = 0.5
MAX_SLOWNESS = 10.0  # times slower than the median: a link is planned for as no slower than that
REGAIN = 1.5  # times what it is believed: what an owner that was late gains with each step that it keeps


class Links:
    """One coordinator's knowledge of the members' links."""

    def __init__(self, rules: Rules, members: Members) -> None:
        self._rules = rules
        self._members = members
        self.edges = DeadEdges()
        self._shown: dict[str, float] = {}  # bytes per second of owners that were late, and are not believed
        # Of the newest attempt that was committed: who took part, and the seconds from its opening on.
        self._newest: tuple[set[str], float] = set(), 0.0

    def rate(self, island: str) -> float:
        """Bytes per second that an island's link carries, in its slower direction; 0: not known."""
        member = self._members.get(island)
        claimed = member.beat.rates.slower if member and member.beat else 0.0
        return min(claimed, self._shown.get(island, claimed))

    def plan(self, participants: list[str], step: int, standing: Standing) -> LinkPlan | None:
        """The best of what peers, relays or both together can do; None if nobody may own.

        Links of which nothing is known are taken for as slow as the slowest; if that is not known either, all
        participants that may own get equal slices.
        """
        groups = owner_groups(participants, self._members, step, standing)
        whole = tuple([i for i in group if self.edges.serve(i, participants)] for group in groups)
        peers, relays, others = whole if any(whole) else groups
        rates = {island: self.rate(island) for island in (*participants, *relays)}
        known = [rate for island, rate in rates.items() if rate and island in participants]
        if not known or not self._rules.payload_bytes:
            owners = peers or relays or others
            return LinkPlan(slices(equal(owners), self._rules.num_pieces), 0.0) if owners else None
        least = max(min(known), median_low(known) / MAX_SLOWNESS)
        rates = {island: max(rate, least) for island, rate in rates.items()}
        choices = [peers, relays, [*peers, *relays]] if peers or relays else [others]
        rates |= {island: max(self.rate(island), least) for island in choices[0]}
        found = [split for group in choices if (split := _solved(participants, group, rates)) is not None]
        if not found:
            return None
        shortest = min(split.seconds_per_byte for split in found)
        best = next(split for split in found if split.seconds_per_byte <= ENOUGH_GAIN * shortest)
        seconds = best.seconds_per_byte * self._rules.payload_bytes / USED_SHARE
        if self._newest[0].issuperset(participants):
            seconds = min(seconds, self._newest[1])
        return LinkPlan(
            slices(best.shares, self._rules.num_pieces), seconds if len(participants) > 1 else 0.0
        )

    def note_fault(self, accuser: str, fault: Fault) -> None:
        """Remember an edge that did not carry an exchange."""
        if fault.kind == "unreachable" and fault.peer not in ("", accuser):
            self.edges.note(accuser, fault.peer)

    def note_committed(self, attempt: OpenAttempt, now: float) -> None:
        """An attempt has ended with a commit, and the step with it."""
        self.learn(attempt, now)
        self._newest = attempt.participants, now - attempt.opened_at
        self.edges.next_step()

    def learn(self, attempt: OpenAttempt, now: float) -> None:
        """An attempt is over: compare what its owners did with what their links were planned for."""
        planned = attempt.record.seconds
        if not planned:
            return
        num_participants = len(attempt.participants)
        for number, part in enumerate(attempt.record.slices):
            seconds = attempt.reduced_at.get(number, now) - attempt.opened_at
            share, own = part.num_pieces / self._rules.num_pieces, part.owner in attempt.participants
            carried = self._rules.payload_bytes * (own * (1 - share) + share * (num_participants - own))
            if seconds > LATE * planned + LATE_SECONDS:
                self._shown[part.owner] = carried / seconds
            elif (shown := self._shown.get(part.owner)) is not None:
                self._shown[part.owner] = REGAIN * shown


def _solved(participants: list[str], owners: list[str], rates: Mapping[str, float]) -> Split | None:
    sites = {
        island: Site(
            bytes_per_second=rates[island], participant=island in participants, may_own=island in owners
        )
        for island in sorted({*participants, *owners})
    }
    return solve(sites)
