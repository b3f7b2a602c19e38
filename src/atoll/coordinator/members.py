"""The members: one `Member` for each island that has said Hello to this coordinator."""

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from atoll.coordinator.deadlines import Deadline
from atoll.swarm.address import Addresses
from atoll.swarm.messages import Beat, Hello

OVERSLEPT_SECONDS = 2.0  # longer between two calls of `mark_frozen`: the coordinator itself was asleep
MAX_DONORS = 16  # named in a message; more would only make the message longer
MAX_PROBATION_STEPS = 64
BEAT_SECONDS = 1.0  # between two beats: by so much what one says may be old
# A trainer that reports no inner step for so long, and for so many times its pace, is stuck. Until its pace
# is known it may be compiling.
STUCK_SECONDS, STUCK_PACES, FIRST_STEP_SECONDS = 120.0, 10.0, 900.0


class Showing:
    """How far one member's beats were in one outer step: the first of them, and the newest."""

    def __init__(self, step: int, inner_step: int, now: float) -> None:
        self.step = step
        self._first = self._last = (inner_step, now)

    def note(self, inner_step: int, now: float) -> None:
        """A beat says so. Until the first progress it may not have been at work."""
        if inner_step == self._first[0] == self._last[0]:
            self._first = (inner_step, now)
        elif inner_step > self._last[0]:
            self._last = (inner_step, now)

    @property
    def least_pace(self) -> float | None:
        """The fewest seconds that an inner step can have taken; None if its beats have shown no progress."""
        (began, first_at), (done, last_at) = self._first, self._last
        if done <= began:
            return None
        return max(0.0, last_at - first_at - BEAT_SECONDS) / (done - began + 1)


@dataclass(kw_only=True)
class Member:
    """One island as its coordinator sees it. Times are seconds of the coordinator's clock."""

    island: str
    hello: Hello
    joined_at: float
    last_heard_at: float
    ticket: bytes = b""  # by which it came; empty where that is not known
    addresses: Addresses = ()  # where peers reach it; none while they cannot
    connected: bool = True
    frozen: bool = False  # connected, but silent for too long
    ready_step: int = -1  # the state that its last Ready named
    beat: Beat | None = None
    advanced_at: float = -math.inf  # when it was given its plan, or last reported another inner step
    pace: Deadline = field(default_factory=lambda: Deadline(0.0))  # seconds per inner step
    pace_is_shown: bool = True  # its beats have shown how far it was while it trained
    showing: Showing | None = None  # what they show in the step at which it is
    num_flaps: int = 0  # how often it left with a plan and without a proposal
    probation_steps: int = 0  # commits that it must take part in before a step waits for it again
    told_finished: bool = False

    @property
    def relay(self) -> bool:
        """Whether it is an agent without a trainer."""
        return self.hello.relay

    @property
    def present(self) -> bool:
        """Whether it is connected and not frozen."""
        return self.connected and not self.frozen

    def is_ready(self, step: int) -> bool:
        """Whether it is present and its state is state `step`."""
        return self.present and self.ready_step == step

    def inner_steps_done(self, step: int) -> int | None:
        """How far it is in outer step `step`; None if its newest beat is of another outer step."""
        return self.beat.inner_step if self.beat and self.beat.step == step else None

    def is_at_work(self, now: float) -> bool:
        """Whether it is present and its trainer is not stuck, as far as beats tell."""
        pace = self.pace.median_seconds
        patience = max(STUCK_SECONDS, STUCK_PACES * pace) if pace else FIRST_STEP_SECONDS
        return self.present and now < self.advanced_at + patience

    def note_beat(self, beat: Beat, now: float) -> None:
        """Note what a beat says, and whether its trainer has advanced since the one before."""
        before, self.beat = self.beat, beat
        if self.showing is None or self.showing.step != beat.step:
            self.showing = Showing(beat.step, beat.inner_step, now)
        self.showing.note(beat.inner_step, now)
        if before is None or (before.step, before.inner_step) != (beat.step, beat.inner_step):
            self.advanced_at = now

    def observe_pace(self, step: int, inner_steps: int, seconds: float) -> None:
        """Learn what it says its inner steps of a plan took, as far as its beats let that be possible."""
        least = self.showing.least_pace if self.showing and self.showing.step == step else None
        self.pace_is_shown = least is not None
        self.pace.observe(max(seconds / inner_steps, least or 0.0))

    def note_heard(self, now: float) -> bool:
        """Note that a message of it came; return whether it was frozen until now."""
        thawed, self.frozen, self.last_heard_at = self.frozen, False, now
        return thawed

    def put_on_probation(self) -> None:
        """It has kept the others waiting too often: a step waits for it again once it has been in time."""
        self.num_flaps += 1
        self.probation_steps = min(2**self.num_flaps, MAX_PROBATION_STEPS)

    def leave(self, owes_proposal: bool) -> None:
        """Note that its connection is gone.

        If it owes a proposal that is a flap; from the second flap on it is put on probation.
        """
        self.connected = False
        self.ready_step = -1
        if owes_proposal:
            self.num_flaps += 1
            if self.num_flaps > 1:
                self.probation_steps = min(2 ** (self.num_flaps - 1), MAX_PROBATION_STEPS)


class Members(dict[str, Member]):
    """Members by island id."""

    def __init__(self) -> None:
        super().__init__()
        self.donors: dict[str, Addresses] = {}  # by island: where those are that give state
        self._last_check_at = 0.0  # when `mark_frozen` was last called

    def add(self, island: str, hello: Hello, now: float, ticket: bytes = b"") -> Member:
        """Return the new member that a Hello makes, even of an island that is known: its connection is new.

        Flaps and probation are kept; the pace too if the agent's process is still the same.
        """
        before = self.get(island)
        member = Member(
            island=island, hello=hello, ticket=ticket, joined_at=now, last_heard_at=now, advanced_at=now
        )
        if before is not None:
            member.num_flaps, member.probation_steps = before.num_flaps, before.probation_steps
            if before.hello.session == hello.session:
                member.pace, member.pace_is_shown = before.pace, before.pace_is_shown
        self[island] = member
        return member

    def hand(self, island: str) -> str:
        """The hand that an island is of: islands that came by one ticket count as one.

        Not those that name one contributor: a name is chosen freely, and would join the hands of strangers.
        """
        member = self.get(island)
        return member.ticket.hex() if member and member.ticket else island

    def is_relay(self, island: str) -> bool:
        """Whether an island is a member without a trainer."""
        return island in self and self[island].relay

    def hands(self, islands: Iterable[str]) -> dict[str, str]:
        """The hand of each of these islands."""
        return {island: self.hand(island) for island in islands}

    def set_addresses(self, island: str, session: str, addresses: Addresses) -> None:
        """Note where an agent can be reached, unless it has been started again since."""
        if (member := self.get(island)) and member.hello.session == session:
            member.addresses = addresses

    def shorten_probation(self, participants: Iterable[str]) -> None:
        """Count one commit more for the participants that are on probation."""
        for member in (self[island] for island in participants if island in self):
            member.probation_steps = max(0, member.probation_steps - 1)

    def ready(self, step: int) -> list[Member]:
        """The members that are present and whose state is state `step`, sorted by island."""
        return [self[island] for island in sorted(self) if self[island].is_ready(step)]

    def is_ready(self, island: str, step: int) -> bool:
        """Whether an island is a member, is present, and its state is state `step`."""
        return island in self and self[island].is_ready(step)

    @property
    def connected(self) -> list[Member]:
        """The members that have a connection, frozen ones too."""
        return [member for member in self.values() if member.connected]

    def is_connected(self, island: str) -> bool:
        """Whether an island is a member and has a connection."""
        return island in self and self[island].connected

    def not_connected(self, islands: Iterable[str]) -> set[str]:
        """Those of `islands` that have no connection."""
        return {island for island in islands if not self.is_connected(island)}

    def is_waited_for(self, island: str, in_grace: bool, now: float) -> bool:
        """Whether a step waits for the proposal of an island that has a plan.

        `in_grace`: the coordinator has just started, and an island that is no member yet may still come back.
        """
        if island not in self:
            return in_grace
        return self[island].is_at_work(now) and not self[island].probation_steps

    def any_reachable(self, islands: Iterable[str]) -> bool:
        """Whether others can fetch from at least one of `islands`."""
        return any(self.is_connected(island) and self[island].addresses for island in islands)

    def any_behind(self, step: int) -> bool:
        """Whether a member that is present does not hold state `step` yet."""
        return any(member.present and not member.is_ready(step) for member in self.values())

    def tell_finished(self, step: int) -> list[Member]:
        """The members that hold the last state and were not yet told that the run is finished; marks them."""
        untold = [member for member in self.ready(step) if not member.told_finished]
        for member in untold:
            member.told_finished = True
        return untold

    def update_donors(self, step: int) -> bool:
        """Choose who gives state `step`, of as many hands as there are; return whether `donors` has changed.

        While no member that can be reached is ready, the last donors stay, as far as they are connected.
        """
        if len(self.donors) == MAX_DONORS and all(self.is_ready(island, step) for island in self.donors):
            return False
        giving = [m for m in self.ready(step) if m.addresses and not m.hello.metered]
        able = self._by_turns_of_hands(giving)
        donors = {member.island: member.addresses for member in able[:MAX_DONORS]}
        if not donors:
            donors = {i: addresses for i, addresses in self.donors.items() if self.is_connected(i)}
        before, self.donors = self.donors, donors
        return donors != before

    def _by_turns_of_hands(self, members: list[Member]) -> list[Member]:
        """The first of each hand, then the second of each, and so on; relays first in each turn."""
        turns: Counter[str] = Counter()
        ranked: list[tuple[int, bool, str, Member]] = []
        for member in sorted(members, key=lambda m: (not m.relay, m.island)):
            hand = self.hand(member.island)
            ranked.append((turns[hand], not member.relay, member.island, member))
            turns[hand] += 1
        return [member for *_, member in sorted(ranked, key=lambda rank: rank[:3])]

    def mark_frozen(self, now: float, limit_seconds: float) -> tuple[list[Member], float]:
        """Mark members that have been silent for too long; to be called every second.

        Returns (the members marked by this call, the earliest time at which another one may be due). If the
        last call is too long ago, the coordinator itself was asleep and has yet to read what came meanwhile:
        then none is marked, and the time is infinite.
        """
        overslept, self._last_check_at = now - self._last_check_at > OVERSLEPT_SECONDS, now
        if overslept:
            return [], math.inf
        frozen = [m for m in self.values() if m.present and now >= m.last_heard_at + limit_seconds]
        for member in frozen:
            member.frozen = True
        longest_silent = min((m.last_heard_at for m in self.values() if m.present), default=math.inf)
        return frozen, longest_silent + limit_seconds
