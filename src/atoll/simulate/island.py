"""An island (or a relay): carries out what production's `outer_step.step` decides, as `agent/server.py` does.

The effects are carried out one by one, and the process may die before any of them. What takes time (encode,
reduce, hold, advance) is in `work.py` and `exchange.py`.
"""

import random
from collections import deque
from typing import TYPE_CHECKING, Any

from atoll.agent import effects as e
from atoll.agent import outer_step
from atoll.agent.effects import Advance, Effect, Encode, Hold, Reduce
from atoll.agent.outer_step import OuterStep
from atoll.agent.work import PROGRESS_SECONDS, RETRY_SECONDS
from atoll.simulate import recovery, work
from atoll.simulate.bits import TinyState
from atoll.simulate.disk import Disk
from atoll.simulate.exchange import Exchange
from atoll.simulate.line import Line
from atoll.simulate.link import Link
from atoll.simulate.offer import Offer
from atoll.simulate.process import Process
from atoll.simulate.timeline import Lock, Task, Work
from atoll.simulate.trainer import Trainer
from atoll.swarm import messages as m
from atoll.swarm.address import Addresses
from atoll.swarm.records import CommitRecord

if TYPE_CHECKING:
    from atoll.simulate.world import World

FSYNC_SECONDS = 0.01


class Island(Process):
    """One agent with its trainer. `disk` outlives the process."""

    def __init__(
        self,
        world: "World",
        name: str,
        disk: Disk,
        relay: bool = False,
        dial_only: bool = False,
        step_seconds: float = 0.5,
    ) -> None:
        super().__init__(name, world.timeline, world.network)
        self.world = world
        self.disk = disk
        self.relay = relay
        self.serving = not dial_only
        self.step_seconds = step_seconds
        self.random = random.Random(f"{name} {world.seed}")
        self.false_until = 0.0  # what it serves until then may have a flipped byte
        self.stopped: str | None = None  # why it left for good
        self.begun = False
        self.trained_on: tuple[tuple[int, int], ...] = ()  # samples behind what the trainer handed over
        self.stalled_until = 0.0
        self.slowness = 1.0

    def start(self) -> None:
        """A new incarnation, from what is on disk."""
        super().start()
        disk = self.disk
        self.state = TinyState(disk.parameters, disk.momentum)
        self.lock = Lock()  # encode, hold and advance exclude one another
        self.link = Link(self)
        self.donors: dict[str, Addresses] = {}
        self.applying = -1  # the chunk that is being written
        self.exchange: Exchange | None = None
        self.early: list[Offer] = []  # participants that heard of an attempt before us
        self.progress = m.Progress(-1, 0)
        self.machine = OuterStep(island=self.name, relay=self.relay, term=disk.term, head=disk.head)
        self.machine.head_root = disk.root(disk.head)
        self.payload = disk.payload
        if self.payload is not None and self.payload.proposal.step == disk.head:
            self.machine.proposal = self.payload.proposal
        self._events: deque[e.Event] = deque()
        self._work: dict[str, Task] = {}
        self.trainer: Trainer | None = None
        if not self.relay:
            self.trainer = Trainer(self, self.step_seconds)
            self.trainer.slowness, self.trainer.stalled_until = self.slowness, self.stalled_until
            self.spawn(self.trainer.live())
        self._start("advance", recovery.advance(self, 0.0))
        self.machine.advancing = True
        self.spawn(self.link.run())

    # ------------------------------------------------------------------------------------------- the machine
    def put(self, event: e.Event) -> None:
        self._events.append(event)
        if len(self._events) == 1:
            self.later(0.0, self._drain)

    def _drain(self) -> None:
        while self._events:
            event = self._events[0]
            for effect in outer_step.step(self.machine, event):
                self.survive()
                if isinstance(effect, e.Tell) and isinstance(effect.message, m.Stopped):
                    self.stop(effect.message.reason)
                    return
                self._carry_out(effect)
            self._events.popleft()

    def _carry_out(self, effect: Effect) -> None:
        match effect:
            case e.Send():
                self.world.invariants.island_says(self, effect.message)
                self.link.send(effect.message)
            case e.Tell():
                if self.trainer is not None:
                    self.trainer.tell(effect.message)
            case e.Store():
                if self.disk.objection(effect.record):
                    return
                self.disk.records.append(effect.record)
                self.world.invariants.island_stored(self, effect.record)
                self._stop("reduce", "hold")
                self.later(FSYNC_SECONDS, self.put, e.Stored(effect.record))
            case e.KeepTerm():
                self.disk.term = effect.term
            case Encode():
                self._start("encode", work.encode(self, effect))
            case Reduce():
                self._stop("hold", "reduce")
                self.exchange = Exchange(self, effect.attempt)
                self._start("reduce", self._reduce(self.exchange))
            case Hold():
                self._start("hold", work.hold(self, effect))
            case Advance():
                self._start("advance", recovery.advance(self, 0.0))
            case e.Retry():
                self._start("advance", recovery.advance(self, RETRY_SECONDS))
            case _:  # only Forget: the simulated operator never goes back
                raise AssertionError(f"no simulated island does {effect}")

    def _reduce(self, exchange: Exchange) -> Work:
        """My part of the all-reduce; over when nothing more can come of it."""
        exchange.begin()
        self._take_early(exchange)
        while exchange.unfinished:
            yield exchange.changed

    def offered(self, offer: Offer) -> None:
        """A participant's payload for a slice of mine came; the attempt itself may not have."""
        exchange = self.exchange
        if exchange is not None and exchange.is_of(offer.attempt):
            exchange.take(offer)
        else:
            self.early.append(offer)
            self.later(PROGRESS_SECONDS, self._give_up, offer)

    def _take_early(self, exchange: Exchange) -> None:
        matching = [offer for offer in self.early if exchange.is_of(offer.attempt)]
        self.early = [offer for offer in self.early if offer not in matching]
        for offer in matching:
            exchange.take(offer)

    def _give_up(self, offer: Offer) -> None:
        if offer in self.early:
            self.early.remove(offer)
            offer.break_off()

    def _start(self, kind: str, task: Work) -> None:
        """Begin work of a kind, ending what was under way of it."""
        if (previous := self._work.get(kind)) is not None:
            previous.cancel()
        self._work[kind] = self.spawn(task)

    def _stop(self, *kinds: str) -> None:
        for kind in kinds:
            if (task := self._work.pop(kind, None)) is not None:
                task.cancel()
            if kind == "reduce" and self.exchange is not None:
                self.exchange.close()

    def stall(self, until: float) -> None:
        """The trainer stands still until then (true seconds); a restart does not help it."""
        self.stalled_until = until
        if self.up and self.trainer is not None:
            self.trainer.stalled_until = until

    def slow_down(self, factor: float) -> None:
        self.slowness = factor
        if self.up and self.trainer is not None:
            self.trainer.slowness = factor

    def reducing(self) -> Task | None:
        return self._work.get("reduce")

    def stop(self, reason: str) -> None:
        """The agent's last words, then its orderly end: it does not come back."""
        self.stopped = reason
        self.world.story(self.name, f"ends: {reason or 'finished'}")
        self.die()

    def died(self, dark: bool) -> None:
        """Leave a torn chunk if it was being written; without power, pages as of the last sync too."""
        if self.applying >= 0:
            elements = self.state.layout.chunk(self.applying)
            self.disk.momentum[elements] += 1
        if dark:
            self.disk.lose_power(self.random)
        if self.exchange is not None:
            self.exchange.close(silently=dark)
        self.world.process_died(self)

    # --------------------------------------------------------------------------------- what others have of it
    def hear(self, line: Line, message: Any) -> None:
        self.link.hear(line, message)

    def line_broke(self, line: Line, reason: str) -> None:
        self.link.broke(line)

    def never_heard(self, record: CommitRecord) -> None:
        """Forget a record that nobody has stored, and that waits in the socket of this frozen agent."""
        message = m.Committed(record)
        self._backlog = [entry for entry in self._backlog if message not in entry[2]]

    def serve(self, data: bytes) -> bytes:
        """What leaves this machine; flipped where its memory is bad."""
        if data and self.timeline.now < self.false_until and self.random.random() < 0.5:
            return bytes([data[0] ^ 1]) + data[1:]
        return data
