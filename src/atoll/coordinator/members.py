"""Who is in: one `Member` per island that ever said Hello to this coordinator."""

import math
from dataclasses import dataclass, field

from atoll.coordinator.deadlines import Deadline
from atoll.swarm.messages import Beat, Hello

MAX_DONORS = 16  # named in a View; more would only make the message long


@dataclass
class Member:
    """One island as its coordinator sees it."""

    island: str
    hello: Hello
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

    def leave(self, planned: bool) -> None:
        """Gone. Whoever leaves again and again with a plan open is not waited for until it proved itself."""
        self.connected = False
        self.ready_step = -1
        if planned:
            self.flaps += 1
            self.probation = 2 ** min(self.flaps - 1, 6) if self.flaps > 1 else 0

    def completed(self) -> None:
        self.probation = max(0, self.probation - 1)


class Members(dict[str, Member]):
    """Members by island id."""

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

    def waited_for(self, island: str, returning: bool) -> bool:
        """Whether a step waits for an island with a plan; `returning`: those not back since a restart have time yet."""
        return self[island].present and not self[island].probation if island in self else returning

    def donors(self, step: int) -> dict[str, str]:
        """Who can give state, relays first."""
        able = sorted((m for m in self.ready(step) if m.address), key=lambda m: (not m.relay, m.island))
        return {member.island: member.address for member in able[:MAX_DONORS]}

    def fall_silent(self, now: float, limit_seconds: float) -> list[Member]:
        """Those that were not heard for too long, and were not known to be frozen."""
        frozen = [m for m in self.values() if m.present and now - m.last_heard > limit_seconds]
        for member in frozen:
            member.frozen = True
        return frozen

    @property
    def heard_first(self) -> float:
        """When the present member that was silent the longest was heard; infinite if nobody is present."""
        return min((m.last_heard for m in self.values() if m.present), default=math.inf)
