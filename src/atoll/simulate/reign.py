"""A coordinator's process: carries out what `Coordinator.step` decides, as `coordinator/server.py` does.

Records are gathered until the next message, and appended in one transaction. The process may die before any
effect.
"""

import math
from typing import TYPE_CHECKING, Any

from atoll.coordinator.effects import (
    Doubted,
    Event,
    Joined,
    Left,
    Persist,
    Reached,
    Received,
    Report,
    Send,
    Tick,
    Timer,
)
from atoll.coordinator.effects import Reign as HigherTerm
from atoll.coordinator.protocol import Coordinator
from atoll.coordinator.reach import REACH_AGAIN_SECONDS, REACH_SECONDS
from atoll.coordinator.store import Deposed
from atoll.events import Thin
from atoll.simulate.database import Conflict
from atoll.simulate.disk import sign
from atoll.simulate.line import COORDINATOR_END, Line
from atoll.simulate.network import COORDINATOR
from atoll.simulate.process import Process
from atoll.simulate.timeline import Work
from atoll.swarm import messages as m
from atoll.swarm.address import Address
from atoll.swarm.messages import control

if TYPE_CHECKING:
    from atoll.simulate.world import World

RENEW_SECONDS = 1.0  # a standby takes over after 3 s without (LEADER_SECONDS)


class Reign(Process):
    """One coordinator over the run's database, until it dies or is deposed."""

    def __init__(self, world: "World") -> None:
        super().__init__(COORDINATOR, world.timeline, world.network)
        self.world = world
        self.database = world.database
        self.outboxes: dict[str, Line] = {}
        self._hello: dict[Line, m.Hello] = {}
        self._next_tick = self._ticking_at = math.inf
        self.protocol_was_thin = False  # the commit under way has fewer holders than a majority

    def begin(self, restored: bool = False) -> None:
        """As `CoordinatorServer.begin`; `restored`: the operator says that this database is a backup."""
        self.start()
        self.protocol = Coordinator(self.world.rules, self.database.begin_term(), sign)
        if restored:
            self.database.append(self.protocol.term, [Doubted(True)])
        commits = list(self.database.commits)
        self.protocol.restore(commits, self.database.open_step(len(commits)), self.clock())
        self.world.story(f"term {self.protocol.term.counter}", f"begins at step {self.protocol.head}")
        self._next_tick = self.clock() + 1.0
        self._tick_at(self._next_tick)
        self.later(RENEW_SECONDS, self._renew)

    # ---------------------------------------------------------------------------------------------- carry out
    def _step(self, event: Event) -> None:
        now = self.clock()
        if isinstance(event, Tick):  # else what was due stays due
            self._next_tick = now + 1.0
        try:
            self._carry_out(self.protocol.step(event, now))
            # Only of the leader, since others know nothing of what it decides; and only now, since records of
            # one decision become durable one after the other.
            if self.up and self.protocol.term == self.database.term:
                self.world.invariants.leases_partition(self)
        except Deposed as error:
            self._deposed(error)
            return
        except (Conflict, AssertionError, LookupError, ValueError) as error:
            self.world.invariants.violated(f"the coordinator crashed: {type(error).__name__}: {error}")
            return
        self._tick_at(self._next_tick)

    def _renew(self) -> None:
        """Learn whether this coordinator still leads, even if it has nothing to persist."""
        try:
            self.database.check(self.protocol.term)
        except Deposed as error:
            self._deposed(error)
        self.later(RENEW_SECONDS, self._renew)

    def _deposed(self, error: Deposed) -> None:
        self.world.story(f"term {self.protocol.term.counter}", f"is deposed: {error}")
        self.die()

    def _carry_out(self, effects: list[Any]) -> None:
        self.protocol_was_thin = any(isinstance(e, Report) and isinstance(e.event, Thin) for e in effects)
        records: list[Any] = []
        for effect in effects:
            self.survive()
            if isinstance(effect, Persist):
                records.append(effect.record)
                continue
            if records and isinstance(effect, Send):
                self._persist(records)
                records = []
            match effect:
                case Send():
                    if (line := self.outboxes.get(effect.island)) is not None:
                        line.send(COORDINATOR_END, effect.message)
                case Timer():
                    self._next_tick = min(self._next_tick, effect.at)
                case Report():
                    self.world.reported(self, effect.event)
        if records:
            self._persist(records)

    def _persist(self, records: list[Any]) -> None:
        before = self.database.plans
        self.database.append(self.protocol.term, records)
        for record in records:
            self.world.persisted(self, record, before)

    def _tick_at(self, at: float) -> None:
        """Tick then, by our clock, unless an event comes first."""
        if at < self._ticking_at:
            self._ticking_at = at
            self.later(max(0.0, at - self.clock()), self._tick, at)

    def _tick(self, at: float) -> None:
        if at != self._ticking_at:
            return  # an earlier one was scheduled meanwhile
        self._ticking_at = math.inf
        if self.clock() >= self._next_tick:
            self._step(Tick())
        else:
            self._tick_at(self._next_tick)

    # -------------------------------------------------------------------------------------------------- lines
    def hear(self, line: Line, message: control.ToCoordinator) -> None:
        island = line.ends[0].name
        if isinstance(message, m.Hello):
            self._admit(line, message)
        elif isinstance(message, m.WantRecords):
            since = max(0, message.since)
            records = m.Records.first_of(self.database.commits[since:])
            if (outbox := self.outboxes.get(island)) is not None:
                outbox.send(COORDINATOR_END, records)
        elif not isinstance(message, m.Records) or all(
            r.signature == sign(r.unsigned()) for r in message.records
        ):
            self._step(Received(island, message))

    def _admit(self, line: Line, hello: m.Hello) -> None:
        """Let it in, then look whether it can be reached."""
        island = line.ends[0]
        self._hello[line] = hello
        self.outboxes[island.name] = line
        if not self.protocol.term.may_follow(hello.term):  # the database forgot a reign that the island knows
            try:
                term = self.database.raise_term(self.protocol.term, above=hello.term.counter)
            except Deposed as error:
                self._deposed(error)
                return
            self._step(HigherTerm(term))
        self._step(Joined(island.name, hello))
        if hello.port:
            self.spawn(self._reach(line, hello))

    def _reach(self, line: Line, hello: m.Hello) -> Work:
        """As in `Reach.follow`, for an agent of another machine."""
        island = line.ends[0]
        while line in self._hello:
            if (yield from self.dial(island, REACH_SECONDS)):
                self._step(Reached(island.name, hello.session, (Address(island.name, 1),)))
                return
            yield REACH_AGAIN_SECONDS

    def line_broke(self, line: Line, reason: str) -> None:
        if line in self._hello:
            self._left(line, reason)

    def _left(self, line: Line, reason: str) -> None:
        island = line.ends[0].name
        hello = self._hello.pop(line, None)
        if hello is not None and self.outboxes.get(island) is line:  # else it is long back on another line
            del self.outboxes[island]
            self._step(Left(island, hello.session, reason))

    def died(self, dark: bool) -> None:
        self.world.process_died(self)
