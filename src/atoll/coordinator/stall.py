"""Stall: the run cannot go on by itself. Why, and what people can do about it."""

import math

from atoll.coordinator.doubt import Doubt
from atoll.coordinator.effects import Effects, Report
from atoll.coordinator.members import Members
from atoll.events import AttemptClosed, AttemptOpened, Committed, Event, Imported, Resumed, Stalled
from atoll.words import listed, one_line

LOOK_SECONDS = 1.0
NUM_FAILED_ATTEMPTS = 3  # of one step, after which it is a matter for people
DONOR_SECONDS = 15.0  # without anybody who could give the state: a member that has it may be starting

RELAY = "start a relay that all of them can reach (atoll join TICKET --relay)"


class Stall:
    """Looked at once a second; `reason` is "" while the run goes on."""

    def __init__(self, members: Members, doubt: Doubt) -> None:
        self.reason = ""
        self._members, self._doubt = members, doubt
        self._num_failed = 0  # attempts of the open step
        self._failure = ""  # of the last one
        self._has_no_owner = False
        self._no_donor_since = math.inf
        self._look_at = 0.0

    def note_no_owner(self) -> None:
        """There are proposals, and nobody who could reduce them."""
        self._has_no_owner = True

    def follow(self, head: int, now: float, do: Effects) -> None:
        """Learn from what is reported now; once a second find the reason anew, and report its change."""
        for event in [effect.event for effect in do if isinstance(effect, Report)]:
            self._hear(event)
        if now < self._look_at:
            return
        self._look_at = now + LOOK_SECONDS
        before, self.reason = self.reason, one_line(self._reason(head, now))
        if self.reason != before:
            do.report(Stalled(reason=self.reason) if self.reason else Resumed())

    def _hear(self, event: Event) -> None:
        if isinstance(event, Committed | Imported):
            self._num_failed, self._has_no_owner = 0, False
        elif isinstance(event, AttemptOpened):
            self._has_no_owner = False
        elif isinstance(event, AttemptClosed) and event.cause in ("fault", "stalled", "not held"):
            self._num_failed += 1
            if self._num_failed <= NUM_FAILED_ATTEMPTS:  # whoever is named then stays: one stall, one reason
                self._failure = listed(map(self._named, event.islands))

    def _reason(self, head: int, now: float) -> str:
        if self._doubt.is_open:
            whom = listed(sorted(map(self._named, self._doubt.awaited))) or "whoever knows more"
            return (
                f"the database may be an old backup, and nothing is decided before {whom} could say what it "
                "lacks: start them again, and evict who is lost for good (atoll evict)"
            )
        if self._num_failed >= NUM_FAILED_ATTEMPTS:
            return (
                f"the attempts to reduce step {head} fail on account of {self._failure}: see that they reach "
                f"one another (open a port of one of them), or {RELAY}"
            )
        if self._has_no_owner:
            return (
                "no agent can be reached by the others: open the port of the host's relay (7702), or one of "
                f"an agent (atoll join TICKET --listen 0.0.0.0:7800), or {RELAY}"
            )
        return self._reason_of_donors(head, now)

    def _reason_of_donors(self, head: int, now: float) -> str:
        """Members wait for the state, and nobody who can be reached has it."""
        behind = [m for m in self._members.values() if m.present and not m.is_ready(head)]
        if not behind or self._members.donors:
            self._no_donor_since = math.inf
            return ""
        self._no_donor_since = min(self._no_donor_since, now)
        if now < self._no_donor_since + DONOR_SECONDS:
            return ""
        return (
            f"nobody who can be reached holds state {head} yet, so that "
            f"{listed(sorted(self._named(m.island) for m in behind))} cannot take it: start a member that "
            f"has it and can be reached, or {RELAY} in the run's directory"
        )

    def _named(self, island: str) -> str:
        """An island as people know it: who gets the credit, and the id."""
        member = self._members.get(island)
        return f"{member.hello.contributor} ({island})" if member and member.hello.contributor else island
