"""Who is in: one `Member` per island that ever said Hello to this coordinator."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field

from atoll.coordinator.deadlines import Deadline
from atoll.swarm.messages import Beat, Hello

ASLEEP_SECONDS = 2.0  # between two looks at who is silent
MAX_DONORS = 16  # named in a View; more would only make the message long


@dataclass(kw_only=True)
class Member:
    """One island as its coordinator sees it."""

    island: str
    hello: Hello
    joined_at: float
    last_heard: float
    address: str = ""  # where peers reach it; "" if they cannot
    connected: bool = True
    frozen: bool = False  # connected, but silent for too long
    ready_step: int = -1
    beat: Beat | None = None
    pace: Deadline = field(default_factory=lambda: Deadline(0.0))  # seconds per inner step
    flaps: int = 0  # left with a plan open
    probation: int = 0  # steps to complete before anyone waits for it
    told_finished: bool = False

    @property
    def relay(self) -> bool:
        return self.hello.relay

    @property
    def present(self) -> bool:
        return self.connected and not self.frozen

    def ready(self, step: int) -> bool:
        return self.present and self.ready_step == step

    def inner_steps_done(self, step: int) -> int | None:
        """Of that outer step, by its newest beat; None where that is of another."""
        return self.beat.inner_step if self.beat and self.beat.step == step else None

    def heard(self, now: float) -> bool:
        """It said something; whether it was frozen until now."""
        thawed, self.frozen, self.last_heard = self.frozen, False, now
        return thawed

    def leave(self, planned: bool) -> None:
        """Gone. Whoever leaves again and again with a plan open is not waited for until it proved itself."""
        self.connected = False
        self.ready_step = -1
        if planned:
            self.flaps += 1
            self.probation = 2 ** min(self.flaps - 1, 6) if self.flaps > 1 else 0


class Members(dict[str, Member]):
    """Members by island id."""

    def __init__(self) -> None:
        super().__init__()
        self._looked = 0.0
        self.donors: dict[
            str, str
        ] = {}  # island -> address of those who can give state, as all were told last

    def reached(self, island: str, session: str, address: str) -> None:
        if (member := self.get(island)) and member.hello.session == session:
            member.address = address

    def completed(self, islands: Iterable[str]) -> None:
        """They took part in a commit: one step less of probation."""
        for member in (self[island] for island in islands if island in self):
            member.probation = max(0, member.probation - 1)

    def admit(self, island: str, hello: Hello, now: float) -> Member:
        """It said Hello: a new line, a new member; how often it left is remembered."""
        member, before = Member(island=island, hello=hello, joined_at=now, last_heard=now), self.get(island)
        if before is not None:
            member.flaps, member.probation = before.flaps, before.probation
            if before.hello.session == hello.session:
                member.pace = before.pace
        self[island] = member
        return member

    def ready(self, step: int) -> list[Member]:
        """Present members whose state is the head, sorted."""
        return [self[island] for island in sorted(self) if self[island].ready(step)]

    @property
    def here(self) -> list[Member]:
        """Those whose line is up."""
        return [member for member in self.values() if member.connected]

    def at(self, island: str, step: int) -> bool:
        """Whether an island is present and its state is the head."""
        return island in self and self[island].ready(step)

    def connected(self, island: str) -> bool:
        return island in self and self[island].connected

    def unconnected(self, islands: Iterable[str]) -> set[str]:
        return {island for island in islands if not self.connected(island)}

    def waited_for(self, island: str, returning: bool) -> bool:
        """Whether a step waits for an island with a plan; `returning`: those not back since a restart have
        time yet.
        """
        return self[island].present and not self[island].probation if island in self else returning

    def any_behind(self, step: int) -> bool:
        """Whether somebody who is present does not hold that state yet."""
        return any(member.present and not member.ready(step) for member in self.values())

    def tell_finished(self, step: int) -> list[Member]:
        """Who holds the last state, and is now to be told, once, that the run is finished."""
        untold = [member for member in self.ready(step) if not member.told_finished]
        for member in untold:
            member.told_finished = True
        return untold

    def can_reach_any(self, islands: Iterable[str]) -> bool:
        """Whether what these hold can be fetched by others."""
        return any(island in self and self[island].connected and self[island].address for island in islands)

    def choose_donors(self, step: int) -> bool:
        """Who can give state, relays first; whether that has changed. With nobody at the head yet the last
        ones stay.
        """
        if len(self.donors) == MAX_DONORS and all(self.at(island, step) for island in self.donors):
            return False
        able = sorted((m for m in self.ready(step) if m.address), key=lambda m: (not m.relay, m.island))
        chosen = {member.island: member.address for member in able[:MAX_DONORS]}
        before, self.donors = (
            self.donors,
            chosen or {i: a for i, a in self.donors.items() if self.connected(i)},
        )
        return self.donors != before

    def fall_silent(self, now: float, limit_seconds: float) -> tuple[list[Member], float]:
        """(those that were not heard for too long, and were not known to be frozen; when the next may be).
        Ask every second.

        A coordinator that did not ask for longer was itself asleep, and has yet to read what came meanwhile:
        it asks again a second later, not at once.
        """
        asleep, self._looked = now - self._looked > ASLEEP_SECONDS, now
        if asleep:
            return [], math.inf
        frozen = [m for m in self.values() if m.present and now >= m.last_heard + limit_seconds]
        for member in frozen:
            member.frozen = True
        return frozen, min(
            (m.last_heard for m in self.values() if m.present), default=math.inf
        ) + limit_seconds
