"""What happens to a coordinator, and what it wants done: the two sides of `protocol.step`."""

import math
from collections.abc import Iterable
from typing import NamedTuple

import msgspec

from atoll import events
from atoll.coordinator.members import Member
from atoll.swarm import messages as m
from atoll.swarm import records as r
from atoll.swarm.address import Addresses
from atoll.swarm.messages import control


# ----------------------------------------------------------------------------------------------- what happens
class Joined(msgspec.Struct, frozen=True):
    """An island said Hello. Nobody is sent to it before it is `Reached`."""

    island: str
    hello: m.Hello
    ticket: bytes = b""  # by which it came: the hash of its secret; empty where it is not known


class Reached(msgspec.Struct, frozen=True):
    """Peers can be sent to an island at these addresses; if there are none, no longer."""

    island: str
    session: str
    addresses: Addresses


class Left(msgspec.Struct, frozen=True):
    """An island's control stream ended."""

    island: str
    session: str
    reason: str


class Received(msgspec.Struct, frozen=True):
    """An island said something on its control line."""

    island: str
    message: control.ToCoordinator


class Reign(msgspec.Struct, frozen=True):
    """The store gave this coordinator a higher term: an island had seen one above the last."""

    term: r.Term


class Tick(msgspec.Struct, frozen=True):
    """Time has passed; a deadline may be over."""


Event = Joined | Reached | Left | Received | Reign | Tick


# ------------------------------------------------------------------------------------------------- what to do
class Doubted(r.Message, frozen=True):
    """Whether this database may be an old backup: whoever leads next must know it too."""

    is_open: bool


Record = r.Plan | r.Attempt | r.Assembled | r.CommitRecord | r.Rewind | Doubted


class Persist(msgspec.Struct, frozen=True):
    """Durable before anything after it is carried out."""

    record: Record


class OpenStep(NamedTuple):
    """What a database knows of the step after its last commit."""

    plans: list[r.Plan]
    last_number: int  # of its attempts; 0 if there was none
    stage_starts: tuple[int, ...]
    doubted: bool  # it may be an old backup
    rewinds: tuple[r.Rewind, ...] = ()


class Send(msgspec.Struct, frozen=True):
    """Send a message to an island's agent."""

    island: str
    message: control.ToAgent


class Timer(msgspec.Struct, frozen=True):
    """Tick no later than this."""

    at: float


class Report(msgspec.Struct, frozen=True):
    """Something people should know: for the events file."""

    event: events.Event


Effect = Persist | Send | Timer | Report


class Effects(list[Effect]):
    """What one event leads to, in order."""

    def __init__(self, step: int = 0, now: float = 0.0) -> None:
        super().__init__()
        self.now = now  # when it happened
        self._step = step

    def send(self, island: str, message: control.ToAgent) -> None:
        self.append(Send(island, message))

    def send_all(self, members: Iterable[Member], message: control.ToAgent) -> None:
        self += [Send(member.island, message) for member in members]

    def too_early(self, at: float, now: float) -> bool:
        """Whether that moment is still to come; if it is, there will be a Tick no later than then."""
        if now < at < math.inf:
            self.append(Timer(at))
        return now < at

    def report_ready(self, member: Member, ready: m.Ready, now: float) -> None:
        """It is at the head; it has recovered if that is the first time on its line, and past state 0."""
        root, has_trainer = ready.root.hex(), bool(ready.loaded)
        self.report(events.Ready(island=member.island, trainer=has_trainer, root=root))
        if ready.step and member.ready_step < 0:
            seconds = now - member.joined_at
            self.report(events.Recovered(island=member.island, recovery_seconds=seconds))

    def refuse_proposal(self, island: str, reason: str) -> None:
        self.report(events.Refused(island=island, what="proposal", reason=f"it names {reason}"))

    def report(self, event: events.Event) -> None:
        """For people, at the outer step that was open when this began."""
        self.append(Report(msgspec.structs.replace(event, step=self._step)))
