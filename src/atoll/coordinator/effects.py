"""What happens to a coordinator, and what it wants done: the two sides of `protocol.step`."""

from collections.abc import Iterable
from typing import Any

import msgspec

from atoll.coordinator.members import Member
from atoll.swarm import messages as m
from atoll.swarm import records as r


# ---------------------------------------------------------------------------------------------------- what happens
class Joined(msgspec.Struct, frozen=True):
    """An island said Hello; `address` is where peers reach it ("" if they cannot)."""

    island: str
    hello: m.Hello
    address: str


class Left(msgspec.Struct, frozen=True):
    """An island's control stream ended."""

    island: str
    session: str
    reason: str


class Received(msgspec.Struct, frozen=True):
    island: str
    message: r.Message


class Reign(msgspec.Struct, frozen=True):
    """The store gave this coordinator a higher term: an island had already seen one that outranks the last."""

    term: r.Term


class Tick(msgspec.Struct, frozen=True):
    """Time has passed; a deadline may be over."""


Event = Joined | Left | Received | Reign | Tick


# ------------------------------------------------------------------------------------------------------ what to do
class Persist(msgspec.Struct, frozen=True):
    """Durable before anything after it is carried out."""

    record: r.Plan | r.Attempt | r.Assembled | r.CommitRecord


class Send(msgspec.Struct, frozen=True):
    island: str
    message: r.Message


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

    def send(self, island: str, message: r.Message) -> None:
        self.append(Send(island, message))

    def send_all(self, members: Iterable[Member], message: r.Message) -> None:
        self += [Send(member.island, message) for member in members]

    def report(self, kind: str, text: str, island: str = "", **facts: object) -> None:
        """For people, at the outer step in which the event fell."""
        self.append(Report(kind, text, island, self._step, facts))
