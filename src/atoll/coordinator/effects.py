"""What happens to a coordinator, and what it wants done: the two sides of `protocol.step`."""

from collections.abc import Iterable
from typing import Any, NamedTuple

import msgspec

from atoll.coordinator.members import Member
from atoll.swarm import messages as m
from atoll.swarm import records as r
from atoll.swarm.messages import control


# ----------------------------------------------------------------------------------------------- what happens
class Joined(msgspec.Struct, frozen=True):
    """An island said Hello. Nobody is sent to it before it is `Reached`."""

    island: str
    hello: m.Hello


class Reached(msgspec.Struct, frozen=True):
    """An island that said Hello has answered at the address that it gave: peers can be sent there."""

    island: str
    session: str
    address: str


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
    """The store gave this coordinator a higher term: an island had already seen one that outranks the
    last.
    """

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
    """Something people should know."""

    kind: str
    text: str
    island: str = ""
    step: int = -1
    facts: dict[str, Any] = {}


Effect = Persist | Send | Timer | Report


class Effects(list[Effect]):
    """What one event leads to, in order."""

    def __init__(self, step: int = 0) -> None:
        super().__init__()
        self._step = step

    def send(self, island: str, message: control.ToAgent) -> None:
        self.append(Send(island, message))

    def send_all(self, members: Iterable[Member], message: control.ToAgent) -> None:
        self += [Send(member.island, message) for member in members]

    def report_ready(self, member: Member, ready: m.Ready, now: float) -> None:
        """At the head; for the first time on this line, where there was a head to come to, that is a
        recovery.
        """
        text = f"{member.island} holds state {ready.step}, root {ready.root[:6].hex()}"
        self.report("ready", text, member.island, trainer=bool(ready.loaded), root=ready.root.hex())
        if ready.step and member.ready_step < 0:
            text = f"{member.island} is at the head, {now - member.joined_at:.1f} s after it joined"
            self.report("recovered", text, member.island)

    def report_committed(self, record: r.CommitRecord, loss: float, holders: set[str]) -> None:
        """A step is committed; `loss` is the mean over its tokens."""
        names = sorted(record.islands)
        text = f"step {record.step}: {len(names)} islands, {record.tokens:,} tokens, loss {loss:.3f}"
        self.report(
            "committed",
            f"{text}, root {record.next_root[:6].hex()}",
            tokens=record.tokens,
            loss=loss,
            participants=names,
            holders=sorted(holders),
            root=record.next_root.hex(),
        )

    def report(self, kind: str, text: str, island: str = "", **facts: object) -> None:
        """For people, at the outer step in which the event fell."""
        self.append(Report(kind, text, island, self._step, facts))
