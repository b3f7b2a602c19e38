"""Who is in: one `Member` per island that ever said Hello to this coordinator."""

from dataclasses import dataclass, field

from atoll.coordinator.deadlines import Deadline
from atoll.swarm.messages import Beat, Hello

MAX_DONORS = 16  # named in a View; more would only make the message long


@dataclass
class Member:
    """One island as its coordinator sees it."""

    island: str
    hello: Hello
    address: str  # "" if peers cannot reach it
    last_heard: float
    connected: bool = True
    frozen: bool = False  # connected, but silent for too long
    ready_step: int = -1
    beat: Beat | None = None
    pace: Deadline = field(default_factory=lambda: Deadline(0.0))  # seconds per inner step
    flaps: int = 0  # left with a plan open
    probation: int = 0  # steps to complete before anyone waits for it

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

    def trainers(self, step: int) -> list[Member]:
        return [member for member in self.ready(step) if not member.relay]

    def donors(self, step: int) -> dict[str, str]:
        """Who can give state, relays first."""
        able = sorted((m for m in self.ready(step) if m.address), key=lambda m: (not m.relay, m.island))
        return {member.island: member.address for member in able[:MAX_DONORS]}
