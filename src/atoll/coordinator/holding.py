"""How long an assembled update waits for agents to hold it, and what is decided then."""

from collections.abc import Callable, Iterable

import msgspec

from atoll import events
from atoll.coordinator.attempts import OpenAttempt
from atoll.coordinator.deadlines import Deadline
from atoll.coordinator.effects import Effects
from atoll.coordinator.holders import enough
from atoll.coordinator.members import Members
from atoll.coordinator.rules import Rules
from atoll.swarm.messages import Held

# Of a step: so long may a slow disk take. Who holds also measures, and without that nothing can be checked.
SLOW_SHARE = 0.05


class Verdict(msgspec.Struct, frozen=True):
    """`held` is to be committed, since these islands hold it; None: the attempt has failed by them.

    If not `is_equal`, they name another next root than the largest group of holders.
    """

    held: Held | None
    islands: set[str]
    is_equal: bool = True


class Holding:
    """One coordinator's patience with holders: learned, never a total. Who still receives is waited for."""

    def __init__(
        self, rules: Rules, members: Members, step_seconds: Callable[[], float] = lambda: 0.0
    ) -> None:
        """`step_seconds`: how long the open step is; 0: not known."""
        self._rules = rules
        self._step_seconds = step_seconds
        self._members = members
        self._deadline = Deadline(rules.hold_seconds)  # from an island's last piece until it holds the update
        self._num_misses = 0  # attempts of the open step that too few held

    def begin_step(self) -> None:
        self._num_misses = 0

    def observe(self, attempt: OpenAttempt, island: str, now: float) -> None:
        """An island holds the update, or has had its chance to."""
        attempt.held_at[island] = now
        self._deadline.observe(now - attempt.progressed_at(island))

    def verdict(self, attempt: OpenAttempt, head: int, now: float, do: Effects) -> Verdict | None:
        """What is to become of an assembled attempt; None while it waits for holders."""
        ready = {member.island for member in self._members.ready(head)}
        awaited = attempt.awaited_holders(ready, self._members)
        if awaited and do.too_early(self._due(attempt, awaited), now):
            return None
        held, holders = attempt.holders.largest_group(self._members)
        if (num_roots := len(attempt.holders.groups())) > 1:
            others = attempt.holders.keys() - holders if held is not None else set[str]()
            do.report(events.Unequal(num_roots=num_roots, islands=tuple(sorted(others))))
            return Verdict(None, others, is_equal=False)
        many = enough(holders, attempt.participants, len(ready), self._members)
        kept = self._members.any_reachable(holders)
        kept = kept and attempt.is_held_by_others(holders, ready, self._members)
        if held is not None and kept and (many or self._num_misses):
            if not many:
                do.report(events.Thin(holders=tuple(sorted(holders))))
            return Verdict(held, holders)
        self._num_misses += 1
        for island in awaited:
            self.observe(attempt, island, now)  # it takes longer than that
        return Verdict(None, set(awaited) if kept or not holders else holders)  # or what nobody could get

    def _due(self, attempt: OpenAttempt, awaited: Iterable[str]) -> float:
        """When none of those that are awaited gets on any more, as far as they say, or when they have had far
        longer than half of the participants needed.
        """
        limit = self._deadline.attempt_limit_seconds(attempt.record.number)
        limit = max(limit, SLOW_SHARE * self._step_seconds())
        patience = max(limit, self._rules.progress_seconds)
        due = max(
            attempt.progressed_at(island) + (limit if attempt.has_all_pieces(island) else patience)
            for island in awaited
        )
        return min(due, attempt.last_hold_at(limit, self._rules.progress_seconds))
